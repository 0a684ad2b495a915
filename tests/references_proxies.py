"""More slow references: proxies, margins that adapt, and the rules of their states.

As `references`: plain loops over numpy float64, no code shared with the library, its keywords and
defaults, terms instead of a scalar.
"""

from __future__ import annotations

import math

import numpy as np
from reference_pairs import inner, log_sum_exp, softplus, squared_euclidean, unit
from references import _arcface_target, _at, _cosines, _rows, _softmax_loss, _with_target

__all__ = [
    "adaface",
    "curricularface",
    "magface",
    "normalized_softmax",
    "proxy_anchor",
    "proxy_nca",
    "soft_triple",
    "update_hardness",
    "update_norms",
]

# Proxies.


def normalized_softmax(x, y, proxies, *, temperature=0.05, **options):
    def logits(row, table, column, i):
        return [c / temperature for c in _cosines(row, table)]

    return _softmax_loss(x, y, proxies, logits, **options)


def proxy_nca(
    x, y, proxies, *, scale=1.0, own="left_out", where=None, weights=None, proxy_labels=None
):
    """`own="kept"`: the own class stands in the denominator, as in ProxyNCA++.

    Left out of it, a row whose class is the only one of the table has nothing to be held against
    and does not count.
    """
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    term = []
    for i, column, weight in _rows(y, where, weights, labels):
        near = [-scale * squared_euclidean(unit(x[i]), unit(p)) for p in proxies]
        against = [
            (z, 1.0) for k, (z, c) in enumerate(zip(near, labels))
            if c >= 0 and (own == "kept" or k != column)
        ]  # fmt: skip
        if against:
            term.append((i, log_sum_exp(against) - near[column], weight))
    return [term]


def proxy_anchor(
    x, y, proxies, *, alpha=32.0, margin=0.1, where=None, weights=None, proxy_labels=None
):
    """The anchors are the proxies: entries are numbered by the rows of the table.

    A row whose class has no proxy is one of the others for all of them.
    """
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    size = [1.0 if weights is None else float(weights[i]) for i in range(len(y))]
    rows = [i for i, c in enumerate(y) if c >= 0 and (where is None or where[i]) and size[i] > 0]
    pulls, pushes = [], []
    for k, (proxy, c) in enumerate(zip(proxies, labels)):
        if c < 0:
            continue
        similar = [(_cosines(x[i], [proxy])[0], size[i], y[i] == c) for i in rows]
        pull = [(-alpha * (cos - margin), w) for cos, w, same in similar if same]
        push = [(alpha * (cos + margin), w) for cos, w, same in similar if not same]
        if pull:
            pulls.append((k, softplus(log_sum_exp(pull)), 1.0))
        pushes.append((k, softplus(log_sum_exp(push)), 1.0))
    return [pulls, pushes]


def soft_triple(x, y, proxies, *, scale=20.0, gamma=0.1, margin=0.01, **options):
    """Each class owns K rows of the table [C, K, D] and is as near as their soft maximum."""

    def pooled(cosines):
        shares = [math.exp((c - max(cosines)) / gamma) for c in cosines]
        return sum(w * c for w, c in zip(shares, cosines)) / sum(shares)

    def logits(row, table, column, i):
        near = [pooled(_cosines(row, centers)) for centers in table]
        return _with_target(near, column, lambda c: c - margin, scale)

    return _softmax_loss(x, y, proxies, logits, **options)


# Margins that adapt.


def curricularface(x, y, proxies, *, hardness=0.0, margin=0.5, scale=64.0, **options):
    """Classes nearer than the own one with its margin count by `hardness` and their cosine.

    Beyond pi - margin they are held against the own logit as it is continued there: against
    cos(theta + margin), which rises again, they would turn easy and the loss would fall.
    """

    def logits(row, table, column, i):
        cosines = _cosines(row, table)
        target = _arcface_target(cosines[column], _at(margin, i), False)
        others = [c * (hardness + c) if c > target else c for c in cosines]
        others[column] = target
        return [scale * c for c in others]

    return _softmax_loss(x, y, proxies, logits, **options)


def magface(
    x, y, proxies, *, scale=64.0, lower_norm=10.0, upper_norm=110.0, lower_margin=0.45,
    upper_margin=0.8, norm_weight=35.0, **options,
):  # fmt: skip
    """A margin that grows with the length of the row, and a price for being short."""

    def length(row):
        return min(upper_norm, max(lower_norm, math.sqrt(inner(row, row))))

    def logits(row, table, column, i):
        slope = (upper_margin - lower_margin) / (upper_norm - lower_norm)
        m = lower_margin + slope * (length(row) - lower_norm)
        return _with_target(
            _cosines(row, table), column, lambda c: _arcface_target(c, m, False), scale
        )

    (term,) = _softmax_loss(x, y, proxies, logits, **options)
    price = lambda a: norm_weight * (1 / a + a / upper_norm**2)
    return [[(i, value + price(length(x[i])), weight) for i, value, weight in term]]


def _face_length(row) -> float:
    return min(100.0, max(0.001, math.sqrt(inner(row, row))))


def adaface(
    x, y, proxies, *, norm_mean=20.0, norm_std=100.0, margin=0.4, concentration=0.333, scale=64.0,
    **options,
):  # fmt: skip
    """A margin whose kind follows how long the row is among those of late."""
    smallest = 1e-3  # angles are kept that far from 0 and pi

    def logits(row, table, column, i):
        z = (_face_length(row) - norm_mean) / (norm_std / concentration)
        z = min(1.0, max(-1.0, z))

        def target(c):
            angle = math.acos(c) - margin * z
            angle = min(math.pi - smallest, max(smallest, angle))
            return math.cos(angle) - (margin * z + margin)

        return _with_target(_cosines(row, table), column, target, scale)

    return _softmax_loss(x, y, proxies, logits, **options)


# The rules that rewrite a state.


def update_hardness(hardness, x, y, proxies, *, rate=0.01, where=None):
    """The hardness follows the mean cosine of rows to their own class."""
    rows = _rows(y, where, None, range(len(proxies)))
    targets = [_cosines(x[i], proxies)[k] for i, k, _ in rows]
    if not targets:
        return float(hardness)
    return rate * sum(targets) / len(targets) + (1 - rate) * hardness


def update_norms(state, x, *, rate=0.01, where=None):
    """(mean, std) follow those of the batch; one row alone has no deviation and leaves both."""
    mean, std = (float(number) for number in state)
    lengths = [_face_length(row) for i, row in enumerate(x) if where is None or where[i]]
    if len(lengths) > 1:
        mean = (1 - rate) * mean + rate * float(np.mean(lengths))
        std = (1 - rate) * std + rate * float(np.std(lengths, ddof=1))
    return mean, std
