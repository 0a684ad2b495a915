"""A pair loss that also compares the batch with mixtures of its own embeddings."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jdml import augment
from jdml._core.devices import gather
from jdml._core.options import Array
from jdml.augment.mixing import Partners
from jdml.objectives.base import Batch, Objective


class _Mixing(NamedTuple):
    inner: Any
    key: Array


def mixed(
    objective: Objective,
    *,
    weight: float = 0.4,
    alpha: float = 2.0,
    partners: Partners = "negatives",
) -> Objective:
    """Adds the same pair loss of the batch against mixtures of two of its embeddings.

    Unseen classes lie between and beyond those that train; mixtures fill that space at hardly any
    cost. Each step draws anew, by a key that is a state and the same on all devices, and mixes
    rows of the batch of all of them: any number of devices gives the same loss.

    Args:
      objective: of a pair loss that takes degrees as labels, such as `pairs(losses.contrastive)`
        or `losses.multi_similarity`.
      weight: of the term with mixtures.
      alpha: of the Beta(alpha, alpha) distribution of shares, as in `augment.mix`.
      partners: what is mixed with a row, as in `augment.mix`.

    Returns:
      An `Objective` with the same parameters, and a key in its state.

    Raises:
      ValueError: a weight or an alpha that is not above 0, or unknown partners.

    Example:
      >>> objective = mixed(pairs(losses.contrastive))
      >>> _, state = objective.init(jax.random.key(0), 2)
      >>> batch = {"labels": jnp.array([0, 0, 1, 1])}
      >>> bool(objective.loss((), state, jnp.eye(4), batch) > 0)
      True

    Note:
      Degrees take B x B numbers for the batch of all devices, on each of them.

    Reference:
      Venkataramanan, Psomas, Kijak, Amsaleg, Karantzalos, Avrithis, "It Takes Two to Tango: Mixup
      for Deep Metric Learning", ICLR 2022.
    """
    for name, value in (("weight", weight), ("alpha", alpha)):
        if not value > 0:
            raise ValueError(f"{name}: got {value}, expected above 0")
    if partners not in get_args(Partners):
        expected = ", ".join(get_args(Partners))
        raise ValueError(f"partners: got {partners!r}, expected one of {expected}")

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        inner_key, draw_key = jax.random.split(key)
        params, state = objective.init(inner_key, dim)
        return params, _Mixing(state, draw_key)

    def loss(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        inside = objective.loss(params, state.inner, embeddings, batch, **shared)
        if shared.get("refs") is not None:  # a memory's turn
            return inside
        draw_key, _ = jax.random.split(state.key)
        options = {"alpha": alpha, "partners": partners}
        pairs, refs = _against_mixtures(
            draw_key, embeddings, batch, shared.get("axis_name"), **options
        )
        between = objective.loss(params, state.inner, embeddings, pairs, **{**shared, **refs})
        return inside + weight * between

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        inner = objective.update(state.inner, params, embeddings, batch, **shared)
        _, following = jax.random.split(state.key)
        return _Mixing(inner, following)

    return Objective(init, loss, update)


def _against_mixtures(
    key: Array, embeddings: Array, batch: Batch, axis_name: Any, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The batch with the degrees of its pairs with mixtures, and the mixtures as references."""
    labels, where, weights = batch["labels"], batch.get("where"), batch.get("weights")
    exists = labels >= 0 if where is None else where & (labels >= 0)
    rows, classes, there = (gather(x, axis_name) for x in (embeddings, labels, exists))
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(rows.shape[0]))
    made = augment.mix(keys, rows, classes, where=there, **options)
    degrees, aside = made.degrees, made.weights
    if axis_name is not None:
        first = lax.axis_index(axis_name) * embeddings.shape[0]
        own = lambda x: lax.dynamic_slice_in_dim(x, first, embeddings.shape[0])
        degrees, aside = own(degrees), own(aside)
    if weights is not None:
        aside = aside * (weights if weights.ndim == 2 else weights[:, None])
    pairs = {**batch, "labels": degrees, "where": exists, "weights": aside}
    return pairs, {"refs": made.rows, "ref_where": made.where}
