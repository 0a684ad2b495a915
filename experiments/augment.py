"""Small random warps of images, inside the jitted train step: a pure function of the keys."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Warp(NamedTuple):
    """The widest warp; each image draws its own, evenly, up to these on either side.

    Attributes:
      turn: rotation, radians.
      shear: of columns along rows, tangent of the angle.
      stretch: of each side alone, logarithm of the factor.
      shift: of each axis, share of the image's side.
    """

    turn: float = 0.12
    shear: float = 0.15
    stretch: float = 0.12
    shift: float = 0.06


def warper(warp: Warp) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The augmentation `f(keys [B], images [B, H, W, C]) -> float32 images` of a train step.

    Pixels from beyond the border repeat the border.

    Example:
      >>> images = jnp.arange(16.0).reshape(1, 4, 4, 1)
      >>> still = warper(Warp(turn=0.0, shear=0.0, stretch=0.0, shift=0.0))
      >>> bool(jnp.allclose(still(jax.random.split(jax.random.key(0), 1), images), images))
      True
    """
    return functools.partial(_warped, warp)


def _warped(warp: Warp, keys: jax.Array, images: jax.Array) -> jax.Array:
    if jnp.issubdtype(images.dtype, jnp.integer):
        images = images.astype(jnp.float32) / 255.0
    height, width = images.shape[1:3]
    matrices, shifts = jax.vmap(functools.partial(_draw, warp, height, width))(keys)
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    places = jnp.stack(jnp.mgrid[:height, :width], axis=-1).reshape(-1, 2).astype(jnp.float32)
    sources = jnp.einsum("nk,bjk->bnj", places - middle[None], matrices)
    return _interpolate(images, sources + (shifts + middle[None])[:, None])


def _draw(warp: Warp, height: int, width: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The matrix [2, 2] and shift [2] from places of the new image to places of the old one."""
    turn, shear, tall, wide, down, right = jax.random.uniform(key, (6,), minval=-1.0, maxval=1.0)
    cos, sin = jnp.cos(warp.turn * turn), jnp.sin(warp.turn * turn)
    tall, wide = jnp.exp(warp.stretch * tall), jnp.exp(warp.stretch * wide)
    rows = [jnp.stack([cos * tall, -sin]), jnp.stack([sin + warp.shear * shear, cos * wide])]
    return jnp.stack(rows), warp.shift * jnp.stack([height * down, width * right])


def _interpolate(images: jax.Array, places: jax.Array) -> jax.Array:
    """Bilinear values of images [B, H, W, C] at places [B, H * W, 2]."""
    height, width = images.shape[1:3]
    flat = images.reshape(len(images), height * width, -1)
    edge = jnp.array([height - 1, width - 1], jnp.float32)[None, None]
    places = jnp.clip(places, 0.0, edge)
    low = jnp.minimum(jnp.floor(places), edge - 1)
    share = (places - low)[..., None]
    first = low.astype(jnp.int32) @ jnp.array([width, 1], jnp.int32)

    def at(step: int) -> jax.Array:
        return jnp.take_along_axis(flat, (first + step)[..., None], 1, mode="promise_in_bounds")

    def across(step: int) -> jax.Array:
        return at(step) * (1 - share[:, :, 1]) + at(step + 1) * share[:, :, 1]

    values = across(0) * (1 - share[:, :, 0]) + across(width) * share[:, :, 0]
    return values.reshape(images.shape)


def scaled(strength: float) -> Warp:
    """The default warp, stronger or weaker.

    Example:
      >>> scaled(0.5).turn
      0.06
    """
    return Warp(*(strength * widest for widest in Warp()))
