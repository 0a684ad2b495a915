"""Retrieval metrics of rankings that were made elsewhere: distances, or lists of ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jdml.metrics import counts
from jdml.metrics.averages import summary
from jdml.metrics.ranking import Average, check_average, whole_numbers
from jdml.metrics.task import camera_array, same_kind
from jdml.metrics.ties import Ties, known
from jdml.retrieval.rows import blocks, label_array, own_row_numbers

_BLOCK = 256  # queries ranked at once


def from_distances(
    distances: Any,
    labels: Any,
    *,
    gallery_labels: Any = None,
    own_rows: Any = None,
    cameras: Any = None,
    gallery_cameras: Any = None,
    ks: Iterable[int] = (1,),
    ties: Ties = "expected",
    average: Average = "query",
    confidence: float | None = None,
) -> dict[str, Any]:
    """The metrics of `retrieval(whole=True)` from distances: re-ranked ones, or another model's.

    Args:
      distances: [B, N], smaller is closer; infinite ones rank last.
      labels: [B], as in `retrieval`.
      gallery_labels: [N]; None where rows and columns are the same items, whose own column is
        left out.
      own_rows, cameras, gallery_cameras, ks, ties, average, confidence: as in `retrieval`.

    Returns:
      The dict of `retrieval(whole=True)`.

    Raises:
      ValueError: NaN (its row named), shapes that disagree, k above the candidates of a query, or
        no query with a relevant item.
      TypeError: labels that are neither integers nor strings.

    Example:
      >>> table = [[0.0, 3.0, 1.0], [3.0, 0.0, 2.0], [1.0, 2.0, 0.0]]
      >>> from_distances(table, ["a", "a", "b"])["mrr"]
      0.5
    """
    check_average(average)
    known(ties)
    ks = whole_numbers(ks)
    table = _checked(distances)
    task = _Labels(table.shape, labels, gallery_labels, own_rows, cameras, gallery_cameras)
    parts, codes, lone = [], [], 0
    for rows in blocks(len(table), _BLOCK):
        scores, relevant = task.block(table[rows].astype(np.float64), rows)
        kept = task.kept[rows]
        scored = kept & relevant.any(axis=1)
        lone += int((kept & ~scored).sum())
        if not scored.any():
            continue
        scores, relevant = scores[scored], relevant[scored]
        _enough(ks, scores)
        hits = np.where(relevant, scores, -np.inf)
        hits = -np.sort(-hits, axis=1)[:, : int(relevant.sum(axis=1).max())]
        parts.append(counts.values(counts.count(scores, hits), ks, ties))
        codes.append(task.codes[rows][scored])
    if not parts:
        raise ValueError(
            f"labels: none of {len(table)} queries has a relevant item, expected another row of "
            "the same label in the gallery for at least one"
        )
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return summary(values, np.concatenate(codes), lone, average, confidence)


def _checked(distances: Any) -> np.ndarray:
    table = np.asarray(distances)
    if table.dtype.kind not in "fiu" or table.ndim != 2:
        raise ValueError(
            f"distances: got shape {table.shape} of {table.dtype}, expected real numbers [B, N]"
        )
    missing = np.isnan(table).any(axis=1)
    if missing.any():
        raise ValueError(f"distances: row {int(missing.argmax())} holds NaN, expected numbers")
    return table


def _enough(ks: tuple[int, ...], scores: np.ndarray) -> None:
    fewest = int((scores > -np.inf).sum(axis=1).min())
    for k in ks:
        if k > fewest:
            raise ValueError(f"ks: got {k}, expected at most {fewest}, the candidates of a query")


class _Labels:
    """Labels and cameras of rows and columns."""

    def __init__(self, shape, labels, gallery_labels, own_rows, cameras, gallery_cameras) -> None:
        labels = label_array("labels", labels)
        alone = gallery_labels is None
        other = labels if alone else label_array("gallery_labels", gallery_labels)
        same_kind("gallery_labels", other, "labels", labels)
        if shape != (len(labels), len(other)):
            raise ValueError(
                f"distances: got shape {shape}, expected {(len(labels), len(other))}, the numbers "
                "of labels"
            )
        self.own = own_row_numbers(own_rows, alone, *shape)
        _, codes = np.unique(np.concatenate([labels, other]), return_inverse=True)
        if labels.dtype.kind == "i":
            codes = np.where(np.concatenate([labels, other]) < 0, -1, codes)
        self.codes, self.other = codes[: shape[0]], codes[shape[0] :]
        self.kept = self.codes >= 0
        if alone and gallery_cameras is None:
            gallery_cameras = cameras
        if (cameras is None) != (gallery_cameras is None):
            missing = "cameras" if cameras is None else "gallery_cameras"
            raise ValueError(f"{missing}: got None, expected cameras and gallery_cameras together")
        self.cameras = camera_array("cameras", cameras, np.ones(shape[0], bool))
        self.there = camera_array("gallery_cameras", gallery_cameras, np.ones(shape[1], bool))

    def block(self, distances: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Similarities [b, N], -inf for what may not be found, and who is relevant, bool [b, N]."""
        relevant = self.codes[rows, None] == self.other
        barred = np.broadcast_to(self.other < 0, distances.shape).copy()
        if self.cameras is not None and self.there is not None:
            barred |= relevant & (self.cameras[rows, None] == self.there)
        own = self.own[rows]
        barred[np.flatnonzero(own >= 0), own[own >= 0]] = True
        most = np.finfo(np.float64).max
        return np.where(barred, -np.inf, -np.clip(distances, -most, most)), relevant & ~barred


def from_lists(
    ranked: Sequence[Sequence[Any]],
    relevant: Sequence[Iterable[Any]],
    *,
    ks: Iterable[int] = (1,),
) -> dict[str, float | int]:
    """Retrieval metrics of lists of ids, nearest first, as a search engine returns them.

    - `recall_at_k` (any hit), `precision_at_k`, `map`, `mrr`, `ndcg`, `ndcg_at_k` as in
      `retrieval`; a relevant id that is not in the list counts as never found.
    - `coverage_at_k`: the share of the relevant ids among the first k.

    Args:
      ranked: a list of ids for each query, nearest first. A list may be shorter than k: the
        missing places hold nothing relevant.
      relevant: the relevant ids of each query.
      ks: the k of the metrics at k.

    Returns:
      A dict of means over queries, and the counts `queries` and `lone_queries`, those without a
      relevant id, which are left out.

    Raises:
      ValueError: an id returned twice for one query, which would count twice; or different numbers
        of queries, or no query with a relevant id.

    Example:
      >>> scores = from_lists([["A", "B"], ["C", "A"]], [{"A"}, {"A"}], ks=(1,))
      >>> scores["recall_at_1"], scores["mrr"]
      (0.5, 0.75)
    """
    ks = whole_numbers(ks)
    if len(ranked) != len(relevant):
        raise ValueError(
            f"relevant: got {len(relevant)} of them, expected {len(ranked)}, as ranked"
        )
    scores = []
    for query, (ids, wanted) in enumerate(zip(ranked, map(set, relevant))):
        ids = list(ids)
        if len(set(ids)) != len(ids):
            twice = next(i for n, i in enumerate(ids) if i in ids[:n])
            raise ValueError(f"ranked: query {query} returns {twice!r} twice, expected ids once")
        if wanted:
            scores.append(_of_list(np.array([i in wanted for i in ids], float), len(wanted), ks))
    if not scores:
        raise ValueError(f"relevant: none of {len(ranked)} queries has a relevant id")
    means = {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
    return means | {"queries": len(scores), "lone_queries": len(ranked) - len(scores)}


def _of_list(hits: np.ndarray, relevant: int, ks: tuple[int, ...]) -> dict[str, float]:
    ranks = np.arange(1, len(hits) + 1)
    discount = 1.0 / np.log2(1 + ranks)
    best = np.cumsum(1.0 / np.log2(1 + np.arange(1, relevant + 1)))
    found = {}
    for k in ks:
        found[f"recall_at_{k}"] = float(hits[:k].any())
        found[f"precision_at_{k}"] = hits[:k].sum() / k
        found[f"coverage_at_{k}"] = hits[:k].sum() / relevant
        found[f"ndcg_at_{k}"] = (hits * discount)[:k].sum() / best[min(k, relevant) - 1]
    found["map"] = (hits * np.cumsum(hits) / ranks).sum() / relevant
    found["mrr"] = (hits / ranks).max(initial=0.0)
    found["ndcg"] = (hits * discount).sum() / best[-1]
    return found
