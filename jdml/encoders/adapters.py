"""Encoders written in Flax NNX."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jdml._core.options import Array
from jdml.encoders.encoder import Encoder, refuse_where


def nnx(model: Any) -> Encoder:
    """A Flax NNX model as an `Encoder`: its parameters and the rest of its state become trees.

    The model is called with those of `train`, `where` and `axis_name` that its `__call__` takes,
    and set to training or evaluation as `model.train()` and `model.eval()` do. Its `nnx.Param`
    are learned by gradient; every other variable, such as running statistics, is state, rewritten
    only in training. Its own random streams are no state: in training each gets a key of its own
    from the step's, so that dropout is a function of that key alone.

    Flax's batch norm is made to span the devices, by the name of the mapped axis, so that
    parameters and running statistics are those of a single device. It does not know of rows that
    do not exist: in training a `where` that the model does not take is refused with it. Take
    batches that the devices divide, or a norm of one's own that takes `where`, of
    `encoders.moments`.

    Args:
      model: a model, whose parameters are the start, such as a pretrained one; or a function
        from `nnx.Rngs` to a model, whose parameters are drawn by the key of the run. A model is
        only read.

    Returns:
      The pair of functions. Parameters and state are nested dicts of arrays, as those of Linen.

    Raises:
      TypeError: neither a model nor a function that makes one.

    Example:
      >>> from flax import nnx as flax_nnx
      >>> encoder = nnx(lambda rngs: flax_nnx.Linear(3, 2, rngs=rngs))
      >>> params, state = encoder.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> {name: p.shape for name, p in sorted(params.items())}, state
      ({'bias': (2,), 'kernel': (3, 2)}, {})
      >>> encoder.apply(params, state, jnp.ones((5, 3)))[0].shape
      (5, 2)
    """
    from flax import nnx as flax_nnx

    given = isinstance(model, flax_nnx.Module)
    if not callable(model):
        raise TypeError(f"model: got {model!r}, expected a flax.nnx.Module or a function to one")
    kinds = (flax_nnx.Param, flax_nnx.RngState, ...)

    def parts(made: Any) -> Any:
        if not isinstance(made, flax_nnx.Module):
            got = f"a function to {type(made).__name__}"
            raise TypeError(f"model: got {got}, expected a flax.nnx.Module or a function to one")
        return flax_nnx.split(made, *kinds)

    # The structure alone, with arrays in no trace.
    example = model if given else flax_nnx.eval_shape(lambda: model(flax_nnx.Rngs(0)))
    graph, param_form, stream_form, state_form = parts(example)
    accepted = inspect.signature(type(example).__call__).parameters

    def init(key: Array, images: Array) -> tuple[Any, Any]:
        del images
        made = model if given else model(flax_nnx.Rngs(key))
        _, params, _, state = parts(made)
        return _arrays(params), _arrays(state)

    def apply(
        params: Any,
        state: Any,
        images: Array,
        *,
        train: bool = False,
        key: Array | None = None,
        where: Array | None = None,
        axis_name: Any = None,
    ) -> tuple[Array, Any]:
        forms = (_filled(param_form, params), stream_form, _filled(state_form, state))
        # A copy: without it the variables would belong to the trace in which they were made.
        network = flax_nnx.merge(graph, *forms, copy=True)
        network.train() if train else network.eval()
        if train and where is not None and "where" not in accepted and _counts_rows(network):
            refuse_where(type(network).__name__)
        _span(network, axis_name)
        _seed(network, jax.random.key(0) if key is None else key)
        named = {"train": train, "where": where, "axis_name": axis_name}
        embeddings = network(images, **{k: v for k, v in named.items() if k in accepted})
        if not train:
            return embeddings, state
        return embeddings, _arrays(parts(network)[3])

    return Encoder(init, apply)


def _arrays(state: Any) -> dict[str, Any]:
    """The arrays of an NNX state as nested dicts with text for keys, which checkpoints want."""
    from flax import nnx as flax_nnx

    def named(tree: Any) -> Any:
        return {str(k): named(v) for k, v in tree.items()} if isinstance(tree, dict) else tree

    return named(flax_nnx.to_pure_dict(state))


def _filled(form: Any, arrays: dict[str, Any]) -> Any:
    """An NNX state of the structure of `form` with these arrays."""
    from flax import nnx as flax_nnx

    filled = {}
    for path, variable in flax_nnx.to_flat_state(form):
        value = functools.reduce(lambda tree, entry: tree[str(entry)], path, arrays)
        filled[path] = variable.replace(value)
    return flax_nnx.from_flat_state(filled)


def _seed(network: Any, key: Array) -> None:
    """A key for each random stream of the network, whose drawing starts anew."""
    from flax import nnx as flax_nnx

    nodes = (node for _, node in flax_nnx.iter_graph(network))
    streams = (node for node in nodes if isinstance(node, flax_nnx.RngStream))
    for i, stream in enumerate(streams):
        stream.key.set_value(jax.random.fold_in(key, i))
        stream.count.set_value(jnp.zeros((), jnp.uint32))


def _counts_rows(network: Any) -> bool:
    """Whether it has a batch norm that goes by the batch."""
    from flax import nnx as flax_nnx

    norms = (node for _, node in flax_nnx.iter_graph(network))
    norms = (node for node in norms if isinstance(node, flax_nnx.BatchNorm))
    return any(not norm.use_running_average for norm in norms)


def _span(network: Any, axis_name: Any) -> None:
    """Batch norms take their means over the devices of the axis."""
    from flax import nnx as flax_nnx

    for _, node in flax_nnx.iter_graph(network):
        if isinstance(node, flax_nnx.BatchNorm) and axis_name is not None:
            node.axis_name = axis_name
