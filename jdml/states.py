"""What a loss reads and a rule rewrites: class centers, a memory of past rows, a running scale.

A state is an array or a NamedTuple. Losses only read it; a pure rule returns the next one, after
the step. With `axis_name` every rule spans the devices of a mapped axis, so that all replicas
hold the same state. No state carries a gradient.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.devices import gather
from jdml._core.maths import inner_products, unit
from jdml._core.options import Array, AxisName, Number
from jdml._core.reduce import total

# ---------------------------------------------------------------- centers


def update_centers(
    centers: Array,
    embeddings: Array,
    labels: Array,
    *,
    rate: Number = 0.5,
    where: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Moves the center of every class in the batch towards its rows: the rule of `losses.center`.

    A class seen n times moves by `rate * sum(e - c) / (1 + n)`; the others stay. The 1 damps
    classes seen once, so that noise does not throw their centers about.

    Args:
      centers: [C, D].
      embeddings: [B, D].
      labels: [B] integer classes; those without a center are left out.
      rate: alpha in the paper, 0 to 1.
      where: bool [B]; the row exists.
      axis_name: mapped batch axis.

    Returns:
      The next centers, [C, D].

    Example:
      >>> centers = jnp.zeros((2, 2))
      >>> update_centers(centers, jnp.ones((2, 2)), jnp.array([0, 0]), rate=0.5)
      Array([[0.33333334, 0.33333334],
             [0.        , 0.        ]], dtype=float32)

    Reference:
      Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition,
      ECCV 2016.
    """
    embeddings, labels, exists = _rows(embeddings, labels, where)
    checks.same_width("centers", centers, "embeddings", embeddings)
    n = centers.shape[0]
    inside = exists & (labels < n)
    row = jnp.where(inside, labels, n)  # one row too many takes what is left out
    kept = jnp.where(inside[:, None], embeddings, 0.0).astype(centers.dtype)
    sums = jax.ops.segment_sum(kept, row, n + 1)[:n]
    counts = jax.ops.segment_sum(inside.astype(centers.dtype), row, n + 1)[:n]
    sums, counts = total(sums, axis_name), total(counts, axis_name)
    pull = sums - counts[:, None] * centers
    return centers + jnp.asarray(rate, centers.dtype) * pull / (1.0 + counts[:, None])


# ---------------------------------------------------------------- memory of past rows


class Memory(NamedTuple):
    """A ring of past embeddings. Empty slots do not exist for a loss."""

    embeddings: Array  # [M, D]
    labels: Array  # [M]
    filled: Array  # bool [M]
    position: Array  # int32: the slot that the next row goes to


def memory(size: int, dim: int) -> Memory:
    """An empty memory of `size` rows of `dim` dimensions.

    Args:
      size: M, rows kept; the oldest are overwritten.
      dim: D.

    Returns:
      A `Memory`.

    Example:
      >>> bool(memory(8, 2).filled.any())
      False

    Reference:
      Wang, Zhang, Huang, Scott: Cross-Batch Memory for Embedding Learning, CVPR 2020.
    """
    if size < 1 or dim < 1:
        raise ValueError(f"size, dim: got {size}, {dim}, expected whole numbers >= 1")
    integer = jnp.result_type(int)
    return Memory(
        jnp.zeros((size, dim), jnp.float32),
        jnp.full((size,), -1, integer),
        jnp.zeros((size,), bool),
        jnp.zeros((), jnp.int32),
    )


def push(
    state: Memory,
    embeddings: Array,
    labels: Array,
    *,
    where: Array | None = None,
    axis_name: AxisName | None = None,
) -> Memory:
    """Writes the batch of all devices over the oldest rows. To be called after the step.

    Rows that do not exist are skipped without taking a slot, so that padding never pushes real
    rows out. A batch larger than the memory leaves its last rows.

    Args:
      state: the memory.
      embeddings: [B, D].
      labels: [B] integer classes.
      where: bool [B]; the row exists.
      axis_name: mapped batch axis.

    Returns:
      The next memory.

    Example:
      >>> state = push(memory(3, 1), jnp.array([[1.0], [2.0]]), jnp.array([5, 6]))
      >>> state = push(state, jnp.array([[3.0], [4.0]]), jnp.array([7, 8]))
      >>> state.embeddings[:, 0], state.labels
      (Array([4., 2., 3.], dtype=float32), Array([8, 6, 7], dtype=int32))
    """
    embeddings, labels, exists = _rows(embeddings, labels, where)
    checks.same_width("embeddings", embeddings, "the memory", state.embeddings)
    embeddings, labels, exists = (gather(x, axis_name) for x in (embeddings, labels, exists))
    size = state.labels.shape[0]
    order = jnp.cumsum(exists.astype(jnp.int32)) - 1
    count = order[-1] + 1
    kept = exists & (order >= count - size)
    slot = jnp.where(kept, (state.position + order) % size, size)  # out of range: dropped
    put = lambda old, new: old.at[slot].set(new.astype(old.dtype), mode="drop")
    return Memory(
        put(state.embeddings, embeddings),
        put(state.labels, labels),
        put(state.filled, exists),
        (state.position + count) % size,
    )


def as_refs(state: Memory) -> dict[str, Array]:
    """The memory as the references of a pair loss: `loss(z, y, **as_refs(state))`.

    Args:
      state: the memory.

    Returns:
      The keywords refs, ref_labels and ref_where.

    Example:
      >>> sorted(as_refs(memory(4, 2)))
      ['ref_labels', 'ref_where', 'refs']
    """
    return {"refs": state.embeddings, "ref_labels": state.labels, "ref_where": state.filled}


# ---------------------------------------------------------------- AdaCos


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

    Returns:
      The next scale; the present one where no row counts.

    Example:
      >>> scale = update_adacos(jnp.array(1.0), jnp.eye(3), jnp.arange(3), jnp.eye(3))
      >>> f"{scale:.4f}"  # log(2 exp(0)) / cos(0)
      '0.6931'

    Reference:
      Zhang, Zhao, Qiao, Wang, Li: AdaCos, CVPR 2019.
    """
    embeddings, labels, exists = _rows(embeddings, labels, where)
    checks.same_width("proxies", proxies, "embeddings", embeddings)
    rows = unit(jnp.where(exists[:, None], embeddings, 0.0))
    cosines = inner_products(rows, unit(proxies.astype(rows.dtype)))
    own = labels[:, None] == jnp.arange(proxies.shape[0], dtype=labels.dtype)[None, :]
    counts = exists & own.any(axis=-1)
    target = jnp.where(own, cosines, 0.0).sum(axis=-1)
    current = scale.astype(rows.dtype)
    # Only differences of logits are ever exponentiated: exp(scale) itself would overflow.
    logits = jnp.where(own | ~counts[:, None], -jnp.inf, current * (cosines - 1.0))
    mass = total(jnp.exp(logits).sum(), axis_name)
    seen = total(counts.astype(rows.dtype).sum(), axis_name)
    angles = jnp.arccos(jnp.clip(target, -1.0, 1.0))
    median = _median(gather(angles, axis_name), gather(counts, axis_name))
    log_mean = current + jnp.log(mass / jnp.maximum(seen, 1.0))
    following = log_mean / jnp.cos(jnp.minimum(math.pi / 4, median))
    usable = (seen > 0) & (mass > 0)
    return lax.stop_gradient(jnp.where(usable, following, current)).astype(scale.dtype)


# ---------------------------------------------------------------- heads that follow training


def update_hardness(
    hardness: Array,
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    rate: Number = 0.01,
    where: Array | None = None,
    axis_name: AxisName | None = None,
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

    Returns:
      The next hardness; the present one where no row counts.

    Example:
      >>> t = update_hardness(jnp.array(0.0), jnp.eye(2), jnp.arange(2), jnp.eye(2), rate=0.1)
      >>> print(f"{t:.2f}")
      0.10

    Reference:
      Huang et al.: CurricularFace, CVPR 2020.
    """
    embeddings, labels, exists = _rows(embeddings, labels, where)
    checks.same_width("proxies", proxies, "embeddings", embeddings)
    exists &= labels < proxies.shape[0]
    rows = unit(jnp.where(exists[:, None], embeddings, 0.0))
    own = unit(proxies[jnp.where(exists, labels, 0)].astype(rows.dtype))
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
    labels = jnp.zeros(jnp.shape(embeddings)[:1], jnp.int32)
    embeddings, _, exists = _rows(embeddings, labels, where)
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
    """The median over the entries that count."""
    ordered = jnp.sort(jnp.where(counts, values, jnp.inf))
    n = counts.sum()
    at = lambda i: ordered[jnp.clip(i, 0, values.shape[0] - 1)]
    return jnp.where(n > 0, 0.5 * (at((n - 1) // 2) + at(n // 2)), 0.0)


def _rows(embeddings: Array, labels: Array, where: Array | None) -> tuple[Array, Array, Array]:
    """Checked rows without gradient, lifted to float32 at least, and which of them exist."""
    embeddings, labels = jnp.asarray(embeddings), jnp.asarray(checks.as_array("labels", labels))
    checks.rows("embeddings", embeddings)
    checks.class_labels("labels", labels, embeddings.shape[0], "embeddings")
    labels = labels.astype(jnp.result_type(int))
    exists = labels >= 0
    if where is not None:
        where = jnp.asarray(where)
        checks.vector("where", where, embeddings.shape[0], "embeddings")
        checks.boolean("where", where)
        exists &= where
    if embeddings.dtype != jnp.float64:
        embeddings = embeddings.astype(jnp.float32)
    return lax.stop_gradient(embeddings), labels, exists
