"""Slow references: proxies that are distributions, nodes of a graph, or items.

As `references`: plain loops over numpy float64, no code shared with the library, its keywords and
defaults, terms instead of a scalar.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import references_proxies
from reference_pairs import euclidean, inner, log_sum_exp, softplus, squared_euclidean, unit
from references import _cosines, _rows, _softmax_loss

__all__ = [
    "harmonic",
    "hist",
    "instance",
    "log_bessel",
    "manifold",
    "p2s_grad",
    "soft_triple",
    "von_mises_fisher",
]


def soft_triple(x, y, proxies, *, spread_weight=0.2, proxy_labels=None, **options):
    """The softmax over soft classes and, for each row, the price of centers that lie apart."""
    (term,) = references_proxies.soft_triple(x, y, proxies, proxy_labels=proxy_labels, **options)
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    real = [centers for centers, c in zip(proxies, labels) if c >= 0]
    k = len(real[0])
    apart = sum(euclidean(unit(a), unit(b)) for rows in real for a, b in combinations(rows, 2))
    price = spread_weight * apart / (len(real) * k * (k - 1)) if k > 1 else 0.0
    return [[(i, value + price, weight) for i, value, weight in term]]


def p2s_grad(x, y, proxies, *, where=None, weights=None, proxy_labels=None):
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    term = []
    for i, column, weight in _rows(y, where, weights, labels):
        cosines = _cosines(x[i], proxies)
        wrong = [c - (k == column) for k, c in enumerate(cosines) if labels[k] >= 0]
        term.append((i, sum(error**2 for error in wrong) / 2, weight))
    return [term]


def instance(x, y, proxies, *, scale=1.0, normalized=False, **options):
    def logits(row, table, column, i):
        if normalized:
            return [scale * c for c in _cosines(row, table)]
        return [scale * inner(row, w) for w in table]

    return _softmax_loss(x, y, proxies, logits, **options)


def hist(x, y, proxies, *, scale=32.0, lower_log_variance=0.0, upper_log_variance=6.0, **options):
    """A class is a mean and the logarithms of variances, one a feature: the table is [C, 2, D]."""

    def distance(row, mean, log_variances):
        steps = zip(unit(row), unit(mean), log_variances)
        bounded = lambda v: min(upper_log_variance, max(lower_log_variance, v))
        return sum((a - b) ** 2 / math.exp(bounded(v)) for a, b, v in steps)

    def logits(row, table, column, i):
        return [-scale * distance(row, mean, log_variances) for mean, log_variances in table]

    return _softmax_loss(x, y, proxies, logits, **options)


def harmonic(x, y, proxies, *, exponent=None, softening=1e-4, **options):
    n = math.sqrt(len(proxies[0])) if exponent is None else exponent

    def logits(row, table, column, i):
        return [-n / 2 * math.log(squared_euclidean(row, w) + softening) for w in table]

    return _softmax_loss(x, y, proxies, logits, **options)


# Directions.


def log_bessel(order: float, x: float) -> float:
    """log(Gamma(v + 1) (2 / x)^v I_v(x)) by the power series of I_v, whose terms are positive.

    sum_k (x^2 / 4)^k / (k! (v + 1) (v + 2) ... (v + k))
    """
    logs, k = [0.0], 0
    while x > 0 and (k < x or logs[-1] > max(logs) - 50):
        k += 1
        logs.append(logs[-1] + 2 * math.log(x / 2) - math.log(k) - math.log(order + k))
    top = max(logs)
    return top + math.log(math.fsum(math.exp(z - top) for z in logs))


def von_mises_fisher(x, y, proxies, *, scale=16.0, upper_concentration=math.inf, **options):
    def logits(row, table, column, i):
        concentrations = [min(upper_concentration, scale * math.sqrt(inner(w, w))) for w in table]
        order = len(row) / 2 - 1
        # log C_D(k) but for a number that all classes share.
        return [k * c - log_bessel(order, k) for k, c in zip(concentrations, _cosines(row, table))]

    return _softmax_loss(x, y, proxies, logits, **options)


# A random walk.


def manifold(
    x, y, proxies, *, alpha=0.8, margin=5e-4, context_weight=1.0, temperature=0.5,
    violations_only=False, where=None, weights=None, proxy_labels=None,
):  # fmt: skip
    """Rows of weight k are k nodes; rows without a proxy and proxies without a class are none."""
    labels = range(len(proxies)) if proxy_labels is None else proxy_labels
    targets = [k for k, c in enumerate(labels) if c >= 0]
    rows = list(_rows(y, where, weights, labels))
    copies = [i for i, _, weight in rows for _ in range(round(weight))]
    nodes = [unit(x[i]) for i in copies] + [unit(proxies[k]) for k in targets]
    reached = _walks(nodes, alpha, temperature)
    at = {k: len(copies) + n for n, k in enumerate(targets)}
    term = []
    for i, column, weight in rows:
        ends = reached[copies.index(i)] if i in copies else None
        if ends is None:
            continue
        intrinsic = {k: ends[at[k]] for k in targets}
        context = {k: inner(unit(ends), unit(reached[at[k]])) for k in targets}
        parts = [_against(part, column, margin, violations_only) for part in (intrinsic, context)]
        if math.isinf(context_weight):
            term.append((i, parts[1], weight))
        else:
            term.append((i, parts[0] + context_weight * parts[1], weight))
    return [term]


def _walks(nodes, alpha, temperature):
    """(1 - alpha) (I - alpha D^-1/2 S D^-1/2)^-1 of similarities between different nodes."""
    n = len(nodes)
    similar = np.zeros((n, n))
    for j in range(n):
        for k in range(n):
            if j != k:
                similar[j, k] = math.exp(max(0.0, inner(nodes[j], nodes[k])) / temperature)
    degrees = [sum(row) for row in similar]
    step = np.zeros((n, n))
    for j in range(n):
        for k in range(n):
            if j != k:
                step[j, k] = similar[j, k] / math.sqrt(degrees[j] * degrees[k])
    return (1 - alpha) * np.linalg.inv(np.eye(n) - alpha * step)


def _against(similarities, column, margin, violations_only):
    gaps = [s - similarities[column] + margin for k, s in similarities.items() if k != column]
    if violations_only:
        gaps = [gap for gap in gaps if gap >= 0]
    return softplus(log_sum_exp((gap, 1.0) for gap in gaps))
