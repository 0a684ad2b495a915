"""CosFace in the reality check on birds: four folds over classes.

python -m experiments.prepare cub200
python -m experiments.folds --config cub200_reality_check_cosface --repeats 10
One GPU of 16 GB, about 2 hours a fold. Published with BN-Inception (Musgrave et al., ECCV 2020,
table of CUB200; the numbers of the loss are those that the paper's search found): MAP@R 26.70
concatenated, 21.21 separated; recall@1 67.32 and 59.63. It has not been run here.
"""

from experiments.configs._reality_check import *  # noqa: F403

loss = "cosface"
loss_options = {"margin": 0.6182, "scale": 100.0}
table_multiplier = 2.53e-3 / 1e-6
