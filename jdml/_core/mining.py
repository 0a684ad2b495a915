"""How the pair engine calls a miner: on constants for the choice, on distances for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.maths import measure
from jdml._core.options import Array, AxisName, Distance, Miner, Pairs
from jdml._core.reduce import total
from jdml._core.sides import Anchors, References
from jdml._core.stream import split

# Chosen columns are measured on their own where they are at most one of so many.
_NARROW = 16


def mine(miner: Miner, pairs: Pairs, distance: Distance, rows: Array, references: Array) -> Pairs:
    """Applies a miner: weights know distances only as constants, distances stay differentiable.

    Args:
      miner: of the caller.
      pairs: of a block of anchors, fresh.
      distance: that the pairs were measured by.
      rows: [b, D] anchors, prepared.
      references: [R, D], prepared.
    """
    stopped = pairs._replace(
        positives=lax.stop_gradient(pairs.positives), negatives=lax.stop_gradient(pairs.negatives)
    )
    told, mined = miner(stopped), miner(pairs)  # the compiler merges the two calls
    if not isinstance(mined, Pairs):
        raise TypeError(f"miner: gave {type(mined).__name__}, expected the Pairs that it keeps")
    mined = _measure_chosen(mined, distance, rows, references)
    # A comparison with NaN is false, so a miner would drop a broken pair: it has to show.
    there = (pairs.positive_weights != 0) | (pairs.negative_weights != 0)
    broken = (there & jnp.isnan(stopped.positives)).any(axis=-1)
    spoil = lambda w: jnp.where(broken.reshape(-1, *[1] * (w.ndim - 1)), jnp.nan, w)
    return mined._replace(
        positive_weights=spoil(told.positive_weights), negative_weights=spoil(told.negative_weights)
    )


def _measure_chosen(mined: Pairs, distance: Distance, rows: Array, references: Array) -> Pairs:
    """The same pairs, with the few that were chosen measured from their own rows.

    The gradient of a column that was taken from all distances is a matrix of zeros but for one
    number a row, and goes through two products as large as that which measured all.
    """
    sides = mined.positive_columns, mined.negative_columns
    if any(columns is None for columns in sides):
        return mined
    width = sum(columns[0].size for columns in sides)
    if width * _NARROW > references.shape[0]:
        return mined

    def again(columns: Array) -> Array:
        theirs = references[columns.reshape(len(columns), -1)]
        one = lambda row, theirs: measure(distance, row[None], theirs)[0]
        return jax.vmap(one)(rows, theirs).reshape(columns.shape)

    return mined._replace(positives=again(sides[0]), negatives=again(sides[1]))


def survey(
    pairs_of: Callable[[Anchors, References], Pairs],
    miner: Miner | None,
    anchors: Anchors,
    references: References,
    size: int,
    axis_name: AxisName | None,
) -> References:
    """Lets a miner find out, before the sweep, what it needs to know of all pairs of the batch.

    Such a miner has a method `survey(count)`, with count(fn) the sum of fn(pairs) over all blocks
    and devices. `pairs_of` gives the pairs of a block before mining.
    """
    if not hasattr(miner, "survey"):
        return references
    anchors, seen = lax.stop_gradient((anchors, references))
    n = anchors.labels.shape[0]
    whole = pairs_of(anchors, seen) if size >= n else None
    blocks = None if whole is not None else split(anchors, -(-n // size), size)

    def count(fn: Callable[[Pairs], Any]) -> Any:
        if whole is not None:
            sums = fn(whole)
        else:
            each = lax.map(lambda block: fn(pairs_of(block, seen)), blocks)
            sums = jax.tree.map(lambda x: x.sum(axis=0), each)
        return jax.tree.map(lambda x: total(x, axis_name), sums)

    return references._replace(bounds=lax.stop_gradient(miner.survey(count)))  # type: ignore[union-attr]
