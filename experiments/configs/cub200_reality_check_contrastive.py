"""Contrastive loss in the reality check on birds: four folds over classes.

python -m experiments.prepare cub200
python -m experiments.folds --config cub200_reality_check_contrastive --repeats 10
One GPU of 16 GB, about 2 hours a fold. Published with BN-Inception (Musgrave et al., ECCV 2020,
table of CUB200; the numbers of the loss are those that the paper's search found): MAP@R 26.53
concatenated, 21.18 separated; recall@1 68.13 and 59.73. It has not been run here.
"""

from experiments.configs._reality_check import *  # noqa: F403
from jdml import distances

loss = "contrastive"
loss_options = {
    "positive_margin": -0.2,
    "negative_margin": 0.3841,
    "distance": distances.normalized(distances.euclidean),
}
