"""One change after another, and the keys of pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Array: TypeAlias = jax.Array
Augment: TypeAlias = Callable[[Array, Array], Array]


def keys(seed: int | Array, step: int | Array, items: Any) -> Array:
    """A random key for each picture of a step, whatever its place in the batch.

    Args:
      seed: of the run.
      step: number of the step.
      items: int [B], what tells the pictures apart: rows of the data set, or places in the batch
        where a row may come twice.

    Returns:
      Keys [B].

    Example:
      >>> both, one = keys(0, 5, jnp.array([8, 3])), keys(0, 5, jnp.array([3]))
      >>> bool(both[1] == one[0])
      True
    """
    of_step = jax.random.fold_in(jax.random.key(seed), step)
    return each(lambda item: jax.random.fold_in(of_step, item), jnp.asarray(items))


class Chain:
    """Changes one after another, each with random numbers of its own.

    Args:
      *steps: each `f(keys [B], images) -> images`. Two equal chains are equal, and hash so.

    Example:
      >>> from jdml.augment import Flip, Greyscale
      >>> chain = Chain(Flip(), Greyscale(probability=1.0))
      >>> images = jnp.arange(12.0).reshape(1, 2, 2, 3) / 12.0
      >>> changed = chain(keys(0, 0, [0]), images)
      >>> changed.shape, chain == Chain(Flip(), Greyscale(probability=1.0))
      ((1, 2, 2, 3), True)
    """

    def __init__(self, *steps: Augment) -> None:
        for step in steps:
            if not callable(step):
                raise TypeError(f"steps: got {step!r}, expected f(keys, images) -> images")
        self.steps = steps

    def __call__(self, keys: Array, images: Array) -> Array:
        """The changed images [B, H, W, C], float32."""
        images = as_floats(images)
        for place, step in enumerate(self.steps):
            images = step(each(lambda key, n=place: jax.random.fold_in(key, n), keys), images)
        return images

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and self.steps == other.steps

    def __hash__(self) -> int:
        return hash(self.steps)

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.steps))})"


def each(function: Callable[..., Any], *rows: Array) -> Any:
    """`function` of each row."""
    return jax.vmap(function)(*rows)


def uniform(keys: Array, count: int, low: float = 0.0, high: float = 1.0) -> Array:
    """[count, B] even random numbers, `count` of each key."""
    draw = lambda key: jax.random.uniform(key, (count,), minval=low, maxval=high)
    return each(draw, keys).T


def by_row(values: Array) -> Array:
    """[B] as [B, 1, 1, 1], to stand beside images."""
    return values.reshape(-1, 1, 1, 1)


def as_floats(images: Array) -> Array:
    """Images [B, H, W, C] as floats from 0 to 1: integers to 255, or floats that are so already."""
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            f"images: got {images.dtype}{list(images.shape)}, expected [B, H, W, C], integers to "
            "255 or floats from 0 to 1"
        )
    if jnp.issubdtype(images.dtype, jnp.integer):
        return images.astype(jnp.float32) / 255.0
    return images.astype(jnp.float32)


def check_share(name: str, value: float) -> None:
    """A number from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}, expected 0 to 1")


def check_range(name: str, value: Any, least: float, most: float) -> None:
    """Two ascending numbers between bounds."""
    try:
        low, high = value
        fine = least <= low <= high <= most
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise ValueError(f"{name}: got {value}, expected (low, high) from {least} to {most}")
