"""Miners that look at all pairs of the whole batch, over all blocks and devices, first."""

from __future__ import annotations

import dataclasses
import fractions
import math
from typing import Any

import jax.numpy as jnp

from jdml._core.options import Array, Pairs
from jdml._core.selection import (
    Count,
    check_key,
    check_number,
    columns_of,
    draw,
    keep,
    kth_largest,
    tally,
    with_key,
)

# Distances this near to each other, in units of rounding, are ties: the two ends of one pair, or
# one pair measured in another block, round differently.
_TIE = 64.0
_PARTS = 10_000  # a fraction is a ratio of whole numbers up to this, so that ranks are exact


@dataclasses.dataclass(frozen=True)
class HardFraction:
    """The hardest fraction of all positive pairs, and of all negative pairs, of the whole batch.

    Hard-aware mining: the farthest positives and the nearest negatives, wherever in the batch
    they are, so that anchors with nothing hard drop out, where `BatchHard` keeps one triplet of
    each. The paper trains three depths of one network on fractions 1, 0.5 and 0.2 of the pairs.

    Of n pairs the `ceil(fraction * n)` hardest are kept, and all that tie with the last of them;
    in a batch compared with itself every pair is there from both ends, so that ties are the rule.
    The limit is found exactly and is the same for all blocks and devices.

    Args:
      fraction: above 0, at most 1. It is read as a ratio of whole numbers up to 10,000.

    Raises:
      ValueError: fraction is out of its range.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [1.0], [3.0], [7.0]])
      >>> loss = losses.contrastive(rows, jnp.array([0, 0, 0, 1]), negative_margin=5.0,
      ...                           miner=HardFraction(0.3), reduction="none")
      >>> print(loss)  # of positives 1, 2, 3 the farthest; of negatives 7, 6, 4 the nearest
      [3. 0. 4. 1.]

    Reference:
      Yuan, Yang, Zhang: Hard-Aware Deeply Cascaded Embedding, ICCV 2017.
    """

    fraction: float

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction)
        if not 0 < self.fraction <= 1 or self._ratio() == 0:
            raise ValueError(
                f"fraction: got {self.fraction!r}, expected a number above 0, at most 1"
            )

    def _ratio(self) -> fractions.Fraction:
        return fractions.Fraction(self.fraction).limit_denominator(_PARTS)

    def survey(self, count: Count) -> Array:
        """How hard the last pair that is kept is, [2]: a positive's distance, minus a negative's.

        Args:
          count: count(fn) is the sum of fn(pairs) over all blocks and devices.
        """
        above, below = self._ratio().as_integer_ratio()

        def rank(sizes: Array) -> Array:
            whole = lambda x: jnp.asarray(x, sizes.dtype)
            times, rest = sizes // whole(below), sizes % whole(below)  # no product overflows
            return whole(above) * times + (whole(above) * rest + whole(below - 1)) // whole(below)

        last = kth_largest(count, _hardness, rank)
        slack = _TIE * jnp.finfo(last.dtype).eps * jnp.abs(last)
        return jnp.where(jnp.isinf(last), last, last - slack)

    def __call__(self, pairs: Pairs) -> Pairs:
        hardest = [
            hardness >= limit for (hardness, _), limit in zip(_hardness(pairs), _found(pairs))
        ]
        return pairs._replace(
            positive_weights=keep(pairs.positive_weights, hardest[0]),
            negative_weights=keep(pairs.negative_weights, hardest[1]),
        )


def _hardness(pairs: Pairs) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    return (
        (pairs.positives, pairs.positive_weights != 0),
        (-pairs.negatives, pairs.negative_weights != 0),
    )


def _found(pairs: Pairs) -> Any:
    if pairs.bounds is None:
        raise ValueError("pairs: got no survey of the batch; pass the miner to a loss")
    return pairs.bounds


@with_key
@dataclasses.dataclass(frozen=True)
class UniformHistogram:
    """As many pairs at one distance as at another, as far as there are any.

    Most negatives of a batch lie at about one distance, far out, and say little. Here the
    distances of the batch are counted in bins, positives and negatives apart, and a bin with more
    than `pairs_per_bin` is thinned to that many. Without a key that is an expectation: each of
    its n pairs weighs `pairs_per_bin / n`. With a key each is kept with that probability, so that
    a bin holds `pairs_per_bin` pairs on average.

    Args:
      bins: how many of equal width.
      pairs_per_bin: of each side; need not be whole.
      low: where the first bin starts, in the unit of the distance. Nearer pairs are counted in it.
      high: where the last bin ends; farther pairs are counted in it. 0 and 2 hold the Euclidean
        distances of unit rows, and the cosine distances of any.
      key: a random key of jax, a new one for every step; None for the expectation. New keys do
        not compile again.

    Raises:
      ValueError: a number is out of its range.
      TypeError: key is none.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [3.0], [3.5], [3.25]])
      >>> miner = UniformHistogram(bins=4, pairs_per_bin=2, low=0.0, high=4.0)
      >>> loss = losses.contrastive(rows, jnp.array([0, 1, 2, 3]), negative_margin=4.0,
      ...                           miner=miner, reduction="sum")
      >>> print(f"{loss:.5f}")  # six negatives within 1, six from 3 on: (22 + 4.5) / 3
      8.83333

    Note:
      pytorch-metric-learning's miner of this name spreads its bins between the smallest and the
      largest distance of the batch, and draws exactly as many pairs as it is told to.
    """

    bins: int
    pairs_per_bin: float
    low: float
    high: float
    key: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.bins, int) or self.bins < 1:
            raise ValueError(f"bins: got {self.bins!r}, expected a whole number >= 1")
        if not 0 < self.pairs_per_bin < math.inf:
            raise ValueError(f"pairs_per_bin: got {self.pairs_per_bin!r}, expected a number > 0")
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"low, high: got {self.low!r}, {self.high!r}, expected low < high")
        check_key(self.key)

    def survey(self, count: Count) -> Array:
        """How many pairs there are in each bin, [2, bins]: positives, negatives.

        Args:
          count: count(fn) is the sum of fn(pairs) over all blocks and devices.
        """

        def in_block(pairs: Pairs) -> Array:
            sides = (
                (pairs.positives, pairs.positive_weights),
                (pairs.negatives, pairs.negative_weights),
            )
            return jnp.stack([self._histogram(*side) for side in sides])

        return count(in_block)

    def __call__(self, pairs: Pairs) -> Pairs:
        sizes = _found(pairs)
        sides = (
            (pairs.positives, pairs.positive_weights, pairs.positive_columns),
            (pairs.negatives, pairs.negative_weights, pairs.negative_columns),
        )
        thinned = [self._thin(pairs, n, *side) for n, side in zip(sizes, sides)]
        return pairs._replace(positive_weights=thinned[0], negative_weights=thinned[1])

    def _bin(self, distances: Array) -> Array:
        place = (distances - self.low) * (self.bins / (self.high - self.low))
        return jnp.clip(jnp.floor(place), 0, self.bins - 1).astype(jnp.int32)

    def _histogram(self, distances: Array, weights: Array) -> Array:
        return tally(self._bin(distances), weights != 0, self.bins)

    def _thin(
        self, pairs: Pairs, sizes: Array, distances: Array, weights: Array, columns: Array | None
    ) -> Array:
        crowd = jnp.maximum(sizes, 1).astype(distances.dtype)
        share = jnp.minimum(self.pairs_per_bin / crowd, 1.0)[self._bin(distances)]
        if self.key is None:
            return weights * share
        drawn = draw(self.key, pairs, columns_of(distances, columns), distances.dtype)
        return keep(weights, drawn < share)
