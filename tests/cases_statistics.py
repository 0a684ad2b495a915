"""Cases of losses on the statistics of pairs; see `cases`."""

from __future__ import annotations

import numpy as np
import references_statistics as slow
from case import Case, pair_case

from jdml import losses

PAST = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 2.0, 1.0, 1.0], np.float32) / 16
CASES: list[Case] = [
    pair_case(
        losses.intra_pair_variance,
        slow.intra_pair_variance,
        numbers={"positive_slack": 0.1, "negative_slack": 0.2},
    ),
    pair_case(
        losses.threshold_consistent_margin,
        slow.threshold_consistent_margin,
        numbers={
            "positive_margin": 0.7,
            "negative_margin": 0.1,
            "positive_share": 2.0,
            "negative_share": 0.5,
        },
    ),
    pair_case(
        losses.histogram,
        slow.histogram,
        choices={"bins": 9},
        reference_choices={"bins": 9},
        batch_level=True,
    ),
    pair_case(
        losses.dynamic_soft_margin,
        slow.dynamic_soft_margin,
        arrays={"histogram": PAST, "rate": 0.25},
        held=True,
    ),
]
