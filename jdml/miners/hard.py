"""Miners that take the hardest, or easiest, of each anchor or each positive pair."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import lax

from jdml._core.options import Array, Pairs, take_negatives, take_positives
from jdml._core.selection import (
    both,
    check_number,
    check_range,
    farthest,
    keep,
    nearest,
    negatives_by_anchor,
    one_negative,
)

_STRATEGIES = ("hard", "semihard", "easy", "all")


@dataclasses.dataclass(frozen=True)
class BatchHard:
    """Of each anchor, the farthest positive and the nearest negative.

    One triplet an anchor, the hardest of the batch. Strong in re-identification with a soft
    margin; with plain hinges and a fresh encoder it may collapse, where `SemiHard` does not.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [1.0], [3.0], [3.5]])
      >>> loss = losses.triplet(rows, jnp.array([0, 0, 0, 1]), margin=1.0, miner=BatchHard())
      >>> print(f"{loss:.5f}")  # anchors 0, 1, 2: 3 - 3.5 + 1, 2 - 2.5 + 1, 3 - 0.5 + 1
      1.50000

    Reference:
      Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """

    def __call__(self, pairs: Pairs) -> Pairs:
        negatives_by_anchor(pairs, "BatchHard")
        far = farthest(pairs.positives, pairs.positive_weights != 0)
        near = nearest(pairs.negatives, pairs.negative_weights != 0)
        return both(take_negatives(take_positives(pairs, far), near))


@dataclasses.dataclass(frozen=True)
class SemiHard:
    """Of each positive pair, the nearest negative that is farther than the positive.

    FaceNet's choice: a negative outside the pair, but as near to it as can be. A positive without
    such a negative, or none within `margin`, has no triplet.

    Args:
      margin: the negative must be nearer than the positive by less than this; `inf` takes the
        nearest farther negative however far it is.

    Raises:
      ValueError: margin is not above 0.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [1.0], [0.5], [1.5], [4.0]])
      >>> loss = losses.triplet(rows[:, :], jnp.array([0, 0, 1, 2, 3]), margin=1.0,
      ...                       miner=SemiHard(), reduction="none")
      >>> print(loss)  # anchor 0: 1 - 1.5 + 1; anchor 1: 1 - 3 + 1 < 0
      [0.5 0.  0.  0.  0. ]

    Reference:
      Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015.
    """

    margin: float = float("inf")

    def __post_init__(self) -> None:
        check_number("margin", self.margin, above=0.0)

    def __call__(self, pairs: Pairs) -> Pairs:
        if pairs.negatives.ndim == 3:
            kept = self._within(pairs)
            return take_negatives(kept, nearest(kept.negatives, kept.negative_weights != 0))
        negatives, exist = lax.stop_gradient(pairs.negatives), pairs.negative_weights != 0

        def choose(_: Array, positive: Array) -> Array:
            return nearest(negatives, exist & (negatives > positive[:, None]))[:, 0]

        return self._within(one_negative(pairs, choose))

    def _within(self, pairs: Pairs) -> Pairs:
        gap = pairs.negatives - pairs.positives[:, :, None]
        weights = keep(pairs.negative_weights, (gap > 0) & (gap < self.margin))
        return pairs._replace(negative_weights=weights)


@dataclasses.dataclass(frozen=True)
class BatchEasyHard:
    """Of each anchor, one positive and one negative by a strategy for each.

    "hard" is the farthest positive or the nearest negative, "easy" the nearest positive or the
    farthest negative, "all" every one of them. "semihard" looks at the other side first: the
    nearest negative farther than the chosen positive, or the farthest positive nearer than the
    chosen negative; an anchor without one has no triplet. Easy positives leave the modes of a
    class apart, where classes are broad.

    Args:
      positives: "hard", "semihard", "easy" or "all".
      negatives: "hard", "semihard", "easy" or "all". Not both semihard, nor semihard with all.
      positive_range: (low, high), distances of the positives to choose from; None for all.
      negative_range: (low, high), the same for negatives.

    Raises:
      ValueError: a strategy is unknown, or a range runs backwards.
      TypeError: a range is no two numbers.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [1.0], [3.0], [3.5]])
      >>> easy = BatchEasyHard(positives="easy")
      >>> loss = losses.triplet(rows, jnp.array([0, 0, 0, 1]), margin=1.0, miner=easy)
      >>> print(f"{loss:.5f}")  # only anchor 2 is active: 2 - 0.5 + 1
      2.50000

    Reference:
      Xuan, Stylianou, Pless: Improved Embeddings with Easy Positive Triplet Mining, WACV 2020.
    """

    positives: str = "hard"
    negatives: str = "hard"
    positive_range: tuple[float, float] | None = None
    negative_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("positives", "negatives"):
            if getattr(self, name) not in _STRATEGIES:
                known = ", ".join(_STRATEGIES)
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {known}")
        chosen = {self.positives, self.negatives}
        if chosen in ({"semihard"}, {"semihard", "all"}):
            raise ValueError(
                f"positives, negatives: got {self.positives!r}, {self.negatives!r}; semihard "
                "needs one chosen row on the other side"
            )
        check_range("positive_range", self.positive_range)
        check_range("negative_range", self.negative_range)

    def __call__(self, pairs: Pairs) -> Pairs:
        negatives_by_anchor(pairs, "BatchEasyHard")
        pairs = pairs._replace(
            positive_weights=_in_range(
                pairs.positives, pairs.positive_weights, self.positive_range
            ),
            negative_weights=_in_range(
                pairs.negatives, pairs.negative_weights, self.negative_range
            ),
        )
        if self.positives == "semihard":
            pairs = self._choose_positive(self._choose_negative(pairs))
        else:
            pairs = self._choose_negative(self._choose_positive(pairs))
        return pairs if "all" in (self.positives, self.negatives) else both(pairs)

    def _choose_positive(self, pairs: Pairs) -> Pairs:
        distances, there = pairs.positives, pairs.positive_weights != 0
        if self.positives == "all":
            return pairs
        if self.positives == "easy":
            return take_positives(pairs, nearest(distances, there))
        if self.positives == "semihard":
            there &= distances < jnp.where(pairs.negative_weights != 0, pairs.negatives, -jnp.inf)
        kept = pairs._replace(positive_weights=keep(pairs.positive_weights, there))
        return take_positives(kept, farthest(distances, there))

    def _choose_negative(self, pairs: Pairs) -> Pairs:
        distances, there = pairs.negatives, pairs.negative_weights != 0
        if self.negatives == "all":
            return pairs
        if self.negatives == "easy":
            return take_negatives(pairs, farthest(distances, there))
        if self.negatives == "semihard":
            there &= distances > jnp.where(pairs.positive_weights != 0, pairs.positives, jnp.inf)
        kept = pairs._replace(negative_weights=keep(pairs.negative_weights, there))
        return take_negatives(kept, nearest(distances, there))


def _in_range(distances: Array, weights: Array, bounds: tuple[float, float] | None) -> Array:
    if bounds is None:
        return weights
    return keep(weights, (distances >= bounds[0]) & (distances <= bounds[1]))
