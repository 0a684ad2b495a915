"""THE table of losses: every public loss with its slow reference. The laws run over it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import cases_face
import cases_info_nce
import cases_proxies
import cases_ranking
import cases_self_supervised
import cases_statistics
import reference_miners
import references
import references_distances
import references_more
import references_proxies
from case import (
    COSINE,
    LABELS,
    REDUCTIONS,
    UNIT,
    B,
    C,
    Case,
    D,
    K,
    pair_case,
    rows,
    table,
    table_case,
)

from jdml import distances, losses, miners


def _reference(name: str) -> Callable[..., Any]:
    for module in (references, references_more, references_proxies):
        if hasattr(module, name) and name != "margin":
            return getattr(module, name)
    return references_more.margin


def _pair(loss, name="", numbers=None, choices=None, other=None, **flags):
    return pair_case(loss, _reference(loss.__name__), name, numbers, choices, other, **flags)


def _table(loss, table="rows", name="", numbers=None, choices=None, **flags):
    return table_case(loss, _reference(loss.__name__), table, name, numbers, choices, **flags)


CASES = [
    _pair(losses.contrastive, numbers={"positive_margin": 0.3, "negative_margin": 1.6}),
    _pair(
        losses.contrastive,
        name="contrastive_cosine",
        numbers={"positive_margin": 0.1, "negative_margin": 0.8},
        choices=COSINE[0],
        other=COSINE[1],
    ),
    _pair(
        losses.contrastive,
        name="contrastive_multi_similarity_miner",
        numbers={"negative_margin": 1.6},
        choices={"miner": miners.MultiSimilarity(0.1)},
        mine=functools.partial(reference_miners.multi_similarity, epsilon=0.1),
    ),
    _pair(
        losses.contrastive,
        name="contrastive_hard_fraction",
        numbers={"negative_margin": 1.6},
        choices={"miner": miners.HardFraction(0.3)},
        mine=functools.partial(reference_miners.hard_fraction, fraction=0.3),
    ),
    _pair(
        losses.contrastive,
        name="contrastive_snr",
        numbers={"positive_margin": 0.2, "negative_margin": 2.5},
        choices={"distance": distances.snr},
        other={"distance": references_distances.snr},
    ),
    _pair(losses.squared_contrastive, numbers={"margin": 1.6}),
    _pair(losses.triplet, numbers={"margin": 0.4}),
    _pair(
        losses.triplet,
        name="triplet_squared_unit",
        numbers={"margin": 0.3},
        choices=UNIT[0],
        other=UNIT[1],
    ),
    _pair(
        losses.triplet,
        name="triplet_swap",
        numbers={"margin": 0.4},
        choices={"swap": True},
        other={"swap": True},
    ),
    _pair(
        losses.triplet,
        name="triplet_batch_hard",
        numbers={"margin": 0.4},
        choices={"miner": miners.BatchHard()},
        mine=reference_miners.batch_hard,
    ),
    _pair(
        losses.triplet,
        name="triplet_semi_hard",
        numbers={"margin": 0.4},
        choices={"miner": miners.SemiHard()},
        mine=reference_miners.semi_hard,
    ),
    _pair(
        losses.triplet,
        name="triplet_angular_miner",
        numbers={"margin": 0.4},
        choices={"miner": miners.Angular(math.radians(30))},
        mine=functools.partial(reference_miners.angular, angle=math.radians(30)),
    ),
    _pair(losses.soft_margin_triplet, numbers={"margin": 0.1}),
    _pair(
        losses.soft_margin_triplet,
        name="soft_margin_triplet_swap",
        choices={"swap": True},
        other={"swap": True},
        numbers={"margin": 0.1},
    ),
    _pair(losses.quadruplet, numbers={"margin": 1.0, "second_margin": 0.5}),
    _pair(losses.lifted_structure, numbers={"margin": 1.0}),
    _pair(losses.generalized_lifted_structure, numbers={"margin": 1.0}),
    _pair(
        losses.generalized_lifted_structure,
        name="generalized_lifted_structure_zero",
        numbers={"margin": 1.0},
        choices={"lone": "zero"},
        other={"lone": "zero"},
    ),
    _pair(losses.n_pair, numbers={"norm_weight": 0.05}),
    _pair(
        losses.n_pair,
        name="n_pair_one_versus_one",
        numbers={"norm_weight": 0.05},
        choices={"one_versus_one": True},
        other={"one_versus_one": True},
    ),
    _pair(losses.angular, numbers={"angle": math.radians(40)}),
    _pair(
        losses.angular,
        name="angular_hinge",
        numbers={"angle": math.radians(40)},
        choices={"hinge": True},
        other={"hinge": True},
    ),
    _pair(losses.ntxent, numbers={"temperature": 0.5}),
    _pair(
        losses.ntxent,
        name="ntxent_all_euclidean",
        numbers={"temperature": 0.5},
        choices={"denominator": "all", "distance": distances.euclidean},
        other={"denominator": "all", "distance": references.euclidean},
    ),
    _pair(
        losses.ntxent,
        name="ntxent_poincare",
        numbers={"temperature": 0.5},
        choices={"distance": distances.poincare()},
        other={"distance": references_distances.poincare()},
    ),
    _pair(losses.supcon, numbers={"temperature": 0.5}),
    _pair(
        losses.supcon,
        name="supcon_inside",
        numbers={"temperature": 0.5},
        choices={"inside": True},
        other={"inside": True},
    ),
    _pair(losses.multi_similarity, numbers={"alpha": 2.0, "beta": 10.0, "base": 0.5}),
    _pair(losses.circle, numbers={"margin": 0.4, "scale": 8.0}, held=True),
    _pair(losses.tuplet_margin, numbers={"margin": 0.1, "scale": 8.0}),
    _pair(
        losses.margin,
        numbers={"margin": 0.2, "beta": 1.2},
        choices=UNIT[0],
        other=UNIT[1],
    ),
    _pair(losses.nca, numbers={"scale": 1.5}),
    _pair(losses.siglip, numbers={"scale": 4.0, "bias": -2.0}),
    _pair(losses.smooth_ap, numbers={"temperature": 0.2}),
    _pair(
        losses.recall_at_k,
        numbers={"temperature": 1.0, "rank_temperature": 0.2},
        choices={"ks": (1, 4)},
        other={"ks": (1, 4)},
    ),
    _pair(losses.fast_ap, choices={"bins": 5}, other={"bins": 5}),
    _table(losses.center),
    _table(losses.sphereface, numbers={"margin": 4.0, "scale": 1.3, "annealing": 0.0}),
    _table(
        losses.sphereface,
        name="sphereface_annealed",
        numbers={"margin": 3.0, "scale": 1.0, "annealing": 7.0},
    ),
    _table(losses.cosface, numbers={"margin": 0.35, "scale": 16.0}),
    _table(losses.arcface, numbers={"margin": 0.5, "scale": 16.0}),
    _table(
        losses.arcface,
        name="arcface_easy_margin",
        numbers={"margin": 0.5, "scale": 16.0},
        choices={"easy_margin": True},
    ),
    _table(losses.subcenter_arcface, "centers", numbers={"margin": 0.5, "scale": 16.0}),
    _table(
        losses.combined_margin,
        numbers={"multiplier": 1.1, "angle_margin": 0.3, "cosine_margin": 0.2, "scale": 16.0},
    ),
    _table(losses.normalized_softmax, numbers={"temperature": 0.2}),
    _table(losses.proxy_nca, numbers={"scale": 2.0}),
    _table(losses.proxy_nca, name="proxy_nca_kept", choices={"own": "kept"}),
    _table(losses.proxy_anchor, numbers={"alpha": 8.0, "margin": 0.1}, by_proxy=True),
    _table(losses.curricularface, numbers={"hardness": 0.4, "margin": 0.5, "scale": 8.0}),
    _table(
        losses.magface,
        numbers={
            "lower_norm": 0.6,
            "upper_norm": 2.0,
            "lower_margin": 0.2,
            "upper_margin": 0.7,
            "norm_weight": 0.5,
            "scale": 8.0,
        },
    ),
    _table(
        losses.adaface,
        numbers={
            "norm_mean": 1.3,
            "norm_std": 0.5,
            "margin": 0.4,
            "concentration": 0.5,
            "scale": 8.0,
        },
        held=True,
    ),
    _table(losses.adacos),
    _table(losses.adacos, name="adacos_scale", numbers={"scale": 7.0}),
    *cases_face.CASES,
    *cases_info_nce.CASES,
    *cases_proxies.CASES,
    *cases_ranking.CASES,
    *cases_self_supervised.CASES,
    *cases_statistics.CASES,
]
PAIR_CASES = [case for case in CASES if not case.table]
# One case a loss, and those whose choices take a path of their own through the engines: for laws
# that compile much and that other choices of the same loss cannot break.
_OWN_PATH = ("triplet_swap", "triplet_semi_hard", "contrastive_hard_fraction", "ntxent_poincare")
ONE_EACH = list({case.loss: case for case in reversed(CASES)}.values())[::-1]
ONE_EACH += [case for case in CASES if case.name in _OWN_PATH]
TABLE_CASES = [case for case in CASES if case.table]

__all__ = [
    "CASES", "LABELS", "ONE_EACH", "PAIR_CASES", "REDUCTIONS", "TABLE_CASES", "B", "C", "Case",
    "D", "K", "rows", "table",
]  # fmt: skip
