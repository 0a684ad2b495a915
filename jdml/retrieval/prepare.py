"""A gallery brought once to the form in which an inner product ranks it, and queries to match."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jdml.retrieval.rows import (
    CHUNK,
    Distance,
    block_rows,
    finite_rows,
    group_numbers,
    own_row_numbers,
    whole,
)

# Below this many columns some matrix products take another path, whose sums round differently.
COLUMNS = 64
_REACH = 60  # powers of two that queries may reach beyond the gallery: squares stay in range


class Index(NamedTuple):
    """A gallery prepared once, for any number of searches; made by `index`.

    A Euclidean gallery carries one more coordinate, minus half the squared norm, which a query
    multiplies by one: the inner product then ranks as the distance does.
    """

    rows: jax.Array  # [N', D] or [N', D + 1], padded, perhaps split over devices
    pads: jax.Array  # bool [W] which of the last W rows only pad; all N' where they are split
    first: jax.Array | None  # int32 [N'] first identical row of its part, or None if all differ
    size: int  # N
    dim: int  # D
    distance: Distance
    shift: Any  # [D] or 0, subtracted from all rows
    exponent: int  # rows were divided by 2**exponent
    split: NamedSharding | None  # how the rows are split over devices


class Prepared(NamedTuple):
    """Queries and gallery in the form whose inner product ranks them."""

    queries: np.ndarray  # [Q, D] or [Q, D + 1]
    own_rows: np.ndarray  # int32 [Q] gallery row that is the query itself, or -1
    groups: np.ndarray | None  # int32 [Q], -1 for none
    index: Index
    gallery_groups: jax.Array | None  # int32 [N'], -2 for none
    candidates: np.ndarray  # int [Q] gallery rows that may be found
    block_size: int  # queries compared at once


def index(
    gallery: Any,
    *,
    distance: Distance = "cosine",
    mesh: jax.sharding.Mesh | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Index:
    """Prepares a gallery once, for many calls of `neighbours` with chunks of queries.

    With a mesh its rows are split over devices: each compares the queries with its part and holds
    no other, so that memory and time fall with the number of devices; only the winners travel.

    Args:
      gallery: [N, D], numpy or JAX.
      distance: as in `neighbours`; the index keeps it.
      mesh: devices to split the rows over, or None for the default device.
      axis_name: axis or axes of the mesh, all of them by default.

    Returns:
      An `Index`, to be given to `neighbours` in the place of the gallery.

    Raises:
      ValueError: a row holds NaN or infinity (named), or the distance is not known.
      TypeError: rows that are not numbers.

    Example:
      >>> from jdml import retrieval
      >>> gallery = retrieval.index(np.array([[0.0], [3.0], [1.0]]), distance="euclidean")
      >>> retrieval.neighbours(np.array([[2.5]]), gallery, k=2).indices
      array([[1, 2]], dtype=int32)
    """
    return index_of(finite_rows("gallery", gallery), distance, mesh=mesh, axis_name=axis_name)


def index_of(
    rows: np.ndarray,
    distance: Distance,
    double: bool | None = None,
    mesh: jax.sharding.Mesh | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Index:
    """`index` of checked rows; `double` where float64 queries ask for float64 sums."""
    if distance not in get_args(Distance):
        known = ", ".join(get_args(Distance))
        raise ValueError(f"distance: got {distance!r}, expected one of {known}")
    double = rows.dtype == np.float64 if double is None else double
    dtype = np.dtype(np.float64 if double and jax.config.read("jax_enable_x64") else np.float32)
    shift, exponent = _frame(rows, distance)
    table = _transformed(rows, shift, exponent, distance, dtype, bias=True)
    split, parts = None, 1
    if mesh is not None:
        axes = mesh.axis_names if axis_name is None else axis_name
        axes = (axes,) if isinstance(axes, str) else tuple(axes)
        split = NamedSharding(mesh, PartitionSpec(axes))
        parts = math.prod(mesh.shape[name] for name in axes)
    size, multiple = len(rows), COLUMNS * parts
    columns = multiple * (size // multiple + 1)
    table = np.concatenate([table, np.zeros((columns - size, table.shape[1]), dtype)])
    pads = np.arange(columns) >= size
    first = _first_of_parts(table, pads, parts)
    place = jnp.asarray if split is None else lambda array: jax.device_put(array, split)
    return Index(
        place(table),
        place(pads[-multiple:] if split is None else pads),
        None if first is None else place(first),
        size=size,
        dim=rows.shape[1],
        distance=distance,
        shift=shift,
        exponent=exponent,
        split=split,
    )


def prepare(
    queries: Any,
    gallery: Any = None,
    distance: Distance | None = None,
    own_rows: Any = None,
    block_size: int | None = None,
    extra: int = 0,
    names: tuple[str, str] = ("queries", "gallery"),
    groups: Any = None,
    gallery_groups: Any = None,
) -> Prepared:
    """Checks rows and brings them to the form that `similarities` multiplies.

    Arguments and errors are those of `neighbours`. `extra` is how many numbers a query needs
    besides its similarities, for the choice of the block; `names` are for messages.
    """
    if block_size is not None:
        whole(block_size, "block_size")
    x = finite_rows(names[0], queries)
    if not isinstance(gallery, Index):
        y = x if gallery is None else finite_rows(names[1], gallery)
        double = np.float64 in (x.dtype, y.dtype)
        among_itself = gallery is None
        same_width(names, x.shape[1], y.shape[1])
        gallery = index_of(y, "cosine" if distance is None else distance, double)
    else:
        among_itself = False
        same_width(names, x.shape[1], gallery.dim)
        same_distance(distance, gallery.distance)
    own = own_row_numbers(own_rows, among_itself, len(x), gallery.size)
    numbers = group_numbers(groups, gallery_groups, among_itself, len(x), gallery.size)
    columns, dtype = len(gallery.rows), np.dtype(gallery.rows.dtype)
    padded = None
    if numbers is not None:
        padded = np.full(columns, -2, np.int32)  # -1 would equal a query without a group
        padded[: gallery.size] = np.where(numbers[1] < 0, -2, numbers[1])
    return Prepared(
        queries=in_frame(names[0], x, gallery),
        own_rows=own,
        groups=None if numbers is None else numbers[0],
        index=gallery,
        gallery_groups=None if padded is None else jax.device_put(padded, gallery.split),
        candidates=gallery.size - left_out(own, numbers),
        block_size=block_rows(block_size, len(x), columns + extra, dtype.itemsize),
    )


def same_width(names: tuple[str, str], width: int, other: int) -> None:
    """Raises ValueError unless queries and gallery have one number of dimensions."""
    if width != other:
        raise ValueError(
            f"{names[1]}: got rows of {other} dimensions, expected {width}, those of {names[0]}"
        )


def same_distance(distance: Distance | None, prepared: Distance) -> None:
    """Raises ValueError where a distance is asked for that the index was not made for."""
    if distance not in (None, prepared):
        raise ValueError(f"distance: got {distance!r}, expected {prepared!r}, that of the index")


def left_out(own: np.ndarray, groups: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """How many gallery rows each query may not find, int [Q]: itself and its group."""
    if groups is None:
        return (own >= 0).astype(int)
    asked, there = groups
    counts = np.bincount(there[there >= 0], minlength=int(max(asked.max(initial=0), 0)) + 1)
    apart = (own >= 0) & ((asked < 0) | (np.append(there, -1)[own] != asked))
    return np.where(asked < 0, 0, counts[asked]) + apart


def within(k: int, name: str, prepared: Prepared) -> None:
    """Raises ValueError unless every query has k candidates."""
    fewest = int(prepared.candidates.min(initial=prepared.index.size))
    if k > fewest:
        reason = ", its own row left out" if (prepared.own_rows >= 0).any() else ""
        reason = ", its own row and its group left out" if prepared.groups is not None else reason
        raise ValueError(
            f"{name}: got {k}, expected at most {fewest}, the candidates of a query{reason}"
        )


def in_frame(name: str, rows: np.ndarray, gallery: Index) -> np.ndarray:
    """Queries [Q, D] in the frame of a gallery."""
    shift, exponent = gallery.shift, gallery.exponent
    if gallery.distance != "cosine" and len(rows):
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        reach = np.maximum(np.abs(low - shift), np.abs(high - shift)).max()
        if math.frexp(reach)[1] - exponent > _REACH:
            raise ValueError(
                f"{name}: got numbers up to {reach:.1e}, expected them less than 2**{_REACH} "
                f"times those of the gallery, {math.ldexp(1.0, exponent):.1e}"
            )
    dtype = np.dtype(gallery.rows.dtype)
    return _transformed(rows, shift, exponent, gallery.distance, dtype, bias=False)


def _frame(rows: np.ndarray, distance: Distance) -> tuple[np.ndarray | float, int]:
    """The offset to subtract from all rows and the power of two to divide them by.

    Dividing by a power of two is exact and keeps squares in range. A common offset far larger
    than the spread of the rows would eat the digits of Euclidean distances; the middle of each
    coordinate's range is subtracted, which keeps whole numbers exact, so that ties stay ties.
    """
    if distance == "cosine" or not len(rows):
        return 0.0, 0
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    shift = 0.0 if distance == "dot" else low / 2 + high / 2
    reach = float(np.maximum(np.abs(low - shift), np.abs(high - shift)).max())
    if not reach:  # rows that are all the same have the scale of their numbers
        reach = float(np.abs(low).max())
    return shift, math.frexp(reach)[1]


def _transformed(
    rows: np.ndarray, shift: Any, exponent: int, distance: Distance, dtype: np.dtype, bias: bool
) -> np.ndarray:
    """Rows [n, D] in the frame, of dtype; Euclidean ones with 1 (queries) or the bias behind."""
    euclidean = distance in ("euclidean", "squared_euclidean")
    out = np.ones((len(rows), rows.shape[1] + euclidean), dtype)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].astype(np.float64)
        if distance == "cosine":
            biggest = np.abs(part).max(axis=1, keepdims=True)
            part /= np.where(biggest == 0, 1.0, biggest)  # any finite row can now be squared
            norm = np.sqrt(np.einsum("nd,nd->n", part, part))[:, None]
            part /= np.where(norm == 0, 1.0, norm)
        else:
            part = np.ldexp(part - shift, -exponent)
        # Adding 0 turns -0.0 into 0.0, so that equal rows have equal bits.
        out[start : start + CHUNK, : rows.shape[1]] = part + 0.0
        if euclidean and bias:
            out[start : start + CHUNK, -1] = -0.5 * np.einsum("nd,nd->n", part, part) + 0.0
    return out


def _first_of_parts(table: np.ndarray, pads: np.ndarray, parts: int) -> np.ndarray | None:
    """`_first_identical` within each part of a padded table, or None when all rows differ."""
    found = []
    for rows, only_pads in zip(np.split(table, parts), np.split(pads, parts)):
        real = int((~only_pads).sum())
        first = _first_identical(rows[:real])
        found.append(np.append(range(real) if first is None else first, range(real, len(rows))))
    own = np.tile(np.arange(len(table) // parts), parts)
    first = np.concatenate(found).astype(np.int32)
    return None if (first == own).all() else first


def _first_identical(rows: np.ndarray) -> np.ndarray | None:
    """For each row the first row equal to it, int32 [n], or None when all rows differ."""
    weights = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64)
    weights = 2 * weights + np.uint64(1)
    unsigned = np.dtype(f"u{rows.dtype.itemsize}")
    codes = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), CHUNK):
        bits = rows[start : start + CHUNK].view(unsigned).astype(np.uint64)
        codes[start : start + CHUNK] = bits @ weights
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return None
    first = first[group]
    equal = (rows == rows[first]).all(axis=1)  # different rows may share a code, hardly ever
    return np.where(equal, first, np.arange(len(rows))).astype(np.int32)
