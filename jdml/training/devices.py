"""The wrappings of train and eval steps for several devices, of one process or of several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jdml._core.options import Array
from jdml.training.steps import Batch, TrainState
from jdml.training.tables import class_specs, class_tables

Kind = Literal["jit", "pmap", "shard_map"]
Metrics: TypeAlias = dict[str, Array]
Names: TypeAlias = str | tuple[str, ...]  # of mesh axes


class Parallel:
    """A train step on all devices, as `parallel` makes it: `f(state, batch) -> (state, metrics)`.

    Attributes:
      mesh: the devices, by the batch axis and the class axis where there is one.
    """

    def __init__(self, step: Callable[..., Any], layout: Layout, check_vma: bool):
        self.mesh = layout.mesh
        self._step, self._layout, self._check_vma = step, layout, check_vma
        self._programs: dict[Any, Any] = {}

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step; the state that goes in is donated (not by pmap in several processes)."""
        batch, state = self.put(batch), self.place(state)
        return self._program(state)(state, dict(batch))

    def lower(self, state: TrainState, batch: Batch) -> Any:
        """What `jax.jit(...).lower` gives: `.compile()` tells memory, cost and the program.

        Args:
          state: as for a step; it is not donated.
          batch: as for a step.

        Returns:
          A `jax.stages.Lowered`.
        """
        batch, state = self.put(batch), self.place(state)
        return self._program(state).lower(state, dict(batch))

    def put(self, batch: Batch) -> Batch:
        """Starts to bring a batch to the devices and does not wait for it.

        Args:
          batch: rows of the whole batch; with several processes, the rows of this one. What `put`
            gave passes as it is.

        Returns:
          The batch on devices, filled up to a multiple of them.
        """
        return batch if isinstance(batch, _Placed) else self._layout.put(batch)

    def start(self, create: Callable[[], TrainState]) -> TrainState:
        """Makes a state where `place` would put it, so that no device ever holds a whole table.

        Args:
          create: such as `functools.partial(create_state, key, ...)`.

        Returns:
          Its state, on the devices.
        """
        if self._layout.kind == "pmap":
            return jax.jit(create)()
        return jax.jit(create, out_shardings=self._layout.shardings(jax.eval_shape(create)))()

    def place(self, state: TrainState) -> TrainState:
        """Copies a state to all devices, class tables and their optimizer state by shares.

        Args:
          state: equal on all processes.

        Returns:
          The state where the step wants it, which is also what a checkpoint is restored into.
        """
        return self._layout.place(state)

    def _program(self, state: TrainState) -> Any:
        structure = jax.tree.structure(state)
        if structure not in self._programs:
            self._programs[structure] = self._wrap(self._layout.shardings(state))
        return self._programs[structure]

    def _wrap(self, shardings: Any) -> Callable[..., Any]:
        layout, step = self._layout, self._step
        split = any(sharding.spec != P() for sharding in jax.tree.leaves(shardings))
        named = {"class_axis_name": layout.class_axis_name} if split else {}
        # Without a class table both axes of a mesh split the batch and nothing else.
        names = layout.axis_name if split else layout.names
        mapped = functools.partial(step, axis_name=names, **named)
        if layout.kind == "pmap":
            alone = len(layout.local) == layout.count  # else pmap copies the state first
            return layout.pmap(mapped, donate_argnums=(0,) if alone else ())
        if layout.kind == "shard_map":
            run = layout.shard_map(mapped, names, P(), check_vma=self._check_vma)
        else:

            def run(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
                with jax.sharding.use_abstract_mesh(layout.mesh.abstract_mesh):
                    return step(state, batch, **named)

        return jax.jit(
            run,
            in_shardings=(shardings, layout.split),
            out_shardings=(shardings, layout.everywhere),
            donate_argnums=0,
        )


def parallel(
    step: Callable[..., tuple[TrainState, Metrics]],
    kind: Kind = "jit",
    *,
    model: int = 1,
    axis_name: str = "batch",
    class_axis_name: str = "model",
    devices: Sequence[Any] | None = None,
    check_vma: bool = True,
) -> Parallel:
    """Wraps a train step for all devices, with the batch split over them in equal shares.

    A batch that does not divide is filled up with rows that do not exist. The state that goes in
    is donated: its memory is reused, so use the one that comes back. "jit" leaves the splitting to
    the compiler; "pmap" and "shard_map" run the step on each device's share with a named axis.

    With `model` of m, every class table and what the optimizer holds of it is split over m
    devices, and copied len(devices) / m times; the encoder's work is still split over all of them.

    With several processes each one calls with its own rows of the batch, in the order of the
    processes, as many as the others.

    Args:
      step: `train_step` with its encoder, objective and optimizer.
      kind: "jit", "pmap" or "shard_map".
      model: devices that share one class table; a divisor of their number. Not for "pmap".
      axis_name: of the mapped batch axis.
      class_axis_name: of the axis that splits class tables.
      devices: to run on; those of all processes by default. One is fine, in every kind.
      check_vma: the varying-axes checks of `jax.shard_map`.

    Returns:
      `f(state, batch) -> (state, metrics)`, with `f.put` to bring batches to the devices early and
      `f.place` for states.

    Raises:
      ValueError: an unknown kind, or a number of devices that does not divide.

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
    return Parallel(step, Layout(kind, model, axis_name, class_axis_name, devices), check_vma)


def parallel_eval(
    step: Callable[[TrainState, Array], Array],
    kind: Kind = "jit",
    *,
    model: int = 1,
    devices: Sequence[Any] | None = None,
) -> Callable[[TrainState, np.ndarray], Array]:
    """Wraps an eval step for all devices: each embeds its share of the images.

    Args:
      step: `eval_step` with its encoder; of the state it sees what the encoder owns.
      kind, model, devices: as for `parallel`, where the state comes from.

    Returns:
      `f(state, images [B, ...]) -> [B, D]`, the same on all devices and processes, for `embed`.
      Every process gives all images and reads the rows of its own devices alone.

    Raises:
      ValueError: as for `parallel`.

    Example:
      >>> import flax.linen as nn
      >>> import jax.numpy as jnp
      >>> from jdml.training import TrainState
      >>> double = lambda state, images: state.params["encoder"] * images
      >>> state = TrainState(0, {"encoder": jnp.float32(2.0)}, {}, {}, {}, 0)
      >>> print(parallel_eval(double, "shard_map")(state, np.ones((3, 1), np.float32)).ravel())
      [2. 2. 2.]
    """
    layout = Layout(kind, model, "batch", "model", devices)
    if kind == "pmap":
        gathered = lambda state, images: lax.all_gather(step(state, images), "batch", tiled=True)
        run = layout.pmap(gathered)
    else:
        inner = (
            layout.shard_map(step, layout.names, P(layout.names)) if kind == "shard_map" else step
        )
        run = jax.jit(inner, out_shardings=layout.everywhere)

    def embed(state: TrainState, images: np.ndarray) -> Array:
        state = state._replace(
            params={"encoder": state.params["encoder"]}, objective_state=(), opt_state=()
        )
        state = layout.copied(state)
        rows = len(images)
        return run(state, layout.share(_longer(images, -rows % layout.count)))[:rows]

    return embed


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
    return {name: _longer(x, missing) for name, x in batch.items()}


class _Placed(dict):
    """A batch that is on the devices."""


class Layout:
    """Where states and batches lie: the devices as a mesh, and what is split over which axis."""

    def __init__(
        self,
        kind: Kind,
        model: int,
        axis_name: str,
        class_axis_name: str,
        devices: Sequence[Any] | None,
    ):
        if kind not in get_args(Kind):
            raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(get_args(Kind))}")
        devices = list(jax.devices() if devices is None else devices)
        self.kind, self.count, self.axis_name = kind, len(devices), axis_name
        if model < 1 or self.count % model:
            raise ValueError(f"model: got {model}, expected a divisor of the {self.count} devices")
        if kind == "pmap" and model > 1:
            raise ValueError(f"model: got {model}, expected 1 for pmap, which has one axis")
        self.model, self.class_axis_name = model, class_axis_name if model > 1 else None
        names = (axis_name, class_axis_name) if model > 1 else (axis_name,)
        grid = np.array(devices).reshape((-1, model) if model > 1 else -1)
        self.mesh = Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))
        self.everywhere = NamedSharding(self.mesh, P())
        # Rows over all devices: those that share a class table do not share the encoder's work.
        self.split = NamedSharding(self.mesh, P(names))
        self.names: Names = names if model > 1 else axis_name
        process = jax.process_index()
        self.local = [device for device in devices if device.process_index == process]

    def pmap(self, fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """fn(state, share of the batch) under `pmap`, for what is the same on all devices."""
        options |= {"in_axes": (None, 0), "out_axes": None}
        return jax.pmap(fn, self.axis_name, devices=list(self.mesh.devices.flat), **options)

    def shard_map(
        self, fn: Callable[..., Any], names: Names, out: P, *, check_vma: bool = True
    ) -> Callable[..., Any]:
        """fn(state, share of the batch) under `shard_map`; other axes stay the compiler's."""
        return jax.shard_map(
            fn,
            mesh=self.mesh,
            in_specs=(P(), P(names)),
            out_specs=out,
            axis_names={names} if isinstance(names, str) else set(names),
            check_vma=check_vma,
        )

    def shardings(self, state: TrainState) -> Any:
        """Of every array of a state."""
        if self.class_axis_name:
            for table in class_tables(state.params["objective"]):
                classes = table.shape[0]
                if classes % self.model:
                    raise ValueError(
                        f"model: got {self.model}, expected a divisor of the {classes} classes "
                        "of the table"
                    )
        specs = class_specs(state, self.class_axis_name)
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs)

    def place(self, state: TrainState) -> TrainState:
        """The state on the devices."""
        return state if self.kind == "pmap" else self._move(state, self.shardings(state))

    def copied(self, tree: Any) -> Any:
        """A copy of the arrays of a tree on every device."""
        if self.kind == "pmap":
            return tree
        return self._move(tree, jax.tree.map(lambda _: self.everywhere, tree))

    def _move(self, tree: Any, shardings: Any) -> Any:
        there = jax.tree.map(lambda x, s: getattr(x, "sharding", None) == s, tree, shardings)
        if jax.tree.all(there):
            return tree
        put = jax.device_put if len(self.local) == self.count else spread
        return jax.tree.map(put, tree, shardings)

    def put(self, batch: Mapping[str, Any]) -> _Placed:
        """The rows of this process on its devices."""
        if len(self.local) == self.count:
            batch = fill_up(batch, self.count)
        elif len(batch["labels"]) % len(self.local):
            raise ValueError(
                f"labels: got {len(batch['labels'])} rows on this process, expected a multiple of "
                f"its {len(self.local)} devices: fill the batch up before it is shared"
            )
        return _Placed({name: self._rows(x) for name, x in batch.items()})

    def share(self, rows: np.ndarray) -> Any:
        """The rows of the devices of this process, of rows that all processes hold."""
        if self.kind != "pmap":
            return jax.make_array_from_callback(rows.shape, self.split, lambda at: rows[at])
        each = len(rows) // self.count
        first = list(self.mesh.devices.flat).index(self.local[0]) * each
        return self._rows(rows[first : first + each * len(self.local)])

    def _rows(self, x: Any) -> Any:
        if self.kind == "pmap":
            return x.reshape(len(self.local), -1, *x.shape[1:])
        if len(self.local) == self.count:
            return jax.device_put(x, self.split)
        return jax.make_array_from_process_local_data(self.split, np.asarray(x))


def spread(x: Any, sharding: NamedSharding) -> Array:
    """An array that every process holds whole, as one array over the devices of all processes.

    Args:
      x: equal on all processes; a random key is fine.
      sharding: over devices of several processes. An array that lies on them is moved.

    Returns:
      An array of that sharding.
    """
    if not getattr(x, "is_fully_addressable", True):
        return jax.jit(lambda x: x, out_shardings=sharding)(x)
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        rows = np.asarray(x)
        return jax.make_array_from_callback(rows.shape, sharding, lambda at: rows[at])
    wrap = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(x))
    return jax.jit(wrap, out_shardings=sharding)(spread(jax.random.key_data(x), sharding))


def _longer(x: Any, missing: int) -> Any:
    """x with rows of zeros added."""
    if not missing:
        return x
    return np.pad(np.asarray(x), ((0, missing),) + ((0, 0),) * (np.ndim(x) - 1))
