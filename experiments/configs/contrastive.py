"""Contrastive loss on unit rows: every pair of the batch.

python -m experiments.train --loss contrastive
Two CPU cores, 2 to 3 minutes: MAP@R 0.88 on the 300 unseen syllables, 0.80 in unseen typefaces.
"""

from jdml import distances

loss = "contrastive"
loss_options = {
    "negative_margin": 0.9,
    "distance": distances.normalized(distances.euclidean),
}
