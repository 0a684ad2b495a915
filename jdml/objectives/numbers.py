"""Numbers that papers schedule, or derive from the training set."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jdml._core.options import Array, Number


def class_size_margins(
    counts: Sequence[int] | np.ndarray,
    *,
    largest: float = 0.5,
    smallest: float = 0.25,
    power: float = 0.25,
) -> np.ndarray:
    """A margin for each class that shrinks with its number of training rows.

    a n^(-power) + b, with a and b such that the rarest class gets `largest` and the most frequent
    `smallest`. Rare classes are given more room. Use it as `margin=margins[labels]`.

    Args:
      counts: rows of each class, [C], each at least 1.
      largest: margin of the rarest class, in the unit of the loss.
      smallest: margin of the most frequent class.
      power: of the count, 0.25 in the paper's best setting.

    Returns:
      float32 [C].

    Raises:
      ValueError: a class without rows, named by its index.

    Example:
      >>> print(class_size_margins([1, 16], largest=0.5, smallest=0.25))
      [0.5  0.25]

    Reference:
      Ha, Liu, Liu, Xu: Google Landmark Recognition 2020 Competition Third Place Solution, 2020.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not len(counts) or counts.min() < 1:
        empty = np.flatnonzero(counts < 1)
        where = f"class {empty[0]} has {counts[empty[0]]}" if len(empty) else f"{counts.shape}"
        raise ValueError(f"counts: got {where}, expected [C] with 1 row or more a class")
    falling = counts.astype(np.float64) ** -power
    span = falling.max() - falling.min()
    share = np.ones_like(falling) if span == 0 else (falling - falling.min()) / span
    return (smallest + (largest - smallest) * share).astype(np.float32)


def sphereface_annealing(
    step: Number, *, start: float = 1500.0, rate: float = 0.1, floor: float = 5.0
) -> Array:
    """The annealing of `losses.sphereface` at a step: max(floor, start / (1 + rate * step)).

    Args:
      step: of training, from 0.
      start, rate, floor: as in the authors' configuration.

    Returns:
      A float32 scalar.

    Example:
      >>> print(sphereface_annealing(0), sphereface_annealing(10_000))
      1500.0 5.0

    Reference:
      Liu, Wen, Yu, Li, Raj, Song: SphereFace, CVPR 2017.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.maximum(floor, start / (1.0 + rate * step))
