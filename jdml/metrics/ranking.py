"""Retrieval metrics of embeddings: who finds its own class."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import jax
import numpy as np

from jdml.metrics import counts, lists, ties
from jdml.metrics.averages import summary
from jdml.metrics.task import Asked, Task, some_scored, task_of
from jdml.metrics.ties import Ties
from jdml.retrieval.rows import Distance, block_of, blocks
from jdml.retrieval.rows import whole as whole_number
from jdml.retrieval.search import block_at, gallery_of
from jdml.retrieval.select import Block, Gallery, similarities

Average: TypeAlias = Literal["query", "class"]


def retrieval(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any = None,
    gallery_labels: Any = None,
    own_rows: Any = None,
    cameras: Any = None,
    gallery_cameras: Any = None,
    ks: Iterable[int] = (1,),
    distance: Distance = "cosine",
    ties: Ties = "expected",
    block_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    whole: bool = False,
    average: Average = "query",
    confidence: float | None = None,
) -> dict[str, Any]:
    """Recall@k, precision@1, R-precision and MAP@R of exact nearest-neighbour retrieval, and more.

    Every row is a query; the relevant items are the gallery rows of its label, R of them. Without
    a gallery the rows search among themselves, each without its own row.

    - `recall_at_k`: the share of queries with a relevant item among the k nearest (any hit; the
      cumulative matching characteristic of re-identification).
    - `precision_at_1`: the share whose nearest item is relevant.
    - `r_precision`: relevant items among the R nearest, over R.
    - `map_at_r`: 1/R times the sum over ranks i <= R of precision at i, where the item at i is
      relevant. Unlike average precision it ignores what stands below rank R.

    With `whole`, from the ranking of the whole gallery:

    - `precision_at_k`: relevant items among the k nearest, over k.
    - `map`: average precision, 1/R times the sum over all relevant items of precision at each.
    - `mrr`: 1 over the rank of the nearest relevant item.
    - `ndcg`, `ndcg_at_k`: the sum of 1 / log2(1 + rank) over relevant items, over its largest
      possible value.
    - `inp`: R over the rank of the farthest relevant item (mINP when averaged).

    Each is a mean over queries. Prefer MAP@R where recall@1 saturates.

    Args:
      embeddings: [B, D], numpy or JAX.
      labels: [B], integers of any width or strings. A negative label marks a row to ignore, junk:
        it is dropped before anything is computed, as query and from the gallery.
      gallery: [N, D], or None for the embeddings themselves.
      gallery_labels: [N], with a gallery.
      own_rows: int [B], the gallery row of each query itself, -1 where it is not in the gallery;
        only that row is left out. By default nothing of a separate gallery is.
      cameras: [B], integers or strings: gallery rows of the query's label and camera are left out
        of its ranking, as re-identification asks.
      gallery_cameras: [N], with a gallery.
      ks: the k of recall@k, each at most the number of candidates.
      distance: as in `jdml.retrieval.neighbours`.
      ties: credit of items at equal distance: "expected" over their random orders, "optimistic"
        with the relevant ones first, or "pessimistic" with them last.
      block_size: queries compared at once; changes memory and speed, never the answer.
      mesh: devices that share the queries, each with the whole gallery; None for one device.
      whole: also the metrics that need the whole ranking; several times slower.
      average: "query", or "class" for the mean over classes of the means of their queries.
      confidence: such as 0.95, for an interval of every mean by `bootstrap`, over queries or,
        with `average="class"`, over classes.

    Returns:
      A dict of floats as named above, one `recall_at_{k}` for each k, and two counts: `queries`,
      those scored, and `lone_queries`, those left out for want of a relevant item. With
      `confidence` also `intervals`, a dict from name to (low, high).

    Raises:
      ValueError: a row holds NaN or infinity (named), shapes disagree, k exceeds the candidates,
        or no query has a relevant item.
      TypeError: labels that are neither integers nor strings.

    Example:
      >>> rows = np.array([[0.0], [1.0], [2.5], [3.0], [9.0]])
      >>> scores = retrieval(rows, ["a", "b", "a", "a", "c"], ks=(2,), distance="euclidean")
      >>> scores["recall_at_2"], scores["r_precision"], round(scores["map_at_r"], 4)
      (1.0, 0.5, 0.4167)
      >>> scores["queries"], scores["lone_queries"]
      (3, 2)

    Reference:
      Musgrave, Belongie and Lim, "A Metric Learning Reality Check", ECCV 2020 (MAP@R).
      McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in
      the Presence of Tied Scores", ECIR 2008 (expectations over ties).
      Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2022
      (inverse negative penalty).
    """
    check_average(average)
    asked = Asked(embeddings, labels, gallery, gallery_labels, own_rows, cameras, gallery_cameras)
    values, task = of_queries(asked, ks, distance, ties, block_size, whole, mesh)
    some_scored(task)
    return summary(values, task.codes, task.lone, average, confidence)


def by_query(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any = None,
    gallery_labels: Any = None,
    own_rows: Any = None,
    cameras: Any = None,
    gallery_cameras: Any = None,
    ks: Iterable[int] = (1,),
    distance: Distance = "cosine",
    ties: Ties = "expected",
    block_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    whole: bool = False,
) -> dict[str, np.ndarray]:
    """What every query scored, in the terms of `retrieval`: which are the worst, in which class.

    Args:
      embeddings, labels, gallery, gallery_labels, own_rows, cameras, gallery_cameras, ks,
      distance, ties, block_size, mesh, whole: as in `retrieval`.

    Returns:
      A dict from name to float64 [B], NaN where the row is ignored or has no relevant item.

    Raises:
      ValueError, TypeError: as in `retrieval`.

    Example:
      >>> rows = np.array([[0.0], [1.0], [2.5], [3.0], [9.0]])
      >>> by_query(rows, ["a", "b", "a", "a", "c"], distance="euclidean")["r_precision"]
      array([0.5, nan, 0.5, 0.5, nan])
    """
    asked = Asked(embeddings, labels, gallery, gallery_labels, own_rows, cameras, gallery_cameras)
    values, task = of_queries(asked, ks, distance, ties, block_size, whole, mesh)
    some_scored(task)
    full = {name: np.full(len(task.scored), np.nan) for name in values}
    for name, found in values.items():
        full[name][task.scored] = found
    return full


def cmc(embeddings: Any, labels: Any, *, ranks: int = 50, **options: Any) -> np.ndarray:
    """The cumulative matching characteristic: recall at every rank from 1 to `ranks`.

    Args:
      embeddings: [B, D].
      labels: [B].
      ranks: how many, at most the number of candidates.
      **options: as in `retrieval`.

    Returns:
      float64 [ranks], never falling: entry k - 1 is `recall_at_k`.

    Raises:
      ValueError, TypeError: as in `retrieval`.

    Example:
      >>> rows = np.array([[0.0], [1.0], [2.5], [3.0], [9.0]])
      >>> cmc(rows, ["a", "b", "a", "a", "c"], ranks=3, distance="euclidean").round(4)
      array([0.6667, 1.    , 1.    ])
    """
    whole_number(ranks, "ranks")
    scores = retrieval(embeddings, labels, ks=range(1, ranks + 1), **options)
    return np.array([scores[f"recall_at_{k}"] for k in range(1, ranks + 1)])


def of_queries(
    asked: Asked,
    ks: Iterable[int],
    distance: Distance,
    rule: Ties,
    block_size: int | None,
    whole: bool,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[dict[str, np.ndarray], Task]:
    """The metrics of every scored query, [Q] each."""
    ties.known(rule)
    task = task_of(asked, distance, block_size, ks := whole_numbers(ks), whole, mesh)
    if not whole:
        return lists.values(task, ks, rule), task
    parts = [counts.values(part, ks, rule) for part in _counts(task)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, task


def whole_numbers(ks: Any) -> tuple[int, ...]:
    """The ks as a tuple, checked."""
    if not isinstance(ks, Iterable):
        raise TypeError(f"ks: got {ks!r}, expected several, such as (1, 10)")
    ks = tuple(ks)
    for k in ks:
        whole_number(k, "ks")
    return ks


def check_average(average: Any) -> None:
    """Raises ValueError unless average is known."""
    if average not in get_args(Average):
        known = ", ".join(get_args(Average))
        raise ValueError(f"average: got {average!r}, expected one of {known}")


def _counts(task: Task) -> Iterator[counts.Counts]:
    """The counts of each block of queries; one empty part where there is no query."""
    if not len(task.relevant):
        yield counts.count(np.zeros((0, 1)), np.zeros((0, 1)))
    slots, size = int(task.count.max(initial=1)), task.prepared.block_size
    for rows in blocks(len(task.relevant), size):
        mates = lists.Mates(
            *(block_of(a, rows, size) for a in (task.codes, task.start, task.count))
        )
        found = _scores(
            block_at(task.prepared, rows),
            gallery_of(task.prepared),
            mates,
            task.gallery.order,
            slots=slots,
            mesh=task.gallery.mesh,
        )
        yield counts.count(*(np.asarray(a)[: rows.stop - rows.start] for a in found))


@functools.partial(jax.jit, static_argnames=("slots", "mesh"))
def _scores(
    queries: Block,
    gallery: Gallery,
    mates: lists.Mates,
    order: jax.Array,
    *,
    slots: int,
    mesh: jax.sharding.Mesh | None,
) -> tuple[jax.Array, jax.Array]:
    """Similarities [b, N'] of a block, and those of the rows of each query's class, [b, slots]."""

    def part(queries: Block, gallery: Gallery, mates: lists.Mates, order: jax.Array) -> Any:
        scores = similarities(queries, gallery)
        return scores, lists.scores_of_mates(scores, mates, order, slots)

    return lists.spread(part, mesh)(queries, gallery, mates, order)
