"""More slow references: softmaxes of similarities, and surrogates of ranking measures.

As `references`: plain loops over numpy float64, no code shared with the library, its keywords and
defaults, terms instead of a scalar. S is a cosine similarity, d a distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from reference_pairs import (
    PairSet,
    cosine,
    euclidean,
    log_sum_exp,
    normalized,
    relu,
    softplus,
    squared_euclidean,
)
from references import _at

__all__ = [
    "circle",
    "fast_ap",
    "margin",
    "multi_similarity",
    "nca",
    "ntxent",
    "recall_at_k",
    "siglip",
    "smooth_ap",
    "supcon",
    "tuplet_margin",
]

ON_SPHERE = normalized(euclidean)
SQUARED_UNIT = normalized(squared_euclidean)
Parts = list[tuple[float, float]]  # (number, weight of its pair)


def sigmoid(z: float) -> float:
    return math.exp(-softplus(-z))


def _sides(s: PairSet, i: int) -> tuple[Parts, Parts]:
    """(d, weight) of the positives and of the negatives of an anchor."""
    positives = [(float(s.d[i, p]), s.inside(i, p)) for p in s.positives(i)]
    negatives = [(float(s.d[i, n]), s.inside(i, n)) for n in s.negatives(i)]
    return positives, negatives


def _weighed(parts: Parts) -> float:
    """|P|: how many pairs there are, by weight."""
    return sum(w for _, w in parts)


# Softmaxes of similarities.


def ntxent(
    x, y, refs=None, ref_labels=None, *, temperature=0.1, denominator="negatives",
    distance=cosine, **options,
):  # fmt: skip
    """`denominator="all"`: over every other row, each with the weight of its pair."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    term = []
    for i, p in s.positive_pairs():
        positives, negatives = _sides(s, i)
        others = positives + negatives if denominator == "all" else negatives
        gap = log_sum_exp((-d / temperature, w) for d, w in others) + s.d[i, p] / temperature
        value = gap if denominator == "all" else softplus(gap)
        term.append((i, value, s.weight(i, p)))
    return [term]


def supcon(
    x, y, refs=None, ref_labels=None, *, temperature=0.1, inside=False, distance=cosine, **options
):
    """`inside=True`: the mean over positives stands inside the logarithm."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    term = []
    for i in s.anchors:
        positives, negatives = _sides(s, i)
        if not positives:
            continue
        whole = log_sum_exp((-d / temperature, w) for d, w in positives + negatives)
        shares = [(-d / temperature - whole, w) for d, w in positives]  # logarithms of them
        if inside:
            value = -(log_sum_exp(shares) - math.log(_weighed(positives)))
        else:
            value = -sum(z * w for z, w in shares) / _weighed(positives)
        term.append((i, value, s.weight(i)))
    return [term]


def multi_similarity(
    x, y, refs=None, ref_labels=None, *, alpha=2.0, beta=50.0, base=0.5, **options
):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i in s.anchors:
        positives, negatives = _sides(s, i)
        pull = log_sum_exp((-alpha * (1 - d - base), w) for d, w in positives)
        push = log_sum_exp((beta * (1 - d - base), w) for d, w in negatives)
        value = softplus(pull) / alpha + softplus(push) / beta
        term.append((i, value, s.weight(i)))
    return [term]


def circle(x, y, refs=None, ref_labels=None, *, margin=0.4, scale=80.0, **options):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i in s.anchors:
        positives, negatives = _sides(s, i)
        if not positives or not negatives:
            continue
        similar = [(1 - d, w) for d, w in positives]
        other = [(1 - d, w) for d, w in negatives]
        pull = [(-scale * relu(1 + margin - c) * (c - (1 - margin)), w) for c, w in similar]
        push = [(scale * relu(c + margin) * (c - margin), w) for c, w in other]
        term.append((i, softplus(log_sum_exp(pull) + log_sum_exp(push)), s.weight(i)))
    return [term]


def tuplet_margin(x, y, refs=None, ref_labels=None, *, margin=0.1, scale=64.0, **options):
    """An angle below the margin turns to the other side: the cosine does not ask for its sign."""
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i, p in s.positive_pairs():
        theta = math.acos(min(1.0, max(-1.0, 1 - s.d[i, p])))
        target = math.cos(theta - margin)
        _, negatives = _sides(s, i)
        gap = log_sum_exp((scale * (1 - d - target), w) for d, w in negatives)
        term.append((i, softplus(gap), s.weight(i, p)))
    return [term]


def margin(
    x, y, refs=None, ref_labels=None, *, margin=0.2, beta=1.2, distance=ON_SPHERE, **options
):
    """`beta`: the distance between like and unlike, one number or one an anchor."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    pull = [
        (i, relu(s.d[i, p] - _at(beta, i) + margin), s.weight(i, p)) for i, p in s.positive_pairs()
    ]
    push = [
        (i, relu(_at(beta, i) - s.d[i, n] + margin), s.weight(i, n)) for i, n in s.negative_pairs()
    ]
    return [pull + push]


def nca(
    x, y, refs=None, ref_labels=None, *, scale=1.0, distance=squared_euclidean, **options
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    term = []
    for i in s.anchors:
        positives, negatives = _sides(s, i)
        if positives:
            own = log_sum_exp((-scale * d, w) for d, w in positives)
            whole = log_sum_exp((-scale * d, w) for d, w in positives + negatives)
            term.append((i, whole - own, s.weight(i)))
    return [term]


def siglip(x, y, refs=None, ref_labels=None, *, scale=10.0, bias=-10.0, **options):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i in s.anchors:
        positives, negatives = _sides(s, i)
        value = sum(w * softplus(-(scale * (1 - d) + bias)) for d, w in positives)
        value += sum(w * softplus(scale * (1 - d) + bias) for d, w in negatives)
        term.append((i, value, s.weight(i)))
    return [term]


# Surrogates of ranking measures. A pair of weight w counts as w rows of the ranking; the one
# whose rank is asked for stands first among its like, as one row.


def fast_ap(
    x, y, refs=None, ref_labels=None, *, bins=10,
    distance=SQUARED_UNIT, **options,
):  # fmt: skip
    """Distances on [0, 4] are shared out between the two nearest of bins + 1 edges."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    edges = [4.0 * k / bins for k in range(bins + 1)]

    def histogram(parts: Parts) -> list[float]:
        return [sum(w * relu(1 - abs(d - edge) * bins / 4) for d, w in parts) for edge in edges]

    term = []
    for i in s.anchors:
        positives, negatives = _sides(s, i)
        if not positives:
            continue
        found = whole = precisions = 0.0
        for mine, other in zip(histogram(positives), histogram(negatives)):
            found, whole = found + mine, whole + mine + other
            precisions += mine * found / whole if whole > 0 else 0.0
        term.append((i, 1 - precisions / _weighed(positives), s.weight(i)))
    return [term]


def _soft_rank(s: PairSet, i: int, p: int, rows: Iterable[int], temperature: float) -> float:
    """1 and, softly, the number of rows nearer to the anchor than p."""
    others = (j for j in rows if j != p)
    return 1 + sum(s.inside(i, j) * sigmoid((s.d[i, p] - s.d[i, j]) / temperature) for j in others)


def smooth_ap(x, y, refs=None, ref_labels=None, *, temperature=0.01, **options):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        if not positives:
            continue
        precisions = sum(
            s.inside(i, p)
            * _soft_rank(s, i, p, positives, temperature)
            / _soft_rank(s, i, p, positives + negatives, temperature)
            for p in positives
        )
        term.append((i, 1 - precisions / sum(s.inside(i, p) for p in positives), s.weight(i)))
    return [term]


def recall_at_k(
    x, y, refs=None, ref_labels=None, *, ks=(1, 2, 4, 8, 16), temperature=1.0,
    rank_temperature=0.01, **options,
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []
    for i in s.anchors:
        positives, everything = s.positives(i), s.positives(i) + s.negatives(i)
        if not positives:
            continue
        ranks = [
            (_soft_rank(s, i, p, everything, rank_temperature), s.inside(i, p)) for p in positives
        ]
        recalls = [
            sum(w * sigmoid((k - rank) / temperature) for rank, w in ranks)
            / min(k, _weighed(ranks))
            for k in ks
        ]
        term.append((i, 1 - sum(recalls) / len(ks), s.weight(i)))
    return [term]
