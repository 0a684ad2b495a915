"""What the reality check holds equal for all losses; each `cub200_reality_check_*` takes it.

Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020: batches of 32, RMSprop at a
fixed rate of 1e-6, frozen batch norm, crops of 227 pixels, four folds over classes, the state that
does best on validation. The encoder of the paper is BN-Inception; here it is a ResNet-50. The paper
stops after nine epochs of 100 steps without progress; here all folds train as long.
"""

data = "cub200"
folds, select, ks = 4, "best", (1,)
steps, checkpoint_every = 20_000, 200

encoder, weights = "resnet50", "resnet50.tv_in1k"
dim, frozen_norm = 128, True

classes_per_batch, per_class = 8, 4
image_size, crop, crop_scale, augment = 256, 227, (0.16, 1.0), ("flip",)

optimizer, learning_rate, momentum, weight_decay = "rmsprop", 1e-6, 0.9, 1e-4
schedule, warmup, clip_norm = "constant", 0, 0.0
