"""A memory of past rows."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jdml._core import checks
from jdml._core.options import Array, AxisName
from jdml.states.rows import checked_rows, rows_of_all


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
    embeddings, labels, exists = checked_rows(embeddings, labels, where)
    checks.same_width("embeddings", embeddings, "the memory", state.embeddings)
    embeddings, labels, exists = (rows_of_all(x, axis_name) for x in (embeddings, labels, exists))
    size = state.labels.shape[0]
    order = jnp.cumsum(exists.astype(jnp.int32)) - 1
    count = exists.sum(dtype=jnp.int32)
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
