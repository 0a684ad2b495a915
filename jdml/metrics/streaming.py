"""Metrics of queries that come in chunks: sums that are kept, added to and divided at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jdml.metrics import ranking
from jdml.metrics.ranking import Average, check_average
from jdml.metrics.task import Asked, labelled_gallery, same_kind
from jdml.metrics.ties import Ties, known
from jdml.metrics.verification import unit
from jdml.retrieval.rows import Distance, finite_rows, label_array


class Streaming(NamedTuple):
    """A metric in three functions; a state goes in and a new one comes out.

    States are tuples of arrays: those of several processes add up, entry by entry, to that of all.
    """

    empty: Callable[[], Any]  # () -> state
    update: Callable[..., Any]  # (state, chunk...) -> state
    compute: Callable[[Any], Any]  # state -> result


class RetrievalSums(NamedTuple):
    """What `stream_retrieval` keeps."""

    sums: np.ndarray  # [M, C] of each metric and class
    counts: np.ndarray  # int [C] queries scored
    lone: np.ndarray  # int [] queries left out


def stream_retrieval(
    gallery: Any,
    gallery_labels: Any,
    *,
    gallery_cameras: Any = None,
    ks: Iterable[int] = (1,),
    distance: Distance = "cosine",
    ties: Ties = "expected",
    block_size: int | None = None,
    mesh: Mesh | None = None,
    whole: bool = False,
    average: Average = "query",
) -> Streaming:
    """`retrieval` for queries in chunks, against a gallery that is prepared once.

    Args:
      gallery: [N, D].
      gallery_labels: [N], integers or strings; a negative label marks a row to ignore.
      gallery_cameras, ks, distance, ties, block_size, mesh, whole, average: as in `retrieval`.

    Returns:
      `Streaming`: `update(state, embeddings, labels, own_rows=None, cameras=None)` adds the
      queries of a chunk, `compute(state)` gives the dict of `retrieval`.

    Raises:
      ValueError, TypeError: as in `retrieval`.

    Example:
      >>> stream = stream_retrieval(np.array([[0.0], [5.0]]), ["a", "b"], distance="euclidean")
      >>> state = stream.empty()
      >>> for rows, labels in (([[1.0], [4.0]], ["a", "a"]), ([[6.0]], ["b"])):
      ...     state = stream.update(state, rows, labels)
      >>> round(stream.compute(state)["recall_at_1"], 4), stream.compute(state)["queries"]
      (0.6667, 3)
    """
    check_average(average)
    known(ties)
    ks = ranking.whole_numbers(ks)
    table = labelled_gallery(gallery, gallery_labels, gallery_cameras, distance, mesh=mesh)
    names = _names(ks, whole)

    def empty() -> RetrievalSums:
        size = len(table.classes)
        return RetrievalSums(np.zeros((len(names), size)), np.zeros(size, int), np.zeros((), int))

    def update(
        state: RetrievalSums,
        embeddings: Any,
        labels: Any,
        own_rows: Any = None,
        cameras: Any = None,
    ) -> RetrievalSums:
        asked = Asked(embeddings, labels, table, None, own_rows, cameras)
        values, task = ranking.of_queries(asked, ks, distance, ties, block_size, whole)
        size = len(table.classes)
        sums = [np.bincount(task.codes, values[name], size) for name in names]
        counts = np.bincount(task.codes, minlength=size)
        return RetrievalSums(state.sums + sums, state.counts + counts, state.lone + task.lone)

    def compute(state: RetrievalSums) -> dict[str, float | int]:
        queries = int(state.counts.sum())
        if not queries:
            raise ValueError("compute: got no query with a relevant item, expected at least one")
        there = state.counts > 0
        means = state.sums.sum(axis=1) / queries
        if average == "class":
            means = (state.sums[:, there] / state.counts[there]).mean(axis=1)
        return dict(zip(names, means.tolist())) | {
            "queries": queries,
            "lone_queries": int(state.lone),
        }

    return Streaming(empty, update, compute)


def _names(ks: tuple[int, ...], whole: bool) -> list[str]:
    """The metrics of `retrieval` in their order, each once."""
    names = [*(f"recall_at_{k}" for k in ks), "precision_at_1", "r_precision", "map_at_r"]
    if whole:
        names += [f"{name}_at_{k}" for k in ks for name in ("precision", "ndcg")]
        names += ["map", "mrr", "ndcg", "inp"]
    return list(dict.fromkeys(names))


class CentroidSums(NamedTuple):
    """What `stream_centroids` keeps."""

    sums: np.ndarray  # [C, D]
    counts: np.ndarray  # int [C]


def stream_centroids(labels: Any, dim: int, *, distance: Distance = "cosine") -> Streaming:
    """Class means of rows in chunks, for `nearest_centroid` with the means as its gallery.

    Args:
      labels: [C], the classes to be expected.
      dim: D.
      distance: "cosine" takes rows at unit length.

    Returns:
      `Streaming`: `update(state, embeddings, labels)` adds the rows of a chunk (a negative label
      marks a row to ignore); `compute(state)` gives `(centroids [c, D], labels [c])` of the
      classes seen.

    Raises:
      ValueError: a label that is not expected, and as in `retrieval`.

    Example:
      >>> stream = stream_centroids([3, 8], 1, distance="euclidean")
      >>> state = stream.update(stream.empty(), [[1.0], [2.0], [5.0]], [3, 3, 8])
      >>> stream.compute(state)
      (array([[1.5],
             [5. ]]), array([3, 8]))
    """
    classes = np.unique(label_array("labels", labels))

    def empty() -> CentroidSums:
        return CentroidSums(np.zeros((len(classes), dim)), np.zeros(len(classes), int))

    def update(state: CentroidSums, embeddings: Any, labels: Any) -> CentroidSums:
        rows, labels = finite_rows("embeddings", embeddings), label_array("labels", labels)
        same_kind("labels", labels, "the classes", classes)
        if rows.shape != (len(labels), dim):
            raise ValueError(f"embeddings: got shape {rows.shape}, expected {(len(labels), dim)}")
        kept = np.ones(len(labels), bool) if labels.dtype.kind == "U" else labels >= 0
        rows, labels = rows[kept].astype(np.float64), labels[kept]
        place = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
        if not (classes[place] == labels).all():
            strange = labels[classes[place] != labels][0]
            raise ValueError(f"labels: got {strange}, expected one of {len(classes)} classes")
        sums = state.sums.copy()
        np.add.at(sums, place, unit(rows) if distance == "cosine" else rows)
        return CentroidSums(sums, state.counts + np.bincount(place, minlength=len(classes)))

    def compute(state: CentroidSums) -> tuple[np.ndarray, np.ndarray]:
        seen = state.counts > 0
        return state.sums[seen] / state.counts[seen, None], classes[seen]

    return Streaming(empty, update, compute)


class PairSums(NamedTuple):
    """What `stream_pairs` keeps: how many pairs lie in each bin of similarity."""

    same: np.ndarray  # int [n] pairs of one class
    other: np.ndarray  # int [n] pairs of different classes


class PairHistogram(NamedTuple):
    """What `stream_pairs` gives: the bins, and how many pairs lie in each."""

    edges: np.ndarray  # [n + 1] rising
    same: np.ndarray  # int [n] pairs of one class
    other: np.ndarray  # int [n] pairs of different classes


def stream_pairs(*, bins: int = 2000, low: float = -1.0, high: float = 1.0) -> Streaming:
    """Histograms of the similarities of pairs in chunks: any number of pairs in fixed memory.

    Args:
      bins: how many, of equal width.
      low, high: ends of the range; what lies outside counts in the outermost bins.

    Returns:
      `Streaming`: `update(state, similarities, same)` adds pairs; `compute(state)` gives
      `PairHistogram(edges, same, other)`, for the curve of all pairs at the edges: see the
      example.

    Raises:
      ValueError: fewer than one bin or an empty range.

    Example:
      >>> stream = stream_pairs(bins=2, low=0.0)
      >>> state = stream.update(stream.empty(), [0.2, 0.9, 0.7], [False, True, False])
      >>> edges, same, other = stream.compute(state)
      >>> same, other
      (array([0, 1]), array([1, 1]))
      >>> from jdml import metrics
      >>> kinds = np.repeat([True, False], 2)
      >>> curve = metrics.roc(np.tile(edges[:-1], 2), kinds, weights=np.append(same, other))
      >>> curve.thresholds, curve.far, curve.tar
      (array([inf, 0.5, 0. ]), array([0. , 0.5, 1. ]), array([0., 1., 1.]))
    """
    ranking.whole_number(bins, "bins")
    if not low < high:
        raise ValueError(f"high: got {high}, expected a number above low, {low}")
    edges = np.linspace(low, high, bins + 1)

    def empty() -> PairSums:
        return PairSums(np.zeros(bins, int), np.zeros(bins, int))

    def update(state: PairSums, similarities: Any, same: Any) -> PairSums:
        values, same = np.asarray(similarities, np.float64), np.asarray(same, bool)
        if values.shape != same.shape:
            raise ValueError(f"same: got shape {same.shape}, expected {values.shape}, one a pair")
        if np.isnan(values).any():
            raise ValueError("similarities: got NaN, expected numbers")
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
        of = lambda which: np.bincount(place[which], minlength=bins)
        return PairSums(state.same + of(same), state.other + of(~same))

    return Streaming(empty, update, lambda state: PairHistogram(edges, *state))
