"""Embeddings whose first coordinates are embeddings of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from jdml._core import checks
from jdml._core.options import Array
from jdml.objectives.base import Batch, Objective


def matryoshka(
    objective: Objective, dims: Sequence[int], *, weights: Sequence[float] | None = None
) -> Objective:
    """The sum of an objective over the first coordinates of the embeddings, for several widths.

    What is trained so can be cut off after any of these widths: a search can take the short rows
    first and rank what they find by the long ones. Each width has a table, a memory and whatever
    else the objective owns to itself.

    Args:
      objective: any.
      dims: widths m, rising; the last is usually D.
      weights: of the widths; 1 each by default, as in the paper.

    Returns:
      An `Objective` whose parameters and state are tuples, one entry a width.

    Raises:
      ValueError: widths that do not rise, or exceed the embeddings'; weights of another number.

    Example:
      >>> nested = matryoshka(table(losses.cosface, 10), (2, 4))
      >>> params, _ = nested.init(jax.random.key(0), 4)
      >>> [part["proxies"].shape for part in params]
      [(10, 2), (10, 4)]

    Reference:
      Kusupati et al.: Matryoshka Representation Learning, NeurIPS 2022.
    """
    dims = tuple(dims)
    rising = all(low < high for low, high in zip((0, *dims), dims))
    if not dims or not rising:
        raise ValueError(f"dims: got {dims}, expected rising widths of 1 or more")
    weights = (1.0,) * len(dims) if weights is None else tuple(weights)
    if len(weights) != len(dims):
        raise ValueError(f"weights: got {len(weights)}, expected one for each of {len(dims)} dims")

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        if dims[-1] > dim:
            raise ValueError(f"dims: got {dims}, expected at most the {dim} of the embeddings")
        made = [objective.init(k, m) for k, m in zip(jax.random.split(key, len(dims)), dims)]
        return tuple(params for params, _ in made), tuple(state for _, state in made)

    def first(embeddings: Array, width: int) -> Array:
        wide = embeddings.shape[-1] >= dims[-1]
        checks.expect(wide, "embeddings", embeddings, f"at least {dims[-1]} dimensions")
        return embeddings[:, :width]

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        refs = shared.get("refs")
        values = []
        for width, weight, p, s in zip(dims, weights, params, state):
            given = shared if refs is None else {**shared, "refs": first(refs, width)}
            short = first(embeddings, width)
            values.append(weight * objective.loss(p, s, short, batch, **given))
        return sum(values[1:], start=values[0])

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        return tuple(
            objective.update(s, p, first(embeddings, width), batch, **shared)
            for width, p, s in zip(dims, params, state)
        )

    return Objective(init, value, update)
