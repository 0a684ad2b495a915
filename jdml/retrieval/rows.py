"""Rows and numbers as a search takes them: checked, on the host, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, Literal, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")
U = TypeVar("U")
Distance: TypeAlias = Literal["cosine", "dot", "euclidean", "squared_euclidean"]

# Similarities of one block of queries alive at once, in bytes: what a CPU's caches and allocator
# like, and what an accelerator needs to be busy.
_CPU_BYTES, _CPU_ROWS = 24 << 20, 256
_ACCELERATOR_BYTES, _ACCELERATOR_ROWS = 512 << 20, 4096
# Below this many rows some matrix products take another path, whose sums round differently; a
# block never has fewer, so its size cannot change the answer.
_FEWEST_ROWS = 16
CHUNK = 8192  # rows prepared at once on the host, in float64


def whole(k: Any, name: str) -> None:
    """Raises ValueError unless k is a whole number >= 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"{name}: got {k!r}, expected a whole number >= 1")


def blocks(queries: int, block_size: int) -> Iterator[slice]:
    """Slices of the queries, `block_size` at a time."""
    for start in range(0, queries, block_size):
        yield slice(start, min(start + block_size, queries))


def block_of(array: np.ndarray, rows: slice, size: int) -> np.ndarray:
    """`array[rows]`, the last block filled up with -1 so that every block has one shape."""
    part = array[rows]
    missing = ((0, size - len(part)), *((0, 0),) * (array.ndim - 1))
    return part if len(part) == size else np.pad(part, missing, constant_values=-1)


def block_rows(asked: int | None, queries: int, numbers: int, itemsize: int) -> int:
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
    for start in range(0, len(rows), CHUNK):
        finite = np.isfinite(rows[start : start + CHUNK])
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


def label_array(name: str, labels: Any) -> np.ndarray:
    """Labels as int64 [B] or text [B]: no float ever holds one, so large ids stay apart."""
    array = np.asarray(labels)
    if array.dtype == object and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "iuU":
        raise TypeError(f"{name}: got dtype {array.dtype}, expected integers or strings")
    if array.ndim != 1:
        raise ValueError(f"{name}: got shape {array.shape}, expected one label a row, [B]")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: got the id {array.max()}, expected ids within int64")
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def group_numbers(
    groups: Any, gallery_groups: Any, among_itself: bool, queries: int, size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Group numbers of queries and gallery, int32 [Q] and [N], -1 for none; None without groups."""
    if groups is None and gallery_groups is None:
        return None
    if among_itself:
        if gallery_groups is not None:
            raise ValueError("gallery_groups: got groups without a gallery, expected groups alone")
        gallery_groups = groups
    elif groups is None or gallery_groups is None:
        missing = "groups" if groups is None else "gallery_groups"
        raise ValueError(f"{missing}: got None, expected groups and gallery_groups together")
    own, other = label_array("groups", groups), label_array("gallery_groups", gallery_groups)
    for name, array, rows in (("groups", own, queries), ("gallery_groups", other, size)):
        if len(array) != rows:
            raise ValueError(f"{name}: got {len(array)} of them, expected {rows}, one a row")
    if own.dtype.kind != other.dtype.kind:
        raise TypeError(
            f"gallery_groups: got dtype {other.dtype}, expected the kind of groups, {own.dtype}"
        )
    both = np.concatenate([own, other])
    _, codes = np.unique(both, return_inverse=True)
    if both.dtype.kind == "i":
        codes = np.where(both < 0, -1, codes)
    codes = codes.astype(np.int32)
    return codes[: len(own)], codes[len(own) :]


def two_at_a_time(function: Callable[[T], U], items: Iterable[T], alone: bool) -> Iterator[U]:
    """function of each item, in order; the next item is under way meanwhile, unless `alone`.

    A selection runs on one core: a second block has its products on the others. What JAX keeps
    for each thread goes along.
    """
    config: Any = jax.config
    x64, device = config.jax_enable_x64, config.jax_default_device

    def there(item: T) -> U:
        with jax.enable_x64(x64), jax.default_device(device):
            return function(item)

    with futures.ThreadPoolExecutor(1 if alone else 2) as pool:
        yield from pool.map(there, items)
