"""What the slow references stand on: the reduction algebra, distances, anchors and references.

Plain loops over numpy float64, no code shared with the library. A term is a list of tuples
`(anchor, value, weight)`; `reduce` turns terms into what a reduction asks for. A smaller distance
is closer, angles are radians, rows with a negative label do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import product

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], float]
Term = list[tuple[int, float, float]]


def reduce(terms: Iterable[Term], reduction: str, n_anchors: int) -> float | np.ndarray:
    """The reduction algebra: each term is divided by its own weights, then the terms are added."""
    if reduction == "none":
        out = np.zeros(n_anchors)
        for anchor, value, weight in (entry for term in terms for entry in term):
            out[anchor] += value * weight
        return out
    total = 0.0
    for term in terms:
        kept = [e for e in term if e[1] > 0] if reduction == "mean_active" else term
        above = sum(value * weight for _, value, weight in kept)
        below = 1.0 if reduction == "sum" else sum(weight for _, _, weight in kept)
        total += above / below if below > 0 else 0.0
    return total


# Distances between two rows.


def unit(row: np.ndarray) -> np.ndarray:
    """The row at length 1; a zero row stays zero."""
    row = np.asarray(row, np.float64)
    length = math.sqrt(inner(row, row))
    return row / length if length > 0 else row


def squared_euclidean(a: np.ndarray, b: np.ndarray) -> float:
    step = np.subtract(a, b, dtype=np.float64)
    return float(np.dot(step, step))


def euclidean(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(squared_euclidean(a, b))


def lp(p: float) -> Distance:
    """The n-norm distance of order p: 1, a fraction, infinity."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        steps = np.abs(np.subtract(a, b, dtype=np.float64))
        return float(steps.max() if math.isinf(p) else (steps**p).sum() ** (1.0 / p))

    return distance


def inner(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(np.asarray(a, np.float64), np.asarray(b, np.float64)))


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return -inner(a, b)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return 1.0 - inner(unit(a), unit(b))


def angular_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between two rows, in radians."""
    return math.acos(min(1.0, max(-1.0, inner(unit(a), unit(b)))))


def normalized(distance: Distance) -> Distance:
    return lambda a, b: distance(unit(a), unit(b))


# Anchors against references.


@dataclass
class Mined:
    """What a miner keeps: (anchor, reference) pairs, or (anchor, positive, negative) triplets."""

    positives: set[tuple[int, int]] = field(default_factory=set)
    negatives: set[tuple[int, int]] = field(default_factory=set)
    triplets: set[tuple[int, int, int]] | None = None


class PairSet:
    """Who is compared with whom: labelled anchors and labelled references, with their weights."""

    def __init__(
        self, x, y, refs=None, ref_labels=None, *, where=None, ref_where=None, weights=None,
        distance: Distance = euclidean, mined: Mined | None = None,
    ):  # fmt: skip
        self.own = refs is None
        self.x, self.y = np.asarray(x, np.float64), np.asarray(y)
        self.r = self.x if self.own else np.asarray(refs, np.float64)
        self.ry = self.y if self.own else np.asarray(ref_labels)
        there = np.ones(len(self.y), bool) if where is None else np.asarray(where, bool)
        ref_there = np.ones(len(self.ry), bool) if ref_where is None else np.asarray(ref_where)
        self.anchors = [i for i, c in enumerate(self.y) if c >= 0 and there[i]]
        self.refs = [
            j for j, c in enumerate(self.ry)
            if c >= 0 and ref_there[j] and (there[j] if self.own else True)
        ]  # fmt: skip
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        self.distance, self.mined = distance, mined
        self.d = np.full((len(self.y), len(self.ry)), np.nan)
        for i, j in product(self.anchors, self.refs):
            self.d[i, j] = distance(self.x[i], self.r[j])

    def inside(self, i: int, j: int) -> float:
        """The weight of one pair within a sum over pairs: 1 unless pairs are weighted."""
        return self.weights[i, j] if self.weights is not None and self.weights.ndim == 2 else 1.0

    def weight(self, i: int, *others: int) -> float:
        """The weight of a tuple: its anchor's importance, or the product of its pairs' weights."""
        if self.weights is not None and self.weights.ndim == 1:
            return float(self.weights[i])
        return math.prod(self.inside(i, j) for j in others)

    def _side(self, i: int, same: bool) -> list[int]:
        found = [
            j for j in self.refs
            if (self.ry[j] == self.y[i]) == same
            and not (self.own and j == i)
            and self.inside(i, j) != 0
        ]  # fmt: skip
        if self.mined is None or self.mined.triplets is not None:
            return found
        kept = self.mined.positives if same else self.mined.negatives
        return [j for j in found if (i, j) in kept]

    def positives(self, i: int) -> list[int]:
        return self._side(i, same=True)

    def negatives(self, i: int) -> list[int]:
        return self._side(i, same=False)

    def positive_pairs(self) -> list[tuple[int, int]]:
        return [(i, p) for i in self.anchors for p in self.positives(i)]

    def negative_pairs(self) -> list[tuple[int, int]]:
        return [(i, n) for i in self.anchors for n in self.negatives(i)]

    def triplets(self) -> list[tuple[int, int, int]]:
        every = [(i, p, n) for i, p in self.positive_pairs() for n in self.negatives(i)]
        kept = None if self.mined is None else self.mined.triplets
        return every if kept is None else [t for t in every if t in kept]


def relu(z: float) -> float:
    return max(0.0, z)


def log_sum_exp(parts: Iterable[tuple[float, float]]) -> float:
    """log sum w exp(z) over pairs (z, w); minus infinity when there is none."""
    kept = [(z, w) for z, w in parts if w > 0]
    if not kept:
        return -math.inf
    top = max(z for z, _ in kept)
    return top + math.log(sum(w * math.exp(z - top) for z, w in kept))


def softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))
