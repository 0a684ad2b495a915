"""Numbers of margin-softmax heads that follow training: scale, hardness, norm statistics."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jdml._core.maths import inner_products, unit
from jdml._core.options import Array, AxisName, Number
from jdml._core.reduce import total
from jdml._core.table import check_table, own_rows, table_labels
from jdml.states.rows import checked_rows, rows_of_all


def adacos_scale(num_classes: int) -> Array:
    """The scale that `losses.adacos` starts with: sqrt(2) log(C - 1).

    Args:
      num_classes: C, at least 3.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: fewer than 3 classes, for which it would be 0 or undefined.

    Example:
      >>> f"{adacos_scale(100):.3f}"
      '6.498'

    Reference:
      Zhang, Zhao, Qiao, Wang, Li: AdaCos, CVPR 2019.
    """
    if num_classes < 3:
        raise ValueError(f"num_classes: got {num_classes}, expected 3 or more")
    return jnp.asarray(math.sqrt(2.0) * math.log(num_classes - 1), jnp.float32)


def update_adacos(
    scale: Array,
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    where: Array | None = None,
    axis_name: AxisName | None = None,
    proxy_labels: Array | None = None,
    class_axis_name: str | None = None,
) -> Array:
    """The next scale of dynamic AdaCos, from the angles of the batch.

        log(mean_i sum_{c != y_i} exp(scale cos theta_ic)) / cos(min(pi / 4, median_i theta_iy))

    The scale grows the loss as long as rows are far from their class and settles as they near it.

    Args:
      scale: the present scale, [].
      embeddings: [B, D].
      labels: [B] integer classes; rows without a class in the table are left out.
      proxies: [C, D].
      where: bool [B]; the row exists.
      axis_name: mapped batch axis.
      proxy_labels: int [C], the class of each row of the table; 0..C-1 by default.
      class_axis_name: mapped axis over which the rows of the table are split.

    Returns:
      The next scale; the present one where no row counts.

    Example:
      >>> scale = update_adacos(jnp.array(1.0), jnp.eye(3), jnp.arange(3), jnp.eye(3))
      >>> f"{scale:.4f}"  # log(2 exp(0)) / cos(0)
      '0.6931'

    Reference:
      Zhang, Zhao, Qiao, Wang, Li: AdaCos, CVPR 2019.
    """
    embeddings, labels, exists = checked_rows(embeddings, labels, where)
    check_table(embeddings, proxies, proxy_labels)
    rows = unit(jnp.where(exists[:, None], embeddings, 0.0))
    cosines = inner_products(rows, unit(proxies.astype(rows.dtype)))
    classes = table_labels(proxies, proxy_labels, class_axis_name).astype(labels.dtype)
    own = labels[:, None] == classes[None, :]
    counts = exists & (total(own.sum(axis=-1), class_axis_name) > 0)
    target = total(jnp.where(own, cosines, 0.0).sum(axis=-1), class_axis_name)
    current = scale.astype(rows.dtype)
    # Only differences of logits are ever exponentiated: exp(scale) itself would overflow.
    left_out = own | ~counts[:, None] | (classes < 0)[None, :]
    logits = jnp.where(left_out, -jnp.inf, current * (cosines - 1.0))
    mass = total(total(jnp.exp(logits).sum(), class_axis_name), axis_name)
    seen = total(counts.astype(rows.dtype).sum(), axis_name)
    angles = jnp.arccos(jnp.clip(target, -1.0, 1.0))
    median = _median(rows_of_all(angles, axis_name), rows_of_all(counts, axis_name))
    log_mean = current + jnp.log(mass / jnp.maximum(seen, 1.0))
    following = log_mean / jnp.cos(jnp.minimum(math.pi / 4, median))
    usable = (seen > 0) & (mass > 0)
    return lax.stop_gradient(jnp.where(usable, following, current)).astype(scale.dtype)


def update_hardness(
    hardness: Array,
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    rate: Number = 0.01,
    where: Array | None = None,
    axis_name: AxisName | None = None,
    proxy_labels: Array | None = None,
    class_axis_name: str | None = None,
) -> Array:
    """The next hardness of `losses.curricularface`: a running mean of the own cosine.

    Args:
      hardness: the present one, []; starts at 0.
      embeddings: [B, D].
      labels: [B] integer classes; rows without a class in the table are left out.
      proxies: [C, D].
      rate: of the running mean.
      where: bool [B]; the row exists.
      axis_name: mapped batch axis.
      proxy_labels: int [C], the class of each row of the table; 0..C-1 by default.
      class_axis_name: mapped axis over which the rows of the table are split.

    Returns:
      The next hardness; the present one where no row counts.

    Example:
      >>> t = update_hardness(jnp.array(0.0), jnp.eye(2), jnp.arange(2), jnp.eye(2), rate=0.1)
      >>> print(f"{t:.2f}")
      0.10

    Reference:
      Huang et al.: CurricularFace, CVPR 2020.
    """
    embeddings, labels, exists = checked_rows(embeddings, labels, where)
    check_table(embeddings, proxies, proxy_labels)
    own, found = own_rows(labels, proxies, proxy_labels, class_axis_name)
    exists &= found
    rows = unit(jnp.where(exists[:, None], embeddings, 0.0))
    own = unit(own.astype(rows.dtype))
    cosines = jnp.where(exists, (rows * own).sum(axis=-1), 0.0)
    count = total(exists.astype(rows.dtype).sum(), axis_name)
    mean = total(cosines.sum(), axis_name) / jnp.maximum(count, 1.0)
    return _follow(hardness, mean, rate, count > 0)


class Norms(NamedTuple):
    """Running mean and deviation of the length of embeddings."""

    mean: Array
    std: Array


def norms(mean: float = 20.0, std: float = 100.0) -> Norms:
    """The statistics that `losses.adaface` starts with.

    Args:
      mean, std: as in the paper's code.

    Returns:
      A `Norms`.

    Example:
      >>> print(norms().mean)
      20.0
    """
    return Norms(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def update_norms(
    state: Norms,
    embeddings: Array,
    *,
    labels: Array | None = None,
    rate: Number = 0.01,
    where: Array | None = None,
    axis_name: AxisName | None = None,
) -> Norms:
    """The next running statistics of lengths, for `losses.adaface`.

    Lengths are clipped to [0.001, 100]; the deviation is the unbiased one. A batch of fewer than
    two rows has none and leaves the state as it is.

    Args:
      state: the present statistics.
      embeddings: [B, D].
      labels: [B] integer classes; rows of negative ones are left out, as `losses.adaface` does.
      rate: of the running means.
      where: bool [B]; the row exists.
      axis_name: mapped batch axis.

    Returns:
      The next statistics.

    Example:
      >>> state = update_norms(Norms(jnp.array(0.0), jnp.array(0.0)), jnp.eye(2) * 3, rate=0.5)
      >>> print(state.mean, state.std)
      1.5 0.0

    Reference:
      Kim, Jain, Liu: AdaFace, CVPR 2022.
    """
    if labels is None:
        labels = jnp.zeros(jnp.shape(embeddings)[:1], jnp.int32)
    embeddings, _, exists = checked_rows(embeddings, labels, where)
    rows = jnp.where(exists[:, None], embeddings, 0.0)
    lengths = jnp.clip(jnp.sqrt((rows * rows).sum(axis=-1)), 1e-3, 100.0)
    spread = lambda x: total(jnp.where(exists, x, 0.0).sum(), axis_name)
    count = spread(jnp.ones_like(lengths))
    mean = spread(lengths) / jnp.maximum(count, 1.0)
    std = jnp.sqrt(spread((lengths - mean) ** 2) / jnp.maximum(count - 1.0, 1.0))
    enough = count > 1
    return Norms(_follow(state.mean, mean, rate, enough), _follow(state.std, std, rate, enough))


def _follow(old: Array, new: Array, rate: Number, usable: Array) -> Array:
    """A running mean, which stays where there is nothing to follow."""
    rate = jnp.asarray(rate, new.dtype)
    following = (1.0 - rate) * old.astype(new.dtype) + rate * new
    return jnp.where(usable, following, old.astype(new.dtype)).astype(old.dtype)


def _median(values: Array, counts: Array) -> Array:
    """The median over the entries that count, 0 without any."""
    if not values.size:
        return jnp.zeros((), values.dtype)
    ordered = jnp.sort(jnp.where(counts, values, jnp.inf))
    n = counts.sum()
    at = lambda i: ordered[jnp.clip(i, 0, values.shape[0] - 1)]
    return jnp.where(n > 0, 0.5 * (at((n - 1) // 2) + at(n // 2)), 0.0)
