"""The optimizer that suits an encoder and the class table of its loss."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax


def schedule(learning_rate: float, *, steps: int, warmup: int | None = None) -> optax.Schedule:
    """Linear warm-up to `learning_rate`, then a cosine down to 0 at `steps`.

    Args:
      learning_rate: the highest.
      steps: of the whole run.
      warmup: steps of the warm-up; by default a twentieth of the run.

    Returns:
      `f(step) -> learning rate`.

    Raises:
      ValueError: numbers out of range.

    Example:
      >>> rate = schedule(0.1, steps=100, warmup=10)
      >>> print(*(f"{rate(step):.3f}" for step in (0, 9, 10, 55, 100)))
      0.010 0.100 0.100 0.050 0.000
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected 1 or more")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: got {learning_rate}, expected more than 0")
    warmup = steps // 20 if warmup is None else warmup
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup: got {warmup}, expected 0 or more and less than steps {steps}")

    def rate(step: Any) -> Any:
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum((step + 1.0) / max(warmup, 1), 1.0)  # the first step counts
        done = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
        return learning_rate * rising * 0.5 * (1.0 + jnp.cos(jnp.pi * done))

    return rate


def optimizer(
    learning_rate: float,
    *,
    steps: int,
    warmup: int | None = None,
    weight_decay: float = 1e-4,
    clip_norm: float = 1.0,
    table_multiplier: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine, clipping, and a learning rate of its own for class tables.

    The gradient of all parameters together is clipped to `clip_norm`. Weight decay is decoupled
    and reaches the encoder's kernels alone: not biases, norm scales, learned numbers or class
    tables. Proxies and class tables see few rows of their class and often want a higher rate.

    Args:
      learning_rate: the encoder's highest.
      steps: of the whole run.
      warmup: steps; by default a twentieth of the run.
      weight_decay: times the learning rate, a step.
      clip_norm: largest norm of the gradient.
      table_multiplier: the objective's parameters learn at this times the encoder's rate.

    Returns:
      An Optax transformation for {"encoder": ..., "objective": ...}.

    Raises:
      ValueError: numbers out of range.

    Example:
      >>> tx = optimizer(0.1, steps=10, warmup=0, weight_decay=0.0, table_multiplier=10.0)
      >>> params = {"encoder": {"kernel": jnp.ones(1)}, "objective": {"proxies": jnp.ones(1)}}
      >>> with jax.numpy_dtype_promotion("standard"):
      ...     updates, _ = tx.update(params, tx.init(params), params)
      >>> print(*(f"{x[0]:.4f}" for x in jax.tree.leaves(updates)))
      -0.1000 -1.0000
    """
    for name, value in (("weight_decay", weight_decay), ("table_multiplier", table_multiplier)):
        if not value >= 0:
            raise ValueError(f"{name}: got {value}, expected 0 or more")
    if not clip_norm > 0:
        raise ValueError(f"clip_norm: got {clip_norm}, expected more than 0")
    rate = schedule(learning_rate, steps=steps, warmup=warmup)
    parts: dict[Hashable, optax.GradientTransformation] = {
        "encoder": optax.adamw(rate, weight_decay=weight_decay, mask=_kernels),
        "objective": optax.adam(lambda step: table_multiplier * rate(step)),
    }
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.partition(parts, lambda params: {name: name for name in params}),
    )


def _kernels(params: Any) -> Any:
    """True at the leaves named "kernel", as Flax names the matrices of its layers."""

    def is_kernel(path: Sequence[Any], leaf: Any) -> bool:
        del leaf
        return bool(path) and getattr(path[-1], "key", None) == "kernel"

    return jax.tree_util.tree_map_with_path(is_kernel, params)
