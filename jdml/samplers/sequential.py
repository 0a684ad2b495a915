"""All rows in order."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdml.samplers import batches


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
        batches.check_least(self, size=1, batch_size=1)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.size // self.batch_size)

    def __call__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows [B], where bool [B]) of batch i; the last is filled up with row 0, masked."""
        batches.check_integer("i", i)
        if not 0 <= i < len(self):
            raise ValueError(f"i: got {i}, expected 0 to {len(self) - 1}")
        rows = np.arange(i * self.batch_size, (i + 1) * self.batch_size)
        where = rows < self.size
        return np.where(where, rows, 0), where
