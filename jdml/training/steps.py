"""One step of training and of evaluation, pure functions of a state and a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jdml._core.devices import varying_axes
from jdml._core.options import Array, AxisName
from jdml.encoders import as_encoder
from jdml.objectives import Objective
from jdml.training.tables import class_tables, over_classes, update_over_classes

Batch: TypeAlias = Mapping[str, Any]


class TrainState(NamedTuple):
    """Everything that a step reads and rewrites; a checkpoint of it resumes the run exactly.

    Attributes:
      step: int32, steps done.
      params: {"encoder": ..., "objective": ...}, learned by gradient.
      encoder_state: what the encoder rewrites, such as running statistics.
      objective_state: what the objective's rules rewrite: centers, memory, scales.
      opt_state: of the Optax optimizer.
      key: the run's random key; every step folds its number in, so the key itself stays.
    """

    step: Array
    params: Any
    encoder_state: Any
    objective_state: Any
    opt_state: Any
    key: Array


def create_state(
    key: Array,
    encoder: Any,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    images: Array | np.ndarray,
) -> TrainState:
    """The state before the first step.

    Args:
      key: of the whole run: parameters, class tables, dropout and augmentation.
      encoder: a Linen module or an `encoders.Encoder`.
      objective: such as `objectives.table(losses.arcface, 100)`.
      optimizer: any Optax optimizer; see `optimizer`.
      images: [B, H, W, C], an example; one image is enough.

    Returns:
      A `TrainState`.

    Example:
      >>> import flax.linen as nn
      >>> from jdml import losses, objectives
      >>> objective = objectives.table(losses.cosface, 5)
      >>> state = create_state(
      ...     jax.random.key(0), nn.Dense(2), objective, optax.sgd(0.1), jnp.ones((1, 3)))
      >>> state.params["encoder"]["kernel"].shape, state.params["objective"]["proxies"].shape
      ((3, 2), (5, 2))
    """
    network = as_encoder(encoder)
    init_key, table_key, run_key = jax.random.split(key, 3)
    images = jnp.asarray(images)
    params, encoder_state = jax.jit(network.init)(init_key, images)
    embeddings, _ = jax.eval_shape(network.apply, params, encoder_state, images)
    table_params, objective_state = objective.init(table_key, embeddings.shape[-1])
    params = {"encoder": params, "objective": table_params}
    step = jnp.zeros((), jnp.int32)
    opt_state = optimizer.init(params)
    return TrainState(step, params, encoder_state, objective_state, opt_state, run_key)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    encoder: Any,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    augment: Callable[[Array, Array], Array] | None = None,
    axis_name: AxisName | None = None,
    class_axis_name: str | None = None,
) -> tuple[TrainState, dict[str, Array]]:
    """One step of gradient descent on the loss of the whole batch.

    Randomness is a pure function of the run's key and the step. Augmentation gets one key a row,
    by the row's number in the batch of all devices, so it is the same on any number of devices.
    Dropout gets one key a device: with it, several devices equal a single one in distribution
    only.

    Args:
      state: of the run.
      batch: "images" [B, H, W, C] and "labels" int [B]; and may hold "where" bool [B], the row
        exists, and "weights" [B]. What a missing row holds has no effect.
      encoder: a Linen module or an `encoders.Encoder`.
      objective: an `objectives.Objective`.
      optimizer: the one that made the state.
      augment: `augment(keys [B], images) -> images`.
      axis_name: mapped batch axis, under `pmap` and `shard_map`.
      class_axis_name: axis of the mesh in context over which class tables are split, as
        `class_specs` says; `parallel` sets it. An objective without a table takes no notice.

    Returns:
      The next state, and {"loss", "gradient_norm"}: the loss before the step and the norm of its
      gradient before clipping, float32 scalars, equal on all devices.

    Example:
      >>> import flax.linen as nn
      >>> from jdml import losses, objectives
      >>> parts = dict(encoder=nn.Dense(2), objective=objectives.pairs(losses.triplet),
      ...              optimizer=optax.sgd(0.1))
      >>> batch = {"images": jnp.eye(4), "labels": jnp.array([0, 0, 1, 1])}
      >>> state = create_state(jax.random.key(0), images=batch["images"], **parts)
      >>> state, metrics = jax.jit(functools.partial(train_step, **parts))(state, batch)
      >>> int(state.step), sorted(metrics)
      (1, ['gradient_norm', 'loss'])
    """
    network = as_encoder(encoder)
    images, where = jnp.asarray(batch["images"]), batch.get("where")
    if where is not None:
        images = jnp.where(jnp.reshape(where, (-1,) + (1,) * (images.ndim - 1)), images, 0)
    row_keys, dropout_key = _keys(state, images.shape[0], axis_name)
    if augment is not None:
        images = augment(row_keys(), images)
    loss_of_rows: Callable[..., Array] = functools.partial(objective.loss, axis_name=axis_name)
    update: Callable[..., Any] = functools.partial(objective.update, axis_name=axis_name)
    if class_axis_name is not None and class_tables(state.params["objective"]):
        checked = axis_name is None or bool(varying_axes(lax.axis_index(axis_name)))
        loss_of_rows = over_classes(loss_of_rows, state, class_axis_name, check_vma=checked)
        update = update_over_classes(update, state, class_axis_name, check_vma=checked)

    def loss_of(params: Any) -> tuple[Array, tuple[Array, Any]]:
        embeddings, encoder_state = network.apply(
            params["encoder"],
            state.encoder_state,
            images,
            train=True,
            key=dropout_key,
            where=where,
            axis_name=axis_name,
        )
        loss = loss_of_rows(params["objective"], state.objective_state, embeddings, batch)
        return loss, (embeddings, encoder_state)

    (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    embeddings, encoder_state = aux
    if axis_name is not None:
        gradients = lax.pmean(gradients, axis_name)
        # Equal already where batch norm spans the axis; an encoder without that gets the average.
        encoder_state = _mean_of_floats(encoder_state, axis_name)
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes integers and floats
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    next_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        encoder_state=encoder_state,
        objective_state=update(
            state.objective_state,
            state.params["objective"],
            lax.stop_gradient(embeddings),
            batch,
        ),
        opt_state=opt_state,
        key=state.key,
    )
    return next_state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}


def eval_step(state: TrainState, images: Array, *, encoder: Any) -> Array:
    """Images to embeddings, by the running statistics and without dropout.

    Args:
      state: of the run.
      images: [B, H, W, C].
      encoder: as in training.

    Returns:
      [B, D].

    Example:
      >>> import flax.linen as nn
      >>> from jdml import losses, objectives
      >>> objective = objectives.pairs(losses.triplet)
      >>> state = create_state(
      ...     jax.random.key(0), nn.Dense(2), objective, optax.sgd(0.1), jnp.ones((1, 3)))
      >>> eval_step(state, jnp.ones((5, 3)), encoder=nn.Dense(2)).shape
      (5, 2)
    """
    network = as_encoder(encoder)
    return network.apply(state.params["encoder"], state.encoder_state, images)[0]


def embed(
    step: Callable[..., Array],
    state: TrainState,
    images: np.ndarray,
    *,
    batch_size: int = 256,
) -> np.ndarray:
    """The embeddings of many images, by batches of one size, so that one program serves all.

    Args:
      step: `eval_step` with its encoder, wrapped in `jax.jit`.
      state: of the run.
      images: [N, H, W, C].
      batch_size: images at a time; the last batch is filled up with zeros.

    Returns:
      [N, D] on the host.

    Example:
      >>> double = lambda state, images: 2 * images
      >>> print(embed(double, None, np.arange(3.0)[:, None], batch_size=2).ravel())
      [0. 2. 4.]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected 1 or more")
    if not len(images):
        raise ValueError("images: got none, expected [N, H, W, C] with N of 1 or more")
    blocks = []
    for start in range(0, len(images), batch_size):
        block = images[start : start + batch_size]
        short = batch_size - len(block)
        whole = np.pad(block, ((0, short),) + ((0, 0),) * (block.ndim - 1)) if short else block
        blocks.append(np.asarray(step(state, whole))[: len(block)])
    return np.concatenate(blocks)


def _keys(
    state: TrainState, rows: int, axis_name: AxisName | None
) -> tuple[Callable[[], Array], Array]:
    """A function for one key a row of this device, and the key of dropout."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    first = 0
    if axis_name is not None:
        device = lax.axis_index(axis_name)
        first = device * rows
        dropout_key = jax.random.fold_in(dropout_key, device)

    def row_keys() -> Array:
        return jax.vmap(functools.partial(jax.random.fold_in, augment_key))(
            first + jnp.arange(rows)
        )

    return row_keys, dropout_key


def _mean_of_floats(tree: Any, axis_name: AxisName) -> Any:
    def mean(x: Array) -> Array:
        return lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(mean, tree)
