"""Optimizers that leave alone what a step did not touch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdml._core.options import Array


def lazy_rows(optimizer: Any) -> Any:
    """An optimizer for class tables that moves only rows with a gradient.

    With a sampled head most rows of a table have none in a step. Momentum and decay would go on
    moving them all the same; here they and what the optimizer holds of them stay until they are
    drawn again, as in the paper's own optimizer. Arrays of one axis or none, such as a learned
    scale, are no tables and always move.

    Args:
      optimizer: an Optax optimizer, such as the one of the objective's parameters, that holds
        arrays of their shapes (Adam, momentum) and no others of their structure.

    Returns:
      An Optax optimizer with the same state.

    Example:
      >>> import optax
      >>> tx = lazy_rows(optax.sgd(1.0, momentum=0.5))
      >>> table = jnp.zeros((2, 1))
      >>> _, state = tx.update(jnp.array([[1.0], [1.0]]), tx.init(table), table)
      >>> updates, _ = tx.update(jnp.array([[0.0], [1.0]]), state, table)
      >>> print(updates[0], updates[1])  # 1 + 0.5 x 1 for the row with a gradient
      [0.] [-1.5]

    Reference:
      An et al.: Killing Two Birds with One Stone: Efficient and Robust Training of Face
      Recognition CNNs by Partial FC, CVPR 2022.
    """
    import optax

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        moved = jax.tree.map(_touched, updates)
        updates, following = optax.with_extra_args_support(optimizer).update(
            updates, state, params, **extra
        )
        of_state = optax.tree.map_params(
            optimizer, lambda _, rows: rows, state, moved, transform_non_params=lambda _: None
        )
        keep = lambda rows, new, old: new if rows is None else jnp.where(rows, new, old)
        following = jax.tree.map(keep, of_state, following, state, is_leaf=lambda x: x is None)
        still = jax.tree.map(lambda rows, x: jnp.where(rows, x, jnp.zeros_like(x)), moved, updates)
        return still, following

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def _touched(gradient: Array) -> Array:
    """Whether each row of a table has a gradient, [C, 1, ...]; all of another array."""
    if gradient.ndim < 2:
        return jnp.ones((1,) * gradient.ndim, bool)
    return (gradient != 0).any(axis=tuple(range(1, gradient.ndim)), keepdims=True)
