"""What samplers have in common: checks, rows by class, shares of several processes."""

from __future__ import annotations

import operator
import warnings
from typing import Any, Literal

import numpy as np

SmallClasses = Literal["repeat", "drop"]


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


class Batches:
    """Batches by number, of one size."""

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i."""
        raise NotImplementedError

    def share(self, i: int, process_index: int, process_count: int) -> np.ndarray:
        """The rows of batch i that one of several processes loads: disjoint, together the batch.

        Args:
          i: the batch.
          process_index: from 0.
          process_count: processes, a divisor of the batch size.

        Returns:
          int64 [B / process_count], a run of the batch, in its order.

        Raises:
          ValueError: the batch does not divide by the processes.
        """
        return share(self(i), process_index, process_count)

    def _round(self, number: int) -> Any:
        """The plan of a round, of which the latest is kept: a pure function of the number."""
        kept = self.__dict__.get("_kept")  # read once: another thread may replace it
        if kept is None or kept[0] != number:
            kept = (number, self._plan(number))
            object.__setattr__(self, "_kept", kept)
        return kept[1]

    def _plan(self, number: int) -> Any:
        raise NotImplementedError


def check_number(i: int) -> None:
    """A batch's number, from 0."""
    check_integer("i", i)
    if i < 0:
        raise ValueError(f"i: got {i}, expected 0 or more")


def check_least(sampler: Any, **least: int) -> None:
    """Attributes that are integers and have a least value."""
    for name, value in least.items():
        check_integer(name, getattr(sampler, name))
        if getattr(sampler, name) < value:
            raise ValueError(f"{name}: got {getattr(sampler, name)}, expected {value} or more")


def check_integer(name: str, value: Any) -> None:
    """An integer of any kind."""
    try:
        operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {value!r}, expected an integer") from None


def integers(name: str, labels: Any) -> np.ndarray:
    """Labels [N], checked."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TypeError(
            f"{name}: got {labels.dtype}{list(labels.shape)}, expected integers, one a row"
        )
    return labels


def rows_by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The rows of each class, by ascending label; negative labels are left out."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [group for group in groups if len(group)]


def check_classes(
    sampler: Any, every: list[np.ndarray], kept: list[np.ndarray], stacklevel: int
) -> None:
    """Enough classes for a batch of P x K; one warning where rows will repeat within it.

    Args:
      sampler: with classes_per_batch, per_class and small_classes.
      every: rows of all classes.
      kept: rows of those that the sampler draws from.
      stacklevel: of the warning, so that it points at the caller of the sampler.
    """
    small = sum(len(rows) < sampler.per_class for rows in every)
    dropped = sampler.small_classes == "drop"
    if len(kept) < 2:
        left = f" after dropping {small} with fewer than {sampler.per_class} rows" * dropped
        raise ValueError(f"labels: got {len(kept)} classes{left}, expected 2 or more")
    if sampler.classes_per_batch > len(kept):
        raise ValueError(
            f"classes_per_batch: got {sampler.classes_per_batch}, expected {len(kept)} or less, "
            "the number of classes"
        )
    if small and not dropped:
        warnings.warn(
            f"{small} of {len(every)} classes have fewer than per_class = {sampler.per_class} "
            "rows: their rows repeat within a batch",
            stacklevel=stacklevel,
        )


def check_small_classes(value: str) -> None:
    """One of the two ways with small classes."""
    if value not in ("repeat", "drop"):
        raise ValueError(f"small_classes: got {value!r}, expected 'repeat' or 'drop'")


def large_enough(every: list[np.ndarray], per_class: int, small: SmallClasses) -> list[np.ndarray]:
    """The classes that are drawn from."""
    return [rows for rows in every if len(rows) >= (per_class if small == "drop" else 1)]


def visit(rows: np.ndarray, count: int, turn: int, seed: int, c: int) -> np.ndarray:
    """`count` rows of class c in a round, different ones as long as there are any.

    A lap is a random order of all rows, cut into runs of `count`, one a round. What is left over
    is passed over, and the next lap has another order: no row comes twice in a lap, and all come
    up in each only where `count` divides their number. Of fewer than `count` all come in every
    round, some of them repeated. A class that is visited again in a round has the same rows.

    Args:
      rows: [n] of the class.
      count: rows wanted.
      turn: the round, from 0.
      seed: of the sampler.
      c: the class, which has an order of its own.

    Returns:
      [count].

    Example:
      >>> rows = [visit(np.arange(5), 2, turn, seed=0, c=0) for turn in range(4)]
      >>> [len(set(np.concatenate(lap))) for lap in (rows[:2], rows[2:])]
      [4, 4]
    """
    lap, place = divmod(turn, max(len(rows) // count, 1))
    order = np.random.default_rng([seed, 1, c, lap]).permutation(rows)
    return np.resize(order[place * count :], count)
