"""Soft histograms: each number is shared by the two nodes that it lies between."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.options import Array, Number, Pairs
from jdml._core.positives import fold_positives
from jdml._core.reduce import safe_divide


def place(x: Array, low: Number, width: Number, nodes: int) -> tuple[Array, Array]:
    """The node below x, and how far x is on the way to the next; ends take what lies beyond."""
    at = jnp.clip((x - low) / width, 0.0, nodes - 1.0)
    below = lax.stop_gradient(jnp.where(jnp.isnan(at), 0.0, jnp.minimum(jnp.floor(at), nodes - 2)))
    return below.astype(jnp.int32), at - below


def fill(x: Array, weights: Array, low: Number, width: Number, nodes: int) -> Array:
    """Histograms [b, nodes] of the rows of x [b, n]; nodes stand at low, low + width, ..."""
    below, share = place(x, low, width, nodes)
    rows = jnp.arange(x.shape[0])[:, None]
    share = jnp.where(weights == 0, 0.0, share)  # what is not there may hold anything
    counts = jnp.zeros((x.shape[0], nodes), x.dtype)
    counts = counts.at[rows, below].add(weights * (1.0 - share))
    return counts.at[rows, below + 1].add(weights * share)


def triplet_gaps(pairs: Pairs, low: Number, width: Number, nodes: int) -> Array:
    """Histograms [b, nodes] of d(a, p) - d(a, n) over all triplets of each anchor; a constant."""

    def step(counts: Array, rows: Pairs) -> Array:
        gaps = rows.positives[:, None] - rows.negatives
        weights = rows.positive_weights[:, None] * rows.negative_weights
        return counts + fill(gaps, weights, low, width, nodes)

    start = jnp.zeros((pairs.positives.shape[0], nodes), pairs.positives.dtype)
    return fold_positives(step, start, pairs)


def checked_histogram(histogram: Array) -> Array:
    """A state [bins] that a number can lie between two nodes of."""
    ok = histogram.ndim == 1 and histogram.shape[0] >= 2
    checks.expect(ok, "histogram", histogram, "a state [bins] of 2 or more nodes")
    return histogram


def blend(histogram: Array, counts: Array, rate: Number) -> Array:
    """The histogram with a share `rate` of new counts; those alone while it is empty."""
    rate = jnp.where(histogram.sum() == 0, 1.0, rate)
    new = (1.0 - rate) * histogram + rate * safe_divide(counts, counts.sum())
    return jnp.where(counts.sum() == 0, histogram, safe_divide(new, new.sum()))
