"""Cases of the InfoNCE family; see `cases`."""

from __future__ import annotations

import references_info_nce as slow
from case import Case, pair_case

from jdml import losses

WEIGHTED = {"weighted": True}
ALL = {"denominator": "all"}
CASES: list[Case] = [
    pair_case(losses.clip, slow.clip, numbers={"temperature": 0.5}),
    pair_case(
        losses.clip,
        slow.clip,
        name="clip_all",
        numbers={"temperature": 0.5},
        choices=ALL,
        reference_choices=ALL,
    ),
    pair_case(losses.decoupled_ntxent, slow.decoupled_ntxent, numbers={"temperature": 0.5}),
    pair_case(
        losses.decoupled_ntxent,
        slow.decoupled_ntxent,
        name="decoupled_ntxent_weighted",
        numbers={"temperature": 0.5, "concentration": 0.4},
        choices=WEIGHTED,
        reference_choices=WEIGHTED,
        held=True,
    ),
    pair_case(
        losses.hard_negative_ntxent,
        slow.hard_negative_ntxent,
        numbers={"temperature": 0.5, "hardness": 1.0, "prior": 0.1},
    ),
    pair_case(
        losses.hard_negative_ntxent,
        slow.hard_negative_ntxent,
        name="hard_negative_ntxent_floor",  # a prior that takes some anchors to the floor
        numbers={"temperature": 0.5, "hardness": 0.2, "prior": 0.7},
    ),
]
