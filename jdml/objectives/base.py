"""The objective triple, and the objectives of losses that keep no state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdml._core.maths import unit
from jdml._core.options import Array
from jdml._core.table import table_labels
from jdml.objectives.parameters import split, starts, values
from jdml.states.rows import existing_labels

Batch = Mapping[str, Array]


class Objective(NamedTuple):
    """A loss with what it owns: `init`, `loss` and `update`; see `jdml.objectives`."""

    init: Callable[[Array, int], tuple[Any, Any]]
    loss: Callable[..., Array]
    update: Callable[..., Any]


def keep_state(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
    """The rule of an objective without state."""
    del params, embeddings, batch, shared
    return state


def batch_rows(batch: Batch) -> dict[str, Array]:
    """The shared keywords that a batch carries."""
    return {name: batch[name] for name in ("where", "weights") if batch.get(name) is not None}


def without_classes(shared: Mapping[str, Any]) -> dict[str, Any]:
    """The shared keywords less the axis of classes, over which a pair loss is the same."""
    return {name: value for name, value in shared.items() if name != "class_axis_name"}


def pairs(loss: Callable[..., Array], **numbers: Any) -> Objective:
    """A pair loss as an objective; it owns nothing but the numbers that it learns.

    Args:
      loss: such as `losses.triplet`.
      **numbers: keywords for it: margins, a miner, a distance. A number wrapped in `learned` or
        `learned_logarithm` is a parameter.

    Returns:
      An `Objective` without state, with a parameter for each learned number.

    Example:
      >>> objective = pairs(losses.triplet, margin=0.5)
      >>> batch = {"labels": jnp.array([0, 0, 1])}
      >>> params, state = objective.init(jax.random.key(0), 1)
      >>> rows = jnp.array([[0.0], [0.5], [0.75]])
      >>> print(f"{objective.loss(params, state, rows, batch):.5f}")
      0.50000
    """

    fixed, taught = split(numbers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        del key, dim
        return starts(taught), ()

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del state
        labels = batch["labels"]
        learned = values(taught, params, labels, batch.get("where"))
        given = {**batch_rows(batch), **fixed, **learned}
        return loss(embeddings, labels, **given, **without_classes(shared))

    return Objective(init, value, keep_state)


def table(
    loss: Callable[..., Array],
    num_classes: int,
    *,
    sub_centers: int | None = None,
    rows: int | None = None,
    **numbers: Any,
) -> Objective:
    """A table loss as an objective that learns its class table.

    Args:
      loss: such as `losses.arcface`.
      num_classes: C. A row of a class beyond the table is an error outside jit; under jit, where
        labels cannot be looked at, it counts for nothing, as missing rows do anywhere.
      sub_centers: K, directions a class, for `losses.subcenter_arcface`.
      rows: R, rows of the table, C by default. Those beyond C stand for no class: no loss sees
        them, though a regularizer of the table does. A table that is split over devices has to
        divide by them; with rows that any number of devices divides, a checkpoint of some fits
        others.
      **numbers: keywords for the loss. A number wrapped in `learned` or `learned_logarithm` is a
        parameter.

    Returns:
      An `Objective` with the parameters {"proxies": [R, D] or [R, K, D]}, random unit rows, and
      one more for each learned number.

    Example:
      >>> objective = table(losses.cosface, 10, margin=0.2, scale=16.0)
      >>> params, _ = objective.init(jax.random.key(0), 4)
      >>> params["proxies"].shape
      (10, 4)
      >>> table(losses.cosface, 10, rows=64).init(jax.random.key(0), 4)[0]["proxies"].shape
      (64, 4)
    """
    at_least("num_classes", num_classes, 1)
    length = num_classes if rows is None else rows
    at_least("rows", length, num_classes)
    shape = (length,) if sub_centers is None else (length, sub_centers)
    fixed, taught = split(numbers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        proxies = unit(jax.random.normal(key, (*shape, dim)))
        return {"proxies": proxies, **starts(taught)}, ()

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del state
        labels = existing_labels(batch["labels"], batch.get("where"))
        proxies = params["proxies"]
        given = {**batch_rows(batch), **fixed, **values(taught, params, labels)}
        if length > num_classes:
            shared = of_classes(num_classes, proxies, shared)
        return loss(embeddings, labels, proxies, **given, **shared)

    return Objective(init, value, keep_state)


def of_classes(num_classes: int, proxies: Array, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The shared keywords that leave out the rows of a table beyond its classes."""
    classes = table_labels(proxies, shared.get("proxy_labels"), shared.get("class_axis_name"))
    return {**shared, "proxy_labels": jnp.where(classes < num_classes, classes, -1)}


def at_least(name: str, value: int, least: int) -> None:
    """Refuses a count below `least`."""
    if value < least:
        raise ValueError(f"{name}: got {value}, expected {least} or more")
