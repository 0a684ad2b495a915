"""Slow references of the InfoNCE family; see `references`. s is a cosine, z = s / temperature."""

from __future__ import annotations

import math

from reference_pairs import PairSet, cosine, log_sum_exp

__all__ = ["clip", "decoupled_ntxent", "hard_negative_ntxent"]


def clip(
    x, y, refs=None, ref_labels=None, *, temperature=0.07, denominator="negatives",
    distance=cosine, **options,
):  # fmt: skip
    """Cross entropies over the references of a row and over the rows of a reference."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    weight = lambda row, ref: s.inside(ref, row) if s.own else s.inside(row, ref)
    everything = denominator == "all"
    term = []
    for i, p in s.positive_pairs():
        z = -s.d[i, p] / temperature
        forth = back = 0.0  # exponentials over that of the pair itself, all but its own
        for r in s.refs:
            if r != p and not (s.own and r == i) and (everything or s.ry[r] != s.y[i]):
                forth += s.inside(i, r) * math.exp(-s.d[i, r] / temperature - z)
        for b in s.anchors:
            if b != i and not (s.own and b == p) and (everything or s.y[b] != s.ry[p]):
                back += weight(b, p) * math.exp(-s.d[b, p] / temperature - z)
        # Among all, the pair itself stands with its weight; alone against negatives, as one.
        itself = (s.inside(i, p), weight(i, p)) if everything else (1.0, 1.0)
        value = (math.log(itself[0] + forth) + math.log(itself[1] + back)) / 2
        term.append((i, value, s.weight(i, p)))
    return [term]


def decoupled_ntxent(
    x,
    y,
    refs=None,
    ref_labels=None,
    *,
    temperature=0.1,
    weighted=False,
    concentration=0.5,
    **options,
):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    pairs = [(i, p) for i, p in s.positive_pairs() if s.negatives(i)]
    mean = 1.0
    if weighted and pairs:
        total = sum(s.weight(i, p) for i, p in pairs)
        mean = sum(
            s.weight(i, p) * math.exp((1 - s.d[i, p]) / concentration) for i, p in pairs
        ) / total  # fmt: skip
    term = []
    for i, p in pairs:
        similarity = 1 - s.d[i, p]
        factor = 2 - math.exp(similarity / concentration) / mean if weighted else 1.0
        others = [((1 - s.d[i, n]) / temperature, s.inside(i, n)) for n in s.negatives(i)]
        value = -factor * similarity / temperature + log_sum_exp(others)
        term.append((i, value, s.weight(i, p)))
    return [term]


def hard_negative_ntxent(
    x, y, refs=None, ref_labels=None, *, temperature=0.5, hardness=1.0, prior=0.1, **options
):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    term = []

    def expected(i, others):
        """The mean of exp(z), with the importance exp(hardness z) for each."""
        close = {j: math.exp((1 - s.d[i, j]) / temperature) for j in others}
        importance = {j: s.inside(i, j) * close[j] ** hardness for j in others}
        return sum(importance[j] * close[j] for j in others) / sum(importance.values())

    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        hard = 0.0
        if positives and negatives:
            hard = (expected(i, negatives) - prior * expected(i, positives)) / (1 - prior)
            hard = max(hard, math.exp(-1 / temperature)) * sum(s.inside(i, n) for n in negatives)
        for p in positives:
            value = math.log1p(hard / math.exp((1 - s.d[i, p]) / temperature))
            term.append((i, value, s.weight(i, p)))
    return [term]
