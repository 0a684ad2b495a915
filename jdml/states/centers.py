"""Class centers that follow their rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.options import Array, AxisName, Number
from jdml._core.reduce import total
from jdml.states.rows import checked_rows


def update_centers(
    centers: Array,
    embeddings: Array,
    labels: Array,
    *,
    rate: Number = 0.5,
    where: Array | None = None,
    axis_name: AxisName | None = None,
    class_axis_name: str | None = None,
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
      class_axis_name: mapped axis over which the centers are split.

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
    embeddings, labels, exists = checked_rows(embeddings, labels, where)
    checks.same_width("centers", centers, "embeddings", embeddings)
    n = centers.shape[0]
    if class_axis_name is not None:
        labels = labels - lax.axis_index(class_axis_name).astype(labels.dtype) * n
    inside = exists & (labels >= 0) & (labels < n)
    row = jnp.where(inside, labels, n)  # one row too many takes what is left out
    kept = jnp.where(inside[:, None], embeddings, 0.0).astype(centers.dtype)
    sums = jax.ops.segment_sum(kept, row, n + 1)[:n]
    counts = jax.ops.segment_sum(inside.astype(centers.dtype), row, n + 1)[:n]
    sums, counts = total(sums, axis_name), total(counts, axis_name)
    pull = sums - counts[:, None] * centers
    return centers + jnp.asarray(rate, centers.dtype) * pull / (1.0 + counts[:, None])
