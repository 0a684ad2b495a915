"""Brightness, contrast, saturation and hue."""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from jdml.augment.chain import Array, as_floats, by_row, check_share, uniform

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # what red, green and blue add to brightness


@dataclasses.dataclass(frozen=True)
class ColourJitter:
    """Changes brightness, contrast, saturation and hue, in this order, each by a random amount.

    The first three multiply by an even factor from 1 - s to 1 + s (not below 0): of the picture
    itself, of its difference from its mean grey, and of its difference from its own grey. Grey
    pictures have no saturation and no hue to change.

    Attributes:
      brightness: s of 0 or more, 0.4 is strong.
      contrast: s of 0 or more.
      saturation: s of 0 or more.
      hue: largest turn of the colour circle on either side, radians from 0 to pi; 0.6 is strong.

    Example:
      >>> from jdml.augment import keys
      >>> turned = ColourJitter(0.0, 0.0, 0.0, hue=math.pi)
      >>> turned(keys(0, 0, [0]), jnp.full((1, 1, 1, 3), 0.5)).ravel().tolist()  # grey stays
      [0.5, 0.5, 0.5]

    Note:
      torchvision gives hue in turns (0.1 there is 0.63 here) and draws the order of the four.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.hue <= math.pi:
            raise ValueError(f"hue: got {self.hue}, expected 0 to pi, radians")

    def __call__(self, keys: Array, images: Array) -> Array:
        """The images [B, H, W, C], float32 from 0 to 1, C = 1 or 3."""
        images = as_floats(images)
        draws = uniform(keys, 4, -1.0, 1.0)
        factor = lambda draw, strength: by_row(jnp.maximum(1.0 + strength * draw, 0.0))
        if self.brightness:
            images = blend(images, jnp.zeros_like(images), factor(draws[0], self.brightness))
        if self.contrast:
            mean = grey(images).mean(axis=(1, 2, 3), keepdims=True)
            images = blend(images, mean, factor(draws[1], self.contrast))
        if self.saturation:
            images = blend(images, grey(images), factor(draws[2], self.saturation))
        if self.hue and images.shape[-1] == 3:
            images = turn_hue(images, self.hue * draws[3])
        return images


@dataclasses.dataclass(frozen=True)
class Greyscale:
    """Takes the colour away, so that shape has to tell classes apart.

    Attributes:
      probability: that a picture becomes grey, 0 to 1; it keeps its three channels.

    Example:
      >>> from jdml.augment import keys
      >>> red = jnp.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)
      >>> print(Greyscale(1.0)(keys(0, 0, [0]), red).ravel())
      [0.299 0.299 0.299]
    """

    probability: float = 0.2

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, keys: Array, images: Array) -> Array:
        """The images [B, H, W, C], float32, some of them grey."""
        images = as_floats(images)
        (luck,) = uniform(keys, 1)
        plain = jnp.broadcast_to(grey(images), images.shape)
        return jnp.where(by_row(luck < self.probability), plain, images)


def grey(images: Array) -> Array:
    """[B, H, W, 1] how bright pixels are."""
    if images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3:
        raise ValueError(f"images: got {images.shape[-1]} channels, expected 1 (grey) or 3 (RGB)")
    # A sum of products and no product of matrices, which TPUs would round.
    return (images * _GREY.reshape(1, 1, 1, 3)).sum(axis=-1, keepdims=True)


def blend(images: Array, ground: Array, factor: Array) -> Array:
    """From the ground (factor 0) over the images (1) beyond them, cut off at 0 and 1."""
    return jnp.clip(factor * images + (1.0 - factor) * ground, 0.0, 1.0)


def turn_hue(images: Array, angles: Array) -> Array:
    """Turns the hue of RGB images by angles [B], radians, with saturation and value kept."""
    red, green, blue = (images[..., channel] for channel in range(3))
    value = images.max(axis=-1)
    chroma = value - images.min(axis=-1)
    whole = jnp.where(chroma > 0, chroma, 1.0)
    # Compared with each other and not with the maximum, of which a compiler may keep another
    # rounding than of the channel that it is.
    hue = jnp.where(  # in sixths of a turn
        (red >= green) & (red >= blue),
        (green - blue) / whole,
        jnp.where(green >= blue, 2.0 + (blue - red) / whole, 4.0 + (red - green) / whole),
    )
    hue = hue + angles[:, None, None] * (3.0 / math.pi)

    def channel(first: float) -> Array:
        place = jnp.mod(first + hue, 6.0)
        return value - chroma * jnp.clip(jnp.minimum(place, 4.0 - place), 0.0, 1.0)

    return jnp.clip(jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1), 0.0, 1.0)
