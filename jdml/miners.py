"""Miners: which pairs and triplets of a batch a loss looks at.

A miner is a function from `Pairs` to `Pairs`, passed as `miner=` to a pair loss. It sees the
loss's own distances, so there is no second matrix and no mismatch, and it works in blocks, over
memories and across devices. It multiplies weights, or gathers to a smaller static width; lists
whose length depends on the data do not exist. A weight of 0 means that a pair is not there.

Miners are frozen dataclasses, equal by value, so that equal miners share a compilation. Margins
are in the unit of the loss's distance, where smaller is closer.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jdml._core.options import Array, Miner, Pairs, take_negatives, take_positives

_STRATEGIES = ("hard", "semihard", "easy", "all")
_KINDS = ("all", "hard", "semihard", "easy")


def _farthest(distances: Array, there: Array) -> Array:
    """Column of the largest distance that is there, [b, 1]; the first among equals."""
    return jnp.argmax(jnp.where(there, distances, -jnp.inf), axis=-1, keepdims=True)


def _nearest(distances: Array, there: Array) -> Array:
    """Column of the smallest distance that is there, [..., 1]; the first among equals."""
    return jnp.argmin(jnp.where(there, distances, jnp.inf), axis=-1, keepdims=True)


def _largest(distances: Array, there: Array) -> Array:
    return jnp.where(there, distances, -jnp.inf).max(axis=-1, keepdims=True)


def _smallest(distances: Array, there: Array) -> Array:
    return jnp.where(there, distances, jnp.inf).min(axis=-1, keepdims=True)


def _keep(weights: Array, condition: Array) -> Array:
    return jnp.where(condition, weights, 0.0)


def _both(pairs: Pairs) -> Pairs:
    """One positive and one negative [b, 1], or neither: an anchor without one has no triplet."""
    positive, negative = pairs.positive_weights, pairs.negative_weights
    return pairs._replace(
        positive_weights=_keep(positive, negative != 0),
        negative_weights=_keep(negative, positive != 0),
    )


def _by_anchor(pairs: Pairs, miner: str) -> None:
    """Refuses negatives that an earlier miner of a chain has chosen for each positive."""
    if pairs.negatives.ndim == 3:
        raise ValueError(
            f"miner: got {miner} after one that picks negatives for each positive, expected it "
            "before"
        )


def _by_positive(pairs: Pairs) -> Pairs:
    """The negatives as each positive sees them, [b, P, N]; gone where the positive is not there."""
    if pairs.negatives.ndim == 3:
        return pairs
    b, width = pairs.positives.shape
    shape = (b, width, pairs.negatives.shape[-1])
    spread = lambda x: jnp.broadcast_to(x[:, None, :], shape)
    return pairs._replace(
        negatives=spread(pairs.negatives),
        negative_weights=_keep(
            spread(pairs.negative_weights), pairs.positive_weights[:, :, None] != 0
        ),
        negative_columns=spread(
            jnp.broadcast_to(jnp.arange(shape[-1])[None, :], (b, shape[-1]))
            if pairs.negative_columns is None
            else pairs.negative_columns
        ),
    )


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
        _by_anchor(pairs, "BatchHard")
        far = _farthest(pairs.positives, pairs.positive_weights != 0)
        near = _nearest(pairs.negatives, pairs.negative_weights != 0)
        return _both(take_negatives(take_positives(pairs, far), near))


@dataclasses.dataclass(frozen=True)
class SemiHard:
    """Of each positive pair, the nearest negative that is farther than the positive.

    FaceNet's choice: a negative outside the pair, but as near to it as can be. A positive without
    such a negative, or none within `margin`, has no triplet.

    Args:
      margin: the negative must be nearer than the positive by less than this; `inf` takes the
        nearest farther negative however far it is.

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
    cube: ClassVar[bool] = True  # makes arrays [b, P, N]: the engine then keeps blocks small

    def __call__(self, pairs: Pairs) -> Pairs:
        pairs = _by_positive(pairs)
        gap = pairs.negatives - pairs.positives[:, :, None]
        there = (pairs.negative_weights != 0) & (gap > 0) & (gap < self.margin)
        near = _nearest(pairs.negatives, there)
        weights = _keep(pairs.negative_weights, there)
        return take_negatives(pairs._replace(negative_weights=weights), near)


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

    def __call__(self, pairs: Pairs) -> Pairs:
        _by_anchor(pairs, "BatchEasyHard")
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
        return pairs if "all" in (self.positives, self.negatives) else _both(pairs)

    def _choose_positive(self, pairs: Pairs) -> Pairs:
        distances, there = pairs.positives, pairs.positive_weights != 0
        if self.positives == "all":
            return pairs
        if self.positives == "easy":
            return take_positives(pairs, _nearest(distances, there))
        if self.positives == "semihard":
            there &= distances < jnp.where(pairs.negative_weights != 0, pairs.negatives, -jnp.inf)
        kept = pairs._replace(positive_weights=_keep(pairs.positive_weights, there))
        return take_positives(kept, _farthest(distances, there))

    def _choose_negative(self, pairs: Pairs) -> Pairs:
        distances, there = pairs.negatives, pairs.negative_weights != 0
        if self.negatives == "all":
            return pairs
        if self.negatives == "easy":
            return take_negatives(pairs, _farthest(distances, there))
        if self.negatives == "semihard":
            there &= distances > jnp.where(pairs.positive_weights != 0, pairs.positives, jnp.inf)
        kept = pairs._replace(negative_weights=_keep(pairs.negative_weights, there))
        return take_negatives(kept, _nearest(distances, there))


def _in_range(distances: Array, weights: Array, bounds: tuple[float, float] | None) -> Array:
    if bounds is None:
        return weights
    return _keep(weights, (distances >= bounds[0]) & (distances <= bounds[1]))


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

    def __call__(self, pairs: Pairs) -> Pairs:
        pairs = _by_positive(pairs)
        gap = pairs.negatives - pairs.positives[:, :, None]
        chosen = {
            "all": gap <= self.margin,
            "hard": gap <= 0,
            "semihard": (gap > 0) & (gap <= self.margin),
            "easy": gap > self.margin,
        }[self.kind]
        return pairs._replace(negative_weights=_keep(pairs.negative_weights, chosen))


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

    def __call__(self, pairs: Pairs) -> Pairs:
        _by_anchor(pairs, "MultiSimilarity")
        positive, negative = pairs.positive_weights != 0, pairs.negative_weights != 0
        far = _largest(pairs.positives, positive)  # -inf without a positive: no negative is kept
        near = _smallest(pairs.negatives, negative)
        return pairs._replace(
            positive_weights=_keep(pairs.positive_weights, pairs.positives > near - self.epsilon),
            negative_weights=_keep(pairs.negative_weights, pairs.negatives < far + self.epsilon),
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

    def __call__(self, pairs: Pairs) -> Pairs:
        far = pairs.positives > self.positive_margin
        near = pairs.negatives < self.negative_margin
        return pairs._replace(
            positive_weights=_keep(pairs.positive_weights, far),
            negative_weights=_keep(pairs.negative_weights, near),
        )


@dataclasses.dataclass(frozen=True, init=False)
class Chain:
    """Miners one after the other, each on what the one before has left.

    Args:
      *miners: in the order in which they are applied.

    Example:
      >>> Chain(PairMargin(), BatchHard()) == Chain(PairMargin(), BatchHard())
      True
    """

    miners: tuple[Miner, ...]

    def __init__(self, *miners: Miner) -> None:
        for miner in miners:
            if not callable(miner):
                raise TypeError(f"miners: got {miner!r}, expected functions from Pairs to Pairs")
        object.__setattr__(self, "miners", miners)

    @property
    def cube(self) -> bool:
        """Whether any of the miners makes arrays [b, P, N]."""
        return any(getattr(miner, "cube", False) for miner in self.miners)

    def __call__(self, pairs: Pairs) -> Pairs:
        for miner in self.miners:
            pairs = miner(pairs)
        return pairs
