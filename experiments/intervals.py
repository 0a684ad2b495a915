"""Means over a few runs and how far they may be off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean and how far it may be off.

    Attributes:
      mean: over seeds.
      half: half the width of its 95 % interval, None for a single seed.
      values: one a seed.
    """

    mean: float
    half: float | None
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.half is None else f"{self.mean:.3f} ± {self.half:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """The mean of a few runs with its 95 % interval, by Student's t.

    Args:
      values: one a seed.

    Returns:
      An `Interval`: mean, and t of n - 1 degrees of freedom times the standard error.

    Example:
      >>> print(interval([0.50, 0.52, 0.54]))  # 4.303 * 0.02 / sqrt(3)
      0.520 ± 0.050
    """
    from scipy import stats

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, None, tuple(values))
    error = float(np.std(values, ddof=1)) / count**0.5
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return Interval(mean, half, tuple(values))


def told(found: Interval) -> dict[str, Any]:
    """An interval as a file holds it, to five digits."""
    half = None if found.half is None else round(found.half, 5)
    values = [round(value, 5) for value in found.values]
    return {"mean": round(found.mean, 5), "half_of_95_percent": half, "by_seed": values}
