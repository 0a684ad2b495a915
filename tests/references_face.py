"""Slow references of margin-softmax and binary face losses; see `references`.

As there: plain loops over numpy float64, no code shared with the library, its keywords and
defaults, terms instead of a scalar.
"""

from __future__ import annotations

import functools
import math

import jax
import numpy as np
from reference_pairs import inner, softplus
from references import (
    _arcface_target,
    _at,
    _cosines,
    _rows,
    _softmax_loss,
    _with_target,
    continued_cosine,
)

__all__ = ["elasticface", "large_margin_softmax", "sphereface2", "uniface"]


@functools.cache
def _draw(key_data: tuple[int, ...], place: int) -> float:
    """The standard normal number of a place: one key each, folded in."""
    key = jax.random.wrap_key_data(np.array(key_data, np.uint32))
    return float(jax.random.normal(jax.random.fold_in(key, place), dtype=np.float32))


def elasticface(
    x, y, proxies, *, key, margin=None, margin_std=0.05, scale=64.0, variant="arc", plus=False,
    where=None, weights=None, proxy_labels=None,
):  # fmt: skip
    """With `plus`, easy rows get small margins: the k-th nearest row the k-th smallest draw."""
    margin = {"arc": 0.5, "cos": 0.35}[variant] if margin is None else margin
    key_data = tuple(np.asarray(jax.random.key_data(key)).tolist())
    drawn = {i: _draw(key_data, i) for i in range(len(y))}
    options = {"where": where, "weights": weights, "proxy_labels": proxy_labels}
    if plus:
        labels = range(len(proxies)) if proxy_labels is None else proxy_labels
        counted = {i: column for i, column, _ in _rows(y, where, None, labels)}
        near = {i: _cosines(x[i], [proxies[column]])[0] for i, column in counted.items()}
        easiest_first = sorted(counted, key=lambda i: -near[i])
        drawn = dict(zip(easiest_first, sorted(drawn[i] for i in counted)))

    def logits(row, table, column, i):
        own = _at(margin, i) + margin_std * drawn[i]

        def target(c):
            return _arcface_target(c, own, False) if variant == "arc" else c - own

        return _with_target(_cosines(row, table), column, target, scale)

    return _softmax_loss(x, y, proxies, logits, **options)


def large_margin_softmax(x, y, proxies, *, margin=4, scale=1.0, annealing=0.0, **options):
    def logits(row, table, column, i):
        def length(v):
            return math.sqrt(inner(v, v))

        cosine = _cosines(row, [table[column]])[0]
        psi = continued_cosine(_at(margin, i) * math.acos(cosine))
        own = (annealing * cosine + psi) / (1 + annealing)
        found = [inner(w, row) for w in table]
        found[column] = length(table[column]) * length(row) * own
        return [scale * z for z in found]

    return _softmax_loss(x, y, proxies, logits, **options)


def _binary_loss(x, y, proxies, yes, no, *, where=None, weights=None, proxy_labels=None):
    """`yes(cosine, i)` for the own class, and `no(cosine)` summed over the others."""
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    x, proxies = np.asarray(x, np.float64), np.asarray(proxies, np.float64)
    term = []
    for i, column, weight in _rows(y, where, weights, labels):
        cosines = _cosines(x[i], proxies)
        value = yes(cosines[column], i)
        value += sum(no(c) for k, c in enumerate(cosines) if k != column and labels[k] >= 0)
        term.append((i, value, weight))
    return [term]


def sphereface2(
    x, y, proxies, *, bias, balance=0.7, scale=40.0, margin=0.4, exponent=3.0, **options
):
    def similarity(c):
        return 2 * ((c + 1) / 2) ** exponent - 1

    def yes(c, i):
        del i
        return balance / scale * softplus(-scale * (similarity(c) - margin) - bias)

    def no(c):
        return (1 - balance) / scale * softplus(scale * (similarity(c) + margin) + bias)

    return _binary_loss(x, y, proxies, yes, no, **options)


def uniface(x, y, proxies, *, bias, margin=0.4, scale=64.0, negative_weight=1.0, **options):
    def yes(c, i):
        return softplus(-(scale * (c - _at(margin, i)) - bias))

    def no(c):
        return negative_weight * softplus(scale * c - bias)

    return _binary_loss(x, y, proxies, yes, no, **options)
