"""Miners that draw negatives, or weigh them by the probability of being drawn."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import lax

from jdml._core.options import Array, Pairs
from jdml._core.reduce import safe_divide
from jdml._core.selection import (
    check_key,
    columns_of,
    draw,
    keep,
    negatives_by_anchor,
    negatives_by_positive,
    one_negative,
    with_key,
)


@with_key
@dataclasses.dataclass(frozen=True)
class DistanceWeighted:
    """Negatives of each positive pair, drawn evenly over distances.

    Random points of a sphere in many dimensions are nearly all about sqrt(2) apart, so evenly
    drawn negatives are easy ones, and the nearest are noisy. Here a negative at distance d has a
    probability in inverse proportion to how common that distance is,

        log q(d) = (dim - 2) log d + (dim - 3) / 2 log(1 - d^2 / 4)

    with d at least `cutoff`, so that the nearest do not take all. Made for `losses.margin`; it
    serves triplets as well. A positive pair whose anchor has no negative within `nonzero_cutoff`
    has none.

    With a key each positive pair has one negative, drawn anew, as in the paper. Without, it has
    all of them, weighed by their probability: the expectation of a mean over draws, at the cost
    of an array [b, P, N].

    Args:
      dim: of the embeddings, 2 or more.
      cutoff: nearer negatives count as being at this distance; 0.5 in the paper.
      nonzero_cutoff: negatives from here on are left out, since no loss comes of them; 1.4 in
        the paper. At most 2, the diameter of the sphere.
      key: a random key of jax, a new one for every step; None for the expectation. New keys do
        not compile again.

    Raises:
      ValueError: a number is out of its range.
      TypeError: key is none.

    Example:
      >>> from jdml import distances, losses
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
      >>> options = {"distance": distances.normalized(distances.euclidean), "reduction": "sum"}
      >>> miner = DistanceWeighted(dim=3, cutoff=0.2, nonzero_cutoff=1.5)
      >>> loss = losses.triplet(rows, jnp.array([0, 0, 1, 2]), margin=2.0, miner=miner, **options)
      >>> print(f"{loss:.5f}")  # negatives at sqrt(2) and sqrt(0.4), weighed by 1 / d
      2.25194

    Note:
      It takes the loss's distances to be Euclidean ones of unit rows:
      `distances.normalized(distances.euclidean)`. A draw depends on the key, the anchor's place
      in the batch of all devices and the positive, not on blocks or devices.

    Reference:
      Wu, Manmatha, Smola, Krahenbuhl: Sampling Matters in Deep Embedding Learning, ICCV 2017.
    """

    dim: int
    cutoff: float = 0.5
    nonzero_cutoff: float = 1.4
    key: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or self.dim < 2:
            raise ValueError(f"dim: got {self.dim!r}, expected a whole number >= 2")
        if not 0 < self.cutoff < self.nonzero_cutoff <= 2:
            raise ValueError(
                f"cutoff, nonzero_cutoff: got {self.cutoff!r}, {self.nonzero_cutoff!r}, "
                "expected 0 < cutoff < nonzero_cutoff <= 2"
            )
        check_key(self.key)

    @property
    def cube(self) -> bool:
        """Whether it makes arrays [b, P, N]: only the expectation does."""
        return self.key is None

    def __call__(self, pairs: Pairs) -> Pairs:
        negatives_by_anchor(pairs, "DistanceWeighted")
        odds = self._odds(pairs)
        if self.key is not None:
            return self._draw(pairs, odds)
        shares = safe_divide(odds, odds.sum(axis=-1, keepdims=True))
        spread = negatives_by_positive(pairs)
        return spread._replace(negative_weights=spread.negative_weights * shares[:, None, :])

    def _odds(self, pairs: Pairs) -> Array:
        """[b, N] in proportion to the probabilities of an anchor's negatives; at most 1."""
        distances = lax.stop_gradient(pairs.negatives)
        there = (pairs.negative_weights != 0) & (distances < self.nonzero_cutoff)
        d = jnp.where(there, jnp.maximum(distances, self.cutoff), self.cutoff)
        flat = jnp.log1p(-d / 2.0) + jnp.log1p(d / 2.0)  # log(1 - d^2 / 4)
        rarity = (2.0 - self.dim) * jnp.log(d) - (self.dim - 3.0) / 2.0 * flat
        rarity = jnp.where(there, rarity, -jnp.inf)
        top = rarity.max(axis=-1, keepdims=True)
        return jnp.exp(rarity - jnp.where(top == -jnp.inf, 0.0, top))

    def _draw(self, pairs: Pairs, odds: Array) -> Pairs:
        """One negative for each positive, by where a draw falls among the summed odds."""
        upto = jnp.cumsum(odds, axis=-1)
        whole = upto[:, -1:]
        last = (upto < whole).sum(axis=-1, dtype=jnp.int32)  # the last one that can be drawn
        columns = columns_of(pairs.positives, pairs.positive_columns)

        def choose(at: Array, _: Array) -> Array:
            column = jnp.take_along_axis(columns, at[:, None], axis=-1)
            drawn = draw(self.key, pairs, column, odds.dtype) * whole
            return jnp.minimum((upto <= drawn).sum(axis=-1, dtype=jnp.int32), last)

        there = keep(pairs.negative_weights, odds != 0)
        return one_negative(pairs._replace(negative_weights=there), choose)
