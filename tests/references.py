"""Slow references: every loss written from its paper with plain loops over numpy float64.

They share no code with the library, take the keywords of the library (number for number), and
return terms instead of a scalar: `reduce(references.triplet(x, y, margin=0.1), "mean", len(y))`.
A pair loss takes `mined`, what a miner of `reference_miners` kept, where the library takes a miner.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from reference_pairs import (
    Mined,
    PairSet,
    angular_distance,
    cosine,
    dot,
    euclidean,
    inner,
    log_sum_exp,
    lp,
    normalized,
    reduce,
    relu,
    softplus,
    squared_euclidean,
    unit,
)

__all__ = [
    "Mined",
    "PairSet",
    "adacos",
    "angular",
    "angular_distance",
    "arcface",
    "center",
    "combined_margin",
    "contrastive",
    "cosface",
    "cosine",
    "dot",
    "euclidean",
    "generalized_lifted_structure",
    "lifted_structure",
    "lp",
    "n_pair",
    "normalized",
    "quadruplet",
    "reduce",
    "soft_margin_triplet",
    "sphereface",
    "squared_contrastive",
    "squared_euclidean",
    "subcenter_arcface",
    "triplet",
    "update_adacos",
    "update_centers",
]

# Contrastive.


def contrastive(
    x, y, refs=None, ref_labels=None, *, positive_margin=0.0, negative_margin=1.0, **options
):
    s = PairSet(x, y, refs, ref_labels, **options)
    pull = [(i, relu(s.d[i, p] - positive_margin), s.weight(i, p)) for i, p in s.positive_pairs()]
    push = [(i, relu(negative_margin - s.d[i, n]), s.weight(i, n)) for i, n in s.negative_pairs()]
    return [pull, push]


def squared_contrastive(x, y, refs=None, ref_labels=None, *, margin=1.0, **options):
    s = PairSet(x, y, refs, ref_labels, **options)
    pull = [(i, 0.5 * s.d[i, p] ** 2, s.weight(i, p)) for i, p in s.positive_pairs()]
    push = [(i, 0.5 * relu(margin - s.d[i, n]) ** 2, s.weight(i, n)) for i, n in s.negative_pairs()]
    return [pull + push]


# Triplet and structured.


def _triplet_gaps(s: PairSet, swap: bool):
    for i, p, n in s.triplets():
        away = min(s.d[i, n], s.distance(s.r[p], s.r[n])) if swap else s.d[i, n]
        yield i, s.d[i, p] - away, s.weight(i, p, n)


def triplet(x, y, refs=None, ref_labels=None, *, margin=0.2, swap=False, **options):
    s = PairSet(x, y, refs, ref_labels, **options)
    return [[(i, relu(gap + margin), w) for i, gap, w in _triplet_gaps(s, swap)]]


def soft_margin_triplet(x, y, refs=None, ref_labels=None, *, margin=0.0, swap=False, **options):
    s = PairSet(x, y, refs, ref_labels, **options)
    return [[(i, softplus(gap + margin), w) for i, gap, w in _triplet_gaps(s, swap)]]


def quadruplet(
    x, y, refs=None, ref_labels=None, *, margin=1.0, second_margin=0.5,
    distance=squared_euclidean, **options,
):  # fmt: skip
    s = PairSet(x, y, refs, ref_labels, distance=distance, **options)
    triplets = [
        (i, relu(s.d[i, p] - s.d[i, n] + margin), s.weight(i, p, n)) for i, p, n in s.triplets()
    ]
    fours = [
        (i, relu(s.d[i, p] - distance(s.r[n], s.r[m]) + second_margin), s.weight(i, p, n, m))
        for i, p in s.positive_pairs()
        for n, m in product(s.negatives(i), repeat=2)
        if s.ry[n] != s.ry[m]
    ]
    return [triplets, fours]


def lifted_structure(x, y, refs=None, ref_labels=None, *, margin=1.0, **options):
    s = PairSet(x, y, refs, ref_labels, **options)
    term = []
    for i, j in s.positive_pairs():
        parts = [(margin - s.d[i, k], s.inside(i, k)) for k in s.negatives(i)]
        if s.own:
            parts += [(margin - s.d[j, m], s.inside(j, m)) for m in s.negatives(j)]
        else:  # the partner is a reference: what it is held apart from are the anchors
            others = [m for m in s.anchors if j in s.negatives(m)]
            parts += [(margin - s.d[m, j], s.inside(m, j)) for m in others]
        term.append((i, relu(log_sum_exp(parts) + s.d[i, j]) ** 2 / 2, s.weight(i, j)))
    return [term]


def generalized_lifted_structure(
    x, y, refs=None, ref_labels=None, *, margin=1.0, lone="skip", **options
):
    """`lone="zero"`: a side without pairs counts as 0 (a usual port), instead of no anchor."""
    s = PairSet(x, y, refs, ref_labels, **options)
    term = []
    for i in s.anchors:
        pull = log_sum_exp((s.d[i, p], s.inside(i, p)) for p in s.positives(i))
        push = log_sum_exp((margin - s.d[i, n], s.inside(i, n)) for n in s.negatives(i))
        if lone == "zero":
            pull, push = (0.0 if math.isinf(side) else side for side in (pull, push))
        if not math.isinf(pull) and not math.isinf(push):
            term.append((i, relu(pull + push), s.weight(i)))
    return [term]


# N-pair and Wang's angular loss.


def n_pair(x, y, refs=None, ref_labels=None, *, norm_weight=0.002, one_versus_one=False, **options):
    s = PairSet(x, y, refs, ref_labels, distance=dot, **options)
    term = []
    for i, p in s.positive_pairs():
        gaps = [(s.d[i, p] - s.d[i, n], s.inside(i, n)) for n in s.negatives(i)]
        if one_versus_one:
            value = sum(w * softplus(z) for z, w in gaps)
        else:
            value = log_sum_exp([(0.0, 1.0), *gaps])
        value += norm_weight * (inner(s.x[i], s.x[i]) + inner(s.r[p], s.r[p])) / 2
        term.append((i, value, s.weight(i, p)))
    return [term]


def angular(x, y, refs=None, ref_labels=None, *, angle=math.pi / 4, hinge=False, **options):
    s = PairSet(x, y, refs, ref_labels, distance=normalized(dot), **options)
    square = math.tan(angle) ** 2
    if hinge:
        return [list(_angular_hinges(s, square))]
    term = []
    for i, p in s.positive_pairs():
        a, b = unit(s.x[i]), unit(s.r[p])
        parts = [
            (4 * square * inner(a + b, unit(s.r[n])) - 2 * (1 + square) * inner(a, b), w)
            for n, w in ((n, s.inside(i, n)) for n in s.negatives(i))
        ]
        term.append((i, log_sum_exp([(0.0, 1.0), *parts]), s.weight(i, p)))
    return [term]


def _angular_hinges(s, square):
    for i, p, n in s.triplets():
        a, b, c = unit(s.x[i]), unit(s.r[p]), unit(s.r[n])
        middle = squared_euclidean(c, (a + b) / 2)
        value = relu(squared_euclidean(a, b) - 4 * square * middle)
        yield i, value, s.weight(i, p, n)


# Labels against a table of classes.


def _rows(y, where, weights, table_labels):
    """(row, its column in the table, its weight) of the rows that exist and have a column."""
    columns = {int(c): k for k, c in enumerate(table_labels) if c >= 0}
    for i, c in enumerate(np.asarray(y)):
        if c >= 0 and int(c) in columns and (where is None or where[i]):
            yield i, columns[int(c)], 1.0 if weights is None else float(weights[i])


def _softmax_loss(x, y, proxies, logits, *, where=None, weights=None, proxy_labels=None):
    """Cross-entropy of `logits(row, table, column, i)`, the logit of every row of the table.

    A row of the table with a negative label does not exist.
    """
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    x, proxies = np.asarray(x, np.float64), np.asarray(proxies, np.float64)
    term = []
    for i, column, weight in _rows(y, where, weights, labels):
        row = logits(x[i], proxies, column, i)
        whole = log_sum_exp((z, 1.0) for z, c in zip(row, labels) if c >= 0)
        term.append((i, whole - row[column], weight))
    return [term]


def _with_target(cosines, column, target, scale):
    """Scaled cosines, the own class's replaced by `target(cosine)`."""
    return [scale * (target(c) if k == column else c) for k, c in enumerate(cosines)]


def _cosines(row, proxies):
    return [min(1.0, max(-1.0, inner(unit(row), unit(w)))) for w in proxies]


def _at(number, i):
    """A number of its own for each row, or one for all."""
    return float(number) if np.ndim(number) == 0 else float(number[i])


def continued_cosine(t: float) -> float:
    """psi(t) = (-1)^k cos t - 2k on [k pi, (k+1) pi]: the cosine made to fall for ever."""
    k = math.floor(t / math.pi)
    return (-1) ** k * math.cos(t) - 2 * k


def center(x, y, centers, *, where=None, weights=None, proxy_labels=None):
    labels = range(len(centers)) if proxy_labels is None else proxy_labels
    rows = _rows(y, where, weights, labels)
    return [[(i, 0.5 * squared_euclidean(x[i], centers[k]), w) for i, k, w in rows]]


def sphereface(x, y, proxies, *, margin=4, scale=1.0, annealing=0.0, **options):
    def logits(row, table, column, i):
        def target(c):
            psi = continued_cosine(_at(margin, i) * math.acos(c))
            return (annealing * c + psi) / (1 + annealing)

        length = math.sqrt(inner(row, row))
        return _with_target(_cosines(row, table), column, target, scale * length)

    return _softmax_loss(x, y, proxies, logits, **options)


def cosface(x, y, proxies, *, margin=0.35, scale=64.0, **options):
    def logits(row, table, column, i):
        return _with_target(_cosines(row, table), column, lambda c: c - _at(margin, i), scale)

    return _softmax_loss(x, y, proxies, logits, **options)


def _arcface_target(cos: float, margin: float, easy_margin: bool) -> float:
    if easy_margin:
        return math.cos(math.acos(cos) + margin) if cos > 0 else cos
    beyond = math.acos(cos) > math.pi - margin
    return cos - margin * math.sin(margin) if beyond else math.cos(math.acos(cos) + margin)


def arcface(x, y, proxies, *, margin=0.5, scale=64.0, easy_margin=False, **options):
    def logits(row, table, column, i):
        def target(c):
            return _arcface_target(c, _at(margin, i), easy_margin)

        return _with_target(_cosines(row, table), column, target, scale)

    return _softmax_loss(x, y, proxies, logits, **options)


def combined_margin(
    x, y, proxies, *, multiplier=1.0, angle_margin=0.5, cosine_margin=0.0, scale=64.0, **options
):
    def logits(row, table, column, i):
        def target(c):
            turned = _at(multiplier, i) * math.acos(c) + _at(angle_margin, i)
            return continued_cosine(turned) - _at(cosine_margin, i)

        return _with_target(_cosines(row, table), column, target, scale)

    return _softmax_loss(x, y, proxies, logits, **options)


def adacos(x, y, proxies, *, scale=None, **options):
    factor = math.sqrt(2) * math.log(len(proxies) - 1) if scale is None else scale

    def logits(row, table, column, i):
        return [factor * c for c in _cosines(row, table)]

    return _softmax_loss(x, y, proxies, logits, **options)


def subcenter_arcface(x, y, proxies, *, margin=0.5, scale=64.0, easy_margin=False, **options):
    """Each class owns K rows of the table [C, K, D] and is as near as its nearest one."""

    def logits(row, table, column, i):
        def target(c):
            return _arcface_target(c, _at(margin, i), easy_margin)

        nearest = [max(_cosines(row, centers)) for centers in table]
        return _with_target(nearest, column, target, scale)

    return _softmax_loss(x, y, proxies, logits, **options)


# The rules that rewrite a state.


def update_centers(centers, x, y, *, rate=0.5, where=None):
    """A class seen n times moves by rate * sum of its pulls / (1 + n); the others stay."""
    out = np.array(centers, np.float64)
    for c in range(len(out)):
        mine = [i for i, k, _ in _rows(y, where, None, range(len(out))) if k == c]
        pull = sum((np.asarray(x[i], np.float64) - centers[c] for i in mine), np.zeros_like(out[c]))
        out[c] = centers[c] + rate * pull / (1 + len(mine))
    return out


def update_adacos(scale, x, y, proxies, *, where=None):
    """The next dynamic scale, from the median target angle and the mean of the other classes."""
    rows = list(_rows(y, where, None, range(len(proxies))))
    if not rows:
        return float(scale)
    cosines = {i: _cosines(x[i], proxies) for i, _, _ in rows}
    median = float(np.median([math.acos(cosines[i][k]) for i, k, _ in rows]))
    others = [
        sum(math.exp(scale * c) for j, c in enumerate(cosines[i]) if j != k) for i, k, _ in rows
    ]
    return math.log(sum(others) / len(others)) / math.cos(min(math.pi / 4, median))
