"""Regularizers: one number of a set of rows, to be added to a loss.

    regularizer(rows, *, where=None, weights=None, axis_name=None) -> float32 scalar

They look at no labels. Rows are the embeddings of a batch or a table of classes; each value is a
weighted mean over the rows (classes, for a table of sub-centers) that exist:

    losses.arcface(z, y, proxies) + 0.1 * regularizers.regular_face(proxies)

Shared keywords. `where` [N]: the row exists; what a missing row holds, NaN included, reaches
neither value nor gradient. `weights` [N]: importance of a row in the mean. `axis_name`: the mapped
axis over which the rows are split, that of the batch for embeddings, that of the classes for a
table; the value is that of all rows. Nothing there gives 0 with a zero gradient.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.devices import gather
from jdml._core.maths import inner_products, power_norm, safe_sqrt, unit
from jdml._core.options import Array, AxisName
from jdml._core.reduce import combine, safe_divide, total, weigh


@functools.partial(jax.jit, static_argnames=("p", "power", "axis_name"))
def norm(
    rows: Array,
    *,
    p: float = 2,
    power: float = 1,
    where: Array | None = None,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Pulls rows towards 0: the mean length of embeddings, or of the rows of a table.

    For losses that do not normalise, where lengths grow without bound since that lowers the loss.
    The square weighs long rows more; p = 1 makes many features 0.

        |row|_p^power

    Args:
      rows: [N, D] embeddings or a table.
      p: of the norm, a number > 0 or `math.inf`; a choice.
      power: of the norm, > 0; a choice.
      where: bool [N]; the row exists.
      weights: [N] importance.
      axis_name: mapped axis over which the rows are split.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: p or power is not above 0.

    Example:
      >>> print(norm(jnp.array([[3.0, 4.0], [0.0, 1.0]])))  # (5 + 1) / 2
      3.0

    Note:
      A row of zeros has gradient 0.
    """
    for name, value in (("p", p), ("power", power)):
        if not value > 0:
            raise ValueError(f"{name}: got {value}, expected a number > 0")
    rows, weights = _rows("rows", rows, where, weights)
    largest = lax.stop_gradient(jnp.abs(rows).max(axis=-1, keepdims=True))
    # Powers of entries of at most 1 stay in range, whatever the length of the row.
    scale = jnp.where(largest == 0, 1.0, largest)
    length = scale[:, 0] * power_norm(rows / scale, p)
    empty = length == 0
    raised = length if power == 1 else jnp.where(empty, 1.0, length) ** power
    return _mean(jnp.where(empty, 0.0, raised), weights, axis_name)


@functools.partial(jax.jit, static_argnames=("axis_name",))
def zero_mean(
    embeddings: Array,
    *,
    where: Array | None = None,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Pulls the features of each row to a mean of 0.

    `distances.snr` compares rows less their mean; this keeps the means, which it does not see,
    from drifting.

        |sum_d embeddings_d|

    Args:
      embeddings: [B, D].
      where: bool [B]; the row exists.
      weights: [B] importance.
      axis_name: mapped batch axis.

    Returns:
      A float32 scalar.

    Example:
      >>> print(zero_mean(jnp.array([[3.0, -3.0], [1.0, -5.0]])))  # (0 + 4) / 2
      2.0

    Reference:
      Yuan, Deng, Tang, Tang, Chen: Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric
      Learning, CVPR 2019.
    """
    rows, weights = _rows("embeddings", embeddings, where, weights)
    return _mean(power_norm(rows.sum(axis=-1, keepdims=True), 1), weights, axis_name)


@functools.partial(jax.jit, static_argnames=("axis_name",))
def center_invariant(
    table: Array,
    *,
    where: Array | None = None,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Pulls the centers of all classes to one length.

    Classes with few rows end up with short centers and are found less often; equal lengths give
    them equal room. For tables whose rows are not normalised, such as those of `losses.center`.

        (|row|^2 - mean over the table of |row|^2)^2 / 4

    Args:
      table: [C, D] centers or proxies, one a class.
      where: bool [C]; the class exists.
      weights: [C] importance in the outer mean: how often a class is in the batch gives the paper's
        mean over the batch.
      axis_name: mapped axis over which the classes are split.

    Returns:
      A float32 scalar.

    Example:
      >>> print(center_invariant(jnp.array([[2.0, 0.0], [0.0, 0.0]])))  # |row|^2 - 2 is 2 and -2
      1.0

    Reference:
      Wu, Liu, Li, Fu: Deep Face Recognition with Center Invariant Loss, ACM Multimedia Thematic
      Workshops 2017.
    """
    rows, weights = _rows("table", table, where, weights)
    squares = (rows * rows).sum(axis=-1)
    count = total(_exists(table, where).astype(rows.dtype).sum(), axis_name)
    mean = safe_divide(total(squares.sum(), axis_name), count)
    return _mean((squares - mean) ** 2 / 4.0, weights, axis_name)


@functools.partial(jax.jit, static_argnames=("axis_name", "block_size"))
def regular_face(
    table: Array,
    *,
    where: Array | None = None,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
    block_size: int | None = None,
) -> Array:
    """Pushes each class away from its nearest other class.

    A softmax pulls rows to their class and says little of how classes lie to each other. Added to
    `losses.sphereface` in the paper, and to any loss with a table of directions.

        max over other classes of cos(row, other row)

    Args:
      table: [C, D] proxies, one a class; only their directions count.
      where: bool [C]; the class exists.
      weights: [C] importance of a class; not of its being the nearest of another.
      axis_name: mapped axis over which the classes are split.
      block_size: classes whose cosines to all others are alive at once.

    Returns:
      A float32 scalar; 0 for fewer than two classes.

    Example:
      >>> print(regular_face(jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])))  # (0 + 1 + 1) / 3
      0.6666667

    Note:
      Where several classes are equally near, the gradient is that of the first.

    Reference:
      Zhao, Xu, Cheng: RegularFace: Deep Face Recognition via Exclusive Regularization, CVPR 2019.
    """
    checks.block_size(block_size)
    rows, weights = _rows("table", table, where, weights)
    directions, n = unit(rows), rows.shape[0]
    everyone = gather(directions, axis_name)
    exists = gather(_exists(table, where), axis_name)
    own = jnp.arange(n)
    if axis_name is not None:
        own = own + lax.axis_index(axis_name).astype(own.dtype) * n
    size = _block_size(block_size, n, everyone.shape[0])
    nearest = _nearest(directions, own, everyone, exists, size)
    cosines = (directions * everyone[nearest]).sum(axis=-1)
    return _mean(cosines, jnp.where(exists.sum() > 1, weights, 0.0), axis_name)


@functools.partial(jax.jit, static_argnames=("axis_name",))
def sparse_centers(
    centers: Array,
    *,
    where: Array | None = None,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Pulls the centers of one class together, so that those that it does not need merge.

    The regularizer of `losses.soft_triple`, 0.2 of it in the paper: one starts with more centers
    than a class has modes. Distances are not squared, which lets them become exactly 0.

        sum over pairs s < t of |c_s - c_t| / (K (K - 1))  of unit centers

    Args:
      centers: [C, K, D] with K centers a class; only their directions count.
      where: bool [C]; the class exists.
      weights: [C] importance of a class.
      axis_name: mapped axis over which the classes are split.

    Returns:
      A float32 scalar; 0 for K = 1.

    Example:
      >>> print(sparse_centers(jnp.array([[[1.0, 0.0], [-2.0, 0.0]]])))  # 2 / (2 * 1)
      1.0

    Note:
      Merged centers have gradient 0 towards each other.

    Reference:
      Qian, Shang, Sun, Hu, Li, Jin: SoftTriple Loss: Deep Metric Learning Without Triplet Sampling,
      ICCV 2019.
    """
    rows, weights = _rows("centers", centers, where, weights, "[C, K, D]")
    directions, k = unit(rows), rows.shape[1]

    def to_the_next(shift: Array) -> Array:
        """Distances from each center to the one `shift` places further, [C, K]."""
        return safe_sqrt(((directions - jnp.roll(directions, shift, axis=1)) ** 2).sum(axis=-1))

    # Each pair comes by twice, once from either end; a center alone is at 0 from itself.
    apart = lax.map(jax.checkpoint(to_the_next), jnp.arange(1, max(k, 2))).sum(axis=(0, -1))
    return _mean(apart / max(2 * k * (k - 1), 1), weights, axis_name)


# ---------------------------------------------------------------- what they share


def _exists(rows: Array, where: Array | None) -> Array:
    """[N] the rows that are there."""
    return jnp.ones(jnp.shape(rows)[:1], bool) if where is None else jnp.asarray(where)


def _rows(
    name: str, rows: Array, where: Array | None, weights: Array | None, shape: str = "[N, D]"
) -> tuple[Array, Array]:
    """Checked rows, at least float32 and cleared where they do not exist, and their weights [N]."""
    rows = jnp.asarray(rows)
    checks.expect(rows.ndim == shape.count(",") + 1, name, rows, f"an array {shape}")
    checks.floating(name, rows)
    n = rows.shape[0]
    exists = _exists(rows, where)
    checks.vector("where", exists, n, name)
    checks.boolean("where", exists)
    dtype = jnp.float64 if rows.dtype == jnp.float64 else jnp.float32
    weights = jnp.ones(n, dtype) if weights is None else jnp.asarray(weights).astype(dtype)
    checks.vector("weights", weights, n, name)
    there = exists.reshape(n, *[1] * (rows.ndim - 1))
    return jnp.where(there, rows.astype(dtype), 0.0), jnp.where(exists, weights, 0.0)


def _mean(values: Array, weights: Array, axis_name: AxisName | None) -> Array:
    """The weighted mean [] of values [N] over the rows of all devices."""
    return combine([weigh(values, weights, "mean")], "mean", axis_name)


def _nearest(rows: Array, own: Array, everyone: Array, exists: Array, size: int) -> Array:
    """Where the nearest other row of `everyone` stands, of each row, [N]."""
    rows, everyone = lax.stop_gradient((rows, everyone))
    columns = jnp.arange(everyone.shape[0], dtype=own.dtype)

    def find(row_and_own: tuple[Array, Array]) -> Array:
        row, own = row_and_own
        other = exists & (columns != own)
        return jnp.where(other, inner_products(row, everyone), -jnp.inf).argmax()

    if size >= rows.shape[0]:
        return jax.vmap(find)((rows, own))
    return lax.map(find, (rows, own), batch_size=size)


def _block_size(asked: int | None, n: int, n_everyone: int) -> int:
    """Rows whose cosines to everyone are alive at once."""
    if asked is not None:
        return min(asked, n)
    entries = 2**20 if jax.default_backend() == "cpu" else 2**24
    return n if n * n_everyone <= entries else max(1, min(n, max(64, entries // n_everyone)))
