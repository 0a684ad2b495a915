"""Cases of losses on relations and of self-supervised losses; see `cases`."""

from __future__ import annotations

import references_self_supervised as slow
from case import Case, pair_case

from jdml import losses

SOFT = {"soft": True}
CASES: list[Case] = [
    pair_case(losses.alignment, slow.alignment, numbers={"power": 1.5}),
    pair_case(losses.uniformity, slow.uniformity, numbers={"sharpness": 1.5}, batch_level=True),
    pair_case(losses.log_ratio, slow.log_ratio, numbers={"epsilon": 0.3}, continuous=True),
    pair_case(
        losses.centroid_triplet, slow.centroid_triplet, numbers={"margin": 0.3}, classes_only=True
    ),
    pair_case(
        losses.centroid_triplet,
        slow.centroid_triplet,
        name="centroid_triplet_soft",
        numbers={"margin": 0.3},
        choices=SOFT,
        reference_choices=SOFT,
        classes_only=True,
    ),
    pair_case(
        losses.vicreg,
        slow.vicreg,
        numbers={
            "invariance_weight": 2.0,
            "variance_weight": 3.0,
            "covariance_weight": 1.5,
            "epsilon": 0.01,
        },
        batch_level=True,
    ),
    pair_case(
        losses.barlow_twins,
        slow.barlow_twins,
        numbers={"redundancy_weight": 0.3, "epsilon": 0.02},
        batch_level=True,
    ),
]
