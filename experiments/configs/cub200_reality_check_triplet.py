"""Triplet loss, all triplets, in the reality check on birds: four folds over classes.

python -m experiments.prepare cub200
python -m experiments.folds --config cub200_reality_check_triplet --repeats 10
One GPU of 16 GB, about 2 hours a fold. Published with BN-Inception (Musgrave et al., ECCV 2020,
table of CUB200; the numbers of the loss are those that the paper's search found): MAP@R 23.69
concatenated, 18.75 separated; recall@1 64.24 and 55.76. It has not been run here.
"""

from experiments.configs._reality_check import *  # noqa: F403
from jdml import distances

loss = "triplet"
loss_options = {"margin": 0.0961, "distance": distances.normalized(distances.euclidean)}
