"""Cases of ranking losses; see `cases`."""

from __future__ import annotations

import references_ranking
from case import UNIT, Case, pair_case

from jdml import losses

STEP = {"temperature": 0.2, "slope": 3.0, "delta": 0.3, "start": 0.4}
CALIBRATION = {"positive_margin": 0.2, "negative_margin": 0.9, "calibration_share": 0.3}
LIST = {"margin": 0.6, "boundary": 1.4, "positive_scale": 1.5, "negative_scale": 3.0}


def _pnp(variant: str, **numbers: float) -> Case:
    choice = {"variant": variant}
    given = {"temperature": 0.2, **numbers}
    return pair_case(losses.pnp, references_ranking.pnp, f"pnp_{variant}", given, choice, choice)


CASES: list[Case] = [
    pair_case(losses.sup_ap, references_ranking.sup_ap, numbers=STEP),
    pair_case(
        losses.roadmap,
        references_ranking.roadmap,
        numbers={**STEP, "offset": 1.1, **CALIBRATION},
    ),
    pair_case(
        losses.fast_ap,
        references_ranking.fast_ap,
        "fast_ap_euclidean",
        {"upper": 2.0},
        {"bins": 5, **UNIT[0]},
        {"bins": 5, **UNIT[1]},
    ),
    pair_case(
        losses.ranked_list,
        references_ranking.ranked_list,
        numbers={**LIST, "negative_share": 0.7},
        held=True,
    ),
    pair_case(
        losses.ranked_list,
        references_ranking.ranked_list,
        "ranked_list_through_weights",
        {"margin": 0.5, "positive_scale": 1.0, "negative_scale": 2.0, "negative_share": 0.4},
        {"hold_weights": False},
    ),
    _pnp("Dq", alpha=3.0),
    _pnp("Ds"),
    _pnp("Iu"),
    _pnp("Ib", b=1.5),
    _pnp("O"),
]
