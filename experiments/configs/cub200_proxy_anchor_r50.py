"""Proxy-anchor on birds, 512 dimensions, as its authors train it.

python -m experiments.prepare cub200
python -m experiments.train --config cub200_proxy_anchor_r50
One GPU of 16 GB, about 40 minutes. Published: recall@1 69.9, @2 79.6, @4 86.6, @8 91.4 (Kim et
al., CVPR 2020, the table of github.com/tjddus9597/Proxy-Anchor-CVPR2020), of the epoch that does
best on the test classes; MAP@R is not told. This run tests its last state, and draws images of
balanced classes where theirs draws any. It has not been run here.
"""

_epoch = 48  # steps: 5,864 images, 120 a batch
_epochs = 60

data, loss = "cub200", "proxy_anchor"
loss_options = {"margin": 0.1, "alpha": 32.0}
ks = (1, 2, 4, 8)
steps, checkpoint_every = _epochs * _epoch, 5 * _epoch

encoder, weights = "resnet50", "resnet50.tv_in1k"
dim, pooling, frozen_norm = 512, "average+max", True

classes_per_batch, per_class = 60, 2
image_size, crop, crop_scale, augment = 256, 224, (0.08, 1.0), ("flip",)

optimizer, learning_rate, weight_decay, table_decay = "adamw", 1e-4, 1e-4, 1e-4
table_multiplier, freeze_trunk_steps, clip_norm, warmup = 100.0, 5 * _epoch, 0.0, 0
schedule, milestones, drop = "steps", tuple(range(5 * _epoch, steps, 5 * _epoch)), 0.5
