"""CosFace on the 360,232 people of Glint360K: a tenth of the classes a step, shards of them.

python -m experiments.prepare lfw
python -m experiments.train --config glint_partial_fc --data folder:GLINT_112
Eight GPUs of 40 GB, about 3 days. GLINT_112 has a folder of aligned faces, 112 x 112, a person.
Published with all classes in each step: TAR 97.55 % at FAR 1e-4 on IJB-C (github.com/deepinsight/
insightface, arcface_torch, "Glint360k r100"); An et al., CVPR 2022, find a tenth of the classes to
cost next to nothing. Here one person in a thousand is kept for a search (MAP@R), and the pairs of
LFW are verified. It has not been run here.
"""

data, loss = "folder:glint_112", "cosface"
data_options = ("train=0.999",)
loss_options = {"margin": 0.4, "scale": 64.0}
class_rows, sampled, sample_groups, model = 360_448, 36_864, 64, 8
verify = "lfw"
steps, checkpoint_every = 330_000, 10_000

encoder, dim, dtype = "iresnet100", 512, "bfloat16"

sampler, classes_per_batch, per_class, workers = "frequency", 1024, 1, 16
image_size, augment = 112, ("flip",)

optimizer, learning_rate, momentum = "sgd", 0.1, 0.9
weight_decay, table_decay, clip_norm, warmup = 1e-4, 1e-4, 5.0, 0
