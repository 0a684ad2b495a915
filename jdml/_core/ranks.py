"""Smooth ranks: how many rows of a ranking stand before each positive of an anchor.

A row stands before another if its distance to the anchor is smaller. A `step` says how much a gap
between the two distances counts: 1 above 0 and 0 below for true ranks, something with a slope
where a loss has to learn from them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdml._core.options import Array, Number, Pairs
from jdml._core.positives import sum_of_positives
from jdml._core.reduce import safe_divide

Step = Callable[[Array], Array]  # gaps, positive where a row stands before -> what they count
# What a positive is worth: (positives up to it, negatives before it, all positives) -> [].
Worth = Callable[[Array, Array, Array], Array]


def mean_by_anchor(values: Array, weights: Array) -> Array:
    """The mean over the pairs of each anchor, by weight, [b]; 0 without any."""
    return safe_divide((weights * values).sum(axis=-1), weights.sum(axis=-1))


def sigmoid_step(temperature: Number) -> Step:
    """1 / (1 + exp(-gap / temperature))."""
    return lambda gaps: jax.nn.sigmoid(gaps / temperature)


def true_step(gaps: Array) -> Array:
    """1 where a gap is 0 or more, 0 elsewhere, with no gradient. NaN stays NaN."""
    return 1.0 - jnp.sign(jnp.maximum(-gaps, 0.0))


def sum_by_rank(worth: Worth, pairs: Pairs, positive_step: Step, negative_step: Step) -> Array:
    """The weighted sum over an anchor's positives of worth(their rank), [b].

    A positive that degrees put on both sides never stands before itself.
    """

    def value(
        positive: Array, others: Array, weights: Array, negatives: Array, negative_weights: Array,
        count: Array,
    ) -> Array:  # fmt: skip
        before = 1.0 + (weights * positive_step(positive - others)).sum()
        return worth(before, (negative_weights * negative_step(positive - negatives)).sum(), count)

    return sum_of_positives(value, pairs)


def mean_by_rank(worth: Worth, pairs: Pairs, positive_step: Step, negative_step: Step) -> Array:
    """The mean over an anchor's positives of worth(their rank), [b]; 0 without any."""
    summed = sum_by_rank(worth, pairs, positive_step, negative_step)
    return safe_divide(summed, pairs.positive_weights.sum(axis=-1))
