"""Objectives: a loss with the class table and the state that it owns, ready for a train step.

An `Objective` is a triple of functions, as an Optax optimizer is a pair:

    init(key, dim) -> (params, state)
    loss(params, state, embeddings, batch, *, axis_name=None) -> scalar
    update(state, params, embeddings, batch, *, axis_name=None) -> state

`params` are learned by gradient (class tables), `state` is rewritten by rules (centers, memory,
scales), `batch` holds "labels" [B] and may hold "where" and "weights" [B]. Combinators take
objectives and give one back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdml import losses, states
from jdml._core.maths import unit
from jdml._core.options import Array, Number

Batch = Mapping[str, Array]


class Objective(NamedTuple):
    """See the module."""

    init: Callable[[Array, int], tuple[Any, Any]]
    loss: Callable[..., Array]
    update: Callable[..., Any]


def _keep_state(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
    del params, embeddings, batch, shared
    return state


def _rows(batch: Batch) -> dict[str, Array]:
    """The shared keywords that a batch carries."""
    return {name: batch[name] for name in ("where", "weights") if batch.get(name) is not None}


def pairs(loss: Callable[..., Array], **numbers: Any) -> Objective:
    """A pair loss as an objective; it owns nothing.

    Args:
      loss: such as `losses.triplet`.
      **numbers: keywords for it: margins, a miner, a distance.

    Returns:
      An `Objective` without parameters and state.

    Example:
      >>> objective = pairs(losses.triplet, margin=0.5)
      >>> batch = {"labels": jnp.array([0, 0, 1])}
      >>> params, state = objective.init(jax.random.key(0), 1)
      >>> rows = jnp.array([[0.0], [0.5], [0.75]])
      >>> print(f"{objective.loss(params, state, rows, batch):.5f}")
      0.50000
    """

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        del key, dim
        return {}, ()

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del params, state
        return loss(embeddings, batch["labels"], **_rows(batch), **numbers, **shared)

    return Objective(init, value, _keep_state)


def table(
    loss: Callable[..., Array], num_classes: int, *, sub_centers: int | None = None, **numbers: Any
) -> Objective:
    """A table loss as an objective that learns its class table.

    Args:
      loss: such as `losses.arcface`.
      num_classes: C, rows of the table.
      sub_centers: K, directions a class, for `losses.subcenter_arcface`.
      **numbers: keywords for the loss.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D] or [C, K, D]}, random unit rows.

    Example:
      >>> objective = table(losses.cosface, 10, margin=0.2, scale=16.0)
      >>> params, _ = objective.init(jax.random.key(0), 4)
      >>> params["proxies"].shape
      (10, 4)
    """
    _at_least("num_classes", num_classes, 1)
    shape = (num_classes,) if sub_centers is None else (num_classes, sub_centers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        return {"proxies": unit(jax.random.normal(key, (*shape, dim)))}, ()

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del state
        labels, proxies = batch["labels"], params["proxies"]
        return loss(embeddings, labels, proxies, **_rows(batch), **numbers, **shared)

    return Objective(init, value, _keep_state)


def adacos(num_classes: int) -> Objective:
    """Dynamic AdaCos: its scale is a state that follows the angles of each batch.

    Args:
      num_classes: C, at least 3.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D]} and the scale as state.

    Example:
      >>> _, scale = adacos(100).init(jax.random.key(0), 4)
      >>> print(f"{scale:.3f}")
      6.498

    Reference:
      Zhang, Zhao, Qiao, Wang, Li: AdaCos, CVPR 2019.
    """
    proxies = table(losses.adacos, num_classes)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        return proxies.init(key, dim)[0], states.adacos_scale(num_classes)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        labels = batch["labels"]
        options = {**_rows(batch), **shared}
        return losses.adacos(embeddings, labels, params["proxies"], scale=state, **options)

    def update(
        state: Any, params: Any, embeddings: Array, batch: Batch, *, axis_name: Any = None
    ) -> Any:
        return states.update_adacos(
            state,
            embeddings,
            batch["labels"],
            params["proxies"],
            where=batch.get("where"),
            axis_name=axis_name,
        )

    return Objective(init, value, update)


def center(num_classes: int, *, rate: Number = 0.5) -> Objective:
    """Center loss with the paper's rule for the centers. To be added to another objective.

    Args:
      num_classes: C.
      rate: of the centers, alpha in the paper.

    Returns:
      An `Objective` with the centers [C, D] as state.

    Example:
      >>> _, centers = center(10).init(jax.random.key(0), 4)
      >>> centers.shape
      (10, 4)

    Reference:
      Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition,
      ECCV 2016.
    """
    _at_least("num_classes", num_classes, 1)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        del key
        return {}, jnp.zeros((num_classes, dim))

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del params
        return losses.center(embeddings, batch["labels"], state, **_rows(batch), **shared)

    def update(
        state: Any, params: Any, embeddings: Array, batch: Batch, *, axis_name: Any = None
    ) -> Any:
        del params
        labels, where = batch["labels"], batch.get("where")
        return states.update_centers(
            state, embeddings, labels, rate=rate, where=where, axis_name=axis_name
        )

    return Objective(init, value, update)


def sphereface(num_classes: int, **numbers: Any) -> Objective:
    """SphereFace with the annealing that it needs to start: `sphereface_annealing` of the step.

    Args:
      num_classes: C.
      **numbers: keywords for `losses.sphereface`.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D]} and the step as state.

    Example:
      >>> _, step = sphereface(10).init(jax.random.key(0), 4)
      >>> int(step)
      0

    Reference:
      Liu, Wen, Yu, Li, Raj, Song: SphereFace, CVPR 2017.
    """
    proxies = table(losses.sphereface, num_classes, **numbers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        return proxies.init(key, dim)[0], jnp.zeros((), jnp.int32)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        options = {"annealing": sphereface_annealing(state), **shared}
        return proxies.loss(params, (), embeddings, batch, **options)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        del params, embeddings, batch, shared
        return state + 1

    return Objective(init, value, update)


# ---------------------------------------------------------------- combinators


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

    def update(
        state: Any, params: Any, embeddings: Array, batch: Batch, *, axis_name: Any = None
    ) -> Any:
        return tuple(
            part.update(s, p, embeddings, batch, axis_name=axis_name)
            for (_, part), p, s in zip(parts, params, state)
        )

    return Objective(init, value, update)


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

    def update(
        state: Any, params: Any, embeddings: Array, batch: Batch, *, axis_name: Any = None
    ) -> Any:
        labels, where = batch["labels"], batch.get("where")
        memory = states.push(state.memory, embeddings, labels, where=where, axis_name=axis_name)
        inner = objective.update(state.inner, params, embeddings, batch, axis_name=axis_name)
        return _WithMemory(inner, memory)

    return Objective(init, value, update)


# ---------------------------------------------------------------- numbers that papers schedule


def class_size_margins(
    counts: Sequence[int] | np.ndarray,
    *,
    largest: float = 0.5,
    smallest: float = 0.25,
    power: float = 0.25,
) -> np.ndarray:
    """A margin for each class that shrinks with its number of training rows.

    a n^(-power) + b, with a and b such that the rarest class gets `largest` and the most frequent
    `smallest`. Rare classes are given more room. Use it as `margin=margins[labels]`.

    Args:
      counts: rows of each class, [C], each at least 1.
      largest: margin of the rarest class, in the unit of the loss.
      smallest: margin of the most frequent class.
      power: of the count, 0.25 in the paper's best setting.

    Returns:
      float32 [C].

    Raises:
      ValueError: a class without rows, named by its index.

    Example:
      >>> print(class_size_margins([1, 16], largest=0.5, smallest=0.25))
      [0.5  0.25]

    Reference:
      Ha, Liu, Liu, Xu: Google Landmark Recognition 2020 Competition Third Place Solution, 2020.
    """
    counts = np.asarray(counts)
    if counts.ndim != 1 or not len(counts) or counts.min() < 1:
        empty = np.flatnonzero(counts < 1)
        where = f"class {empty[0]} has {counts[empty[0]]}" if len(empty) else f"{counts.shape}"
        raise ValueError(f"counts: got {where}, expected [C] with 1 row or more a class")
    falling = counts.astype(np.float64) ** -power
    span = falling.max() - falling.min()
    share = np.ones_like(falling) if span == 0 else (falling - falling.min()) / span
    return (smallest + (largest - smallest) * share).astype(np.float32)


def sphereface_annealing(
    step: Number, *, start: float = 1500.0, rate: float = 0.1, floor: float = 5.0
) -> Array:
    """The annealing of `losses.sphereface` at a step: max(floor, start / (1 + rate * step)).

    Args:
      step: of training, from 0.
      start, rate, floor: as in the authors' configuration.

    Returns:
      A float32 scalar.

    Example:
      >>> print(sphereface_annealing(0), sphereface_annealing(10_000))
      1500.0 5.0

    Reference:
      Liu, Wen, Yu, Li, Raj, Song: SphereFace, CVPR 2017.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.maximum(floor, start / (1.0 + rate * step))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}: got {value}, expected {least} or more")
