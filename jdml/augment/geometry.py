"""Crops and mirror images."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from jdml.augment.chain import Array, as_floats, by_row, check_range, check_share, each, uniform

_TRIES = 10  # boxes drawn before the whole picture is taken


@dataclasses.dataclass(frozen=True)
class Flip:
    """Mirrors left and right.

    Attributes:
      probability: that a picture is mirrored, 0 to 1. Leave it out where left and right tell
        classes apart: type, digits, signs.

    Example:
      >>> from jdml.augment import keys
      >>> Flip(1.0)(keys(0, 0, [0]), jnp.arange(3.0).reshape(1, 1, 3, 1)).ravel().tolist()
      [2.0, 1.0, 0.0]
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, keys: Array, images: Array) -> Array:
        """The images [B, H, W, C], float32, some of them mirrored."""
        images = as_floats(images)
        (luck,) = uniform(keys, 1)
        return jnp.where(by_row(luck < self.probability), images[:, :, ::-1], images)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts out a box of random area, shape and place, and resizes it.

    The standard augmentation of photographs. Resizing is bilinear and averages where it makes
    smaller, as PIL does. Where pictures are decoded for each batch, `boxes` on the host is cheaper
    and loses no detail: this one cuts from what was decoded.

    Attributes:
      size: side of the result in pixels; None keeps height and width.
      scale: share of the area, from and to, above 0. (0.2, 1) is usual for retrieval, (0.08, 1)
        for classification.
      ratio: width by height in pixels, from and to, drawn evenly on a logarithmic scale.

    Example:
      >>> from jdml.augment import keys
      >>> images = jnp.arange(16.0).reshape(1, 4, 4, 1) / 16.0
      >>> RandomResizedCrop(size=2)(keys(0, 0, [0]), images).shape
      (1, 2, 2, 1)

    Reference:
      Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """

    size: int | None = None
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_boxes(self.scale, self.ratio)
        if self.size is not None and self.size < 1:
            raise ValueError(f"size: got {self.size}, expected 1 or more, or None")

    def __call__(self, keys: Array, images: Array) -> Array:
        """The crops [B, size, size, C], float32."""
        images = as_floats(images)
        height, width = images.shape[1:3]
        draws = uniform(keys, 4 * _TRIES).T.reshape(-1, 4, _TRIES)
        shape = jnp.full((len(images), 1), width / height, jnp.float32)
        cuts = _boxes(jnp, draws, shape, self.scale, self.ratio)
        return crop(images, cuts, (self.size or height, self.size or width))


def boxes(
    seed: int,
    step: int,
    items: Any,
    shapes: Any = 1.0,
    *,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Boxes of a random resized crop, drawn on the host: a pure function of seed, step and item.

    For pictures that are decoded for each batch, as `datasets.Split.crop` takes them.

    Args:
      seed: of the run.
      step: number of the step.
      items: int [n], 0 or more, what tells the pictures of the step apart.
      shapes: [n], or one for all: width by height of the pictures.
      scale: as in `RandomResizedCrop`.
      ratio: as in `RandomResizedCrop`.

    Returns:
      float64 [n, 4]: left, top, width and height as fractions of the picture.

    Raises:
      ValueError: items below 0, a range that is none, or shapes that are not above 0.

    Example:
      >>> found = boxes(0, 7, [2, 5], scale=(0.25, 0.25), ratio=(1.0, 1.0))
      >>> found.shape, found[:, 2:].tolist()
      ((2, 4), [[0.5, 0.5], [0.5, 0.5]])
    """
    _check_boxes(scale, ratio)
    items = np.asarray(items)
    if items.ndim != 1 or (items.size and (items.dtype.kind not in "iu" or items.min() < 0)):
        raise ValueError(f"items: got {items!r}, expected integers of 0 or more, [n]")
    draws = [np.random.default_rng([seed, step, item]).random((4, _TRIES)) for item in items]
    shape = np.asarray(shapes, np.float64)
    wrong = ~((shape > 0) & np.isfinite(shape))
    if shape.shape not in ((), (1,), items.shape) or wrong.any():
        got = shape[wrong][0] if wrong.any() else f"{list(shape.shape)} for {len(items)} items"
        raise ValueError(f"shapes: got {got}, expected width by height above 0, [n] or one")
    shape = np.broadcast_to(shape, items.shape)[:, None]
    return _boxes(np, np.reshape(draws, (-1, 4, _TRIES)), shape, scale, ratio)


def _check_boxes(scale: Any, ratio: Any) -> None:
    check_range("scale", scale, 1e-6, 1.0)
    check_range("ratio", ratio, 1e-3, 1e3)


def _boxes(xp: Any, draws: Any, shape: Any, scale: Any, ratio: Any) -> Any:
    """Boxes [n, 4] from even draws [n, 4, tries] and width by height [n, 1]: the first that fits.

    If none does, the largest box in the middle whose ratio is allowed.
    """
    (smallest, largest), (narrow, broad) = scale, ratio
    area = smallest + (largest - smallest) * draws[:, 0]
    across = xp.exp(math.log(narrow) + (math.log(broad) - math.log(narrow)) * draws[:, 1])
    wide, high = xp.sqrt(area * across / shape), xp.sqrt(area * shape / across)
    fits = (wide <= 1) & (high <= 1)
    middle = xp.clip(shape, narrow, broad)
    wide = xp.concatenate([wide, xp.minimum(middle / shape, 1.0)], axis=1)
    high = xp.concatenate([high, xp.minimum(shape / middle, 1.0)], axis=1)
    place = xp.concatenate([draws[:, 2:], xp.full_like(draws[:, 2:, :1], 0.5)], axis=2)
    first = xp.where(fits.any(axis=1), fits.argmax(axis=1), fits.shape[1])[:, None]
    wide, high = (xp.take_along_axis(sides, first, axis=1)[:, 0] for sides in (wide, high))
    left, top = (xp.take_along_axis(place[:, k], first, axis=1)[:, 0] for k in (0, 1))
    return xp.stack([left * (1 - wide), top * (1 - high), wide, high], axis=1)


def crop(images: Array, cuts: Array, size: tuple[int, int]) -> Array:
    """Boxes of images, resized: bilinear, averaging where it makes smaller.

    Args:
      images: float32 [B, H, W, C].
      cuts: [B, 4], left, top, width, height as fractions.
      size: (height, width) of the result.

    Returns:
      float32 [B, height, width, C].
    """
    height, width = images.shape[1:3]
    down = each(lambda cut: _weights(cut[1] * height, cut[3] * height, height, size[0]), cuts)
    across = each(lambda cut: _weights(cut[0] * width, cut[2] * width, width, size[1]), cuts)
    rows = jnp.einsum("bih,bhwc->biwc", down, images, precision=Precision.HIGHEST)
    cropped = jnp.einsum("bjw,biwc->bijc", across, rows, precision=Precision.HIGHEST)
    return jnp.clip(cropped, 0.0, 1.0)  # weights add up to 1 but for rounding


def _weights(start: Array, extent: Array, old: int, new: int) -> Array:
    """[new, old] the share of each old pixel in each new one, along one axis."""
    step = extent / new
    middles = start + (jnp.arange(new, dtype=jnp.float32) + 0.5) * step
    pixels = jnp.arange(old, dtype=jnp.float32) + 0.5
    away = jnp.abs(pixels[None, :] - middles[:, None]) / jnp.maximum(step, 1.0)
    weights = jnp.maximum(1.0 - away, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
