"""Multi-similarity with its miner in the reality check on birds: four folds over classes.

python -m experiments.prepare cub200
python -m experiments.folds --config cub200_reality_check_multi_similarity --repeats 10
One GPU of 16 GB, about 2 hours a fold. Published with BN-Inception (Musgrave et al., ECCV 2020,
table of CUB200; the numbers of the loss are those that the paper's search found): MAP@R 26.52
concatenated, 21.01 separated; recall@1 67.73 and 59.41. It has not been run here.
"""

from experiments.configs._reality_check import *  # noqa: F403
from jdml import miners

loss = "multi_similarity"
loss_options = {
    "alpha": 17.97,
    "beta": 75.66,
    "base": 0.77,
    "miner": miners.MultiSimilarity(0.39),
}
