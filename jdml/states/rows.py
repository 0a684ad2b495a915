"""What every rule of a state does to the rows that it is given."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.devices import vary
from jdml._core.options import Array, AxisName


def plain_rows(embeddings: Array) -> Array:
    """Rows without gradient, lifted to float32 at least."""
    embeddings = jnp.asarray(embeddings)
    checks.rows("embeddings", embeddings)
    if embeddings.dtype != jnp.float64:
        embeddings = embeddings.astype(jnp.float32)
    return lax.stop_gradient(embeddings)


def checked_rows(
    embeddings: Array, labels: Array, where: Array | None
) -> tuple[Array, Array, Array]:
    """Checked rows without gradient, lifted to float32 at least, and which of them exist."""
    embeddings = plain_rows(embeddings)
    return embeddings, *checked_labels(labels, where, embeddings.shape[0])


def checked_labels(
    labels: Array, where: Array | None, rows: int | None = None
) -> tuple[Array, Array]:
    """Checked labels of so many embeddings (any number by default), and which rows exist."""
    labels = jnp.asarray(checks.as_array("labels", labels))
    rows, of = (labels.shape[0], "labels") if rows is None else (rows, "embeddings")
    checks.class_labels("labels", labels, rows, of)
    labels = labels.astype(jnp.result_type(int))
    exists = labels >= 0
    if where is not None:
        where = jnp.asarray(where)
        checks.vector("where", where, rows, of)
        checks.boolean("where", where)
        exists &= where
    return labels, exists


def existing_labels(labels: Array, where: Array | None, num_classes: int | None = None) -> Array:
    """Labels with -1, which no loss and no rule counts, for rows that do not exist.

    So are, where their number is given, labels beyond the classes.
    """
    labels, exists = checked_labels(labels, where)
    if num_classes is not None:
        exists &= labels < num_classes
    return jnp.where(exists, labels, -1)


def rows_of_all(x: Array, axis_name: AxisName | None) -> Array:
    """The rows of all devices, in the order of the devices, known to be the same on all of them.

    A state is replicated, so what a rule makes it of has to be typed so under `shard_map`. That
    is no way to gather what has a gradient.
    """
    if axis_name is None:
        return x
    axes = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    return lax.all_gather(vary(x, axes), axis_name, tiled=True, to="invarying")
