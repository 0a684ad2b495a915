"""No two rows of one key in a batch."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jdml.samplers import batches
from jdml.samplers.batches import Batches


@dataclasses.dataclass(frozen=True, eq=False)
class NoDuplicates(Batches):
    """Batches of rows that share no key.

    Where the other rows of a batch are negatives (pairs of query and document, of picture and
    text), two rows of one query or of one document push a right answer away. Here they never meet.

    A round has each row once, in `len(sampler)` batches: as many as the rows fill, or as the most
    frequent key has rows. What a batch lacks to B is filled up with rows of the round again, which
    share no key with it either. With several columns of keys a few rows may find no place; they
    wait for another round.

    Attributes:
      keys: [N], or [N, L] for L keys a row, integers or strings: rows with an equal key in any
        column never meet. Rows with a negative integer are never taken.
      batch_size: B, at least 2 and at most the number of different keys.
      seed: of all randomness, 0 or more.

    Raises:
      ValueError: fewer keys than a batch has rows, or (from a batch, with several columns) no
        rows left that share none.
      TypeError: keys that are neither integers nor strings, or numbers that are not integers.

    Example:
      >>> queries = np.array([0, 0, 1, 1, 2, 3])
      >>> sampler = NoDuplicates(queries, batch_size=3)
      >>> len(sampler), [len(set(queries[sampler(i)])) for i in range(2)]
      (2, [3, 3])
    """

    keys: Any
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        keys = np.asarray(self.keys)
        if keys.ndim not in (1, 2) or keys.dtype.kind not in "iuU":
            raise TypeError(
                f"keys: got {keys.dtype}{list(keys.shape)}, expected integers or strings, [N] or "
                "[N, L]"
            )
        object.__setattr__(self, "keys", keys)
        batches.check_least(self, batch_size=2, seed=0)
        fewest = min((len(np.unique(column)) for column in self._columns.T), default=0)
        if self.batch_size > fewest:
            raise ValueError(
                f"batch_size: got {self.batch_size}, expected {fewest} or less, the number of "
                "different keys"
            )

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        """The rows that may be taken."""
        if self.keys.dtype.kind == "U":
            return np.arange(len(self.keys))
        return np.flatnonzero((self.keys.reshape(len(self.keys), -1) >= 0).all(axis=1))

    @functools.cached_property
    def _columns(self) -> np.ndarray:
        """[n, L] a number for each key of the rows that may be taken, no two columns share one."""
        columns = self.keys.reshape(len(self.keys), -1)[self._rows].T
        numbers, first = [], 0
        for column in columns:
            number = np.unique(column, return_inverse=True)[1] + first
            numbers.append(number)
            first = int(number.max(initial=first)) + 1
        return np.stack(numbers, axis=1)

    @functools.cached_property
    def _often(self) -> np.ndarray:
        """[n] how often the most frequent key of each row comes."""
        return np.bincount(self._columns.ravel())[self._columns].max(axis=1)

    @functools.cached_property
    def _length(self) -> int:
        size = len(self._columns)
        length = max(-(-size // self.batch_size), int(self._often.max()))
        while sum(map(len, self._dealt(0, length))) < size:  # only with several columns
            length += 1 + length // 50
        return length

    def __len__(self) -> int:
        """Batches of a round, in which every row comes up."""
        return self._length

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i.

        Args:
          i: from 0, without end.

        Returns:
          int64 [B].
        """
        batches.check_number(i)
        turn, place = divmod(i, len(self))
        chosen = list(self._round(turn)[place])
        columns = self._columns
        taken = set(columns[chosen].ravel().tolist())
        if len(chosen) < self.batch_size:
            for row in np.random.default_rng([self.seed, 4, i]).permutation(len(columns)):
                keys = columns[row].tolist()
                if taken.isdisjoint(keys):
                    chosen.append(row)
                    taken.update(keys)
                    if len(chosen) == self.batch_size:
                        break
            else:
                raise ValueError(
                    f"batch_size: got {self.batch_size}, expected less: no more than "
                    f"{len(chosen)} rows that share no key were found"
                )
        return self._rows[chosen]

    def _plan(self, number: int) -> list[list[int]]:
        dealt = self._dealt(number, len(self))
        order = np.random.default_rng([self.seed, 5, number]).permutation(len(dealt))
        return [dealt[place] for place in order]

    def _dealt(self, number: int, length: int) -> list[list[int]]:
        """The rows dealt to batches in turn, those of frequent keys first, side by side.

        So the rows of one key fall to one batch after another, and all batches fill evenly. A row
        whose other keys are there already goes to the next batch that has room and none of them.
        """
        columns = self._columns
        rng = np.random.default_rng([self.seed, 3, number])
        luck = rng.permutation(int(columns.max()) + 1)
        order = rng.permutation(len(columns))
        busiest = np.bincount(columns.ravel())[columns].argmax(axis=1)
        key = np.take_along_axis(columns, busiest[:, None], axis=1)[:, 0]
        order = order[np.lexsort((luck[key[order]], -self._often[order]))]
        dealt: list[list[int]] = [[] for _ in range(length)]
        taken: list[set[int]] = [set() for _ in range(length)]
        batch = 0
        for row, keys in zip(order.tolist(), columns[order].tolist()):
            for place in range(batch, batch + length):
                place %= length
                if len(dealt[place]) < self.batch_size and taken[place].isdisjoint(keys):
                    dealt[place].append(row)
                    taken[place].update(keys)
                    batch = place + 1
                    break
        return dealt
