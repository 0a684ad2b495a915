"""Classes and rows that come as often as their weights say."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from typing import Any

import numpy as np

from jdml.samplers import batches
from jdml.samplers.batches import Batches, SmallClasses


def class_weights(labels: Any, power: float = 0.5) -> np.ndarray:
    """A weight for each row, so that a class of n rows comes as often as n to a power says.

    Args:
      labels: [N] integer classes; rows with a negative label get 0.
      power: 1 leaves classes as frequent as they are, 0.5 takes the square root of that, 0 makes
        all equal.

    Returns:
      float64 [N], of sum 1; the rows of a class share evenly.

    Example:
      >>> print(class_weights(np.array([0, 1, 1, 1, 1]), power=0.0))
      [0.5   0.125 0.125 0.125 0.125]
    """
    labels = batches.integers("labels", labels)
    _check_power(power)
    weights = np.zeros(len(labels))
    for rows in batches.rows_by_class(labels):
        weights[rows] = len(rows) ** (power - 1.0)
    if not weights.any():
        raise ValueError("labels: got no class, expected a label of 0 or more")
    return weights / weights.sum()


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted(Batches):
    """Different rows, each in a batch with a probability in proportion to its weight.

    Batches are drawn one without regard to another. The probability is exact, B times the weight's
    share of all, and at most 1: a row that would exceed it is in every batch, and the others share
    what is left. With `class_weights` rare classes come up more often than their rows.

    Attributes:
      weights: [N] numbers of 0 or more; a row of weight 0 is never taken.
      batch_size: B, at most the number of rows with a weight.
      seed: of all randomness, 0 or more.

    Raises:
      ValueError: a negative or infinite weight, fewer rows than a batch has, or a negative seed.
      TypeError: numbers that are not integers.

    Example:
      >>> sampler = Weighted(np.array([1.0, 0.0, 2.0, 3.0]), batch_size=2)
      >>> sum(3 in sampler(i) for i in range(100)), sum(1 in sampler(i) for i in range(100))
      (100, 0)
    """

    weights: Any
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _checked("weights", self.weights))
        batches.check_least(self, batch_size=1, seed=0)
        rows = int(np.count_nonzero(self.weights))
        if self.batch_size > rows:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected {rows} or less, the number of rows "
                "with a weight"
            )

    @functools.cached_property
    def _chances(self) -> np.ndarray:
        return chances(self.weights, self.batch_size)

    def __len__(self) -> int:
        """As many batches as have the rows with a weight once, were all weights equal."""
        return -(-int(np.count_nonzero(self.weights)) // self.batch_size)

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i.

        Args:
          i: from 0, without end.

        Returns:
          int64 [B], no row twice.
        """
        batches.check_number(i)
        return draw(np.random.default_rng([self.seed, 6, i]), self._chances)


@dataclasses.dataclass(frozen=True, eq=False)
class WeightedClasses(Batches):
    """P classes, drawn by weight, with K rows each.

    As `ClassBalanced`, but a class is in a batch with a probability in proportion to its weight
    (exactly, and at most 1), and batches are drawn one without regard to another: with few batches
    some classes may not come up. Rows of a class are drawn evenly, K different ones; a class of
    fewer than K rows repeats some.

    Attributes:
      labels: [N] integer classes; rows with a negative label are never taken.
      classes_per_batch: P, at least 2 and at most the number of classes.
      per_class: K, at least 1.
      power: a class of n rows has weight n to this power: 1 is its frequency, 0.5 the square root
        of it, 0 makes all classes equal.
      weights: [C] the weight of each label from 0 to C - 1, in the place of `power`.
      seed: of all randomness, 0 or more.
      small_classes: "repeat" rows of classes with fewer than K, with one warning, or "drop" these
        classes.

    Raises:
      ValueError: too few classes, weights that do not fit the labels, an infinite power, or a
        number below its least.
      TypeError: labels or numbers that are not integers.

    Example:
      >>> labels = np.array([0] * 8 + [1] * 2 + [2] * 2)
      >>> sampler = WeightedClasses(labels, classes_per_batch=2, per_class=2, weights=[2, 1, 1])
      >>> sum(0 in labels[sampler(i)] for i in range(100))
      100
    """

    labels: Any
    classes_per_batch: int
    per_class: int
    power: float = 0.5
    weights: Any = None
    seed: int = 0
    small_classes: SmallClasses = "repeat"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", batches.integers("labels", self.labels))
        batches.check_least(self, classes_per_batch=2, per_class=1, seed=0)
        batches.check_small_classes(self.small_classes)
        _check_power(self.power)
        if self.weights is not None:
            weights = _checked("weights", self.weights)
            most = int(self.labels.max(initial=-1))
            if len(weights) <= most:
                raise ValueError(
                    f"weights: got {len(weights)}, expected {most + 1} or more, one a label"
                )
            object.__setattr__(self, "weights", weights)
        batches.check_classes(self, self._weighted(), self._rows_by_class, stacklevel=4)

    def _weighted(self) -> list[np.ndarray]:
        """The rows of each class that has a weight."""
        every = batches.rows_by_class(self.labels)
        if self.weights is None:
            return every
        return [rows for rows in every if self.weights[self.labels[rows[0]]] > 0]

    @functools.cached_property
    def _rows_by_class(self) -> list[np.ndarray]:
        return batches.large_enough(self._weighted(), self.per_class, self.small_classes)

    @functools.cached_property
    def _chances(self) -> np.ndarray:
        if self.weights is None:
            weights = np.array([len(rows) ** float(self.power) for rows in self._rows_by_class])
        else:
            weights = self.weights[[self.labels[rows[0]] for rows in self._rows_by_class]]
        return chances(weights, self.classes_per_batch)

    @property
    def batch_size(self) -> int:
        """P x K."""
        return self.classes_per_batch * self.per_class

    def __len__(self) -> int:
        """As many batches as have each class once, were all weights equal."""
        return -(-len(self._rows_by_class) // self.classes_per_batch)

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i.

        Args:
          i: from 0, without end.

        Returns:
          int64 [P * K], the K rows of a class side by side.
        """
        batches.check_number(i)
        rng = np.random.default_rng([self.seed, 7, i])
        chosen = [self._rows_by_class[c] for c in draw(rng, self._chances)]
        return np.concatenate([np.resize(rng.permutation(rows), self.per_class) for rows in chosen])


def chances(weights: np.ndarray, count: int) -> np.ndarray:
    """The probability of each item to be among `count` different ones: in proportion, at most 1."""
    chance = np.zeros(len(weights))
    sure = np.zeros(len(weights), bool)
    while True:
        rest = weights * ~sure
        # The largest to about 1, so that no sum passes what a float holds; a power of two rounds
        # nothing, and batches are those of the weights as given.
        rest = np.ldexp(rest, -np.frexp(rest.max())[1])
        left = count - int(sure.sum())
        chance = np.where(sure, 1.0, rest * (left / rest.sum()) if left and rest.any() else 0.0)
        over = ~sure & (chance >= 1.0 - 1e-9)
        if not over.any():
            return chance
        sure |= over


def draw(rng: np.random.Generator, chance: np.ndarray) -> np.ndarray:
    """Different items, each with exactly its probability; these add up to a whole number.

    The items lie in a random order along a line, each as long as its probability, and a comb with
    teeth 1 apart falls on it.
    """
    sure = np.flatnonzero(chance >= 1.0)
    order = rng.permutation(np.flatnonzero((chance > 0) & (chance < 1.0)))
    count = round(chance.sum()) - len(sure)
    ends = np.cumsum(chance[order])
    teeth = rng.random() + np.arange(count)
    hit = np.searchsorted(ends, np.minimum(teeth, ends[-1]), "left") if count else []
    return rng.permutation(np.concatenate([sure, order[hit]]).astype(np.int64))


def _check_power(power: Any) -> None:
    if not isinstance(power, numbers.Real) or not math.isfinite(power):
        raise ValueError(f"power: got {power!r}, expected a finite number")


def _checked(name: str, weights: Any) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if weights.ndim != 1 or wrong.any() or not weights.any():
        got = weights[wrong][0] if wrong.any() else f"{list(weights.shape)} of sum {weights.sum()}"
        raise ValueError(f"{name}: got {got}, expected numbers of 0 or more, [N]")
    return weights
