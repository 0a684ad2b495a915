"""Small random warps: turned, sheared, stretched and shifted."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from jdml.augment.chain import Array, as_floats


@dataclasses.dataclass(frozen=True)
class Warp:
    """Turns, shears, stretches and shifts each picture, by up to these on either side.

    For drawings, type and digits, whose classes differ by strokes that a crop would cut off. All
    four are drawn evenly; pixels from beyond the border repeat the border.

    Attributes:
      turn: rotation, radians.
      shear: of columns along rows, tangent of the angle.
      stretch: of each side alone, logarithm of the factor.
      shift: of each axis, share of the image's side.

    Example:
      >>> from jdml.augment import keys
      >>> images = jnp.arange(16.0).reshape(1, 4, 4, 1) / 16.0
      >>> still = Warp(turn=0.0, shear=0.0, stretch=0.0, shift=0.0)
      >>> bool(jnp.allclose(still(keys(0, 0, [0]), images), images))
      True
    """

    turn: float = 0.12
    shear: float = 0.15
    stretch: float = 0.12
    shift: float = 0.06

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise ValueError(f"{field.name}: got {value}, expected a finite number")

    def __call__(self, keys: Array, images: Array) -> Array:
        """The warped images [B, H, W, C], float32."""
        images = as_floats(images)
        height, width = images.shape[1:3]
        matrices, shifts = jax.vmap(functools.partial(self._draw, height, width))(keys)
        middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
        places = jnp.stack(jnp.mgrid[:height, :width], axis=-1).reshape(-1, 2).astype(jnp.float32)
        sources = jnp.einsum("nk,bjk->bnj", places - middle[None], matrices)
        return _interpolate(images, sources + (shifts + middle[None])[:, None])

    def _draw(self, height: int, width: int, key: Array) -> tuple[Array, Array]:
        """The matrix [2, 2] and shift [2] from places of the new image to places of the old one."""
        draw = jax.random.uniform(key, (6,), minval=-1.0, maxval=1.0)
        turn, shear, tall, wide, down, right = draw
        cos, sin = jnp.cos(self.turn * turn), jnp.sin(self.turn * turn)
        tall, wide = jnp.exp(self.stretch * tall), jnp.exp(self.stretch * wide)
        rows = [jnp.stack([cos * tall, -sin]), jnp.stack([sin + self.shear * shear, cos * wide])]
        return jnp.stack(rows), self.shift * jnp.stack([height * down, width * right])


def _interpolate(images: Array, places: Array) -> Array:
    """Bilinear values of images [B, H, W, C] at places [B, H * W, 2]."""
    height, width = images.shape[1:3]
    flat = images.reshape(len(images), height * width, -1)
    edge = jnp.array([height - 1, width - 1], jnp.float32)[None, None]
    places = jnp.clip(places, 0.0, edge)
    low = jnp.minimum(jnp.floor(places), edge - 1)
    share = (places - low)[..., None]
    first = low.astype(jnp.int32) @ jnp.array([width, 1], jnp.int32)

    def at(step: int) -> Array:
        return jnp.take_along_axis(flat, (first + step)[..., None], 1, mode="promise_in_bounds")

    def across(step: int) -> Array:
        return at(step) * (1 - share[:, :, 1]) + at(step + 1) * share[:, :, 1]

    values = across(0) * (1 - share[:, :, 0]) + across(width) * share[:, :, 0]
    return values.reshape(images.shape)
