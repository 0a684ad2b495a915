"""Smooth ranks: how many rows of a ranking stand before each positive of an anchor.

A row stands before another if its distance to the anchor is smaller. A `step` says how much a gap
between the two distances counts: 1 above 0 and 0 below for true ranks, something with a slope
where a loss has to learn from them. Arrays are [b, P, P] and [b, P, N]: ask the engine for `cube`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdml._core.options import Array, Number, Pairs
from jdml._core.reduce import safe_divide

Step = Callable[[Array], Array]  # gaps, positive where a row stands before -> what they count


def mean_by_anchor(values: Array, weights: Array) -> Array:
    """The mean over the pairs of each anchor, by weight, [b]; 0 without any."""
    return safe_divide((weights * values).sum(axis=-1), weights.sum(axis=-1))


def sigmoid_step(temperature: Number) -> Step:
    """1 / (1 + exp(-gap / temperature))."""
    return lambda gaps: jax.nn.sigmoid(gaps / temperature)


def true_step(gaps: Array) -> Array:
    """1 where a gap is 0 or more, 0 elsewhere, with no gradient. NaN stays NaN."""
    return 1.0 - jnp.sign(jnp.maximum(-gaps, 0.0))


def _others(
    rows: Array, columns: Array | None, others: Array, other_columns: Array | None
) -> Array:
    """[1 or b, P, N] whether two entries are different references: none stands before itself."""
    place = lambda x, at: jnp.arange(x.shape[1])[None, :] if at is None else at
    return place(rows, columns)[:, :, None] != place(others, other_columns)[:, None, :]


def positives_before(pairs: Pairs, step: Step) -> Array:
    """1 and the number of other positives before each positive, by weight, [b, P]."""
    rows, columns = pairs.positives, pairs.positive_columns
    other = _others(rows, columns, rows, columns)
    weights = jnp.where(other, pairs.positive_weights[:, None, :], 0.0)
    return 1.0 + (weights * step(rows[:, :, None] - rows[:, None, :])).sum(axis=-1)


def negatives_before(pairs: Pairs, step: Step) -> Array:
    """The number of negatives before each positive, by weight, [b, P].

    A pair of a degree between 0 and 1 is on both sides, so a reference may meet itself here.
    """
    rows, negatives = pairs.positives, pairs.negatives
    other = _others(rows, pairs.positive_columns, negatives, pairs.negative_columns)
    weights = jnp.where(other, pairs.negative_weights[:, None, :], 0.0)
    return (weights * step(rows[:, :, None] - negatives[:, None, :])).sum(axis=-1)
