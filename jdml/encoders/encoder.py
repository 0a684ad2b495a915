"""What a train step asks of an encoder: two pure functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import flax.linen as nn
import jax

from jdml._core.options import Array


class Encoder(NamedTuple):
    """Any network as a pair of pure functions.

    Attributes:
      init: `init(key, images) -> (params, state)`. `params` are learned by gradient; `state` is
        what the network itself rewrites, such as running statistics.
      apply: `apply(params, state, images, *, train, key, where, axis_name) ->
        (embeddings [B, D], state)`. `key` feeds dropout, `where` bool [B] marks the rows that
        exist, and `axis_name` is the mapped batch axis, or None.
    """

    init: Callable[[Array, Array], tuple[Any, Any]]
    apply: Callable[..., tuple[Array, Any]]


def linen(module: nn.Module) -> Encoder:
    """A Linen module as an `Encoder`.

    The module is called with those of `train`, `where` and `axis_name` that its `__call__` takes.
    Every collection beside "params" is state, rewritten only in training.

    Flax's own batch norm knows neither of rows that do not exist nor, without its `axis_name`, of
    other devices. `encoders.BatchNorm` does, in a module that takes `where` and `axis_name` and
    passes them on; without it, take batches that need not be filled up.

    Args:
      module: maps images to embeddings.

    Returns:
      The pair of functions. In training `apply` raises a ValueError for a `where` that the module
      does not take if "batch_stats" moved, as they would count rows that do not exist.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> encoder = linen(nn.Dense(2))
      >>> params, state = encoder.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> rows, state = encoder.apply(params, state, jnp.ones((5, 3)))
      >>> rows.shape, state
      ((5, 2), {})
    """
    accepted = inspect.signature(type(module).__call__).parameters

    def keywords(**given: Any) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name in accepted}

    def init(key: Array, images: Array) -> tuple[Any, Any]:
        variables = dict(module.init(key, images, **keywords(train=False)))
        return variables.pop("params", {}), variables

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
        embeddings, changed = module.apply(
            {"params": params, **state},
            images,
            **keywords(train=train, where=where, axis_name=axis_name),
            mutable=sorted(state) if train else [],
            rngs=None if key is None else {"dropout": key},
        )
        if where is not None and "where" not in accepted:
            old, new = (jax.tree.leaves(x.get("batch_stats")) for x in (state, changed))
            # What a call leaves alone comes back as the very same array: frozen statistics.
            if any(a is not b for a, b in zip(old, new)):
                refuse_where(type(module).__name__)
        return embeddings, {**state, **changed}

    return Encoder(init, apply)


def refuse_where(name: str) -> NoReturn:
    """Says that the batch norm of a network would count rows that do not exist.

    Raises:
      ValueError: always.

    Example:
      >>> refuse_where("Network")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: where: got rows that may not exist, expected Network to take `where`, ...
    """
    raise ValueError(
        f"where: got rows that may not exist, expected {name} to take `where`, since its batch "
        "norm counts every row (encoders.BatchNorm leaves them out), or a batch of whole shares"
    )


def as_encoder(encoder: Any) -> Encoder:
    """An `Encoder` as it is, a Linen module through `linen`.

    Raises:
      TypeError: anything else.

    Example:
      >>> as_encoder("resnet")
      Traceback (most recent call last):
      TypeError: encoder: got str 'resnet', expected a Linen module or an encoders.Encoder
    """
    if isinstance(encoder, Encoder):
        return encoder
    if isinstance(encoder, nn.Module):
        return linen(encoder)
    raise TypeError(
        f"encoder: got {type(encoder).__name__} {encoder!r}, "
        "expected a Linen module or an encoders.Encoder"
    )
