"""(value, weight) terms -> scalar. The only place that divides, or sums a loss over devices.

A formula returns terms, one entry a tuple. Each anchor keeps `num = sum(value * weight)` and
`den = sum(weight)`; only sums of these leave a block or a device, so that dense, blocked and
sharded evaluation share what is written here.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jdml._core.devices import vary
from jdml._core.options import Array, AxisName, Reduction

Term = tuple[Array, Array]


def safe_divide(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, and exactly 0 with a zero gradient where nothing was counted."""
    empty = denominator == 0  # not `> 0`: a NaN has to show
    return jnp.where(empty, 0.0, numerator / jnp.where(empty, 1.0, denominator))


def counted(value: Array, weight: Array, reduction: Reduction) -> Array:
    """The weights of the entries that the reduction counts."""
    return jnp.where(value <= 0, 0.0, weight) if reduction == "mean_active" else weight


def weigh(value: Array, weight: Array, reduction: Reduction) -> Term:
    """Sums the entries of one term over everything but the anchors: (num [b], den [b])."""
    weight = counted(value, weight, reduction)
    axes = tuple(range(1, value.ndim))
    num = jnp.where(weight == 0, 0.0, value * weight).sum(axes)
    return num, lax.stop_gradient(weight).sum(axes)


def total(x: Array, axis_name: AxisName | None) -> Array:
    """The sum of x over the devices of a mapped axis; x itself without one."""
    return x if axis_name is None else lax.psum(x, axis_name)


def combine(terms: Sequence[Term], reduction: Reduction, axis_name: AxisName | None) -> Array:
    """Reduces per-anchor terms: a scalar, or the per-anchor sums [b] for "none"."""
    if reduction == "none":
        return sum((num for num, _ in terms[1:]), start=terms[0][0])
    sums = [(total(num.sum(), axis_name), total(den.sum(), axis_name)) for num, den in terms]
    if reduction == "sum":
        return sum((num for num, _ in sums[1:]), start=sums[0][0])
    parts = [safe_divide(num, lax.stop_gradient(den)) for num, den in sums]
    return sum(parts[1:], start=parts[0])


def whole(value: Array, exists: Array, reduction: Reduction, axis_name: AxisName | None) -> Array:
    """Reduces a value of the whole batch [] that no row owns: "none" gives all equal shares.

    Args:
      value: the same on all devices.
      exists: [B] the rows that are there, on this device.
      reduction: the shared keyword.
      axis_name: the shared keyword.
    """
    if axis_name is not None:
        # All devices hold the same number; the mean says so where a traced argument hides it.
        axes = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
        value = lax.pmean(vary(value, axes), axis_name)
    if reduction != "none":
        return value
    there = exists.astype(value.dtype)
    return value * safe_divide(there, total(there.sum(), axis_name))


def log_sum_exp(values: Array, weights: Array) -> Array:
    """log sum_n weights_n exp(values_n) over the last axis; -inf where no weight counts.

    Entries without weight are masked inside the exponent, so that they reach neither the value
    nor the gradient, whatever they hold.
    """
    there = weights != 0
    masked = jnp.where(there, values, -jnp.inf)
    top = lax.stop_gradient(masked.max(axis=-1, keepdims=True))
    top = jnp.where(top == -jnp.inf, 0.0, top)
    sums = (weights * jnp.exp(masked - top)).sum(axis=-1)
    empty = sums == 0
    return jnp.where(empty, -jnp.inf, top[..., 0] + jnp.log(jnp.where(empty, 1.0, sums)))


def any_weight(weights: Array) -> Array:
    """1 where some entry of the last axis counts, 0 elsewhere."""
    return (weights != 0).any(axis=-1).astype(weights.dtype)


def log_add(a: Array, b: Array) -> Array:
    """log(exp(a) + exp(b)); -inf with a zero gradient where both are."""
    both = jnp.stack(jnp.broadcast_arrays(a, b), axis=-1)
    return log_sum_exp(both, jnp.ones_like(both))
