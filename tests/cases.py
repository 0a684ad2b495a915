"""THE table of losses: every public loss with its slow reference. The laws run over it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import reference_miners
import references
import references_more
import references_proxies

from jdml import distances, losses, miners

B, D, C, K = 13, 5, 7, 3
LABELS = np.array([0, 1, 2, 0, 1, 3, 0, 4, 2, 1, 5, 0, 3])  # one class of four, two lone rows
REDUCTIONS = ("mean", "mean_active", "sum", "none")


@dataclass(frozen=True)
class Case:
    """One loss with one set of choices.

    Attributes:
      name: shown by pytest.
      loss: the public function.
      reference: of `references`, returning terms.
      numbers: traced keywords, the same for both.
      choices: static keywords of the library.
      reference_choices: what they are called in the reference.
      table: "" for pair losses, else "rows" [C, D] or "centers" [C, K, D].
      held: the gradient is not the derivative, since the paper holds some weights constant.
      by_proxy: the anchors are the rows of the table.
      mine: (x, y, refs, ref_labels, distance) -> Mined, where the library has a miner.
    """

    name: str
    loss: Callable[..., jax.Array]
    reference: Callable[..., Any]
    numbers: dict[str, float] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    reference_choices: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    mine: Callable[..., Any] | None = None
    held: bool = False
    by_proxy: bool = False

    def __str__(self) -> str:
        return self.name

    def expected(self, reduction: str, x, y, *, table=None, refs=None, ref_labels=None, **options):
        """The reference's scalar, or [B] for "none"."""
        choices = {**self.numbers, **self.reference_choices}
        if self.table:
            terms = self.reference(x, y, table, **choices, **options)
            return references.reduce(terms, reduction, len(table) if self.by_proxy else len(y))
        if self.mine is not None:
            distance = choices.get("distance", references.euclidean)
            there = {k: options[k] for k in ("where", "ref_where") if k in options}
            pairs = references.PairSet(x, y, refs, ref_labels, distance=distance, **there)
            options["mined"] = self.mine(pairs)
        terms = self.reference(x, y, refs, ref_labels, **choices, **options)
        return references.reduce(terms, reduction, len(y))


def _reference(name: str) -> Callable[..., Any]:
    for module in (references, references_more, references_proxies):
        if hasattr(module, name) and name != "margin":
            return getattr(module, name)
    return references_more.margin


def _pair(loss, name=None, numbers=None, choices=None, other=None, **flags):
    name, reference = name or loss.__name__, _reference(loss.__name__)
    return Case(name, loss, reference, numbers or {}, choices or {}, other or {}, **flags)


def _table(loss, table="rows", name=None, numbers=None, choices=None, **flags):
    name, reference, choices = name or loss.__name__, _reference(loss.__name__), choices or {}
    return Case(name, loss, reference, numbers or {}, choices, choices, table, **flags)


_SQUARED = {"distance": distances.squared_euclidean}, {"distance": references.squared_euclidean}
_COSINE = {"distance": distances.cosine}, {"distance": references.cosine}
_UNIT = (
    {"distance": distances.normalized(distances.euclidean)},
    {"distance": references.normalized(references.euclidean)},
)

CASES = [
    _pair(losses.contrastive, numbers={"positive_margin": 0.3, "negative_margin": 1.6}),
    _pair(
        losses.contrastive,
        name="contrastive_cosine",
        numbers={"positive_margin": 0.1, "negative_margin": 0.8},
        choices=_COSINE[0],
        other=_COSINE[1],
    ),
    _pair(
        losses.contrastive,
        name="contrastive_multi_similarity_miner",
        numbers={"negative_margin": 1.6},
        choices={"miner": miners.MultiSimilarity(0.1)},
        mine=functools.partial(reference_miners.multi_similarity, epsilon=0.1),
    ),
    _pair(losses.squared_contrastive, numbers={"margin": 1.6}),
    _pair(losses.triplet, numbers={"margin": 0.4}),
    _pair(
        losses.triplet,
        name="triplet_squared_unit",
        numbers={"margin": 0.3},
        choices=_UNIT[0],
        other=_UNIT[1],
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
        choices=_UNIT[0],
        other=_UNIT[1],
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
    _table(losses.soft_triple, "centers", numbers={"scale": 8.0, "gamma": 0.2, "margin": 0.05}),
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
]
PAIR_CASES = [case for case in CASES if not case.table]
TABLE_CASES = [case for case in CASES if case.table]


def rows(seed: int, n: int = B) -> np.ndarray:
    """Random rows whose distances lie around the margins of the table."""
    return 0.6 * np.random.default_rng(seed).normal(size=(n, D))


def table(case: Case, seed: int = 5, classes: int = C) -> np.ndarray | None:
    """A random class table of the case's shape, or None."""
    if not case.table:
        return None
    shape = (classes, D) if case.table == "rows" else (classes, K, D)
    return np.random.default_rng(seed).normal(size=shape)
