"""ArcFace in the reality check on birds: four folds over classes.

python -m experiments.prepare cub200
python -m experiments.folds --config cub200_reality_check_arcface --repeats 10
One GPU of 16 GB, about 2 hours a fold. Published with BN-Inception (Musgrave et al., ECCV 2020,
table of CUB200; the numbers of the loss are those that the paper's search found): MAP@R 26.45
concatenated, 21.49 separated; recall@1 67.50 and 60.17. It has not been run here.
"""

import math

from experiments.configs._reality_check import *  # noqa: F403

loss = "arcface"
loss_options = {"margin": math.radians(23.22), "scale": 100.0}
table_multiplier = 5.13e-3 / 1e-6
