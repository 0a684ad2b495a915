"""Cases of the InfoNCE family; see `cases`."""

from __future__ import annotations

import references_info_nce as slow
from case import Case, pair_case

from jdml import losses

WEIGHTED = {"weighted": True}
CASES: list[Case] = [
    pair_case(losses.clip, slow.clip, numbers={"temperature": 0.5}),
    pair_case(losses.decoupled_ntxent, slow.decoupled_ntxent, numbers={"temperature": 0.5}),
    pair_case(
        losses.decoupled_ntxent,
        slow.decoupled_ntxent,
        name="decoupled_ntxent_weighted",
        numbers={"temperature": 0.5, "concentration": 0.4},
        choices=WEIGHTED,
        reference_choices=WEIGHTED,
    ),
    pair_case(
        losses.hard_negative_ntxent,
        slow.hard_negative_ntxent,
        numbers={"temperature": 0.5, "hardness": 1.0, "prior": 0.1},
    ),
]
