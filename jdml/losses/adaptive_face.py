"""Margin softmax losses whose margin or negatives vary: with training, quality, or by a draw."""

from __future__ import annotations

import functools
import math
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.compile import loss
from jdml._core.devices import gather
from jdml._core.maths import angle_of, arc_target, cosine_of_angle
from jdml._core.options import Array, AxisName, Number, TableOptions
from jdml._core.table import Row, check_rows, over_table, own_cosines, own_rows


@loss(reduction="mean")
def curricularface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    hardness: Number = 0.0,
    margin: Number = 0.5,
    scale: Number = 64.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to its class, and pushes from confusing classes ever harder as training goes on.

    A class that is nearer than the own one after its margin is a hard negative; its cosine is
    scaled by `hardness + cosine`, which is below 1 early on and above it later. `hardness` is a
    state: `states.update_hardness` follows the mean own cosine.

        arcface, with cos(theta_c) (hardness + cos(theta_c)) where cos(theta_c) > cos(theta_y + m)

    The comparison, too, is with the own cosine as `arcface` continues it beyond pi - m.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      hardness: t in the paper, from 0 to about the mean own cosine.
      margin: m, in radians.
      scale: s, inverse temperature of the softmax.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> loss = curricularface(rows, jnp.array([0]), proxies, margin=0.0, scale=1.0)
      >>> print(f"{loss:.5f}")  # no hard negative: log(1 + exp(-1))
      0.31326

    Reference:
      Huang et al.: CurricularFace, CVPR 2020.
    """
    own = own_cosines(embeddings, labels, proxies, options)
    turned = arc_target(own, margin)[:, None]

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - scale * arc_target(row.target, margin))

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        hard = cosines > turned
        return scale * jnp.where(hard, cosines * (hardness + cosines), cosines)

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


@loss(reduction="mean")
def magface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    lower_norm: Number = 10.0,
    upper_norm: Number = 110.0,
    lower_margin: Number = 0.45,
    upper_margin: Number = 0.8,
    norm_weight: Number = 35.0,
    scale: Number = 64.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to its class with a margin that grows with the row's length.

    A penalty wants rows long, the margin makes that pay only for rows that are easy; the length
    of an embedding becomes a measure of the quality of its image.

        arcface with margin m(a), a = |e| clipped to the two norms and m linear between the two
        margins, + norm_weight (1 / a + a / upper_norm^2)

    Args:
      embeddings: [B, D] rows, whose length is used.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      lower_norm, upper_norm: range of lengths.
      lower_margin, upper_margin: range of margins, in radians.
      norm_weight: lambda_g in the paper.
      scale: s, inverse temperature of the softmax.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[10.0, 0.0]]), jnp.eye(2)
      >>> numbers = dict(lower_margin=0.0, norm_weight=0.0, scale=1.0)
      >>> loss = magface(rows, jnp.array([0]), proxies, **numbers)
      >>> print(f"{loss:.5f}")  # the margin at the lower norm is 0: log(1 + exp(-1))
      0.31326

    Reference:
      Meng, Zhao, Huang, Zhou: MagFace, CVPR 2021.
    """

    def formula(row: Row) -> Array:
        length = jnp.clip(row.norm, lower_norm, upper_norm)
        share = (length - lower_norm) / (upper_norm - lower_norm)
        margin = lower_margin + share * (upper_margin - lower_margin)
        penalty = 1.0 / length + length / upper_norm**2
        value = jax.nn.softplus(row.others - scale * arc_target(row.target, margin))
        return value + norm_weight * penalty

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return scale * cosines

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


@loss(reduction="mean")
def adaface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    norm_mean: Number = 20.0,
    norm_std: Number = 100.0,
    margin: Number = 0.4,
    concentration: Number = 0.333,
    scale: Number = 64.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to its class: hard faces first in good images, easy faces first in poor ones.

    The length of an embedding stands for the quality of its image. Against the running statistics
    of lengths (`states.update_norms`) it turns the margin from that of `arcface` for poor images
    into its opposite for good ones, with `cosface`'s on top.

        z = clip((|e| - norm_mean) / (norm_std / concentration), -1, 1)
        own logit: scale (cos(theta_y - margin z) - (margin z + margin))

    Args:
      embeddings: [B, D] rows, whose length is used.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      norm_mean, norm_std: running mean and deviation of lengths.
      margin: m, 0.4.
      concentration: h, share of the deviation that maps to the whole range.
      scale: s, inverse temperature of the softmax.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[20.0, 0.0]]), jnp.eye(2)
      >>> loss = adaface(rows, jnp.array([0]), proxies, margin=0.5, scale=2.0)
      >>> print(f"{loss:.5f}")  # a face of average length, z = 0: log(1 + exp(2 (0 - 0.5)))
      0.31326

    Note:
      z is a constant for the gradient, as in the paper.

    Reference:
      Kim, Jain, Liu: AdaFace, CVPR 2022.
    """
    edge = 1e-3  # the turned angle stays this far within [0, pi]

    def formula(row: Row) -> Array:
        length = jnp.clip(lax.stop_gradient(row.norm), 1e-3, 100.0)
        quality = jnp.clip((length - norm_mean) / (norm_std / concentration), -1.0, 1.0)
        turn = -margin * quality
        angle = angle_of(row.target) + turn
        inside = cosine_of_angle(row.target, jnp.ones((), turn.dtype), turn)
        clipped = jnp.where(angle < edge, math.cos(edge), math.cos(math.pi - edge))
        turned = jnp.where((angle > edge) & (angle < math.pi - edge), inside, clipped)
        return jax.nn.softplus(row.others - scale * (turned - (margin * quality + margin)))

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return scale * cosines

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


@loss(reduction="mean", per_row=("margin",))
def elasticface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    key: Array | None = None,
    margin: Number | None = None,
    margin_std: Number = 0.05,
    scale: Number = 64.0,
    variant: str = "arc",
    plus: bool = False,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to its class with a margin that is drawn anew for every row and step.

    One margin for all rows asks the same of classes that vary little and of classes that vary
    much; a drawn one leaves room for both. With `plus` the draws of a batch are dealt out by
    difficulty: the row nearest to its class gets the smallest, the furthest one the largest.

        arcface or cosface with a margin of its own for each row, drawn from N(margin, margin_std)

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      key: a random key, required; a new one each step (`objectives.elasticface` keeps it), the
        same on all devices. New keys do not compile again.
      margin: m, the mean: 0.5 radians for "arc", 0.35 for "cos" if not given. One number, or one
        a row [B].
      margin_std: sigma, the deviation: 0.05; with `plus` 0.0175 for "arc" and 0.02 for "cos" in
        the paper.
      scale: s, inverse temperature of the softmax.
      variant: "arc", the margin is added to the angle, or "cos", it is taken off the cosine.
      plus: deals the draws out by the cosine to the own class, over the batch of all devices.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Raises:
      ValueError: no key, or an unknown variant.

    Example:
      >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
      >>> numbers = dict(margin=0.5, margin_std=0.0, scale=2.0, variant="cos")
      >>> loss = elasticface(rows, jnp.array([0]), proxies, key=jax.random.key(0), **numbers)
      >>> print(f"{loss:.5f}")  # without deviation it is cosface: log(1 + exp(-1))
      0.31326

    Note:
      A row's draw depends on the key and its place in the batch of all devices alone: rows that
      do not exist shift no other draw, and with `plus` they take none. The authors' code for
      `plus` indexes the sorted draws by the sorting order where the paper's rule, followed here,
      needs its inverse. Beyond pi - margin "arc" continues as `arcface` does.

    Reference:
      Boutros, Damer, Kirchbuchner, Kuijper: ElasticFace, CVPR Workshops 2022.
    """
    if variant not in ("arc", "cos"):
        raise ValueError(f"variant: got {variant!r}, expected 'arc' or 'cos'")
    if margin is None:
        margin = jnp.asarray(0.5 if variant == "arc" else 0.35, embeddings.dtype)
    draws = _draws(key, labels.shape[0], options.get("axis_name")).astype(embeddings.dtype)
    if plus:
        draws = _small_to_near(draws, embeddings, labels, proxies, options)
    margins = margin + margin_std * draws

    def formula(row: Row) -> Array:
        arc = variant == "arc"
        target = arc_target(row.target, margins) if arc else row.target - margins
        return jax.nn.softplus(row.others - scale * target)

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return scale * cosines

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


def _draws(key: Array | None, rows: int, axis_name: AxisName | None) -> Array:
    """A standard normal number for each local row, by its place in the batch of all devices."""
    if key is None:
        raise ValueError("key: got None, expected a random key, a new one each step")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.dtype != jnp.uint32:
        raise TypeError(f"key: got {checks.describe(key)}, expected one of jax.random.key")
    first = 0 if axis_name is None else lax.axis_index(axis_name) * rows
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(first + jnp.arange(rows))
    # In float32 whatever the rows are: a key means the same margins in every precision.
    return jax.vmap(lambda key: jax.random.normal(key, dtype=jnp.float32))(keys)


def _small_to_near(
    draws: Array, embeddings: Array, labels: Array, proxies: Array, options: TableOptions
) -> Array:
    """The draws of the rows that count, dealt out by ease: the smallest to the nearest row."""
    cosines = lax.stop_gradient(own_cosines(embeddings, labels, proxies, options))
    exists, _ = check_rows(embeddings, labels, options.get("where"), None)
    shards = options.get("class_axis_name")
    _, found = own_rows(labels, proxies, options.get("proxy_labels"), shards)
    axis_name = options.get("axis_name")
    drawn, cosines, counts = (gather(x, axis_name) for x in (draws, cosines, exists & found))
    order = jnp.argsort(jnp.where(counts, -cosines, jnp.inf))
    ascending = jnp.sort(jnp.where(counts, drawn, jnp.inf))
    dealt = jnp.where(counts, jnp.zeros_like(drawn).at[order].set(ascending), 0.0)
    if axis_name is None:
        return dealt
    rows = labels.shape[0]
    return lax.dynamic_slice_in_dim(dealt, lax.axis_index(axis_name) * rows, rows)
