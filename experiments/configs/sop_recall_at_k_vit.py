"""The recall@k surrogate on products, batches of 4,000 and a vision transformer.

python -m experiments.prepare sop
python -m experiments.train --config sop_recall_at_k_vit
One GPU of 40 GB, about 10 hours; a batch is embedded in 40 pieces. Published: recall@1 88.0 with
ViT-B/16 (Patel, Tolias, Matas, CVPR 2022, table of Stanford Online Products), with the mixup of
similarities, which is not here; MAP@R is not told. It has not been run here.
"""

_epoch = 14  # steps: 59,551 images, 4,000 a batch

data, loss = "sop", "recall_at_k"
loss_options = {"ks": (1, 2, 4, 8, 16), "temperature": 1.0, "rank_temperature": 0.01}
ks = (1, 10, 100, 1000)
steps, checkpoint_every = 55 * _epoch, 5 * _epoch

encoder, weights = "vit_base", "vit_base_patch16_224.augreg_in21k"
dim = 512

classes_per_batch, per_class, chunks = 1000, 4, 40
image_size, crop, crop_scale, augment = 256, 224, (0.08, 1.0), ("flip",)

optimizer, learning_rate, weight_decay = "adamw", 5e-5, 4e-4
schedule, milestones, drop = "steps", (25 * _epoch, 50 * _epoch), 0.3
warmup, clip_norm, dtype = 0, 0.0, "bfloat16"
