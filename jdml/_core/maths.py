"""Row arithmetic that keeps its digits and its gradients at the edges."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jdml._core.checks import describe
from jdml._core.options import Array, Distance, Number

_PRECISION = lax.Precision.HIGHEST


def unit(rows: Array, order: float = 2.0) -> Array:
    """Rows divided by their norm; a row of zeros stays zero and gets no gradient.

    Args:
      rows: [B, D].
      order: of the norm; 2 is Euclidean.

    Returns:
      [B, D], each row of norm 1 (or 0).
    """
    # Dividing by the largest entry first keeps the squares of any representable row in range.
    # The quotient does not depend on it, so it carries no gradient.
    largest = lax.stop_gradient(jnp.abs(rows).max(axis=-1, keepdims=True))
    empty = largest == 0
    scaled = jnp.where(empty, 1.0, rows / jnp.where(empty, 1.0, largest))
    if order == 2:
        norm = jnp.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))
    else:
        norm = power_norm(scaled, order)[..., None]
    return jnp.where(empty, 0.0, scaled / norm)


def inner_products(x: Array, y: Array) -> Array:
    """x @ y.T at the highest precision: [B, D] x [R, D] -> [B, R].

    With one array on both sides the gradient takes one product, not two.
    """
    return _gram(x) if x is y else _inner_products(x, y)


@jax.custom_jvp
def _gram(x: Array) -> Array:
    return _inner_products(x, x)


@_gram.defjvp
def _gram_jvp(primals: Any, tangents: Any) -> Any:
    (x,), (dx,) = primals, tangents
    half = _inner_products(dx, x)
    return _gram(x), half + half.T


@jax.custom_jvp
def _inner_products(x: Array, y: Array) -> Array:
    return lax.dot_general(x, y, (((x.ndim - 1,), (y.ndim - 1,)), ((), ())), precision=_PRECISION)


@functools.partial(_inner_products.defjvp, symbolic_zeros=True)
def _inner_products_jvp(primals: Any, tangents: Any) -> Any:
    """Written so that reverse mode holds plain products only.

    The gradient by y is a product that sums over the first axes of both operands, which XLA's CPU
    compiler takes at half speed. With the smaller of them transposed beforehand it is a plain one.
    """
    (x, y), (dx, dy) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(_inner_products(dx, y))
    if not isinstance(dy, SymbolicZero):
        # The barriers keep the compiler from putting the transposes back into the product.
        turned, theirs = lax.optimization_barrier(x.T), lax.optimization_barrier(dy.T)
        dimensions = (((0,), (0,)), ((), ()))
        parts.append(lax.dot_general(turned, theirs, dimensions, precision=_PRECISION))
    out = _inner_products(x, y)
    return out, sum(parts[1:], start=parts[0]) if parts else jnp.zeros_like(out)


def safe_sqrt(x: Array) -> Array:
    """The square root of max(x, 0), with gradient 0 where x <= 0."""
    positive = x > 0
    return jnp.where(x <= 0, 0.0, jnp.sqrt(jnp.where(positive | (x != x), x, 1.0)))


def power_norm(x: Array, p: float) -> Array:
    """(sum |x|^p)^(1/p) over the last axis, with gradient 0 where a difference is 0."""
    size = x * jnp.sign(x)  # |x|; jnp.abs has derivative 1 at 0
    if math.isinf(p):
        return size.max(axis=-1)
    if p == 1:
        return size.sum(axis=-1)
    zero = size == 0
    powers = jnp.where(zero, 0.0, jnp.where(zero, 1.0, size) ** p).sum(axis=-1)
    empty = powers == 0
    return jnp.where(empty, 0.0, jnp.where(empty, 1.0, powers) ** (1.0 / p))


def prepare(distance: Distance, rows: Array) -> Array:
    """What `distance` does to one set of rows alone."""
    return getattr(distance, "prepare", lambda rows: rows)(rows)


def measure(distance: Distance, x: Array, y: Array, needed: Array | None = None) -> Array:
    """`distance` between prepared rows, [B, R]."""
    prepared = getattr(distance, "prepared", None)
    found = distance(x, y) if prepared is None else prepared(x, y, needed)
    expected = (x.shape[0], y.shape[0])
    if getattr(found, "shape", None) != expected:  # another may broadcast, to a wrong loss
        raise ValueError(
            f"distance: got {describe(found)}, expected {list(expected)}, one for each pair of rows"
        )
    return found


@jax.custom_jvp
def cosine_of_angle(cosine: Array, multiplier: Number, offset: Number) -> Array:
    """cos(multiplier * theta + offset) from cos(theta), with a derivative that stays finite.

    The derivative by cos(theta) is `multiplier sin(multiplier theta + offset) / sin(theta)`. The
    part without offset has a limit where sin(theta) vanishes, which is used; the part with it has
    none, and sin(theta) is held above the square root of the machine's epsilon.
    """
    angle = multiplier * angle_of(cosine) + offset
    return jnp.cos(angle)


@cosine_of_angle.defjvp
def _cosine_of_angle_jvp(primals, tangents):
    cosine, multiplier, offset = primals
    theta = angle_of(cosine)
    turned = multiplier * theta
    sine = safe_sqrt(1.0 - cosine * cosine)
    floor = math.sqrt(jnp.finfo(cosine.dtype).eps)
    held = jnp.maximum(sine, floor)
    ratio = jnp.where(
        sine < floor, multiplier * jnp.cos(turned) * jnp.sign(cosine), jnp.sin(turned) / held
    )
    slope = multiplier * (ratio * jnp.cos(offset) + jnp.cos(turned) * jnp.sin(offset) / held)
    falling = -jnp.sin(turned + offset)
    d_cosine, d_multiplier, d_offset = tangents
    tangent = slope * d_cosine + falling * (theta * d_multiplier + d_offset)
    return jnp.cos(turned + offset), tangent


def angle_of(cosine: Array) -> Array:
    """theta in [0, pi] from a cosine that rounding may have put just outside [-1, 1]."""
    return jnp.arctan2(safe_sqrt(1.0 - cosine * cosine), cosine)


def monotone_cosine(cosine: Array, multiplier: Number, offset: Number) -> Array:
    """cos(t), t = multiplier * theta + offset, continued so that it falls for every t.

    psi(t) = (-1)^k cos(t) - 2k with k = floor(t / pi): the continuation of SphereFace.
    """
    turns = lax.stop_gradient(jnp.floor((multiplier * angle_of(cosine) + offset) / math.pi))
    sign = 1.0 - 2.0 * jnp.mod(turns, 2.0)
    return sign * cosine_of_angle(cosine, multiplier, offset) - 2.0 * turns


def arc_target(cosine: Array, margin: Number) -> Array:
    """cos(theta + margin), and cos(theta) - margin sin(margin) where that would rise again."""
    turned = cosine_of_angle(cosine, jnp.ones((), cosine.dtype), margin)
    return jnp.where(cosine > -jnp.cos(margin), turned, cosine - margin * jnp.sin(margin))
