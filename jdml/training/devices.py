"""The wrappings of a train step for several devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jdml._core.options import Array
from jdml.training.steps import Batch, TrainState

Kind = Literal["jit", "pmap", "shard_map"]
Metrics: TypeAlias = dict[str, Array]


def parallel(
    step: Callable[..., tuple[TrainState, Metrics]],
    kind: Kind = "jit",
    *,
    axis_name: str = "batch",
    devices: Sequence[Any] | None = None,
    check_vma: bool = True,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Wraps a train step for all devices, with the batch split over them in equal shares.

    A batch that does not divide is filled up with rows that do not exist. The state that goes in
    is donated: its memory is reused, so use the one that comes back. "jit" leaves the splitting to
    the compiler; "pmap" and "shard_map" run the step on each device's share with a named axis.

    Args:
      step: `train_step` with its encoder, objective and optimizer.
      kind: "jit", "pmap" or "shard_map".
      axis_name: of the mapped batch axis.
      devices: to run on; all by default. One is fine, in every kind.
      check_vma: the varying-axes checks of `jax.shard_map`.

    Returns:
      `f(state, batch) -> (state, metrics)`.

    Raises:
      ValueError: an unknown kind.

    Example:
      >>> import flax.linen as nn
      >>> import optax
      >>> from jdml import losses, objectives
      >>> from jdml.training import create_state, train_step
      >>> parts = dict(encoder=nn.Dense(2), objective=objectives.pairs(losses.triplet),
      ...              optimizer=optax.sgd(0.1))
      >>> batch = {"images": np.eye(6, dtype="float32"), "labels": np.array([0, 0, 1, 1, 2, 2])}
      >>> state = create_state(jax.random.key(0), images=batch["images"], **parts)
      >>> step = parallel(functools.partial(train_step, **parts), "shard_map")
      >>> state, metrics = step(state, batch)
      >>> int(state.step)
      1
    """
    devices = list(jax.devices() if devices is None else devices)
    mesh = Mesh(np.array(devices), (axis_name,), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P(axis_name))
    mapped = functools.partial(step, axis_name=axis_name)
    if kind == "pmap":
        run = jax.pmap(mapped, axis_name, in_axes=(None, 0), out_axes=None, devices=devices)
    elif kind == "shard_map":
        specs = {"in_specs": (P(), P(axis_name)), "out_specs": P()}
        run = jax.jit(
            jax.shard_map(mapped, mesh=mesh, **specs, check_vma=check_vma), donate_argnums=0
        )
    elif kind == "jit":
        run = jax.jit(step, in_shardings=(everywhere, split), donate_argnums=0)
    else:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(get_args(Kind))}")

    def place(x: Any) -> Any:
        if kind == "pmap":
            return x.reshape(len(devices), -1, *x.shape[1:])
        return jax.device_put(x, split)

    def wrapped(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = fill_up(batch, len(devices))
        if kind != "pmap":
            state = jax.device_put(state, everywhere)
        return run(state, {name: place(x) for name, x in batch.items()})

    return wrapped


def fill_up(batch: Batch, multiple: int) -> Batch:
    """Adds rows that do not exist until the batch divides by `multiple`.

    Args:
      batch: arrays of B rows each, "labels" among them.
      multiple: such as the number of devices.

    Returns:
      The batch itself where it divides, else one of more rows with "where".

    Example:
      >>> filled = fill_up({"labels": np.array([4, 5, 6])}, 2)
      >>> print(filled["labels"], filled["where"])
      [4 5 6 0] [ True  True  True False]
    """
    rows = len(batch["labels"])
    missing = -rows % multiple
    if not missing:
        return batch
    where = batch.get("where")
    batch = {**batch, "where": np.ones(rows, bool) if where is None else where}
    return {
        name: np.pad(np.asarray(x), ((0, missing),) + ((0, 0),) * (np.ndim(x) - 1))
        for name, x in batch.items()
    }
