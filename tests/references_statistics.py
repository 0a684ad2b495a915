"""Slow references of the losses on statistics of pairs; see `references`. s is a cosine."""

from __future__ import annotations

import math

import numpy as np
from reference_pairs import PairSet, cosine, euclidean, normalized, relu

__all__ = [
    "dynamic_soft_margin",
    "histogram",
    "intra_pair_variance",
    "mixed",
    "threshold_consistent_margin",
    "triplet_histogram",
]


def intra_pair_variance(
    x, y, refs=None, ref_labels=None, *, positive_slack=0.01, negative_slack=0.01, **options
):
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    kinds = {"+": s.positive_pairs(), "-": s.negative_pairs()}
    mean = {}
    for kind, pairs in kinds.items():
        total = sum(s.weight(i, j) for i, j in pairs)
        parts = sum(s.weight(i, j) * (1 - s.d[i, j]) for i, j in pairs)
        mean[kind] = parts / total if total else 0.0
    pull = [
        (i, relu((1 - positive_slack) * mean["+"] - (1 - s.d[i, p])) ** 2, s.weight(i, p))
        for i, p in kinds["+"]
    ]
    push = [
        (i, relu((1 - s.d[i, n]) - (1 + negative_slack) * mean["-"]) ** 2, s.weight(i, n))
        for i, n in kinds["-"]
    ]
    return [pull, push]


def threshold_consistent_margin(
    x, y, refs=None, ref_labels=None, *, positive_margin=0.9, negative_margin=0.5,
    positive_share=1.0, negative_share=1.0, **options,
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    pull = [
        (i, positive_share * relu(positive_margin - (1 - s.d[i, p])), s.weight(i, p))
        for i, p in s.positive_pairs()
    ]
    push = [
        (i, negative_share * relu((1 - s.d[i, n]) - negative_margin), s.weight(i, n))
        for i, n in s.negative_pairs()
    ]
    return [pull, push]


def histogram(x, y, refs=None, ref_labels=None, *, bins=100, **options):
    """One number: a triangle of width 2 / bins stands over every node."""
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    width = 2 / bins
    shares = {}
    for kind, pairs in (("+", s.positive_pairs()), ("-", s.negative_pairs())):
        counts = [0.0] * (bins + 1)
        for i, j in pairs:
            similarity = min(1.0, max(-1.0, 1 - s.d[i, j]))
            for node in range(bins + 1):
                near = relu(1 - abs(similarity - (-1 + node * width)) / width)
                counts[node] += s.weight(i, j) * near
        shares[kind] = [c / sum(counts) if sum(counts) else 0.0 for c in counts]
    return sum(
        shares["-"][r] * sum(shares["+"][: r + 1]) for r in range(bins + 1)
    )  # fmt: skip


def triplet_histogram(s: PairSet, nodes: int, low: float) -> list[float]:
    width = -2 * low / nodes
    counts = [0.0] * nodes
    for i, p, n in s.triplets():
        at = min(max((s.d[i, p] - s.d[i, n] - low) / width, 0.0), nodes - 1.0)
        below = min(math.floor(at), nodes - 2)
        counts[below] += s.weight(i, p, n) * (1 - (at - below))
        counts[below + 1] += s.weight(i, p, n) * (at - below)
    return counts


def mixed(old, counts, rate: float) -> list[float]:
    """The running histogram after a batch."""
    if not sum(counts):
        return list(old)
    rate = rate if sum(old) else 1.0
    new = [(1 - rate) * a + rate * c / sum(counts) for a, c in zip(old, counts)]
    return [v / sum(new) for v in new]


def dynamic_soft_margin(
    x, y, refs=None, ref_labels=None, *, histogram, rate=0.01, low=-2.0, **options
):
    s = PairSet(x, y, refs, ref_labels, distance=normalized(euclidean), **options)
    old = np.asarray(histogram, np.float64).tolist()
    width = -2 * low / len(old)
    below = np.cumsum(mixed(old, triplet_histogram(s, len(old), low), rate))
    term = []
    for i, p, n in s.triplets():
        gap = s.d[i, p] - s.d[i, n]
        node = min(max(math.floor((gap - low) / width), 0), len(old) - 1)
        term.append((i, below[node] * gap, s.weight(i, p, n)))
    return [term]
