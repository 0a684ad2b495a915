"""One block of queries against the whole gallery, inside jit: similarities and the largest."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_MEMBERS = 8  # columns of a group; galleries are padded to a multiple of its square


class Block(NamedTuple):
    """A block of queries and whom each of them may not find."""

    rows: Any  # [b, D] prepared
    own_rows: Any  # int32 [b], -1 for none
    groups: Any  # int32 [b], -1 for none; or None


class Gallery(NamedTuple):
    """What a block is compared with."""

    rows: jax.Array  # [N', D] prepared, padded
    pads: jax.Array  # bool [W]: which of the last W rows only pad
    first: jax.Array | None  # int32 [N'] first identical row
    groups: jax.Array | None  # int32 [N'], -2 for none


def similarities(block: Block, gallery: Gallery) -> jax.Array:
    """Similarities [b, N'] of prepared rows, larger is closer; -inf where nothing may be found."""
    scores = lax.dot_general(
        block.rows, gallery.rows, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    if gallery.first is not None:
        # A product may round equal columns differently; equal rows must tie.
        scores = scores[:, gallery.first]
    if block.groups is not None and gallery.groups is not None:
        together = block.groups[:, None] == gallery.groups[None, :]
        scores = jnp.where(together, -jnp.inf, scores)
    tail = scores.shape[1] - gallery.pads.shape[0]
    scores = scores.at[:, tail:].set(jnp.where(gallery.pads[None, :], -jnp.inf, scores[:, tail:]))
    own = jnp.where(block.own_rows < 0, scores.shape[1], block.own_rows)  # out of bounds: dropped
    return scores.at[jnp.arange(len(own)), own].set(-jnp.inf, mode="drop")


def largest(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest of each row, largest first, and their columns; any of several equal ones.

    By levels: a row is seen as groups of eight strided columns; the k largest entries lie in the k
    groups with the largest maxima, which are found in the same way. Several times faster than one
    selection over the whole row.
    """
    rows, size = scores.shape
    if size < max(1024, 32 * k) or size % _MEMBERS:
        return top_k(scores, k)
    groups = size // _MEMBERS
    grouped = scores.reshape(rows, _MEMBERS, groups)
    _, chosen = largest(grouped.max(axis=1), k)
    candidates = jnp.take_along_axis(grouped, chosen[:, None, :], axis=2)
    values, place = top_k(candidates.reshape(rows, _MEMBERS * k), k)
    return values, place // k * groups + jnp.take_along_axis(chosen, place % k, axis=1)


def top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`, kept from becoming a sort."""
    # A slice taken of its results makes XLA see a whole sort and run one, unless it cannot look.
    # A barrier around the pair of them would stop the compiler of several devices.
    values, columns = lax.top_k(scores, k)
    return lax.optimization_barrier(values), lax.optimization_barrier(columns)
