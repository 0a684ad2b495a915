"""Changes of a neighbourhood: blur, and squares cut out."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from jdml.augment.chain import Array, as_floats, by_row, check_range, check_share, uniform


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Blurs, by an amount that differs from picture to picture.

    Pixels beyond the border repeat the border; the bell is cut off at three times the largest
    sigma.

    Attributes:
      sigma: standard deviation in pixels, from and to, 0 or more; (0.1, 2) suits 224 pixels.
      probability: that a picture is blurred, 0 to 1.

    Example:
      >>> from jdml.augment import keys
      >>> dot = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1.0)
      >>> blurred = GaussianBlur(sigma=(0.5, 0.5), probability=1.0)(keys(0, 0, [0]), dot)
      >>> print(f"{float(blurred[0, 2, 2, 0]):.2f} of {float(blurred.sum()):.2f}")
      0.62 of 1.00
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_range("sigma", self.sigma, 0.0, 1e3)
        check_share("probability", self.probability)

    def __call__(self, keys: Array, images: Array) -> Array:
        """The images [B, H, W, C], float32, some of them blurred."""
        images = as_floats(images)
        luck, draw = uniform(keys, 2)
        low, high = self.sigma
        radius = max(math.ceil(3 * high), 1)
        sigma = jnp.maximum(low + (high - low) * draw, 1e-6)[:, None]
        away = np.arange(-radius, radius + 1, dtype=np.float32)[None]
        weights = jnp.exp(-0.5 * jnp.square(away / sigma))
        weights = weights / weights.sum(axis=1, keepdims=True)
        blurred = _along(_along(images, weights, 1), weights, 2)
        return jnp.where(by_row(luck < self.probability), jnp.clip(blurred, 0.0, 1.0), images)


def _along(images: Array, weights: Array, axis: int) -> Array:
    """Sums of neighbours along an axis, weights [B, 2 * radius + 1]."""
    size, radius = images.shape[axis], weights.shape[1] // 2
    edges = [(radius, radius) if place == axis else (0, 0) for place in range(4)]
    wide = jnp.pad(images, edges, mode="edge")
    total = jnp.zeros_like(images)
    for place in range(weights.shape[1]):
        part = wide[:, place : place + size] if axis == 1 else wide[:, :, place : place + size]
        total = total + by_row(weights[:, place]) * part
    return total


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Covers a square at a random place, so that no one part decides alone.

    The middle of the square lies anywhere in the picture, evenly: it may hang over the border.

    Attributes:
      side: of the square, as a share of the shorter side of the picture, 0 to 1.
      fill: what it is filled with, 0 (black) to 1.
      probability: that a picture is covered, 0 to 1.

    Example:
      >>> from jdml.augment import keys
      >>> covered = Cutout(side=1.0, fill=0.0)(keys(0, 0, [0]), jnp.ones((1, 4, 4, 1)))
      >>> bool(0 < covered.sum() < 16)
      True

    Reference:
      DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """

    side: float = 0.3
    fill: float = 0.5
    probability: float = 1.0

    def __post_init__(self) -> None:
        for name in ("side", "fill", "probability"):
            check_share(name, getattr(self, name))

    def __call__(self, keys: Array, images: Array) -> Array:
        """The images [B, H, W, C], float32, with a square covered."""
        images = as_floats(images)
        height, width = images.shape[1:3]
        luck, down, across = uniform(keys, 3)
        half = self.side * min(height, width) / 2

        def within(middle: Array, size: int) -> Array:
            pixels = jnp.arange(size, dtype=jnp.float32) + 0.5
            return jnp.abs(pixels[None, :] - size * middle[:, None]) < half

        square = within(down, height)[:, :, None] & within(across, width)[:, None, :]
        square = square & (luck < self.probability)[:, None, None]
        return jnp.where(square[..., None], self.fill, images)
