"""Which arrays of a state are class tables, and the loss over a table that is split by classes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax
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
      >>> table, scale = jnp.ones((6, 2)), jnp.float32(1.0)
      >>> params = {"encoder": {}, "objective": {"proxies": table, "scale": scale}}
      >>> state = TrainState(0, params, {}, {"centers": table}, optax.EmptyState(), 0)
      >>> specs = class_specs(state, "model")
      >>> specs.params["objective"], specs.objective_state
      ({'proxies': P('model',), 'scale': P()}, {'centers': P('model',)})
    """
    lengths = {table.shape[:1] for table in class_tables(tree.params["objective"])}
    split, whole = P(class_axis_name), P()

    def of_params(path: tuple[Any, ...], leaf: Any) -> P:
        return split if _is_table(path) and _shape(leaf)[:1] in lengths else whole

    def of_objective(path: tuple[Any, ...], leaf: Any) -> P:
        return of_params(path, leaf) if _key(path[:1]) == "objective" else whole

    def of_optimizer(path: tuple[Any, ...], leaf: Any) -> P:
        inside = any(_key((entry,)) == "objective" for entry in path)
        return of_params(path, leaf) if inside else whole

    def of_state(leaf: Any) -> Any:
        if isinstance(leaf, states.Memory):
            return jax.tree.map(lambda _: whole, leaf)
        shape = _shape(leaf)
        return split if len(shape) > 1 and shape[:1] in lengths else whole

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
    return [leaf for path, leaf in leaves if _is_table(path) and len(_shape(leaf)) > 1]


def over_classes(
    loss: Callable[..., Array], state: Any, class_axis_name: str, *, check_vma: bool = True
) -> Callable[..., Array]:
    """The loss of an objective whose class tables are split over a mesh axis.

    The compiler alone would gather the whole table to cut it into blocks; this says that each
    device folds the classes that it holds. Other mesh axes stay the compiler's.

    Args:
      loss: `loss(params, state, embeddings, batch, *, class_axis_name)`.
      state: the `TrainState` whose tables are split.
      class_axis_name: an axis of the mesh in context.
      check_vma: whether varying axes are checked, which has to be as around it.

    Returns:
      `f(params, state, embeddings, batch) -> loss`.
    """
    specs = class_specs(state, class_axis_name)

    def once(gradient: Array, spec: P) -> Array:
        """Without checks every device of the axis counts the loss, so what is split is too large
        by its size, and what is copied is a part of the sum."""
        if check_vma:
            return gradient
        if spec == P():
            return lax.pmean(gradient, class_axis_name)
        return gradient / lax.axis_size(class_axis_name)

    def part(params: Any, objective_state: Any, embeddings: Array, rows: Any) -> Any:
        def of(params: Any, embeddings: Array) -> Array:
            return loss(params, objective_state, embeddings, rows, class_axis_name=class_axis_name)

        value, gradients = jax.value_and_grad(of, (0, 1))(params, embeddings)
        return value, jax.tree.map(once, gradients, (specs.params["objective"], P()))

    # The gradient is taken inside: inside another `shard_map`, one cannot be cut in two for it.
    of_params = specs.params["objective"]
    inside = jax.shard_map(
        part,
        in_specs=(of_params, specs.objective_state, P(), P()),
        out_specs=(P(), (of_params, P())),
        axis_names={class_axis_name},
        check_vma=check_vma,
    )

    @jax.custom_vjp
    def value(params: Any, objective_state: Any, embeddings: Array, rows: Any) -> Array:
        return inside(params, objective_state, embeddings, rows)[0]

    def backward(gradients: Any, ct: Array) -> Any:
        of_params, of_rows = jax.tree.map(lambda g: g * ct.astype(g.dtype), gradients)
        return of_params, None, of_rows, None

    value.defvjp(inside, backward)

    def whole(params: Any, objective_state: Any, embeddings: Array, batch: Any) -> Array:
        return value(params, objective_state, embeddings, _without_images(batch))

    return whole


def update_over_classes(
    update: Callable[..., Any], state: Any, class_axis_name: str, *, check_vma: bool = True
) -> Callable[..., Any]:
    """The rule of an objective's state, where class tables are split over a mesh axis.

    Args:
      update: `update(objective_state, params, embeddings, batch, *, class_axis_name)`.
      state: the `TrainState` whose tables are split.
      class_axis_name: an axis of the mesh in context.
      check_vma: as for `over_classes`.

    Returns:
      `f(objective_state, params, embeddings, batch) -> objective_state`.
    """
    specs = class_specs(state, class_axis_name)
    inside = jax.shard_map(
        functools.partial(update, class_axis_name=class_axis_name),
        in_specs=(specs.objective_state, specs.params["objective"], P(), P()),
        out_specs=specs.objective_state,
        axis_names={class_axis_name},
        check_vma=check_vma,
    )
    return lambda state, params, embeddings, batch: inside(
        state, params, embeddings, _without_images(batch)
    )


def _without_images(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Every part sees all rows; the images, which no loss reads, need not travel."""
    return {name: x for name, x in batch.items() if name != "images"}


def _is_table(path: tuple[Any, ...]) -> bool:
    return _key(path[-1:]) == "proxies"


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", ()))


def _key(path: tuple[Any, ...]) -> Any:
    return getattr(path[0], "key", None) if path else None
