"""Which arrays of a state are class tables, and the loss over a table that is split by classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from jdml import states
from jdml._core.options import Array


def class_specs(tree: Any, class_axis_name: str | None) -> Any:
    """How the arrays of a train state lie on a mesh: class tables are split, the rest is copied.

    Class tables are the parameters of the objective that are named "proxies" and what an optimizer
    holds of them, and in the objective's state what is as long as one of them, such as centers.
    Memories of past rows are no class tables, however long.

    Args:
      tree: a `TrainState`.
      class_axis_name: the mesh axis that splits classes; None where none does.

    Returns:
      A tree of the same structure of `PartitionSpec`.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from jdml.training import TrainState
      >>> params = {"encoder": {}, "objective": {"proxies": jnp.ones((6, 2)), "scale": jnp.ones(())}}
      >>> state = TrainState(0, params, {}, {"centers": jnp.ones((6, 2))}, optax.EmptyState(), 0)
      >>> specs = class_specs(state, "model")
      >>> specs.params["objective"], specs.objective_state
      ({'proxies': P('model',), 'scale': P()}, {'centers': P('model',)})
    """
    lengths = {len(table) for table in class_tables(tree.params["objective"])}
    split, whole = P(class_axis_name), P()

    def of_params(path: tuple[Any, ...], leaf: Any) -> P:
        return split if _is_table(path) and jax.numpy.ndim(leaf) and len(leaf) in lengths else whole

    def of_objective(path: tuple[Any, ...], leaf: Any) -> P:
        return of_params(path, leaf) if _key(path[:1]) == "objective" else whole

    def of_optimizer(path: tuple[Any, ...], leaf: Any) -> P:
        inside = any(_key((entry,)) == "objective" for entry in path)
        return of_params(path, leaf) if inside else whole

    def of_state(leaf: Any) -> Any:
        if isinstance(leaf, states.Memory):
            return jax.tree.map(lambda _: whole, leaf)
        return split if jax.numpy.ndim(leaf) > 1 and len(leaf) in lengths else whole

    everywhere = jax.tree.map(lambda _: whole, tree)
    if class_axis_name is None or not lengths:
        return everywhere
    with_path = jax.tree_util.tree_map_with_path
    return everywhere._replace(
        params=with_path(of_objective, tree.params),
        opt_state=with_path(of_optimizer, tree.opt_state),
        objective_state=jax.tree.map(
            of_state, tree.objective_state, is_leaf=lambda x: isinstance(x, states.Memory)
        ),
    )


def class_tables(params: Any) -> list[Array]:
    """The class tables among the parameters of an objective.

    Args:
      params: of an `Objective`.

    Returns:
      The arrays, [C, D] or [C, K, D] each.

    Example:
      >>> import jax.numpy as jnp
      >>> [table.shape for table in class_tables(({"proxies": jnp.ones((6, 2))}, {}))]
      [(6, 2)]
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [leaf for path, leaf in leaves if _is_table(path) and jax.numpy.ndim(leaf) > 1]


def over_classes(loss: Callable[..., Array], state: Any, class_axis_name: str) -> Callable[..., Array]:
    """The loss of an objective whose class tables are split over a mesh axis.

    The compiler alone would gather the whole table to cut it into blocks; this says that each
    device folds the classes that it holds. Other mesh axes stay the compiler's.

    Args:
      loss: `loss(params, state, embeddings, batch, *, class_axis_name)`.
      state: the `TrainState` whose tables are split.
      class_axis_name: an axis of the mesh in context.

    Returns:
      `f(params, state, embeddings, batch) -> loss`.
    """
    specs = class_specs(state, class_axis_name)

    def part(params: Any, objective_state: Any, embeddings: Array, rows: Any) -> Any:
        def of(params: Any, embeddings: Array) -> Array:
            return loss(
                params, objective_state, embeddings, rows, class_axis_name=class_axis_name
            )

        return jax.value_and_grad(of, (0, 1))(params, embeddings)

    # The gradient is taken inside: inside another `shard_map`, one cannot be cut in two for it.
    of_params = specs.params["objective"]
    inside = jax.shard_map(
        part,
        in_specs=(of_params, specs.objective_state, P(), P()),
        out_specs=(P(), (of_params, P())),
        axis_names={class_axis_name},
    )

    @jax.custom_vjp
    def value(params: Any, objective_state: Any, embeddings: Array, rows: Any) -> Array:
        return inside(params, objective_state, embeddings, rows)[0]

    def backward(gradients: Any, ct: Array) -> Any:
        of_params, of_rows = jax.tree.map(lambda g: g * ct.astype(g.dtype), gradients)
        return of_params, None, of_rows, None

    value.defvjp(inside, backward)

    def whole(params: Any, objective_state: Any, embeddings: Array, batch: Any) -> Array:
        # Every part sees all rows; the images, which no loss reads, need not travel.
        rows = {name: x for name, x in batch.items() if name != "images"}
        return value(params, objective_state, embeddings, rows)

    return whole


def _is_table(path: tuple[Any, ...]) -> bool:
    return _key(path[-1:]) == "proxies"


def _key(path: tuple[Any, ...]) -> Any:
    return getattr(path[0], "key", None) if path else None
