"""Slow references of the InfoNCE family; see `references`. s is a cosine, z = s / temperature."""

from __future__ import annotations

import math

from reference_pairs import PairSet, cosine, log_sum_exp, softplus

__all__ = ["clip", "decoupled_ntxent", "hard_negative_ntxent"]


def clip(x, y, refs=None, ref_labels=None, *, temperature=0.07, distance=cosine, **options):
    """Cross entropies over the references of a row and over the rows of a reference."""
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    term = []
    for i, p in s.positive_pairs():
        row = [(-s.d[i, r] / temperature, s.inside(i, r)) for r in s.refs if not s.own or r != i]
        column = [
            (-s.d[b, p] / temperature, s.inside(b, p)) for b in s.anchors if not s.own or b != p
        ]
        z = -s.d[i, p] / temperature
        value = ((log_sum_exp(row) - z) + (log_sum_exp(column) - z)) / 2
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
    for i, p in s.positive_pairs():
        negatives = s.negatives(i)
        if not negatives:
            continue
        count = sum(s.inside(i, n) for n in negatives)
        close = {n: math.exp((1 - s.d[i, n]) / temperature) for n in negatives}
        importance = {n: s.inside(i, n) * close[n] ** hardness for n in negatives}
        expected = sum(importance[n] * close[n] for n in negatives) / sum(importance.values())
        positive = math.exp((1 - s.d[i, p]) / temperature)
        hard = (count * expected - prior * count * positive) / (1 - prior)
        hard = max(hard, count * math.exp(-1 / temperature))
        value = softplus(math.log(hard) - math.log(positive))
        term.append((i, value, s.weight(i, p)))
    return [term]
