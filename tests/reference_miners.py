"""Slow references of the miners: plain loops that say which pairs or triplets are kept.

Every function takes a `PairSet` (anchors, references and their distances) and returns `Mined`, or
the weight of each pair or triplet by its indices. A smaller distance is closer; ties go to the
lowest index.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from reference_pairs import Mined, PairSet


def _farthest(s: PairSet, i: int, found: list[int]) -> int:
    return max(found, key=lambda j: (s.d[i, j], -j))


def _closest(s: PairSet, i: int, found: list[int]) -> int:
    return min(found, key=lambda j: (s.d[i, j], j))


def batch_hard(s: PairSet) -> Mined:
    """Of each anchor the farthest positive and the closest negative; it needs both."""
    out = Mined()
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if positives and negatives:
            out.positives.add((i, _farthest(s, i, positives)))
            out.negatives.add((i, _closest(s, i, negatives)))
    return out


def semi_hard(s: PairSet, margin: float | None = None) -> Mined:
    """For each positive the closest negative beyond it, and within `margin` of it if given."""
    out = Mined(triplets=set())
    for i, p in s.positive_pairs():
        limit = math.inf if margin is None else s.d[i, p] + margin
        band = [n for n in s.negatives(i) if s.d[i, p] < s.d[i, n] < limit]
        if band:
            out.triplets.add((i, p, _closest(s, i, band)))
    return out


def triplet_margin(s: PairSet, kind: str = "all", margin: float = 0.2) -> Mined:
    """Triplets by how far the negative lies beyond the positive."""
    keeps = {
        "all": lambda gap: gap <= margin,
        "hard": lambda gap: gap <= 0,
        "semihard": lambda gap: 0 < gap <= margin,
        "easy": lambda gap: gap > margin,
    }[kind]
    return Mined(triplets={(i, p, n) for i, p, n in s.triplets() if keeps(s.d[i, n] - s.d[i, p])})


def multi_similarity(s: PairSet, epsilon: float = 0.1) -> Mined:
    """Negatives not clearly beyond the farthest positive; positives not clearly before the
    closest negative."""
    out = Mined()
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if not positives or not negatives:
            continue
        top = max(s.d[i, p] for p in positives)
        low = min(s.d[i, n] for n in negatives)
        out.positives |= {(i, p) for p in positives if s.d[i, p] > low - epsilon}
        out.negatives |= {(i, n) for n in negatives if s.d[i, n] < top + epsilon}
    return out


def pair_margin(s: PairSet, positive_margin: float = 0.2, negative_margin: float = 0.8) -> Mined:
    """Positives farther than one distance, negatives closer than another."""
    return Mined(
        {(i, p) for i, p in s.positive_pairs() if s.d[i, p] > positive_margin},
        {(i, n) for i, n in s.negative_pairs() if s.d[i, n] < negative_margin},
    )


def batch_easy_hard(
    s: PairSet,
    positives: str = "hard",
    negatives: str = "hard",
    positive_range: tuple[float, float] | None = None,
    negative_range: tuple[float, float] | None = None,
) -> Mined:
    """One positive and one negative an anchor, each easy, hard or semi-hard; or all of a side.

    Where both are picked, an anchor needs both; where a side is kept whole, the sides stand alone.
    """
    out = Mined()
    for i in s.anchors:
        near_first = partial(_pick, s, i, hard=_closest, easy=_farthest)
        far_first = partial(_pick, s, i, hard=_farthest, easy=_closest)
        mates = _within(s, i, s.positives(i), positive_range)
        others = _within(s, i, s.negatives(i), negative_range)
        if positives == "semihard":
            others = near_first(others, negatives)
            before = [p for p in mates if others and s.d[i, p] < s.d[i, others[0]]]
            mates = far_first(before, "hard")
        elif negatives == "semihard":
            mates = far_first(mates, positives)
            beyond = [n for n in others if mates and s.d[i, n] > s.d[i, mates[0]]]
            others = near_first(beyond, "hard")
        else:
            mates, others = far_first(mates, positives), near_first(others, negatives)
        if (mates and others) or "all" in (positives, negatives):
            out.positives |= {(i, p) for p in mates}
            out.negatives |= {(i, n) for n in others}
    return out


def _within(s: PairSet, i: int, found: list[int], limits) -> list[int]:
    if limits is None:
        return found
    return [j for j in found if limits[0] <= s.d[i, j] <= limits[1]]


def _pick(s: PairSet, i: int, found: list[int], strategy: str, hard, easy) -> list[int]:
    if strategy == "all" or not found:
        return found
    return [hard(s, i, found) if strategy == "hard" else easy(s, i, found)]


def angular(s: PairSet, angle: float) -> Mined:
    """Triplets that the negative sees under a wider angle, by the centre of anchor and positive."""
    out = Mined(triplets=set())
    for i, p, n in s.triplets():
        centre = (s.x[i] + s.r[p]) / 2
        across = math.sqrt(((s.x[i] - s.r[p]) ** 2).sum())
        away = math.sqrt(((s.r[n] - centre) ** 2).sum())
        if math.atan2(across, 2 * away) > angle:
            out.triplets.add((i, p, n))
    return out


def hard_fraction(s: PairSet, fraction: float) -> Mined:
    """The hardest of all pairs of each kind, with all that are as hard as the last of them."""
    out = Mined()
    for pairs, sign, kept in (
        (s.positive_pairs(), 1, out.positives),
        (s.negative_pairs(), -1, out.negatives),
    ):
        hardness = sorted((sign * s.d[pair] for pair in pairs), reverse=True)
        n = math.ceil(fraction * len(pairs) - 1e-9)
        if n:
            limit = hardness[n - 1] - 1e-9 * abs(hardness[n - 1])
            kept |= {pair for pair in pairs if sign * s.d[pair] >= limit}
    return out


def distance_weighted(
    s: PairSet, dim: int, cutoff: float = 0.5, nonzero_cutoff: float = 1.4
) -> dict[tuple[int, int, int], float]:
    """The probability of each negative of each positive pair, from the density on the sphere."""
    weights = {}
    for i, p in s.positive_pairs():
        density = {}
        for n in s.negatives(i):
            if s.d[i, n] < nonzero_cutoff:
                d = max(s.d[i, n], cutoff)
                density[n] = d ** (dim - 2) * (1 - d * d / 4) ** ((dim - 3) / 2)
        total = sum(1 / q for q in density.values())
        weights |= {(i, p, n): 1 / q / total for n, q in density.items()}
    return weights


def uniform_histogram(
    s: PairSet, bins: int, pairs_per_bin: float, low: float, high: float
) -> tuple[dict[tuple[int, int], float], dict[tuple[int, int], float]]:
    """The share of each positive and each negative pair, by how many pairs its bin holds."""
    edges = np.linspace(low, high, bins + 1)[1:-1]

    def shares(pairs: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
        place = {pair: sum(s.d[pair] >= edge for edge in edges) for pair in pairs}
        crowd = [list(place.values()).count(b) for b in range(bins)]
        return {pair: min(1.0, pairs_per_bin / crowd[b]) for pair, b in place.items()}

    return shares(s.positive_pairs()), shares(s.negative_pairs())
