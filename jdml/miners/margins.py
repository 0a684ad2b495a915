"""Miners that keep every pair or triplet on one side of a margin or an angle."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from jdml._core.options import Pairs, partner_negatives
from jdml._core.selection import (
    check_number,
    keep,
    largest,
    negatives_by_anchor,
    negatives_by_positive,
    smallest,
)

_KINDS = ("all", "hard", "semihard", "easy")


@dataclasses.dataclass(frozen=True)
class TripletMargin:
    """All triplets of a kind, by how much farther the negative is than the positive.

    With gap = d(a, n) - d(a, p): "all" gap <= margin, "hard" gap <= 0, "semihard"
    0 < gap <= margin, "easy" gap > margin.

    Args:
      margin: in the unit of the distance.
      kind: "all", "hard", "semihard" or "easy".

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [1.0], [1.5]])
      >>> miner = TripletMargin(margin=1.0, kind="semihard")
      >>> loss = losses.triplet(rows, jnp.array([0, 0, 1]), margin=1.0, miner=miner)
      >>> print(f"{loss:.5f}")  # anchor 0 only: 1 - 1.5 + 1
      0.50000

    Reference:
      Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015.
    """

    margin: float = 0.2
    kind: str = "all"
    cube: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind: got {self.kind!r}, expected one of {', '.join(_KINDS)}")
        check_number("margin", self.margin)

    def __call__(self, pairs: Pairs) -> Pairs:
        pairs = negatives_by_positive(pairs)
        gap = pairs.negatives - pairs.positives[:, :, None]
        chosen = {
            "all": gap <= self.margin,
            "hard": gap <= 0,
            "semihard": (gap > 0) & (gap <= self.margin),
            "easy": gap > self.margin,
        }[self.kind]
        return pairs._replace(negative_weights=keep(pairs.negative_weights, chosen))


@dataclasses.dataclass(frozen=True)
class MultiSimilarity:
    """Pairs that are hard next to the hardest pair of the other kind of their anchor.

    Keeps a negative nearer than the farthest positive plus `epsilon`, and a positive farther than
    the nearest negative minus `epsilon`. An anchor without pairs of both kinds has none left.
    Made for the multi-similarity loss; serves every pair loss.

    Args:
      epsilon: slack, in the unit of the distance; 0.1 on cosines in the paper.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [1.0], [1.5], [9.0]])
      >>> miner = MultiSimilarity(epsilon=0.0)
      >>> loss = losses.contrastive(
      ...     rows, jnp.array([0, 0, 1, 2]), negative_margin=1.0, miner=miner, reduction="none")
      >>> print(loss)  # anchor 1: positive at 1, negative at 0.5
      [0.  1.5 0.  0. ]

    Reference:
      Wang, Han, Huang, Dong, Scott: Multi-Similarity Loss, CVPR 2019.
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)

    def __call__(self, pairs: Pairs) -> Pairs:
        negatives_by_anchor(pairs, "MultiSimilarity")
        positive, negative = pairs.positive_weights != 0, pairs.negative_weights != 0
        far = largest(pairs.positives, positive)  # -inf without a positive: no negative is kept
        near = smallest(pairs.negatives, negative)
        return pairs._replace(
            positive_weights=keep(pairs.positive_weights, pairs.positives > near - self.epsilon),
            negative_weights=keep(pairs.negative_weights, pairs.negatives < far + self.epsilon),
        )


@dataclasses.dataclass(frozen=True)
class PairMargin:
    """Positives beyond one distance and negatives within another.

    Args:
      positive_margin: keeps positives farther than this, in the unit of the distance.
      negative_margin: keeps negatives nearer than this.

    Example:
      >>> from jdml import losses
      >>> rows = jnp.array([[0.0], [0.1], [1.0]])
      >>> loss = losses.contrastive(rows, jnp.array([0, 0, 1]), negative_margin=2.0,
      ...                           miner=PairMargin(0.2, 0.95), reduction="sum")
      >>> print(f"{loss:.5f}")  # only the negative pair at 0.9, from both ends
      2.20000
    """

    positive_margin: float = 0.2
    negative_margin: float = 0.8

    def __post_init__(self) -> None:
        check_number("positive_margin", self.positive_margin)
        check_number("negative_margin", self.negative_margin)

    def __call__(self, pairs: Pairs) -> Pairs:
        far = pairs.positives > self.positive_margin
        near = pairs.negatives < self.negative_margin
        return pairs._replace(
            positive_weights=keep(pairs.positive_weights, far),
            negative_weights=keep(pairs.negative_weights, near),
        )


@dataclasses.dataclass(frozen=True)
class Angular:
    """All triplets whose negative sees anchor and positive under a wide angle.

    The negative n, the centre c of anchor and positive, and half their distance make a right
    triangle whose angle at n is small where n is far from the pair. It does not change with the
    scale of a class, as a margin does. Made for `losses.angular`; it serves triplets as well.

        tan(angle at n) = |a - p| / (2 |n - c|)
        4 |n - c|^2 = 2 |a - n|^2 + 2 |p - n|^2 - |a - p|^2

    The second line holds for Euclidean distances (Apollonius), so no centre is ever formed.

    Args:
      angle: keeps triplets whose angle at the negative is wider, in radians between 0 and pi / 2.
      squared: whether the loss's distance is a squared Euclidean one (up to a factor):
        `distances.squared_euclidean`, or `distances.cosine`, which is half that of unit rows. By
        default it is the Euclidean distance itself. Under other distances the triplets mean
        nothing. Nothing is normalised but what the distance normalises.

    Raises:
      ValueError: angle is out of its range.

    Example:
      >>> import math
      >>> from jdml import losses
      >>> rows = jnp.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
      >>> labels = jnp.array([0, 0, 1, 2])  # angles at the negatives: 45 and 18.4 degrees
      >>> for angle in (20, 10):
      ...     miner = Angular(math.radians(angle))
      ...     loss = losses.triplet(rows, labels, margin=3.0, miner=miner, reduction="sum")
      ...     print(f"{loss:.5f}")
      7.17157
      10.84702

    Reference:
      Wang, Zhou, Wen, Liu, Lin: Deep Metric Learning with Angular Loss, ICCV 2017.
    """

    angle: float
    squared: bool = False
    cube: ClassVar[bool] = True
    between: ClassVar[bool] = True  # reads the distances between references

    def __post_init__(self) -> None:
        check_number("angle", self.angle)
        if not 0 < self.angle < math.pi / 2:
            raise ValueError(f"angle: got {self.angle!r}, expected radians between 0 and pi / 2")

    def __call__(self, pairs: Pairs) -> Pairs:
        square = (lambda d: d) if self.squared else jnp.square
        across = square(partner_negatives(pairs))
        pairs = negatives_by_positive(pairs)
        legs = square(pairs.negatives) + across
        # tan^2 > t with the centre put in: the denominators cancel.
        wide = square(pairs.positives)[:, :, None] > 2.0 * math.sin(self.angle) ** 2 * legs
        return pairs._replace(negative_weights=keep(pairs.negative_weights, wide))
