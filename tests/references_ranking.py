"""Slow references of ranking losses: bounds of average precision, and lists of two sets.

As `references`: plain loops over numpy float64, no code shared with the library, its keywords and
defaults, terms instead of a scalar. A pair of weight w counts as w rows of the ranking; the one
whose rank is asked for stands first among its like, as one row.
"""

from __future__ import annotations

import math

from reference_pairs import PairSet, Term, cosine, euclidean, normalized, relu, squared_euclidean

ON_SPHERE = normalized(euclidean)
SQUARED_ON_SPHERE = normalized(squared_euclidean)


def sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z > -700 else 0.0


def _count(s: PairSet, i: int, rows: list[int]) -> float:
    """How many rows there are, by weight."""
    return sum(s.inside(i, j) for j in rows)


# Bounds of average precision. s is the similarity to the anchor, x = s_n - s_p.


def h_minus(x: float, temperature, slope, delta, offset, start) -> float:
    """What a negative counts that is x more similar than the positive."""
    if x <= 0:
        return sigmoid(x / temperature)
    if x <= delta:
        return sigmoid(x / temperature) + start
    height = sigmoid(delta / temperature) + start if offset is None else offset
    return slope * (x - delta) + height


def _sup_ap_terms(s: PairSet, *step) -> Term:
    term = []
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if not positives:
            continue
        precision = 0.0
        for p in positives:
            nearer = [j for j in positives if j != p and s.d[i, j] <= s.d[i, p]]
            above = 1 + _count(s, i, nearer)
            below = sum(s.inside(i, n) * h_minus(s.d[i, p] - s.d[i, n], *step) for n in negatives)
            precision += s.inside(i, p) * above / (above + below)
        term.append((i, 1 - precision / _count(s, i, positives), s.weight(i)))
    return term


def sup_ap(
    x, y, refs=None, ref_labels=None, *, temperature=0.01, slope=100.0, delta=0.05, offset=None,
    start=0.5, **options,
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    return [_sup_ap_terms(s, temperature, slope, delta, offset, start)]


def roadmap(
    x, y, refs=None, ref_labels=None, *, temperature=0.01, slope=100.0, delta=0.05, offset=None,
    start=0.5, positive_margin=0.1, negative_margin=0.4, calibration_share=0.5, **options,
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    ranked = _sup_ap_terms(s, temperature, slope, delta, offset, start)
    pull, push = [], []
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if positives:  # similarities below 1 - positive_margin
            lack = sum(s.inside(i, p) * relu(s.d[i, p] - positive_margin) for p in positives)
            pull.append((i, calibration_share * lack / _count(s, i, positives), s.weight(i)))
        if negatives:  # similarities above 1 - negative_margin
            excess = sum(s.inside(i, n) * relu(negative_margin - s.d[i, n]) for n in negatives)
            push.append((i, calibration_share * excess / _count(s, i, negatives), s.weight(i)))
    return [[(i, (1 - calibration_share) * value, w) for i, value, w in ranked], pull, push]


def fast_ap(
    x, y, refs=None, ref_labels=None, *, bins=10, upper=4.0, distance=SQUARED_ON_SPHERE, **options
):
    """Distances on [0, upper] are shared out between the two nearest of bins + 1 edges."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    width = upper / bins

    def share(i: int, j: int, edge: int) -> float:
        return s.inside(i, j) * relu(1 - abs(min(s.d[i, j], upper) - edge * width) / width)

    term = []
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if not positives:
            continue
        found = whole = precision = 0.0
        for edge in range(bins + 1):
            mine = sum(share(i, p, edge) for p in positives)
            found, whole = found + mine, whole + mine + sum(share(i, n, edge) for n in negatives)
            precision += mine * found / whole if whole > 0 else 0.0
        term.append((i, 1 - precision / _count(s, i, positives), s.weight(i)))
    return [term]


# Two sets: positives before negatives, in whatever order among themselves.


def _weighed_mean(gaps: list[tuple[float, float]], scale: float) -> float:
    """The mean of gaps, each with exp(scale * gap) times the weight of its pair; 0 of none."""
    mass = sum(w * math.exp(scale * gap) for gap, w in gaps)
    return sum(w * math.exp(scale * gap) * gap for gap, w in gaps) / mass if gaps else 0.0


def ranked_list(
    x, y, refs=None, ref_labels=None, *, margin=0.4, boundary=None, positive_scale=0.0,
    negative_scale=10.0, negative_share=0.5, distance=ON_SPHERE, **options,
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    alpha = 1 + margin / 2 if boundary is None else boundary
    term = []
    for i in s.anchors:
        late = [(s.d[i, p] - (alpha - margin), s.inside(i, p)) for p in s.positives(i)]
        early = [(alpha - s.d[i, n], s.inside(i, n)) for n in s.negatives(i)]
        pull = _weighed_mean([(gap, w) for gap, w in late if gap > 0], positive_scale)
        push = _weighed_mean([(gap, w) for gap, w in early if gap > 0], negative_scale)
        term.append((i, (1 - negative_share) * pull + negative_share * push, s.weight(i)))
    return [term]


PENALTIES = {
    "O": lambda n, alpha, b: n,
    "Iu": lambda n, alpha, b: (1 + n) * math.log(1 + n),
    "Ib": lambda n, alpha, b: (b * n - math.log(1 + b * n)) / b**2,
    "Ds": lambda n, alpha, b: math.log(1 + n),
    "Dq": lambda n, alpha, b: 1 - 1 / (1 + n) ** alpha,
}


def pnp(
    x, y, refs=None, ref_labels=None, *, variant="Dq", alpha=4.0, b=2.0, temperature=0.01, **options
):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if not positives:
            continue
        value = 0.0
        for p in positives:
            gaps = ((s.d[i, p] - s.d[i, n], s.inside(i, n)) for n in negatives)
            before = sum(w * sigmoid(gap / temperature) for gap, w in gaps)
            value += s.inside(i, p) * PENALTIES[variant](before, alpha, b)
        term.append((i, value / _count(s, i, positives), s.weight(i)))
    return [term]
