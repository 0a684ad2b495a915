"""Large batches in the memory of small ones: a batch is embedded piece by piece."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.devices import vary, varying_axes
from jdml._core.options import Array
from jdml._core.reduce import safe_divide, total
from jdml.encoders.encoder import Encoder, as_encoder


def cached(encoder: Any, chunks: int) -> Encoder:
    """An encoder that embeds a batch in pieces: the gradient cache, for every loss.

    A loss over pairs wants batches whose activations do not fit into memory, and accumulating
    gradients over small batches is no way out, since a row then never meets the rows of the other
    ones. Here all rows are embedded first and only their embeddings are kept; the loss and its
    gradient by the embeddings are those of the whole batch; then each piece is embedded once
    more, and its share of the gradient goes back through it. Memory is that of one piece, time
    one more forward pass. Value and gradient are those of the pieces embedded without it, and it
    goes with every objective, as with memories and Matryoshka, and every wrapping: the step and
    the loss do not know of it.

    Piece i of n holds the rows i, n + i, 2n + i, ..., so that on any number of devices, which
    each cut their share into n, a piece has the same rows; one that lacks rows is filled up with
    rows that do not exist.

    - Dropout: piece i draws from the key folded with i, the same numbers in both passes.
    - Batch norm: a piece is normalised by its own rows, of all devices where the norm spans them,
      in both passes: so-called ghost batch normalisation. Running statistics move once a step, by
      the mean over the pieces, each weighed by its existing rows. To have the value of the whole
      batch exactly, take a norm that looks at one row (layer norm), or leave it as in evaluation.

    Args:
      encoder: a Linen module or an `Encoder`.
      chunks: pieces of a batch; 1 gives the encoder itself.

    Returns:
      An `Encoder` with the same parameters and state.

    Raises:
      ValueError: fewer pieces than 1.

    Example:
      >>> import flax.linen as nn
      >>> import jax
      >>> from jdml import losses
      >>> whole, pieces = as_encoder(nn.Dense(2)), cached(nn.Dense(2), chunks=2)
      >>> images, labels = jnp.eye(4), jnp.array([0, 0, 1, 1])
      >>> params, state = whole.init(jax.random.key(0), images)
      >>> def gradient(encoder):
      ...     loss = lambda p: losses.ntxent(encoder.apply(p, state, images)[0], labels)
      ...     return jax.grad(loss)(params)["kernel"]
      >>> bool(jnp.allclose(gradient(pieces), gradient(whole), atol=1e-6))
      True

    Reference:
      Gao, Zhang, Han, Callan: Scaling Deep Contrastive Learning Batch Size under Memory Limited
      Setup, RepL4NLP 2021. Hoffer, Hubara, Soudry: Train longer, generalize better, NeurIPS 2017.
    """
    if not isinstance(chunks, int) or chunks < 1:
        raise ValueError(f"chunks: got {chunks!r}, expected a whole number >= 1")
    network = as_encoder(encoder)
    if chunks == 1:
        return network

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
        rows = images.shape[0]
        if rows % chunks and where is None:
            where = jnp.ones(rows, bool)
        pieces, parts = (
            None if x is None else cut(_fill_up(x, chunks), chunks) for x in (images, where)
        )
        keys = None
        if key is not None:
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(chunks))
        # Where devices share the parameters, their gradient is summed over them once, not a piece.
        shared = vary(params, sorted(varying_axes(images)))

        def embed(given: tuple[Any, Any, Any]) -> tuple[Array, Any]:
            images, where, key = given
            embeddings, following = network.apply(
                shared, state, images, train=train, key=key, where=where, axis_name=axis_name
            )
            return embeddings, lax.stop_gradient(following) if train else None

        # Within a loop the two passes cannot be merged into one that keeps everything.
        again = jax.checkpoint(embed, prevent_cse=False)
        embeddings, following = lax.map(again, (pieces, parts, keys))
        if train:
            state = _mean_step(state, following, parts, axis_name)
        return join(embeddings, rows), state

    return Encoder(network.init, apply)


def cut(x: Array, chunks: int) -> Array:
    """[n c, ...] as [n, c, ...]: piece i has the rows i, n + i, ...

    Strided, so that rows stay on the device that has them.

    Args:
      x: rows, as many as divide.
      chunks: n.

    Returns:
      The pieces.

    Example:
      >>> print(cut(jnp.arange(6), 2).tolist())
      [[0, 2, 4], [1, 3, 5]]
    """
    return x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1)


def join(pieces: Array, rows: int) -> Array:
    """The inverse of `cut`, less the rows that were filled up.

    Args:
      pieces: [n, c, ...].
      rows: B, at most n c.

    Returns:
      [B, ...].

    Example:
      >>> print(join(jnp.array([[0, 2, 4], [1, 3, 5]]), 5).tolist())
      [0, 1, 2, 3, 4]
    """
    return pieces.swapaxes(0, 1).reshape(-1, *pieces.shape[2:])[:rows]


def _fill_up(x: Array, multiple: int) -> Array:
    missing = -x.shape[0] % multiple
    return jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1)) if missing else x


def _mean_step(state: Any, following: Any, where: Array | None, axis_name: Any) -> Any:
    """The mean of the states that the pieces make of one state; other than numbers, the last."""

    def mean(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new[-1]
        steps = new - old[None]
        if where is None:
            return old + steps.mean(axis=0)
        counts = total(where.sum(axis=1).astype(old.dtype), axis_name)
        shares = safe_divide(counts, counts.sum())
        return old + jnp.tensordot(shares, steps, 1)

    return jax.tree.map(mean, state, following)
