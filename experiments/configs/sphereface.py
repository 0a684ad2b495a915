"""SphereFace with its annealing, scale from the norm of the rows.

python -m experiments.train --loss sphereface
Two CPU cores, 2 to 3 minutes: MAP@R 0.89 on the 300 unseen syllables, 0.80 in unseen typefaces.
"""

loss = "sphereface"
loss_options = {"margin": 4.0}
