"""Approximate search by an index of faiss, behind the same call as the exact one."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, get_args

import numpy as np

from jdml.retrieval.prepare import same_distance, same_width
from jdml.retrieval.rows import Distance, finite_rows, group_numbers, own_row_numbers


class FaissIndex(NamedTuple):
    """A gallery in an index of faiss; made by `faiss_index`."""

    handle: Any  # the index of faiss
    size: int  # N
    dim: int  # D
    distance: Distance


def faiss_index(
    gallery: Any, *, distance: Distance = "cosine", factory: str = "HNSW32"
) -> FaissIndex:
    """Puts a gallery into an index of faiss, for approximate search by `neighbours`.

    For galleries of many millions, where a share of the true neighbours is enough; below that the
    exact search is fast. Compare its recall with the exact one on some of your queries.

    Args:
      gallery: [N, D], numpy or JAX.
      distance: as in `neighbours`; the index keeps it.
      factory: the kind of index in the words of faiss: "Flat" (exact), "HNSW32" (a graph),
        "IVF1024,Flat" (cells; set `index.handle.nprobe`), "IVF1024,PQ32" (compressed), and so on.
        It is trained on the gallery where it needs it.

    Returns:
      A `FaissIndex`, to be given to `neighbours` in the place of the gallery.

    Raises:
      ModuleNotFoundError: faiss is not installed (`pip install faiss-cpu`).
      ValueError: a row holds NaN or infinity (named), or the distance is not known.

    Reference:
      Douze et al., "The Faiss library", IEEE Transactions on Big Data 2025.
    """
    try:
        faiss = importlib.import_module("faiss")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "faiss_index: faiss is not installed, expected `pip install faiss-cpu`"
        ) from error
    if distance not in get_args(Distance):
        known = ", ".join(get_args(Distance))
        raise ValueError(f"distance: got {distance!r}, expected one of {known}")
    rows = _float32(finite_rows("gallery", gallery), distance)
    inner = distance in ("cosine", "dot")
    metric = faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2
    handle = faiss.index_factory(rows.shape[1], factory, metric)
    if not handle.is_trained:
        handle.train(rows)
    handle.add(rows)
    return FaissIndex(handle, rows.shape[0], rows.shape[1], distance)


def search(
    queries: Any,
    gallery: FaissIndex,
    k: int,
    distance: Distance | None,
    own_rows: Any,
    groups: Any,
    gallery_groups: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances [Q, k] as `neighbours` gives them, -1 at infinity where none is left.

    As many more are asked for as a query may have to leave out.
    """
    same_distance(distance, gallery.distance)
    rows = finite_rows("queries", queries)
    same_width(("queries", "gallery"), rows.shape[1], gallery.dim)
    own = own_row_numbers(own_rows, False, len(rows), gallery.size)
    numbers = group_numbers(groups, gallery_groups, False, len(rows), gallery.size)
    largest = 0
    if numbers is not None and (numbers[1] >= 0).any():
        largest = int(np.bincount(numbers[1][numbers[1] >= 0]).max())
    asked = min(k + int((own >= 0).any()) + largest, gallery.size)
    if k > gallery.size:
        raise ValueError(f"k: got {k}, expected at most {gallery.size}, the rows of the gallery")
    values, columns = gallery.handle.search(_float32(rows, gallery.distance), asked)
    barred = (columns == own[:, None]) | (columns < 0)
    if numbers is not None:
        there = numbers[1][columns]
        barred |= (there >= 0) & (there == numbers[0][:, None])
    values = {
        "cosine": lambda v: 1.0 - v,
        "dot": lambda v: -v,
        "euclidean": lambda v: np.sqrt(np.maximum(v, 0.0)),
        "squared_euclidean": lambda v: v,
    }[gallery.distance](values)
    columns = np.where(barred, -1, columns)
    values = np.where(barred, np.float32(np.inf), values)
    order = np.lexsort((columns, values), axis=1)[:, :k]
    pick = lambda array: np.take_along_axis(array, order, axis=1)
    return pick(columns).astype(np.int32), pick(values).astype(np.float32)


def _float32(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """Rows as faiss takes them: float32, side by side in memory, unit length for cosine."""
    if distance == "cosine":
        wide = rows.astype(np.float64)
        norm = np.linalg.norm(wide, axis=1, keepdims=True)
        rows = wide / np.where(norm == 0, 1.0, norm)
    return np.ascontiguousarray(rows, np.float32)
