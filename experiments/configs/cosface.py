"""CosFace: a margin on the cosine.

python -m experiments.train --loss cosface
Two CPU cores, 2 to 3 minutes: MAP@R 0.90 on the 300 unseen syllables, 0.82 in unseen typefaces.
"""

loss = "cosface"
loss_options = {"margin": 0.2, "scale": 30.0}
classes_per_batch, per_class = 64, 2
