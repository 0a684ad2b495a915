"""Re-ranking by the neighbours that items share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jdml.postprocess.models import unit
from jdml.retrieval.prepare import same_width
from jdml.retrieval.rows import Distance, finite_rows, whole
from jdml.retrieval.search import neighbours

_BLOCK = 512  # items measured at once


def rerank(
    queries: Any,
    gallery: Any = None,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    distance: Distance = "cosine",
) -> np.ndarray:
    """Distances after re-ranking by shared k-reciprocal neighbours.

    Two items are alike where their neighbourhoods overlap. The neighbourhood of an item holds the
    k1 nearest that count it among their own k1 nearest, and the half-sized neighbourhoods of these
    where they overlap by more than two thirds; its members weigh exp(-distance), and the weights
    are averaged over the k2 nearest items. One minus the overlap (Jaccard) is blended with the
    original distance, which is divided by the largest of its row:

        new = (1 - weight) * jaccard + weight * distance / largest

    It helps where a class has many items in the gallery. Queries take part in each other's
    neighbourhoods. Feed the result to `metrics.from_distances`.

    Args:
      queries: [Q, D], numpy or JAX.
      gallery: [N, D], or None to re-rank the queries among themselves.
      k1: size of a neighbourhood, about the items of a class; less than Q + N.
      k2: items over which neighbourhoods are averaged, itself included; 1 for none. At most
        k1 + 1.
      weight: of the original distance, 0 to 1.
      distance: "cosine", "euclidean" or "squared_euclidean".

    Returns:
      float32 [Q, N]: all of it is held, Q * N * 4 bytes.

    Raises:
      ValueError: a row holds NaN or infinity (named), or a number is out of its range.

    Example:
      >>> rows = np.array([[0.0], [1.0], [1.1], [5.0]])
      >>> rerank(rows, k1=1, k2=1, weight=0.0, distance="euclidean").round(1)
      array([[0., 1., 1., 1.],
             [1., 0., 0., 1.],
             [1., 0., 0., 1.],
             [1., 1., 1., 0.]], dtype=float32)

    Note:
      An item is told apart from its neighbours by identity, so that duplicates are neighbours like
      any others.

    Reference:
      Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding",
      CVPR 2017.
    """
    for value, name in ((k1, "k1"), (k2, "k2")):
        whole(value, name)
    if k2 > k1 + 1:
        raise ValueError(f"k2: got {k2}, expected at most k1 + 1 = {k1 + 1}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight: got {weight}, expected a number from 0 to 1")
    if distance == "dot":
        raise ValueError("distance: got 'dot', expected cosine, euclidean or squared_euclidean")
    x = finite_rows("queries", queries)
    y = x if gallery is None else finite_rows("gallery", gallery)
    same_width(("queries", "gallery"), x.shape[1], y.shape[1])
    rows = x if gallery is None else np.concatenate([x, y])
    if k1 >= len(rows):
        raise ValueError(f"k1: got {k1}, expected at most {len(rows) - 1}, the other items")
    found = neighbours(rows, k=k1, distance=distance).indices
    ranked = np.concatenate([np.arange(len(rows))[:, None], found], axis=1)
    first = 0 if gallery is None else len(x)
    largest = np.empty(len(rows))
    out = np.empty((len(x), len(y)), np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(rows)))
        table = _distances(rows[part], rows, distance)
        largest[part] = np.where(table.max(axis=1) > 0, table.max(axis=1), 1.0)
        if start < len(x):
            asked = slice(start, min(part.stop, len(x)))
            table = table[: asked.stop - start, first:]
            out[asked] = weight * table / largest[asked, None]
    apart = lambda item, others: (
        _distances(rows[item : item + 1], rows[others], distance)[0] / largest[item]
    )
    overlap = _Encoded(ranked, k2, apart)
    for row in range(len(x)):
        shared = overlap.shared(row)[first:]
        out[row] += (1 - weight) * (1 - shared / (2 - shared))
    return out


class _Encoded:
    """Every item as the weights of its neighbourhood, [M, M] and sparse."""

    def __init__(
        self,
        ranked: np.ndarray,
        k2: int,
        apart: Callable[[int, np.ndarray], np.ndarray],
    ) -> None:
        """From lists [M, k1 + 1] of the nearest, and distances `apart(item, others)`."""
        from scipy import sparse

        size, k1 = len(ranked), ranked.shape[1] - 1
        full, small = _reciprocal(ranked, k1 + 1), _reciprocal(ranked, round(k1 / 2) + 1)
        members, weights = [], []
        for item, mine in enumerate(full):
            grown, known = [mine], set(mine.tolist())
            for other in mine:
                theirs = small[other]
                if 3 * sum(t in known for t in theirs.tolist()) > 2 * len(theirs):
                    grown.append(theirs)
            grown = np.unique(np.concatenate(grown))
            weight = np.exp(-apart(item, grown))
            members.append(grown)
            weights.append(weight / weight.sum())
        starts = np.cumsum([0, *map(len, members)])
        table = sparse.csr_array(
            (np.concatenate(weights), np.concatenate(members), starts), shape=(size, size)
        )
        mean = sparse.csr_array(
            (np.full(size * k2, 1 / k2), ranked[:, :k2].ravel(), np.arange(size + 1) * k2),
            shape=(size, size),
        )
        self.by_row: Any = sparse.csr_array(mean @ table)
        self.by_column: Any = sparse.csc_array(self.by_row)

    def shared(self, row: int) -> np.ndarray:
        """The sum [M] over members of the smaller of the two weights, with every item."""
        part = slice(self.by_row.indptr[row], self.by_row.indptr[row + 1])
        columns, weights = self.by_row.indices[part], self.by_row.data[part]
        starts = self.by_column.indptr
        spans = [np.arange(starts[c], starts[c + 1]) for c in columns]
        where = np.concatenate(spans)
        smaller = np.minimum(
            self.by_column.data[where], np.repeat(weights, [len(span) for span in spans])
        )
        return np.bincount(self.by_column.indices[where], smaller, self.by_row.shape[0])


def _reciprocal(ranked: np.ndarray, width: int) -> list[np.ndarray]:
    """The items of each list [M, width], itself first, that list it too."""
    lists, found = ranked[:, :width], []
    for start in range(0, len(lists), _BLOCK):
        block = lists[start : start + _BLOCK]
        items = np.arange(start, start + len(block))[:, None, None]
        mutual = (lists[block] == items).any(axis=2)
        found += [row[keep] for row, keep in zip(block, mutual)]
    return found


def _distances(x: np.ndarray, y: np.ndarray, distance: Distance) -> np.ndarray:
    """Distances [b, N] in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if distance == "cosine":
        return np.maximum(1.0 - unit(x) @ unit(y).T, 0.0)
    squared = np.square(x).sum(1)[:, None] - 2.0 * x @ y.T + np.square(y).sum(1)
    squared = np.maximum(squared, 0.0)
    return np.sqrt(squared) if distance == "euclidean" else squared
