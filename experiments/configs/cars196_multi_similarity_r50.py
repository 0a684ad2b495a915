"""Multi-similarity on cars, 128 dimensions, in the setting that Roth et al. compare losses in.

python -m experiments.prepare cars196
python -m experiments.train --config cars196_multi_similarity_r50
One GPU of 16 GB, about 2 hours. Published: recall@1 81.7 ± 0.2 over five seeds (Roth et al.,
ICML 2020, table of CARS196, "Multisimilarity"), of the epoch that does best on the test classes;
MAP@R is not told. This run tests its last state. It has not been run here.
"""

from jdml import miners

_epoch = 71  # steps: 8,054 images, 112 a batch

data, loss = "cars196", "multi_similarity"
loss_options = {"alpha": 2.0, "beta": 40.0, "base": 0.5, "miner": miners.MultiSimilarity(0.1)}
ks = (1, 2, 4, 8)
steps, checkpoint_every = 150 * _epoch, 10 * _epoch

encoder, weights = "resnet50", "resnet50.tv_in1k"
dim, frozen_norm = 128, True

classes_per_batch, per_class = 56, 2
image_size, crop, crop_scale, augment = 256, 224, (0.08, 1.0), ("flip",)

optimizer, learning_rate, weight_decay = "adamw", 1e-5, 4e-4
schedule, warmup, clip_norm = "constant", 0, 0.0
