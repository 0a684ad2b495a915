"""The search itself: the k nearest rows of a gallery, block by block."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jdml.retrieval import approximate
from jdml.retrieval.approximate import FaissIndex
from jdml.retrieval.prepare import Index, Prepared, prepare, within
from jdml.retrieval.rows import Distance, block_of, blocks, two_at_a_time, whole
from jdml.retrieval.select import Block, Gallery, largest, similarities, top_k


class Neighbours(NamedTuple):
    """The k nearest rows of the gallery for each query, nearest first."""

    indices: np.ndarray  # int32 [Q, k]
    distances: np.ndarray  # [Q, k], smaller is closer


def neighbours(
    queries: Any,
    gallery: Any = None,
    *,
    k: int,
    distance: Distance | None = None,
    own_rows: Any = None,
    groups: Any = None,
    gallery_groups: Any = None,
    block_size: int | None = None,
) -> Neighbours:
    """The k nearest rows of a gallery for every query, exactly.

    Without a gallery the queries search among themselves, each without its own row. With one,
    nothing is left out unless `own_rows` says which gallery row is the query itself, or `groups`
    say which rows must not find each other.

    Ranks come from float32 products (float64 where JAX has it enabled and is given it); the
    distances returned are recomputed from coordinate differences, so that those of near duplicates
    keep their digits, and the k found are put in the order of these.

    Args:
      queries: [Q, D], numpy or JAX.
      gallery: [N, D], None for the queries themselves, or what `index` or `faiss_index` made of
        one, for searches with many chunks of queries. That of faiss is searched approximately:
        where it finds fewer than k, the rest is row -1 at infinite distance.
      k: neighbours of each query, at most the number of its candidates.
      distance: "cosine" (default) is 1 - cos (a zero row is at 1 from everything), "dot" the
        negative inner product, "euclidean" and "squared_euclidean" as named. An index has its own.
      own_rows: int [Q], the gallery row of each query itself, -1 where it is not in the gallery.
      groups: [Q], integers or strings; a query finds no row of its own group, such as another
        picture by the same camera of the same person. Negative: none.
      gallery_groups: [N], the groups of a separate gallery.
      block_size: queries compared at once; changes memory and speed, never the answer.

    Returns:
      `Neighbours(indices, distances)`, numpy arrays [Q, k], nearest first, ties by lower index.

    Raises:
      ValueError: a row holds NaN or infinity, the dimensions differ, k exceeds the candidates.
      TypeError: rows that are not numbers, or own_rows that are not integers.

    Example:
      >>> rows = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
      >>> neighbours(rows, k=2, distance="euclidean").indices
      array([[2, 1],
             [2, 0],
             [0, 1]], dtype=int32)
      >>> neighbours(rows[:1], rows, k=2, distance="euclidean").distances
      array([[0., 1.]], dtype=float32)
      >>> neighbours(rows, k=1, distance="euclidean", groups=["a", "b", "a"]).indices.T
      array([[1, 2, 1]], dtype=int32)
    """
    whole(k, "k")
    if isinstance(gallery, FaissIndex):
        found = approximate.search(queries, gallery, k, distance, own_rows, groups, gallery_groups)
        return Neighbours(*found)
    extra = k * math.prod(np.shape(queries)[1:])  # the rows found, gathered to measure them again
    prepared = prepare(
        queries, gallery, distance, own_rows, block_size, extra,
        groups=groups, gallery_groups=gallery_groups,
    )  # fmt: skip
    within(k, "k", prepared)
    table, metric = gallery_of(prepared), prepared.index.distance
    split = prepared.index.split

    def of(rows: slice) -> list[np.ndarray]:
        search = functools.partial(
            _nearest, block_at(prepared, rows), table, k=k, distance=metric, split=split
        )
        asked = slice(rows.stop - rows.start)
        columns, values, tied = search(by_index=False)
        if np.asarray(tied)[asked].any():
            columns, values, _ = search(by_index=True)
        columns, values = np.asarray(columns)[asked], np.asarray(values)[asked]
        order = np.lexsort((columns, values), axis=1)[:, :k]
        return [np.take_along_axis(array, order, axis=1) for array in (columns, values)]

    every = blocks(len(prepared.queries), prepared.block_size)
    found = list(two_at_a_time(of, every, alone=split is not None))
    if not found:
        found = [(np.zeros((0, k), np.int32), np.zeros((0, k), prepared.queries.dtype))]
    columns, values = map(np.concatenate, zip(*found))
    power = {"cosine": 0, "euclidean": 1}.get(metric, 2)
    with np.errstate(over="ignore"):  # a distance beyond the dtype's range is infinite
        values = np.ldexp(values, power * prepared.index.exponent)
    return Neighbours(columns, values)


def gallery_of(prepared: Prepared) -> Gallery:
    """The gallery as `similarities` takes it."""
    table: Index = prepared.index
    return Gallery(table.rows, table.pads, table.first, prepared.gallery_groups)


def block_at(prepared: Prepared, rows: slice) -> Block:
    """A block of the queries as `similarities` takes it, filled up to the block size."""
    fields = (prepared.queries, prepared.own_rows, prepared.groups)
    size = prepared.block_size
    return Block(*(None if a is None else block_of(a, rows, size) for a in fields))


@functools.partial(jax.jit, static_argnames=("k", "distance", "by_index", "split"))
def _nearest(
    queries: Block,
    gallery: Gallery,
    *,
    k: int,
    distance: Distance,
    by_index: bool,
    split: NamedSharding | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Columns [b, k] of the nearest, their distances, and whether a tie crosses the edge [b].

    The quick selection takes any of several equal ones, which matters only where the k-th ties
    with the next: then the block is searched again with `by_index`, which takes the lowest. A
    gallery that is split gives the nearest of every part, [b, parts * k].
    """
    if split is None:
        return _nearest_of(queries, gallery, k, distance, by_index)
    axes: Any = split.spec[0]

    def part(queries: Block, gallery: Gallery) -> tuple[jax.Array, jax.Array, jax.Array]:
        start = lax.axis_index(axes) * len(gallery.rows)
        start = start.astype(jnp.int32)
        # A row of another part is out of bounds here, which is none.
        queries = queries._replace(own_rows=queries.own_rows - start)
        columns, values, tied = _nearest_of(queries, gallery, k, distance, by_index)
        return columns + start, values, tied[:, None]

    spread = PartitionSpec(None, axes)
    columns, values, tied = jax.shard_map(
        part,
        mesh=split.mesh,
        in_specs=(PartitionSpec(), PartitionSpec(axes)),
        out_specs=(spread, spread, spread),
        check_vma=False,
    )(queries, gallery)
    return columns, values, tied.any(axis=1)


def _nearest_of(
    queries: Block, gallery: Gallery, k: int, distance: Distance, by_index: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`_nearest` of one part of the gallery, all of it where it has no more than k rows."""
    scores = similarities(queries, gallery)
    k = min(k, scores.shape[1] - 1)
    if by_index:
        one_zero = jnp.where(scores == 0, 0.0, scores)  # selection tells -0.0 from 0.0
        values, columns = top_k(one_zero, k + 1)
    else:
        values, columns = largest(scores, k + 1)
    last, next_ = values[:, k - 1], values[:, k]
    tied = (last == next_) & (last > -jnp.inf)
    columns, values = columns[:, :k], values[:, :k]
    distances = _distances(queries.rows, gallery.rows[columns], distance)
    return columns, jnp.where(values > -jnp.inf, distances, jnp.inf), tied


def _distances(queries: jax.Array, found: jax.Array, distance: Distance) -> jax.Array:
    """Distances [b, k] of queries [b, D] to rows [b, k, D], from differences of coordinates."""
    x = queries[:, None, :]
    if distance == "dot":
        return -(x * found).sum(axis=-1)
    if distance != "cosine":  # without the coordinate that ranks
        squared = jnp.square(x[..., :-1] - found[..., :-1]).sum(axis=-1)
        return jnp.sqrt(squared) if distance == "euclidean" else squared
    squared = jnp.square(x - found).sum(axis=-1)
    # Of unit rows, or of zero rows, which are at 1 from everything.
    nothing = jnp.square(found).sum(axis=-1) * jnp.square(x).sum(axis=-1) < 0.5
    return jnp.where(nothing, 1.0, 0.5 * squared)
