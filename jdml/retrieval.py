"""Exact nearest neighbours, by blocks of queries, in bounded memory.

Every query is compared with every row of the gallery; nothing is approximated and no [Q, N] array
is ever held. A query is told apart from its own row by identity, never by rank or by distance, so
that an exact duplicate is found like any other neighbour.

Ties go to the lower row of the gallery. Identical rows always tie, on every backend and for every
block size. Different rows whose distances would be equal in real arithmetic tie when the products
are exact (whole numbers, say) and are otherwise ordered by rounding, about 1e-7 of |x| |y|.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Distance: TypeAlias = Literal["cosine", "dot", "euclidean", "squared_euclidean"]

# Similarities of one block of queries alive at once, in bytes: what a CPU's caches and allocator
# like, and what an accelerator needs to be busy.
_CPU_BYTES, _CPU_ROWS = 24 << 20, 256
_ACCELERATOR_BYTES, _ACCELERATOR_ROWS = 512 << 20, 4096
# Below this many rows or columns some matrix products take another path, whose sums round
# differently; a block never has fewer, so its size cannot change the answer.
_FEWEST_ROWS = 16
_COLUMNS = 64
_NEVER = -(2.0**60)  # the similarity of a column that only pads; real ones stay within a few D
_CHUNK = 8192  # rows prepared at once on the host, in float64


class Neighbours(NamedTuple):
    """The k nearest rows of the gallery for each query, nearest first."""

    indices: np.ndarray  # int32 [Q, k]
    distances: np.ndarray  # [Q, k], smaller is closer


class Prepared(NamedTuple):
    """Queries and gallery in the form whose inner product ranks them.

    One more coordinate carries what a gallery row adds to all its similarities (minus half its
    squared norm for Euclidean distances, a huge negative number for rows that only pad).
    """

    queries: np.ndarray  # [Q, D + 1]
    gallery: jax.Array  # [N', D + 1], padded
    first: jax.Array | None  # int32 [N'] first identical row, or None when all rows differ
    own_rows: np.ndarray  # int32 [Q] gallery row that is the query itself, or -1
    size: int  # N
    exponent: int  # rows were divided by 2**exponent
    block_size: int  # queries compared at once


def neighbours(
    queries: Any,
    gallery: Any = None,
    *,
    k: int,
    distance: Distance = "cosine",
    own_rows: Any = None,
    block_size: int | None = None,
) -> Neighbours:
    """The k nearest rows of a gallery for every query, exactly.

    Without a gallery the queries search among themselves, each without its own row. With one,
    nothing is left out unless `own_rows` says which gallery row is the query itself.

    Ranks come from float32 products (float64 where JAX has it enabled and is given it); the
    distances returned are recomputed from coordinate differences, so that those of near duplicates
    keep their digits, and the k found are put in the order of these.

    Args:
      queries: [Q, D], numpy or JAX.
      gallery: [N, D], or None for the queries themselves.
      k: neighbours of each query, at most the number of its candidates.
      distance: "cosine" is 1 - cos (a zero row is at 1 from everything), "dot" the negative
        inner product, "euclidean" and "squared_euclidean" as named.
      own_rows: int [Q], the gallery row of each query itself, -1 where it is not in the gallery.
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
    """
    whole(k, "k")
    extra = k * math.prod(np.shape(queries)[1:])  # the rows found, gathered to measure them again
    prepared = prepare(queries, gallery, distance, own_rows, block_size, extra)
    within(k, "k", prepared)
    found = [(np.zeros((0, k), np.int32), np.zeros((0, k), prepared.queries.dtype))]
    for rows in blocks(len(prepared.queries), prepared.block_size):
        search = functools.partial(
            _nearest,
            block_of(prepared.queries, rows, prepared.block_size),
            block_of(prepared.own_rows, rows, prepared.block_size),
            prepared.gallery,
            prepared.first,
            k=k,
            distance=distance,
        )
        asked = slice(rows.stop - rows.start)
        columns, values, tied = search(by_index=False)
        if tied[asked].any():
            columns, values, _ = search(by_index=True)
        found.append((np.asarray(columns)[asked], np.asarray(values)[asked]))
    columns, values = map(np.concatenate, zip(*found))
    order = np.lexsort((columns, values), axis=1)
    values = np.take_along_axis(values, order, axis=1)
    power = {"cosine": 0, "euclidean": 1}.get(distance, 2)
    with np.errstate(over="ignore"):  # a distance beyond the dtype's range is infinite
        values = np.ldexp(values, power * prepared.exponent)
    return Neighbours(np.take_along_axis(columns, order, axis=1), values)


@functools.partial(jax.jit, static_argnames=("k", "distance", "by_index"))
def _nearest(
    queries: jax.Array,
    own_rows: jax.Array,
    gallery: jax.Array,
    first: jax.Array | None,
    *,
    k: int,
    distance: Distance,
    by_index: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Columns [b, k] of the nearest, their distances, and whether a tie crosses the edge [b].

    The quick selection takes any of several equal ones, which matters only where the k-th ties
    with the next: then the block is searched again with `by_index`, which takes the lowest.
    """
    scores = similarities(queries, own_rows, gallery, first)
    if by_index:
        one_zero = jnp.where(scores == 0, 0.0, scores)  # selection tells -0.0 from 0.0
        values, columns = _top_k(one_zero, k + 1)
    else:
        values, columns = largest(scores, k + 1)
    columns, tied = columns[:, :k], values[:, k - 1] == values[:, k]
    return columns, _distances(queries[:, :-1], gallery[columns, :-1], distance), tied


def _distances(queries: jax.Array, found: jax.Array, distance: Distance) -> jax.Array:
    """Distances [b, k] of queries [b, D] to rows [b, k, D], from differences of coordinates."""
    x = queries[:, None, :]
    if distance == "dot":
        return -(x * found).sum(axis=-1)
    squared = jnp.square(x - found).sum(axis=-1)
    if distance == "cosine":  # of unit rows, or of zero rows, which are at 1 from everything
        nothing = jnp.square(found).sum(axis=-1) * jnp.square(x).sum(axis=-1) < 0.5
        return jnp.where(nothing, 1.0, 0.5 * squared)
    return jnp.sqrt(squared) if distance == "euclidean" else squared


# ------------------------------------------------------------------ one block of queries, in jit


def similarities(
    queries: jax.Array, own_rows: jax.Array, gallery: jax.Array, first: jax.Array | None
) -> jax.Array:
    """Similarities [b, N'] of prepared rows, larger is closer; the query's own row at -inf."""
    scores = lax.dot_general(
        queries, gallery, (((1,), (1,)), ((), ())), precision=lax.Precision.HIGHEST
    )
    if first is not None:  # a product may round equal columns differently; equal rows must tie
        scores = scores[:, first]
    own = jnp.where(own_rows < 0, gallery.shape[0], own_rows)  # out of bounds: dropped
    return scores.at[jnp.arange(queries.shape[0]), own].set(-jnp.inf, mode="drop")


def largest(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k largest of each row, largest first, and their columns; any of several equal ones.

    In two levels: a row is seen as groups of strided columns; the k largest entries lie in the k
    groups with the largest maxima. Several times faster than one selection over the whole row.
    """
    rows, size = scores.shape
    members = 1 << int(math.log2(max(size / k, 1)) / 2)  # near the square root: least work
    members = min(members, _COLUMNS)
    groups = size // members
    if size < 1024 or members < 4:
        return _top_k(scores, k)
    grouped = scores.reshape(rows, members, groups)
    _, chosen = _top_k(grouped.max(axis=1), k)
    candidates = jnp.take_along_axis(grouped, chosen[:, None, :], axis=2)
    values, place = _top_k(candidates.reshape(rows, members * k), k)
    return values, place // k * groups + jnp.take_along_axis(chosen, place % k, axis=1)


def _top_k(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    # A slice taken of its results makes XLA see a whole sort and run one, unless it cannot look.
    values, columns = lax.optimization_barrier(lax.top_k(scores, k))
    return values, columns


# ------------------------------------------------------------------ preparation, on the host


def prepare(
    queries: Any,
    gallery: Any = None,
    distance: Distance = "cosine",
    own_rows: Any = None,
    block_size: int | None = None,
    extra: int = 0,
    names: tuple[str, str] = ("queries", "gallery"),
) -> Prepared:
    """Checks rows and brings them to the form that `similarities` multiplies.

    Arguments and errors are those of `neighbours`. `extra` is how many numbers a query needs
    besides its similarities, for the choice of the block; `names` are for messages.
    """
    if distance not in get_args(Distance):
        known = ", ".join(get_args(Distance))
        raise ValueError(f"distance: got {distance!r}, expected one of {known}")
    if block_size is not None:
        whole(block_size, "block_size")
    x = finite_rows(names[0], queries)
    y = x if gallery is None else finite_rows(names[1], gallery)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[1]}: got rows of {y.shape[1]} dimensions, expected {x.shape[1]}, "
            f"those of {names[0]}"
        )
    own = own_row_numbers(own_rows, gallery is None, len(x), len(y))
    double = jax.config.read("jax_enable_x64") and np.float64 in (x.dtype, y.dtype)
    dtype = np.dtype(np.float64 if double else np.float32)
    frame = _frame(x, y, distance)
    table = _transformed(y, frame, distance, dtype, bias=True)
    first = _first_identical(table)
    columns = _COLUMNS * (len(y) // _COLUMNS + 1)
    padding = np.zeros((columns - len(y), table.shape[1]), dtype)
    padding[:, -1] = _NEVER
    return Prepared(
        queries=_transformed(x, frame, distance, dtype, bias=False),
        gallery=jnp.asarray(np.concatenate([table, padding])),
        first=None if first is None else jnp.asarray(np.append(first, range(len(y), columns)), int),
        own_rows=own,
        size=len(y),
        exponent=frame[1],
        block_size=_block_size(block_size, len(x), columns + extra, dtype.itemsize),
    )


def whole(k: Any, name: str) -> None:
    """Raises ValueError unless k is a whole number >= 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"{name}: got {k!r}, expected a whole number >= 1")


def within(k: int, name: str, prepared: Prepared) -> None:
    """Raises ValueError unless every query has k candidates."""
    among_itself = bool((prepared.own_rows >= 0).any())
    candidates = prepared.size - among_itself
    if k > candidates:
        left_out = ", its own row left out" if among_itself else ""
        raise ValueError(
            f"{name}: got {k}, expected at most {candidates}, the candidates of a query{left_out}"
        )


def blocks(queries: int, block_size: int) -> Iterator[slice]:
    """Slices of the queries, `block_size` at a time."""
    for start in range(0, queries, block_size):
        yield slice(start, min(start + block_size, queries))


def block_of(array: np.ndarray, rows: slice, size: int) -> np.ndarray:
    """`array[rows]`, the last block filled up with -1 so that every block has one shape."""
    part = array[rows]
    missing = ((0, size - len(part)), *((0, 0),) * (array.ndim - 1))
    return part if len(part) == size else np.pad(part, missing, constant_values=-1)


def _block_size(asked: int | None, queries: int, numbers: int, itemsize: int) -> int:
    """Queries of one block: those asked for, or what keeps their `numbers` in a stated size."""
    if asked is None:
        cpu = jax.default_backend() == "cpu"
        budget, most = (_CPU_BYTES, _CPU_ROWS) if cpu else (_ACCELERATOR_BYTES, _ACCELERATOR_ROWS)
        asked = min(budget // (itemsize * numbers), most)
    asked = min(asked, max(queries, 1))
    return max(_FEWEST_ROWS, -(-asked // _FEWEST_ROWS) * _FEWEST_ROWS)


def finite_rows(name: str, value: Any) -> np.ndarray:
    """value as a numpy matrix of finite real numbers."""
    rows = np.asarray(value)
    if not any(jnp.issubdtype(rows.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"{name}: got dtype {rows.dtype}, expected real numbers")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(
            f"{name}: got shape {rows.shape}, expected a matrix [B, D], one row an item"
        )
    if rows.dtype not in (np.float32, np.float64):
        rows = rows.astype(np.float32 if rows.dtype.itemsize < 4 else np.float64)
    for start in range(0, len(rows), _CHUNK):
        finite = np.isfinite(rows[start : start + _CHUNK])
        if not finite.all():
            row = start + int(np.argmin(finite.all(axis=1)))
            what = "NaN" if np.isnan(rows[row]).any() else "infinity"
            raise ValueError(f"{name}: row {row} holds {what}, expected finite numbers")
    return rows


def own_row_numbers(own_rows: Any, among_itself: bool, queries: int, size: int) -> np.ndarray:
    """The gallery row that is each query itself, int32 [Q], -1 where there is none."""
    if among_itself:
        if own_rows is not None:
            raise ValueError("own_rows: got rows without a gallery, expected a gallery they index")
        return np.arange(queries, dtype=np.int32)
    if own_rows is None:
        return np.full(queries, -1, np.int32)
    own = np.asarray(own_rows)
    if not np.issubdtype(own.dtype, np.integer):
        raise TypeError(f"own_rows: got dtype {own.dtype}, expected integers")
    if own.shape != (queries,):
        raise ValueError(f"own_rows: got shape {own.shape}, expected ({queries},), one a query")
    if own.size and not -1 <= own.min() <= own.max() < size:
        raise ValueError(
            f"own_rows: got {own.min()} to {own.max()}, expected rows 0 to {size - 1} of the "
            "gallery, or -1"
        )
    return own.astype(np.int32)


def _frame(x: np.ndarray, y: np.ndarray, distance: Distance) -> tuple[np.ndarray | float, int]:
    """The offset to subtract from all rows and the power of two to divide them by.

    Dividing by a power of two is exact and keeps squares in range. A common offset far larger
    than the spread of the rows would eat the digits of Euclidean distances; the middle of each
    coordinate's range is subtracted, which keeps whole numbers exact, so that ties stay ties.
    """
    if distance == "cosine" or not len(x) or not len(y):
        return 0.0, 0
    low = np.minimum(x.min(axis=0), y.min(axis=0)).astype(np.float64)
    high = np.maximum(x.max(axis=0), y.max(axis=0)).astype(np.float64)
    shift = 0.0 if distance == "dot" else low / 2 + high / 2
    reach = float(np.maximum(np.abs(low - shift), np.abs(high - shift)).max())
    return shift, math.frexp(reach)[1]


def _transformed(
    rows: np.ndarray, frame: tuple[Any, int], distance: Distance, dtype: np.dtype, bias: bool
) -> np.ndarray:
    """Rows [n, D] as [n, D + 1] of dtype, with the last coordinate 1 (queries) or the bias."""
    shift, exponent = frame
    out = np.ones((len(rows), rows.shape[1] + 1), dtype)
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK].astype(np.float64)
        if distance == "cosine":
            biggest = np.abs(part).max(axis=1, keepdims=True)
            part /= np.where(biggest == 0, 1.0, biggest)  # any finite row can now be squared
            norm = np.sqrt(np.einsum("nd,nd->n", part, part))[:, None]
            part /= np.where(norm == 0, 1.0, norm)
        else:
            part = np.ldexp(part - shift, -exponent)
        # Adding 0 turns -0.0 into 0.0, so that equal rows have equal bits.
        out[start : start + _CHUNK, :-1] = part + 0.0
        if bias:
            halves = 0.0 if distance in ("cosine", "dot") else np.einsum("nd,nd->n", part, part)
            out[start : start + _CHUNK, -1] = -0.5 * halves + 0.0
    return out


def _first_identical(rows: np.ndarray) -> np.ndarray | None:
    """For each row the first row equal to it, int32 [n], or None when all rows differ."""
    weights = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64)
    weights = 2 * weights + np.uint64(1)
    unsigned = np.dtype(f"u{rows.dtype.itemsize}")
    codes = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), _CHUNK):
        bits = rows[start : start + _CHUNK].view(unsigned).astype(np.uint64)
        codes[start : start + _CHUNK] = bits @ weights
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return None
    first = first[group]
    equal = (rows == rows[first]).all(axis=1)  # different rows may share a code, hardly ever
    return np.where(equal, first, np.arange(len(rows))).astype(np.int32)
