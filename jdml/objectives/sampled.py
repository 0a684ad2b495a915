"""Class tables too large for every step: the batch's classes and a random share of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.options import Array, AxisName
from jdml.objectives.base import Batch, Objective
from jdml.states.rows import checked_labels, rows_of_all


def sample_classes(
    key: Array,
    labels: Array,
    num_classes: int,
    size: int,
    *,
    groups: int = 1,
    where: Array | None = None,
    axis_name: AxisName | None = None,
    class_axis_name: str | None = None,
) -> Array:
    """The classes of a batch and random other ones, of a fixed number: those of Partial FC.

    The classes are cut into equal groups of neighbours, and each gives as many, its classes of
    the batch first. A table that is split by classes gives the same sample as a whole one, as
    long as its shards are groups or some groups each.

    Args:
      key: random key; the same on all devices.
      labels: [B] integer classes; negative ones, and those beyond the classes, are left out.
      num_classes: C, of the whole table.
      size: S, classes to sample in all, at least as many as rows in the batch of all devices (or
        as there are classes).
      groups: equal parts of the classes, each of which gives `size / groups`. With several, more
        classes of a batch may fall into one than it gives: those that are left over are not
        sampled, and a loss leaves out their rows in that step. The fewer rows there are for the
        size, the rarer that is.
      where: bool [B]; the row exists.
      axis_name: mapped batch axis; the sample has the classes of all devices.
      class_axis_name: mapped axis over which the classes are split; the sample is that of the
        device's shard, S over the size of the axis.

    Returns:
      Classes without repetition, [S], rising.

    Raises:
      ValueError: numbers that do not divide, or a size that cannot hold the batch's classes.

    Example:
      >>> ids = sample_classes(jax.random.key(0), jnp.array([7, 2, 7]), 10, 5)
      >>> ids.shape, 2 in ids, 7 in ids
      ((5,), True, True)

    Reference:
      An et al.: Partial FC: Training 10 Million Identities on a Single Machine, ICCV Workshops
      2021; Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition
      CNNs by Partial FC, CVPR 2022.
    """
    labels, exists = checked_labels(labels, where)
    labels = rows_of_all(jnp.where(exists, labels, -1), axis_name)
    shards = 1 if class_axis_name is None else lax.axis_size(class_axis_name)
    _check_numbers(labels.shape[0], num_classes, size, groups, shards)
    here, width = groups // shards, num_classes // groups
    first = 0 if class_axis_name is None else lax.axis_index(class_axis_name) * here
    group = first + jnp.arange(here, dtype=jnp.int32)
    starts = (group * width).astype(labels.dtype)
    at = labels - starts[0]
    inside = (at >= 0) & (at < here * width)
    present = jnp.zeros(here * width, bool)
    present = present.at[jnp.where(inside, at, here * width)].set(True, mode="drop")
    draws = jax.vmap(lambda g: jax.random.uniform(jax.random.fold_in(key, g), (width,)))(group)
    order = jnp.where(present.reshape(here, width), 2.0, draws)
    _, chosen = lax.top_k(order, size // groups)
    return (jnp.sort(chosen, axis=1).astype(labels.dtype) + starts[:, None]).reshape(-1)


def _check_numbers(rows: int, num_classes: int, size: int, groups: int, shards: int) -> None:
    if groups < 1 or groups % shards:
        raise ValueError(f"groups: got {groups}, expected a multiple of the {shards} class shards")
    if num_classes % groups:
        raise ValueError(
            f"groups: got {groups}, expected a divisor of the {num_classes} classes of the table"
        )
    if size % groups or not 0 < size <= num_classes:
        raise ValueError(
            f"size: got {size}, expected 1 to {num_classes} classes, a multiple of {groups} groups"
        )
    if size < min(rows, num_classes):
        raise ValueError(
            f"size: got {size}, expected at least {min(rows, num_classes)}, which a batch of "
            f"{rows} rows may have of {num_classes} classes"
        )


class _Sampling(NamedTuple):
    inner: Any
    key: Array


def sampled(objective: Objective, size: int, *, groups: int = 1) -> Objective:
    """A head that compares each batch with a sample of its class table: Partial FC.

    Of a table of millions of classes, a step needs the classes of its batch and enough others to
    be told apart from; a tenth of them costs a tenth and, by the paper, hardly any accuracy. Each
    step draws anew, by a key that is a state and the same on all devices. The table's rows that
    were not drawn get no gradient. With `groups` as many as class shards, or a multiple, the
    sample does not depend on the number of shards, and each device draws from its own.

    Args:
      objective: with the parameters {"proxies": [C, D]}, such as `table(losses.arcface, C)`.
      size: classes in each step, as in `sample_classes`.
      groups: equal parts of the table that give as many each, as in `sample_classes`.

    Returns:
      An `Objective` with the same parameters, and a key in its state.

    Raises:
      ValueError: an objective without a table.

    Example:
      >>> objective = sampled(table(losses.cosface, 100, scale=1.0), 10)
      >>> params, state = objective.init(jax.random.key(0), 4)
      >>> batch = {"labels": jnp.array([7, 93])}
      >>> loss = lambda params: objective.loss(params, state, jnp.eye(2, 4), batch)
      >>> gradient = jax.grad(loss)(params)["proxies"]
      >>> int(gradient.any(axis=1).sum())
      10

    Note:
      The gradient of the table is as large as the table. Optimizers with momentum or decay go on
      moving rows that were not drawn; the authors' own does not, nor does `lazy_rows`.

    Reference:
      An et al.: Partial FC: Training 10 Million Identities on a Single Machine, ICCV Workshops
      2021; Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition
      CNNs by Partial FC, CVPR 2022.
    """

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        inner_key, draw_key = jax.random.split(key)
        params, state = objective.init(inner_key, dim)
        if not isinstance(params, Mapping) or "proxies" not in params:
            raise ValueError(
                f"objective: got parameters {jax.tree.structure(params)}, expected a class table "
                "named 'proxies'"
            )
        return params, _Sampling(state, draw_key)

    def sample(params: Any, state: Any, batch: Batch, shared: Any) -> tuple[Any, dict[str, Any]]:
        """The parameters and the keywords of a loss of the sampled classes."""
        table = params["proxies"]
        axes = {name: shared.get(name) for name in ("axis_name", "class_axis_name")}
        class_axis = axes["class_axis_name"]
        shards = 1 if class_axis is None else lax.axis_size(class_axis)
        draw_key, _ = jax.random.split(state.key)
        options = {"groups": groups, "where": batch.get("where"), **axes}
        n = table.shape[0] * shards
        ids = sample_classes(draw_key, batch["labels"], n, size, **options)
        first = 0 if class_axis is None else lax.axis_index(class_axis) * table.shape[0]
        rows = _rows_at(table, ids - jnp.asarray(first, ids.dtype), groups // shards)
        return {**params, "proxies": rows}, {**shared, "proxy_labels": ids}

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        params, shared = sample(params, state, batch, shared)
        return objective.loss(params, state.inner, embeddings, batch, **shared)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        params, shared = sample(params, state, batch, shared)
        inner = objective.update(state.inner, params, embeddings, batch, **shared)
        _, following = jax.random.split(state.key)
        return _Sampling(inner, following)

    return Objective(init, value, update)


def _rows_at(table: Array, ids: Array, groups: int) -> Array:
    """The rows of a table at ids, group by group, so that no shard of groups needs another."""
    width = table.shape[0] // groups
    parts = table.reshape(groups, width, *table.shape[1:])
    starts = jnp.arange(groups, dtype=ids.dtype) * width
    at = ids.reshape(groups, -1) - starts[:, None]
    take = lambda part, at: part.at[at].get(mode="promise_in_bounds", unique_indices=True)
    return jax.vmap(take)(parts, at).reshape(-1, *table.shape[1:])
