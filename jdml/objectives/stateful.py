"""Objectives of losses whose state a rule rewrites after each step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from jdml import losses, states
from jdml._core.options import Array, Number
from jdml.objectives.base import (
    Batch,
    Objective,
    at_least,
    batch_rows,
    of_classes,
    table,
    without_classes,
)
from jdml.objectives.numbers import sphereface_annealing
from jdml.states.rows import existing_labels


def adacos(num_classes: int, *, rows: int | None = None) -> Objective:
    """Dynamic AdaCos: its scale is a state that follows the angles of each batch.

    Args:
      num_classes: C, at least 3.
      rows: of the table, as in `table`.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D]} and the scale as state.

    Example:
      >>> _, scale = adacos(100).init(jax.random.key(0), 4)
      >>> print(f"{scale:.3f}")
      6.498

    Reference:
      Zhang, Zhao, Qiao, Wang, Li: AdaCos, CVPR 2019.
    """
    proxies = table(losses.adacos, num_classes, rows=rows)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        return proxies.init(key, dim)[0], states.adacos_scale(num_classes)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        return proxies.loss(params, (), embeddings, batch, scale=state, **shared)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        labels, table = batch["labels"], params["proxies"]
        options = of_classes(num_classes, table, shared) if rows else shared
        return states.update_adacos(
            state, embeddings, labels, table, where=batch.get("where"), **options
        )

    return Objective(init, value, update)


def center(num_classes: int, *, rows: int | None = None, rate: Number = 0.5) -> Objective:
    """Center loss with the paper's rule for the centers. To be added to another objective.

    Args:
      num_classes: C.
      rows: R, as many as the class table beside it has, see `table`; C by default. Centers are
        split over devices as that is.
      rate: of the centers, alpha in the paper.

    Returns:
      An `Objective` with the centers [R, D] as state.

    Example:
      >>> _, centers = center(10).init(jax.random.key(0), 4)
      >>> centers.shape
      (10, 4)

    Reference:
      Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition,
      ECCV 2016.
    """
    at_least("num_classes", num_classes, 1)
    length = num_classes if rows is None else rows
    at_least("rows", length, num_classes)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        del key
        return {}, jnp.zeros((length, dim))

    def known(state: Any, batch: Batch, shared: Any) -> Array:
        """The labels that have a center, of centers that lie as the table beside them."""
        class_axis = shared.get("class_axis_name")
        if class_axis is not None and state.shape[0] * lax.axis_size(class_axis) != length:
            raise ValueError(
                f"rows: got {length} centers beside a class table of another length that devices "
                "share, expected as many: center(num_classes, rows=...)"
            )
        beyond = None if length == num_classes else num_classes
        return existing_labels(batch["labels"], batch.get("where"), beyond)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del params
        labels = known(state, batch, shared)
        return losses.center(embeddings, labels, state, **batch_rows(batch), **shared)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        del params
        labels = known(state, batch, shared)
        axes = {k: v for k, v in shared.items() if k in ("axis_name", "class_axis_name")}
        return states.update_centers(state, embeddings, labels, rate=rate, **axes)

    return Objective(init, value, update)


def dynamic_soft_margin(
    *, bins: int = 10, rate: Number = 0.01, low: float = -2.0, **numbers: Any
) -> Objective:
    """The dynamic soft margin: its histogram of margins is a state that follows the batches.

    Args:
      bins: nodes of the histogram; the authors take 512.
      rate: share of a batch in it.
      low: the first node.
      **numbers: further keywords for `losses.dynamic_soft_margin`: a miner, a distance.

    Returns:
      An `Objective` without parameters and with the histogram as state.

    Example:
      >>> _, histogram = dynamic_soft_margin(bins=4).init(jax.random.key(0), 4)
      >>> histogram.shape
      (4,)

    Reference:
      Zhang, Rusinkiewicz: Learning Local Descriptors with a CDF-Based Dynamic Soft Margin,
      ICCV 2019.
    """
    rule = {k: v for k, v in numbers.items() if k in ("distance", "miner")}

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        del key, dim
        return {}, states.margins(bins)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        del params
        options = {**batch_rows(batch), **numbers, **without_classes(shared)}
        return losses.dynamic_soft_margin(
            embeddings, batch["labels"], histogram=state, rate=rate, low=low, **options
        )

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        del params
        options = {**rule, **batch_rows(batch), "axis_name": shared.get("axis_name")}
        return states.update_margins(
            state, embeddings, batch["labels"], rate=rate, low=low, **options
        )

    return Objective(init, value, update)


def sphereface(num_classes: int, **numbers: Any) -> Objective:
    """SphereFace with the annealing that it needs to start: `sphereface_annealing` of the step.

    Args:
      num_classes: C.
      **numbers: keywords for `losses.sphereface`, and `rows` of the table.

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


def curricularface(num_classes: int, **numbers: Any) -> Objective:
    """CurricularFace: its hardness is a state that follows the mean own cosine.

    Args:
      num_classes: C.
      **numbers: keywords for `losses.curricularface`, and `rows` of the table.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D]} and the hardness as state.

    Example:
      >>> _, hardness = curricularface(10).init(jax.random.key(0), 4)
      >>> float(hardness)
      0.0

    Reference:
      Huang et al.: CurricularFace, CVPR 2020.
    """
    proxies = table(losses.curricularface, num_classes, **numbers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        return proxies.init(key, dim)[0], jnp.zeros((), jnp.float32)

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        return proxies.loss(params, (), embeddings, batch, hardness=state, **shared)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        labels, where = batch["labels"], batch.get("where")
        return states.update_hardness(
            state, embeddings, labels, params["proxies"], where=where, **shared
        )

    return Objective(init, value, update)


def adaface(num_classes: int, **numbers: Any) -> Objective:
    """AdaFace: its statistics of lengths are a state that follows the batches.

    Args:
      num_classes: C.
      **numbers: keywords for `losses.adaface`, and `rows` of the table.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D]} and `states.Norms` as state.

    Example:
      >>> _, statistics = adaface(10).init(jax.random.key(0), 4)
      >>> float(statistics.mean)
      20.0

    Reference:
      Kim, Jain, Liu: AdaFace, CVPR 2022.
    """
    proxies = table(losses.adaface, num_classes, **numbers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        return proxies.init(key, dim)[0], states.norms()

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        statistics = {"norm_mean": state.mean, "norm_std": state.std}
        return proxies.loss(params, (), embeddings, batch, **statistics, **shared)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        del params
        labels = existing_labels(batch["labels"], batch.get("where"), num_classes)
        axis_name = shared.get("axis_name")
        return states.update_norms(state, embeddings, labels=labels, axis_name=axis_name)

    return Objective(init, value, update)
