"""P classes with K rows each."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jdml.samplers import batches
from jdml.samplers.batches import Batches, SmallClasses


@dataclasses.dataclass(frozen=True, eq=False)
class ClassBalanced(Batches):
    """P classes with K rows each: the batch that pair losses want.

    Classes come in rounds: every class in a random order, then all again in another, so that none
    is ever missed. The last batch of a round is filled up with classes that the round began with.
    A batch holds exactly P different classes and K rows of each; a class of fewer than K rows
    repeats some.

    A round takes the next K rows of a class, in a random order of its own. Where fewer than K are
    left of that order they are passed over, and another begins: no row comes twice in an order,
    and all come in each only where K divides their number. A class that fills up a batch brings
    the rows that it has had in the round already.

    Attributes:
      labels: [N] integer classes; rows with a negative label are never taken.
      classes_per_batch: P, at least 2 and at most the number of classes.
      per_class: K, at least 1. Pair losses find no positive with 1.
      seed: of all randomness, 0 or more.
      small_classes: "repeat" rows of classes with fewer than K, with one warning, or "drop" these
        classes.

    Raises:
      ValueError: fewer than two classes, more a batch than there are, or a number below its least.
      TypeError: labels or numbers that are not integers.

    Example:
      >>> sampler = ClassBalanced(np.array([0, 0, 1, 1, 2, 2]), classes_per_batch=2, per_class=2)
      >>> rows = sampler(7)
      >>> len(rows), len(set(rows // 2)), len(sampler)
      (4, 2, 2)
    """

    labels: Any
    classes_per_batch: int
    per_class: int
    seed: int = 0
    small_classes: SmallClasses = "repeat"

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", batches.integers("labels", self.labels))
        batches.check_least(self, classes_per_batch=2, per_class=1, seed=0)
        batches.check_small_classes(self.small_classes)
        every = batches.rows_by_class(self.labels)
        batches.check_classes(self, every, self._rows_by_class, stacklevel=4)

    @functools.cached_property
    def _rows_by_class(self) -> list[np.ndarray]:
        every = batches.rows_by_class(self.labels)
        return batches.large_enough(every, self.per_class, self.small_classes)

    @property
    def batch_size(self) -> int:
        """P x K."""
        return self.classes_per_batch * self.per_class

    def __len__(self) -> int:
        """Batches of a round, in which every class comes up."""
        return -(-len(self._rows_by_class) // self.classes_per_batch)

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i.

        Args:
          i: from 0, without end.

        Returns:
          int64 [P * K], the K rows of a class side by side.
        """
        batches.check_number(i)
        classes, size = len(self._rows_by_class), self.classes_per_batch
        turn, place = divmod(i, len(self))
        order = np.random.default_rng([self.seed, 0, turn]).permutation(classes)
        # The last batch of a round is filled up with classes that the round has had already, so
        # that no batch straddles two orders and holds a class twice.
        chosen = order[place * size : (place + 1) * size]
        chosen = np.concatenate([chosen, order[: size - len(chosen)]])
        return np.concatenate([self._rows_of(int(c), turn) for c in chosen])

    def _rows_of(self, c: int, turn: int) -> np.ndarray:
        return batches.visit(self._rows_by_class[c], self.per_class, turn, self.seed, c)
