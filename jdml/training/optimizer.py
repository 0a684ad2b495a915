"""The optimizer that suits an encoder and the class table of its loss."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

from jdml.objectives import lazy_rows

Course = Literal["cosine", "steps", "constant"]
Kind = Literal["adamw", "sgd", "rmsprop"]


def schedule(
    learning_rate: float,
    *,
    steps: int,
    warmup: int | None = None,
    course: Course = "cosine",
    milestones: Sequence[int] = (),
    drop: float = 0.1,
) -> optax.Schedule:
    """Linear warm-up to `learning_rate`, then the course that is asked for.

    Args:
      learning_rate: the highest.
      steps: of the whole run.
      warmup: steps of the warm-up; by default a twentieth of the run.
      course: "cosine" goes down to 0 at `steps`, "steps" is multiplied by `drop` at each
        milestone, "constant" stays.
      milestones: steps, rising, for the course "steps".
      drop: factor at a milestone.

    Returns:
      `f(step) -> learning rate`.

    Raises:
      ValueError: numbers out of range, or an unknown course.

    Example:
      >>> rate = schedule(0.1, steps=100, warmup=10)
      >>> print(*(f"{rate(step):.3f}" for step in (0, 9, 10, 55, 100)))
      0.010 0.100 0.100 0.050 0.000
      >>> rate = schedule(0.1, steps=100, warmup=0, course="steps", milestones=(60, 80), drop=0.5)
      >>> print(*(f"{rate(step):.3f}" for step in (0, 59, 60, 80)))
      0.100 0.100 0.050 0.025
    """
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected 1 or more")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: got {learning_rate}, expected more than 0")
    warmup = steps // 20 if warmup is None else warmup
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup: got {warmup}, expected 0 or more and less than steps {steps}")
    if course not in get_args(Course):
        known = ", ".join(get_args(Course))
        raise ValueError(f"course: got {course!r}, expected one of {known}")
    milestones = tuple(milestones)
    if (course == "steps") != bool(milestones) or list(milestones) != sorted(set(milestones)):
        raise ValueError(
            f"milestones: got {milestones}, expected rising steps for the course 'steps' alone"
        )
    if not 0 <= drop <= 1:
        raise ValueError(f"drop: got {drop}, expected 0 to 1")

    def rate(step: Any) -> Any:
        step = jnp.asarray(step, jnp.float32)
        rising = jnp.minimum((step + 1.0) / max(warmup, 1), 1.0)  # the first step counts
        if course == "cosine":
            done = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
            return learning_rate * rising * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        for milestone in milestones:
            rising = rising * jnp.where(step >= milestone, drop, 1.0)
        return learning_rate * rising

    return rate


def optimizer(
    learning_rate: float,
    *,
    steps: int,
    warmup: int | None = None,
    course: Course = "cosine",
    milestones: Sequence[int] = (),
    drop: float = 0.1,
    kind: Kind = "adamw",
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    table_decay: float = 0.0,
    clip_norm: float | None = 1.0,
    trunk_multiplier: float = 1.0,
    table_multiplier: float = 1.0,
    freeze_trunk_steps: int = 0,
    lazy_tables: bool = False,
) -> optax.GradientTransformation:
    """AdamW, SGD or RMSprop with a schedule, clipping, and a rate of its own for each part.

    The gradient of all parameters together is clipped to `clip_norm`. Weight decay reaches the
    encoder's kernels alone: not biases, norm scales, learned numbers or, unless `table_decay`
    asks, class tables. Proxies and class tables see few rows of their class and often want a
    higher rate; the trunk of a pretrained encoder, all of it but the neck that gives the
    embedding, often wants a lower one, or to wait until the neck has learned something.

    Args:
      learning_rate: the neck's, and the trunk's, highest.
      steps: of the whole run.
      warmup, course, milestones, drop: see `schedule`.
      kind: "adamw" decays weights apart from the gradient; "sgd" and "rmsprop" add
        `weight_decay` times the weights to the gradient, as is usual with them. RMSprop has a
        smoothing of 0.99 and epsilon beside the root, as in PyTorch.
      momentum: of "sgd" and "rmsprop".
      weight_decay: of the encoder's kernels.
      table_decay: of class tables.
      clip_norm: largest norm of the gradient; None does not clip.
      trunk_multiplier: what is no neck learns at this times the encoder's rate.
      table_multiplier: the objective's parameters learn at this times the encoder's rate.
      freeze_trunk_steps: the trunk's parameters stay as they are for the first steps; its
        optimizer starts afterwards. Running statistics of its batch norms are no parameters and
        move from the first step, unless the encoder has `frozen_norm`.
      lazy_tables: class rows without a gradient stay as they are, `objectives.lazy_rows`.

    Returns:
      An Optax transformation for {"encoder": ..., "objective": ...}.

    Raises:
      ValueError: numbers out of range, or an unknown kind or course.

    Example:
      >>> tx = optimizer(0.1, steps=10, warmup=0, weight_decay=0.0, table_multiplier=10.0)
      >>> params = {"encoder": {"kernel": jnp.ones(1)}, "objective": {"proxies": jnp.ones(1)}}
      >>> with jax.numpy_dtype_promotion("standard"):
      ...     updates, _ = tx.update(params, tx.init(params), params)
      >>> print(*(f"{x[0]:.4f}" for x in jax.tree.leaves(updates)))
      -0.1000 -1.0000
    """
    numbers = {"weight_decay": weight_decay, "table_multiplier": table_multiplier}
    numbers |= {"table_decay": table_decay, "trunk_multiplier": trunk_multiplier}
    numbers |= {"momentum": momentum, "freeze_trunk_steps": freeze_trunk_steps}
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name}: got {value}, expected 0 or more")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm: got {clip_norm}, expected more than 0, or None")
    if kind not in get_args(Kind):
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(get_args(Kind))}")
    shape = {"course": course, "milestones": milestones, "drop": drop}
    rate = schedule(learning_rate, steps=steps, warmup=warmup, **shape)  # pyright: ignore[reportArgumentType]

    def part(factor: float, decay: float, start: int = 0) -> optax.GradientTransformation:
        return _one(kind, lambda step: factor * rate(step + start), momentum, decay)

    tables = _tables(kind, lambda step: table_multiplier * rate(step), momentum, table_decay)
    parts: dict[Hashable, optax.GradientTransformation] = {
        "encoder": _one(kind, rate, momentum, weight_decay),
        "objective": lazy_rows(tables) if lazy_tables else tables,
    }
    labels: Callable[[Any], Any] = lambda params: {name: name for name in params}
    if trunk_multiplier != 1.0 or freeze_trunk_steps:
        parts["trunk"] = part(trunk_multiplier, weight_decay, freeze_trunk_steps)
        if freeze_trunk_steps:
            thawed: Any = lambda step: step >= freeze_trunk_steps
            parts["trunk"] = optax.conditionally_mask(parts["trunk"], thawed)
        labels = _parts_of
    clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    return optax.chain(clip, optax.partition(parts, labels))


def _one(
    kind: str, rate: optax.Schedule, momentum: float, decay: float
) -> optax.GradientTransformation:
    """The optimizer of a part of the encoder."""
    if kind == "adamw":
        return optax.adamw(rate, weight_decay=decay, mask=_kernels)
    return optax.chain(
        optax.add_decayed_weights(decay, mask=_kernels), _descent(kind, rate, momentum)
    )


def _tables(
    kind: str, rate: optax.Schedule, momentum: float, decay: float
) -> optax.GradientTransformation:
    """The optimizer of the objective's parameters."""
    if kind == "adamw":
        if decay:
            return optax.adamw(rate, weight_decay=decay, mask=_proxies)
        return optax.adam(rate)
    descent = _descent(kind, rate, momentum)
    if not decay:
        return descent
    return optax.chain(optax.add_decayed_weights(decay, mask=_proxies), descent)


def _descent(kind: str, rate: optax.Schedule, momentum: float) -> optax.GradientTransformation:
    if kind == "sgd":
        return optax.sgd(rate, momentum=momentum or None)
    return optax.rmsprop(rate, decay=0.99, eps=1e-8, eps_in_sqrt=False, momentum=momentum or None)


def _kernels(params: Any) -> Any:
    """True at the leaves named "kernel", as Flax names the matrices of its layers."""
    return _named("kernel", params)


def _proxies(params: Any) -> Any:
    """True at class tables."""
    return _named("proxies", params)


def _named(name: str, params: Any) -> Any:
    def is_it(path: Sequence[Any], leaf: Any) -> bool:
        del leaf
        return bool(path) and getattr(path[-1], "key", None) == name

    return jax.tree_util.tree_map_with_path(is_it, params)


def _parts_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Labels of the parameters: of the encoder the neck, and what is no neck, are apart."""

    def encoder(path: Sequence[Any], leaf: Any) -> str:
        del leaf
        first = str(getattr(path[0], "key", "")) if path else ""
        return "encoder" if first.lower().startswith("neck") else "trunk"

    labels: dict[str, Any] = {name: name for name in params}
    if "encoder" in params:
        labels["encoder"] = jax.tree_util.tree_map_with_path(encoder, params["encoder"])
    return labels
