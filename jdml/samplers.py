"""Which rows make a batch. Batch i is a pure function of the seed and i, so a run resumes anywhere.

Samplers run on the host and return row numbers; what they number is up to the caller.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any, Literal

import numpy as np

SmallClasses = Literal["repeat", "drop"]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassBalanced:
    """P classes with K rows each: the batch that pair losses want.

    Classes come in rounds: every class once in a random order, then all again in another, so that
    none is ever missed. Each visit takes the next K rows of its class, which come in rounds of
    their own. A batch holds exactly P different classes and K rows of each; a class of fewer than
    K rows repeats some.

    Attributes:
      labels: [N] integer classes; rows with a negative label are never taken.
      classes_per_batch: P, at least 2 and at most the number of classes.
      per_class: K, at least 1. Pair losses find no positive with 1.
      seed: of all randomness.
      small_classes: "repeat" rows of classes with fewer than K, with one warning, or "drop" these
        classes.

    Raises:
      ValueError: fewer than two classes, or more a batch than there are.
      TypeError: labels that are not integers.

    Example:
      >>> sampler = ClassBalanced(np.array([0, 0, 1, 1, 2, 2]), classes_per_batch=2, per_class=2)
      >>> rows = sampler(7)
      >>> len(rows), len(set(rows // 2))
      (4, 2)
    """

    labels: Any
    classes_per_batch: int
    per_class: int
    seed: int = 0
    small_classes: SmallClasses = "repeat"

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise TypeError(
                f"labels: got {labels.dtype}{list(labels.shape)}, expected integers, one a row"
            )
        for name, least in (("classes_per_batch", 2), ("per_class", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected {least} or more")
        if self.small_classes not in ("repeat", "drop"):
            raise ValueError(
                f"small_classes: got {self.small_classes!r}, expected 'repeat' or 'drop'"
            )
        object.__setattr__(self, "labels", labels)
        self._check()

    def _check(self) -> None:
        classes, small = len(self._rows_by_class), self._small
        dropped = self.small_classes == "drop"
        if classes < 2:
            left = f" after dropping {small} with fewer than {self.per_class} rows" * dropped
            raise ValueError(f"labels: got {classes} classes{left}, expected 2 or more")
        if self.classes_per_batch > classes:
            raise ValueError(
                f"classes_per_batch: got {self.classes_per_batch}, expected {classes} or less, "
                "the number of classes"
            )
        if small and not dropped:
            warnings.warn(
                f"{small} of {classes} classes have fewer than per_class = {self.per_class} rows: "
                "their rows repeat within a batch",
                stacklevel=4,
            )

    @functools.cached_property
    def _all_classes(self) -> list[np.ndarray]:
        order = np.argsort(self.labels, kind="stable")
        order = order[self.labels[order] >= 0]
        groups = np.split(order, np.flatnonzero(np.diff(self.labels[order])) + 1)
        return [group for group in groups if len(group)]

    @functools.cached_property
    def _small(self) -> int:
        """Classes with fewer than K rows."""
        return sum(len(rows) < self.per_class for rows in self._all_classes)

    @functools.cached_property
    def _rows_by_class(self) -> list[np.ndarray]:
        least = self.per_class if self.small_classes == "drop" else 1
        return [rows for rows in self._all_classes if len(rows) >= least]

    @property
    def batch_size(self) -> int:
        """P x K."""
        return self.classes_per_batch * self.per_class

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i.

        Args:
          i: from 0, without end.

        Returns:
          int64 [P * K], the K rows of a class side by side.
        """
        if i < 0:
            raise ValueError(f"i: got {i}, expected 0 or more")
        classes, size = len(self._rows_by_class), self.classes_per_batch
        turn, place = divmod(i, -(-classes // size))
        order = np.random.default_rng([self.seed, 0, turn]).permutation(classes)
        # The last batch of a round is filled up with classes that the round has had already, so
        # that no batch straddles two orders and holds a class twice.
        chosen = order[place * size : (place + 1) * size]
        chosen = np.concatenate([chosen, order[: size - len(chosen)]])
        return np.concatenate([self._rows_of(int(c), turn) for c in chosen])

    def _rows_of(self, c: int, turn: int) -> np.ndarray:
        """K rows of a class on its visit in a round, different ones as long as there are any."""
        rows, count = self._rows_by_class[c], self.per_class
        lap, visit = divmod(turn, max(len(rows) // count, 1))
        order = np.random.default_rng([self.seed, 1, c, lap]).permutation(rows)
        return np.resize(order[visit * count :], count)

    def share(self, i: int, process_index: int, process_count: int) -> np.ndarray:
        """The rows of batch i that one of several processes loads: disjoint, together the batch.

        Args:
          i: the batch.
          process_index: from 0.
          process_count: processes, a divisor of the batch size.

        Returns:
          int64 [P * K / process_count], a run of the batch, in its order.

        Raises:
          ValueError: the batch does not divide by the processes.
        """
        return share(self(i), process_index, process_count)


def share(rows: np.ndarray, process_index: int, process_count: int) -> np.ndarray:
    """One process's part of a batch of rows.

    Args:
      rows: [B].
      process_index: from 0.
      process_count: a divisor of B.

    Returns:
      [B / process_count].

    Raises:
      ValueError: B does not divide, or there is no such process.

    Example:
      >>> share(np.arange(6), 1, 3)
      array([2, 3])
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index: got {process_index}, expected 0 to {process_count - 1}")
    if len(rows) % process_count:
        raise ValueError(
            f"process_count: got {process_count}, expected a divisor of the batch of {len(rows)}"
        )
    size = len(rows) // process_count
    return rows[process_index * size : (process_index + 1) * size]


@dataclasses.dataclass(frozen=True)
class Sequential:
    """All rows once, in order, in batches of one size: for evaluation.

    Attributes:
      size: N, rows in all.
      batch_size: B, rows a batch.

    Example:
      >>> batches = Sequential(size=5, batch_size=3)
      >>> len(batches), batches(1)
      (2, (array([3, 4, 0]), array([ True,  True, False])))
    """

    size: int
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("size", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more")

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.size // self.batch_size)

    def __call__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows [B], where bool [B]) of batch i; the last is filled up with row 0, masked."""
        if not 0 <= i < len(self):
            raise ValueError(f"i: got {i}, expected 0 to {len(self) - 1}")
        rows = np.arange(i * self.batch_size, (i + 1) * self.batch_size)
        where = rows < self.size
        return np.where(where, rows, 0), where
