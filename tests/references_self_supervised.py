"""Slow references of losses on relations and of self-supervised losses; see `references`."""

from __future__ import annotations

import math

import numpy as np
from reference_pairs import (
    PairSet,
    cosine,
    euclidean,
    normalized,
    relu,
    softplus,
    squared_euclidean,
)

__all__ = [
    "alignment",
    "barlow_twins",
    "centroid_triplet",
    "log_ratio",
    "uniformity",
    "vicreg",
]

ON_SPHERE = normalized(euclidean)


def alignment(x, y, refs=None, ref_labels=None, *, power=2.0, **options):
    s = PairSet(x, y, refs, ref_labels, distance=ON_SPHERE, **options)
    return [[(i, s.d[i, p] ** power, s.weight(i, p)) for i, p in s.positive_pairs()]]


def uniformity(x, y, refs=None, ref_labels=None, *, sharpness=2.0, **options):
    """One number."""
    s = PairSet(x, y, refs, ref_labels, distance=ON_SPHERE, **options)
    pairs = s.positive_pairs() + s.negative_pairs()
    mass = sum(s.weight(i, j) for i, j in pairs)
    potential = sum(s.weight(i, j) * math.exp(-sharpness * s.d[i, j] ** 2) for i, j in pairs)
    return math.log(potential / mass) if mass else 0.0


def log_ratio(
    x, y, refs=None, ref_labels=None, *, epsilon=1e-6, where=None, ref_where=None, **options
):
    """Labels are numbers: every two rows are a pair, whichever they hold."""
    numbers = np.asarray(y, float).reshape(len(y), -1)
    others = numbers if refs is None else np.asarray(ref_labels, float).reshape(len(ref_labels), -1)
    names = None if refs is None else np.zeros(len(others), int)
    s = PairSet(
        x, np.zeros(len(x), int), refs, names, distance=squared_euclidean, where=where,
        ref_where=ref_where, **options,
    )  # fmt: skip
    term = []
    for i in s.anchors:
        gap = {
            j: math.log(s.d[i, j] + epsilon)
            - math.log(sum((numbers[i] - others[j]) ** 2) + epsilon)
            for j in s.positives(i)
        }
        mates = sorted(gap)
        twos = [(a, b) for k, a in enumerate(mates) for b in mates[k + 1 :]]
        if twos:
            mass = sum(s.inside(i, a) * s.inside(i, b) for a, b in twos)
            total = sum(s.inside(i, a) * s.inside(i, b) * (gap[a] - gap[b]) ** 2 for a, b in twos)
            term.append((i, total / mass, s.weight(i)))
    return [term]


def centroid_triplet(
    x, y, refs=None, ref_labels=None, *, margin=0.2, soft=False, distance=ON_SPHERE, **options
):
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    members = {}
    for j in s.refs:
        members.setdefault(int(s.ry[j]), []).append(j)
    term = []
    for i in s.anchors:
        own = [j for j in members.get(int(s.y[i]), []) if not (s.own and j == i)]
        if not own:
            continue
        near = distance(s.x[i], np.mean([s.r[j] for j in own], axis=0))
        for name, others in members.items():
            if name != int(s.y[i]):
                far = distance(s.x[i], np.mean([s.r[j] for j in others], axis=0))
                value = (softplus if soft else relu)(near - far + margin)
                term.append((i, value, s.weight(i)))
    return [term]


def _branches(s: PairSet) -> list[np.ndarray]:
    return [s.x[s.anchors], s.r[s.refs]]


def vicreg(
    x, y, refs=None, ref_labels=None, *, invariance_weight=25.0, variance_weight=25.0,
    covariance_weight=1.0, epsilon=1e-4, **options,
):  # fmt: skip
    """One number."""
    s = PairSet(x, y, refs, ref_labels, distance=squared_euclidean, **options)
    if not s.anchors:
        return 0.0
    width = s.x.shape[1]
    mass = sum(s.weight(i, p) for i, p in s.positive_pairs())
    apart = sum(s.weight(i, p) * s.d[i, p] / width for i, p in s.positive_pairs())
    value = invariance_weight * apart / mass if mass else 0.0
    for rows in _branches(s):
        mean = [sum(r[d] for r in rows) / len(rows) for d in range(width)]
        covariance = np.zeros((width, width))
        for d in range(width):
            for e in range(width):
                parts = [(r[d] - mean[d]) * (r[e] - mean[e]) for r in rows]
                covariance[d, e] = sum(parts) / max(len(rows) - 1, 1)
        for d in range(width):
            value += variance_weight * relu(1 - math.sqrt(covariance[d, d] + epsilon)) / width
            for e in range(width):
                if d != e:
                    value += covariance_weight * covariance[d, e] ** 2 / width
    return value


def barlow_twins(
    x, y, refs=None, ref_labels=None, *, redundancy_weight=5e-3, epsilon=1e-5, **options
):
    """One number."""
    s = PairSet(x, y, refs, ref_labels, distance=cosine, **options)
    pairs = s.positive_pairs()
    mass = sum(s.weight(i, p) for i, p in pairs)
    if not mass:
        return 0.0
    first, second = (
        ((rows - r.mean(axis=0)) / np.sqrt(r.var(axis=0) + epsilon))
        for rows, r in zip((s.x, s.r), _branches(s))
    )
    width, value = s.x.shape[1], 0.0
    for d in range(width):
        for e in range(width):
            c = sum(s.weight(i, p) * first[i, d] * second[p, e] for i, p in pairs) / mass
            value += (1 - c) ** 2 if d == e else redundancy_weight * c**2
    return value
