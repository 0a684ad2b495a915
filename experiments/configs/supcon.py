"""Supervised contrastive loss: a softmax over the batch, all positives outside the logarithm.

python -m experiments.train --loss supcon
Two CPU cores, 2 to 3 minutes. With --steps 500: MAP@R 0.71 on the 300 unseen syllables, 0.59 in
unseen typefaces.
"""

loss = "supcon"
loss_options = {"temperature": 0.1}
