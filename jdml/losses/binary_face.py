"""Face losses that ask one yes-or-no question a class, in the place of one softmax over classes.

All classes share one bias: the border between yes and no is the same for everybody, as a threshold
of verification is. The bias is meant to be learned; where it starts matters, since a row has one
own class and very many others.
"""

from __future__ import annotations

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.compile import loss
from jdml._core.options import Array, Number, TableOptions
from jdml._core.table import Row, over_table


@loss(reduction="mean")
def sphereface2(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    balance: Number = 0.7,
    scale: Number = 40.0,
    margin: Number = 0.4,
    exponent: Number = 3.0,
    bias: Number | None = None,
    **options: Unpack[TableOptions],
) -> Array:
    """Says yes to the own class of a row and no to each of the others, with a margin on both sides.

    No row has to choose between classes, so a wrong label or a second class of the same person
    does less harm than under a softmax, and the sum over classes splits over devices freely. The
    exponent makes the similarity rise steeply near 1, so that yes and no end up far apart.

        balance / scale log(1 + exp(-scale (g(cos(theta_y)) - margin) - bias))
        + (1 - balance) / scale sum_{c != y} log(1 + exp(scale (g(cos(theta_c)) + margin) + bias)),
        g(z) = 2 ((z + 1) / 2)^exponent - 1

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      balance: lambda, weight of the own class against all others, 0 to 1, ends left out.
      scale: r, 30 to 64.
      margin: m, in the unit of the similarity g, 0 to 1.
      exponent: t, 1 or more; 1 leaves the cosine as it is.
      bias: b, one for all classes, to be learned (`objectives.sphereface2`). None for the value
        at which it starts, `sphereface2_bias`; give it where `proxies` is a sample of the classes.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Raises:
      ValueError: a single class and no bias.

    Example:
      >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
      >>> numbers = dict(balance=0.5, scale=1.0, margin=0.0, exponent=1.0, bias=0.0)
      >>> loss = sphereface2(rows, jnp.array([0]), proxies, **numbers)
      >>> print(f"{loss:.5f}")  # (log(1 + exp(-1)) + log 2) / 2
      0.50320

    Note:
      The paper's main form, with the margin on the similarity. The authors' code multiplies the
      loss by a constant, 10 to 50.

    Reference:
      Wen, Liu, Weller, Raj, Singh: SphereFace2, ICLR 2022.
    """
    if bias is None:
        numbers = {"balance": balance, "scale": scale, "margin": margin, "exponent": exponent}
        bias = lax.stop_gradient(sphereface2_bias(_classes(proxies, options), **numbers))

    def formula(row: Row) -> Array:
        yes = scale * (_steepened(row.target, exponent) - margin) + bias
        return (balance * jax.nn.softplus(-yes) + (1.0 - balance) * row.others) / scale

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return jax.nn.softplus(scale * (_steepened(cosines, exponent) + margin) + bias)

    return over_table(formula, embeddings, labels, proxies, logits=logits, fold="sum", **options)


@loss(reduction="mean", per_row=("margin",))
def uniface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    margin: Number = 0.4,
    scale: Number = 64.0,
    negative_weight: Number = 1.0,
    bias: Number | None = None,
    **options: Unpack[TableOptions],
) -> Array:
    """Holds all own-class cosines above one threshold and all other cosines below it.

    A softmax only asks that a row's own class leads within that row. Here one threshold,
    bias / scale, is asked to separate all pairs of a row and a class, as verification does.

        log(1 + exp(-(scale (cos(theta_y) - margin) - bias)))
        + negative_weight sum_{c != y} log(1 + exp(scale cos(theta_c) - bias))

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      margin: m, taken off the own cosine, 0 to 1. One number, or one a row [B].
      scale: s, 10 to 100.
      negative_weight: lambda, 1 and below: the other balance of the few and the many. The paper's
        alternative is to sample the classes, with `proxy_labels`.
      bias: b, one for all classes, to be learned (`objectives.uniface`). None for the value at
        which it starts, `uniface_bias` of the rows of the table.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
      >>> loss = uniface(rows, jnp.array([0]), proxies, margin=0.5, scale=2.0, bias=0.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1)) + log 2
      1.00641

    Note:
      The authors' code clamps both exponents to [-scale, scale], beyond which nothing is learned;
      here nothing is clamped. With a sampled table it passes labels of the whole one; here
      `proxy_labels` tells which class a row of the table is.

    Reference:
      Zhou, Jia, Li, Shen, Duan: UniFace, ICCV 2023.
    """
    if bias is None:
        bias = jnp.asarray(uniface_bias(_classes(proxies, options)), embeddings.dtype)

    def formula(row: Row) -> Array:
        yes = scale * (row.target - margin) - bias
        return jax.nn.softplus(-yes) + negative_weight * row.others

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return jax.nn.softplus(scale * cosines - bias)

    return over_table(formula, embeddings, labels, proxies, logits=logits, fold="sum", **options)


def sphereface2_bias(
    num_classes: int,
    *,
    balance: Number = 0.7,
    scale: Number = 40.0,
    margin: Number = 0.4,
    exponent: Number = 3.0,
) -> Array:
    """The bias at which `losses.sphereface2` starts: yes and no pull equally at right angles.

    Args:
      num_classes: C, at least 2.
      balance, scale, margin, exponent: those of the loss.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: a single class.

    Example:
      >>> numbers = dict(balance=0.5, scale=1.0, margin=0.0, exponent=1.0)
      >>> print(f"{sphereface2_bias(101, **numbers):.4f}")  # without a margin: log(1 / 100)
      -4.6052

    Reference:
      Wen, Liu, Weller, Raj, Singh: SphereFace2, ICLR 2022.
    """
    if num_classes < 2:
        raise ValueError(
            f"bias: got None with num_classes {num_classes}, expected a number: the bias starts "
            "where yes and no are in balance, which needs 2 classes or more"
        )
    ratio = balance / ((1.0 - balance) * (num_classes - 1.0))
    middle = 2.0 * 0.5**exponent - 1.0  # the similarity at right angles
    own, other = scale * (middle - margin), scale * (middle + margin)
    root = jnp.sqrt((1.0 - ratio) ** 2 + 4.0 * ratio * jnp.exp(own - other))
    # exp(other + bias) is the positive root of a quadratic. Of its two equal forms, each loses
    # its digits where the other keeps them.
    rare = jnp.log(2.0 * ratio) - other - jnp.log(1.0 - ratio + root)
    frequent = jnp.log(0.5 * (ratio - 1.0 + root)) - own
    return jnp.where(ratio < 1.0, rare, frequent)


def uniface_bias(num_classes: int) -> float:
    """The bias at which `losses.uniface` starts: log(10 C).

    Args:
      num_classes: C, or the classes that are sampled for a step.

    Returns:
      A number.

    Example:
      >>> print(f"{uniface_bias(10):.4f}")
      4.6052

    Reference:
      Zhou, Jia, Li, Shen, Duan: UniFace, ICCV 2023.
    """
    return math.log(10.0 * num_classes)


def _steepened(cosine: Array, exponent: Number) -> Array:
    """g(z) = 2 ((z + 1) / 2)^t - 1, for cosines that rounding may have put below -1."""
    base = 0.5 * (cosine + 1.0)
    outside = base <= 0  # not `> 0`: a NaN has to show
    return 2.0 * jnp.where(outside, 0.0, jnp.where(outside, 1.0, base) ** exponent) - 1.0


def _classes(proxies: Array, options: TableOptions) -> int:
    """Rows of the table, over all shards."""
    shards = options.get("class_axis_name")
    return proxies.shape[0] * (1 if shards is None else lax.axis_size(shards))
