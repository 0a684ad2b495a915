"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jdml.training import TrainState
from jdml.training.devices import spread


class Checkpoints:
    """The checkpoints of one run in a folder, the newest few kept.

    A checkpoint holds the whole `TrainState` (parameters, running statistics, optimizer state,
    centers and memories, random key, step) and the run's configuration. Since batches and
    randomness are functions of seed and step, a resumed run ends with bitwise the parameters of an
    undisturbed one. A save is written beside its place and renamed when it is whole, so an
    interrupted one is never read.

    Arrays that are split over devices are written and read by shares: a checkpoint saved on some
    number of devices is restored on any other, as the template lies. With several processes all
    of them save and restore, each writes what no other does, and they need one folder.

    Args:
      folder: made where missing; the same for all processes.
      keep: newest checkpoints to keep.

    Raises:
      ValueError: a folder that cannot be written, or `keep` below 1.

    Example:
      >>> import tempfile, flax.linen as nn, jax.numpy as jnp, optax
      >>> from jdml import losses, objectives, training
      >>> objective = objectives.pairs(losses.triplet)
      >>> fresh = training.create_state(
      ...     jax.random.key(0), nn.Dense(2), objective, optax.adam(0.1), jnp.ones((1, 3)))
      >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
      ...     checkpoints.save(fresh._replace(step=jnp.int32(7)), {"seed": 0})
      ...     state, config = checkpoints.restore_latest(fresh)
      >>> int(state.step), config
      (7, {'seed': 0})
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep: got {keep}, expected 1 or more")
        self._folder = pathlib.Path(folder).absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise _unwritable(self._folder, "permission denied")
        # Saving in the foreground: a background save would share the cores with the training.
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, config: Mapping[str, Any] | None = None) -> None:
        """Writes a checkpoint of `state.step`, and removes those beyond the newest few.

        Args:
          state: of the run.
          config: what JSON can hold.

        Raises:
          ValueError: a folder that cannot be written any more.
        """
        about = {"config": dict(config or {}), "leaves": _leaves(state)}
        state = _everywhere(state)
        items = {"state": ocp.args.StandardSave(state), "about": ocp.args.JsonSave(about)}  # pyright: ignore[reportCallIssue]
        try:
            self._manager.save(int(state.step), args=ocp.args.Composite(**items), force=True)
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def restore_latest(self, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest checkpoint, placed on devices as the template is.

        Args:
          template: a state of the same run, such as the fresh one.

        Returns:
          The state and the configuration, or None where there is no checkpoint.

        Raises:
          ValueError: a checkpoint of another encoder, objective or optimizer; the first part that
            differs is named.
        """
        step = self.latest_step()
        if step is None:
            return None
        items = ocp.args.Composite(about=ocp.args.JsonRestore())  # pyright: ignore[reportCallIssue]
        about = self._manager.restore(step, args=items)["about"]
        stored, expected = about["leaves"], _leaves(template)
        for name in sorted(stored.keys() | expected.keys()):
            if stored.get(name) != expected.get(name):
                raise ValueError(
                    f"checkpoint {self._folder / str(step)}: got {stored.get(name)} for "
                    f"{name}, expected {expected.get(name)} as in this run's settings"
                )
        wanted = _everywhere(template)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))  # pyright: ignore[reportCallIssue]
        state = self._manager.restore(step, args=items)["state"]
        if wanted is not template:  # each process wants a copy of its own
            state = jax.tree.map(_here, state)
        return state, about["config"]

    def close(self) -> None:
        """Frees what the manager holds."""
        self._manager.close()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _everywhere(state: TrainState) -> TrainState:
    """A state that each process holds on its own as one of all processes, as Orbax wants it."""
    leaves = jax.tree.leaves(state)
    if jax.process_count() == 1 or not all(leaf.is_fully_addressable for leaf in leaves):
        return state
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    copied = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: spread(leaf, copied), state)


def _here(leaf: jax.Array) -> jax.Array:
    """This process's copy of an array that all processes hold."""
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf.addressable_data(0)
    data = jax.jit(jax.random.key_data)(leaf).addressable_data(0)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))


def _leaves(state: TrainState) -> dict[str, str]:
    """Shape and dtype of every array, by its place."""
    return {
        jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _unwritable(folder: pathlib.Path, reason: object) -> ValueError:
    return ValueError(f"folder: got {folder}, expected one that can be written ({reason})")


__all__ = ["Checkpoints"]
