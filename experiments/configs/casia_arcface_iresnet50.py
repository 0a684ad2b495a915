"""ArcFace on faces of CASIA-WebFace, verified on the pairs of LFW.

python -m experiments.prepare lfw
python -m experiments.train --config casia_arcface_iresnet50 --data folder:CASIA_112
One GPU of 24 GB, about 8 hours. CASIA_112 has a folder of aligned faces, 112 x 112, a person.
Published: 99.53 % of LFW's pairs (Deng et al., CVPR 2019, table of losses, "ArcFace (0.5)"), all
people trained on; here one in twenty is kept for a search among unseen people (MAP@R), and LFW
has to be aligned alike. It has not been run here.
"""

data, loss = "folder:casia_112", "arcface"
data_options = ("train=0.95",)
loss_options = {"margin": 0.5, "scale": 64.0}
verify = "lfw"
steps, checkpoint_every = 32_000, 2_000

encoder, dim = "iresnet50", 512
encoder_options = {"dropout": 0.4}

sampler, classes_per_batch, per_class = "frequency", 512, 1
image_size, augment = 112, ("flip",)

optimizer, learning_rate, momentum = "sgd", 0.1, 0.9
weight_decay, table_decay, clip_norm = 5e-4, 5e-4, 5.0
schedule, milestones, drop, warmup = "steps", (20_000, 28_000), 0.1, 0
