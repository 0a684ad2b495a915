"""nDCG where relevance has grades."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np

from jdml.metrics import ties as rules
from jdml.metrics.ranking import whole_numbers
from jdml.metrics.ties import Ties
from jdml.retrieval.prepare import prepare, within
from jdml.retrieval.rows import Distance, blocks
from jdml.retrieval.search import block_at, gallery_of
from jdml.retrieval.select import similarities

Gain: TypeAlias = Literal["linear", "exponential"]


def ndcg(
    embeddings: Any,
    relevance: Any,
    *,
    gallery: Any = None,
    own_rows: Any = None,
    ks: Iterable[int] = (),
    gain: Gain = "linear",
    distance: Distance = "cosine",
    ties: Ties = "expected",
    block_size: int | None = None,
) -> dict[str, float | int]:
    """Normalised discounted cumulative gain of exact retrieval, for grades of relevance.

    The gain of an item, discounted by 1 / log2(1 + rank), is summed over the ranking and divided
    by the sum of the best ranking. Prefer it to the metrics of `retrieval` where relevance is not
    yes or no: the same product, the same brand, the same shelf.

    Args:
      embeddings: [B, D], the queries.
      relevance: [B, N], grades >= 0; 0 is irrelevant. The grade of a query's own row is not read.
      gallery: [N, D], or None for the embeddings themselves.
      own_rows: int [B], as in `retrieval`.
      ks: for `ndcg_at_k`, the nearest k alone.
      gain: "linear", the grade itself, or "exponential", 2**grade - 1.
      distance, ties, block_size: as in `retrieval`.

    Returns:
      A dict of means over queries: `ndcg`, one `ndcg_at_{k}` for each k, and the counts `queries`
      and `lone_queries`, those without a grade above 0, which are left out.

    Raises:
      ValueError: a negative grade or NaN, or gains that add up to infinity (the row named),
        shapes that disagree, k above the candidates, or no query with a grade above 0.

    Example:
      >>> grades = np.array([[0, 1, 2], [1, 0, 0], [0, 0, 0]])
      >>> rows = np.array([[0.0], [1.0], [3.0]])
      >>> scores = ndcg(rows, grades, distance="euclidean")
      >>> round(scores["ndcg"], 4), scores["lone_queries"]
      (0.9299, 1)

    Reference:
      Jarvelin and Kekalainen, "Cumulated Gain-based Evaluation of IR Techniques", TOIS 2002.
    """
    rules.known(ties)
    if gain not in get_args(Gain):
        raise ValueError(f"gain: got {gain!r}, expected one of {', '.join(get_args(Gain))}")
    ks = whole_numbers(ks)
    names = ("embeddings", "gallery")
    prepared = prepare(embeddings, gallery, distance, own_rows, block_size, names=names)
    grades = _grades(relevance, (len(prepared.queries), prepared.index.size))
    for k in ks:
        within(k, "ks", prepared)
    found = []
    for rows in blocks(len(grades), prepared.block_size):
        scores = np.asarray(_similarities(block_at(prepared, rows), gallery_of(prepared)))
        for row, score in enumerate(scores[: len(grades[rows]), : prepared.index.size], rows.start):
            there = score > -np.inf
            gains = _gains(grades[row, there], gain, row)
            if gains.any():
                found.append(_of_query(score[there], gains, ks, ties))
    if not found:
        raise ValueError(f"relevance: none of {len(grades)} queries has a grade above 0")
    means = np.mean(found, axis=0).tolist()
    scores = dict(zip(["ndcg", *(f"ndcg_at_{k}" for k in ks)], means))
    return scores | {"queries": len(found), "lone_queries": len(grades) - len(found)}


_similarities = jax.jit(similarities)


def _grades(relevance: Any, shape: tuple[int, int]) -> np.ndarray:
    grades = np.asarray(relevance)
    if grades.shape != shape or grades.dtype.kind not in "fiub":
        raise ValueError(
            f"relevance: got shape {grades.shape} of {grades.dtype}, expected numbers {shape}"
        )
    wrong = ~(grades >= 0).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        what = "NaN" if np.isnan(grades[row]).any() else f"the grade {grades[row].min()}"
        raise ValueError(f"relevance: row {row} holds {what}, expected grades >= 0")
    return grades


def _gains(grades: np.ndarray, gain: Gain, row: int) -> np.ndarray:
    gains = grades.astype(np.float64)
    with np.errstate(over="ignore"):  # refused in the next line
        gains = gains if gain == "linear" else np.exp2(gains) - 1.0
        if not np.isfinite(total := gains.sum()):
            raise ValueError(
                f"relevance: row {row} has gains that add up to {total}, expected a finite number"
            )
    return gains


def _of_query(
    scores: np.ndarray, gains: np.ndarray, ks: tuple[int, ...], ties: Ties
) -> list[float]:
    """nDCG, and nDCG at each k, of one query."""
    second = {"expected": gains * 0, "optimistic": -gains, "pessimistic": gains}[ties]
    order = np.lexsort((second, -scores))
    listed, best = gains[order], -np.sort(-gains)
    if ties == "expected":  # every item of a group has the group's mean gain
        sorted_scores = scores[order]
        starts = np.flatnonzero(np.append(True, sorted_scores[1:] != sorted_scores[:-1]))
        sizes = np.diff(np.append(starts, len(gains)))
        listed = np.repeat(np.add.reduceat(listed, starts) / sizes, sizes)
    discount = 1.0 / np.log2(1 + np.arange(1, len(gains) + 1))
    return [float(listed[:k] @ discount[:k] / (best[:k] @ discount[:k])) for k in (len(gains), *ks)]
