"""ArcFace: a margin on the angle. The default of the command.

python -m experiments.train --loss arcface
Two CPU cores, 2 to 3 minutes: MAP@R 0.90 on the 300 unseen syllables, 0.81 in unseen typefaces.
"""

loss = "arcface"
loss_options = {"margin": 0.2, "scale": 30.0}
classes_per_batch, per_class = 64, 2
