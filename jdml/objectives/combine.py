"""Combinators: objectives in, one objective out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jdml import states
from jdml._core.options import Array
from jdml.objectives.base import Batch, Objective


def weighted_sum(*parts: tuple[float, Objective]) -> Objective:
    """The weighted sum of objectives, such as a softmax + 0.003 center loss.

    Args:
      *parts: (weight, objective) pairs.

    Returns:
      An `Objective` whose parameters and state are tuples, one entry a part.

    Example:
      >>> both = weighted_sum((1.0, table(losses.cosface, 10)), (0.003, center(10)))
      >>> params, state = both.init(jax.random.key(0), 4)
      >>> len(params), state[1].shape
      (2, (10, 4))
    """
    if not parts:
        raise ValueError("parts: got none, expected (weight, objective) pairs")

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        keys = jax.random.split(key, len(parts))
        made = [part.init(k, dim) for k, (_, part) in zip(keys, parts)]
        return tuple(params for params, _ in made), tuple(state for _, state in made)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        values = [
            weight * part.loss(p, s, embeddings, batch, **shared)
            for (weight, part), p, s in zip(parts, params, state)
        ]
        return sum(values[1:], start=values[0])

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        return tuple(
            part.update(s, p, embeddings, batch, **shared)
            for (_, part), p, s in zip(parts, params, state)
        )

    return Objective(init, value, update)


def regularized(
    objective: Objective, regularizer: Callable[..., Array], weight: float, *, of: str = "proxies"
) -> Objective:
    """Adds a regularizer of the class table or of the embeddings to an objective.

    Args:
      objective: with the parameters {"proxies": ...} where the table is meant.
      regularizer: of `jdml.regularizers`, or any function of the same keywords.
      weight: of the added term.
      of: "proxies" or "embeddings".

    Returns:
      An `Objective` with the same parameters and state.

    Raises:
      ValueError: `of` is neither.

    Example:
      >>> from jdml import regularizers
      >>> objective = regularized(table(losses.cosface, 10), regularizers.regular_face, 0.1)
      >>> params, _ = objective.init(jax.random.key(0), 4)
      >>> params["proxies"].shape
      (10, 4)
    """
    if of not in ("proxies", "embeddings"):
        raise ValueError(f"of: got {of!r}, expected 'proxies' or 'embeddings'")

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        inside = objective.loss(params, state, embeddings, batch, **shared)
        if of == "proxies":
            axis_name = shared.get("class_axis_name")
            return inside + weight * regularizer(params["proxies"], axis_name=axis_name)
        labels, where = batch["labels"], batch.get("where")
        exists = labels >= 0 if where is None else where & (labels >= 0)
        axis_name = shared.get("axis_name")
        return inside + weight * regularizer(embeddings, where=exists, axis_name=axis_name)

    return Objective(objective.init, value, objective.update)


class _WithMemory(NamedTuple):
    inner: Any
    memory: states.Memory


def with_memory(objective: Objective, size: int, *, weight: float = 1.0) -> Objective:
    """Adds the same pair loss of the batch against a memory of past rows.

    The memory is pushed after the step, so a batch is never its own reference; empty slots do
    not count.

    Args:
      objective: of a pair loss.
      size: M, rows kept.
      weight: of the term against the memory.

    Returns:
      An `Objective` with a memory of the last rows of all devices in its state.

    Example:
      >>> remembered = with_memory(pairs(losses.contrastive), 64)
      >>> _, state = remembered.init(jax.random.key(0), 4)
      >>> state.memory.embeddings.shape
      (64, 4)

    Reference:
      Wang, Zhang, Huang, Scott: Cross-Batch Memory for Embedding Learning, CVPR 2020.
    """

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        params, state = objective.init(key, dim)
        return params, _WithMemory(state, states.memory(size, dim))

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        inside = objective.loss(params, state.inner, embeddings, batch, **shared)
        refs = states.as_refs(state.memory)
        return inside + weight * objective.loss(
            params, state.inner, embeddings, batch, **shared, **refs
        )

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        labels, options = batch["labels"], {"axis_name": shared.get("axis_name")}
        memory = states.push(state.memory, embeddings, labels, where=batch.get("where"), **options)
        inner = objective.update(state.inner, params, embeddings, batch, **shared)
        return _WithMemory(inner, memory)

    return Objective(init, value, update)
