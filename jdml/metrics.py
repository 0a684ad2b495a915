"""How well embeddings retrieve their own class: recall@k, precision@1, R-precision and MAP@R.

Evaluation disputes are mostly about counting, so the rules are few and stated. A query never finds
itself: it is left out by identity, not by rank. A query without a relevant item has no right
answer: it is left out of every mean and counted. Items at equal distance have no order: their
credit is the expectation over all their orders, unless the best or the worst one is asked for.
Nothing depends on the block size.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdml import retrieval as search

Ties: TypeAlias = Literal["expected", "optimistic", "pessimistic"]

# Above this k, recall@k counts the items closer than the nearest relevant one, a pass over the
# similarities; the time of a selection grows with k.
_LONGEST_LIST = 64
_STRIDES = 32  # divides the padded width of a gallery


def retrieval(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any = None,
    gallery_labels: Any = None,
    own_rows: Any = None,
    ks: Iterable[int] = (1,),
    distance: search.Distance = "cosine",
    ties: Ties = "expected",
    block_size: int | None = None,
) -> dict[str, float | int]:
    """Recall@k, precision@1, R-precision and MAP@R of exact nearest-neighbour retrieval.

    Every row is a query; the relevant items are the gallery rows of its label, R of them. Without
    a gallery the rows search among themselves, each without its own row.

    - `recall_at_k`: the share of queries with a relevant item among the k nearest (any hit).
    - `precision_at_1`: the share whose nearest item is relevant.
    - `r_precision`: relevant items among the R nearest, over R.
    - `map_at_r`: 1/R times the sum over ranks i <= R of precision at i, where the item at i is
      relevant. Unlike average precision it ignores what stands below rank R.

    Each is a mean over queries. Prefer MAP@R where recall@1 saturates.

    Args:
      embeddings: [B, D], numpy or JAX.
      labels: [B], integers of any width or strings. A negative label marks a row to ignore: it is
        dropped before anything is computed, as query and from the gallery.
      gallery: [N, D], or None for the embeddings themselves.
      gallery_labels: [N], with a gallery.
      own_rows: int [B], the gallery row of each query itself, -1 where it is not in the gallery;
        only that row is left out. By default nothing of a separate gallery is.
      ks: the k of recall@k, each at most the number of candidates.
      distance: as in `jdml.retrieval.neighbours`.
      ties: credit of items at equal distance: "expected" over their random orders, "optimistic"
        with the relevant ones first, or "pessimistic" with them last.
      block_size: queries compared at once; changes memory and speed, never the answer.

    Returns:
      A dict of floats as named above, one `recall_at_{k}` for each k, and two counts: `queries`,
      those scored, and `lone_queries`, those left out for want of a relevant item.

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
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties: got {ties!r}, expected one of {', '.join(get_args(Ties))}")
    if not isinstance(ks, Iterable):
        raise TypeError(f"ks: got {ks!r}, expected several, such as (1, 10)")
    for k in (ks := tuple(ks)):
        search.whole(k, "ks")
    task = _task(embeddings, labels, gallery, gallery_labels, own_rows, distance, block_size, ks)
    names = [f"recall_at_{k}" for k in ks] + ["precision_at_1", "r_precision", "map_at_r"]
    parts = []
    for groups, first, relevant in _ranked(task):
        recalls = [_recall(first, k, ties) for k in (*ks, 1)]
        parts.append(np.stack([*recalls, *_r_metrics(groups, relevant, ties)]))
    means = np.concatenate(parts, axis=1).mean(axis=1)
    scores: dict[str, float | int] = dict(zip(names, means.tolist()))
    return scores | {"queries": len(task.relevant), "lone_queries": task.lone}


# ---------------------------------------------------------------- credit of tied items, on the host


class _Groups(NamedTuple):
    """The group of equally distant items around each of the first K ranks, [b, K] each."""

    before: np.ndarray  # items strictly closer than the group
    hits_before: np.ndarray  # relevant ones among them
    size: np.ndarray  # items of the group, those beyond rank K included
    hits: np.ndarray  # relevant ones among them


class _First(NamedTuple):
    """The group that holds the nearest relevant item, [b] each; hits 0 where none was found."""

    before: Any  # items closer than the group, all of them irrelevant
    size: Any  # items of the group
    hits: Any  # relevant ones among them


def _tie_groups(
    values: np.ndarray, hits: np.ndarray, edge: tuple[np.ndarray, np.ndarray] | None
) -> _Groups:
    """Groups of equal neighbours, from similarities [b, K], largest first, and hits bool [b, K].

    `edge` counts the items and relevant items of the whole gallery at the similarity of rank K,
    [b] each; None where no group goes on beyond the list.
    """
    rows, length = values.shape
    rank = np.arange(length)
    changes = values[:, 1:] != values[:, :-1]
    always = np.ones((rows, 1), bool)
    opens = np.concatenate([always, changes], axis=1)
    closes = np.concatenate([changes, always], axis=1)
    start = np.maximum.accumulate(np.where(opens, rank, 0), axis=1)
    stop = np.minimum.accumulate(np.where(closes, rank + 1, length)[:, ::-1], axis=1)[:, ::-1]
    so_far = np.concatenate([np.zeros((rows, 1), int), np.cumsum(hits, axis=1)], axis=1)
    hits_before = np.take_along_axis(so_far, start, axis=1)
    size, found = stop - start, np.take_along_axis(so_far, stop, axis=1) - hits_before
    if edge is not None:
        last = stop == length
        size = np.where(last, edge[0][:, None], size)
        found = np.where(last, edge[1][:, None], found)
    return _Groups(start, hits_before, size, found)


def _first_hit(groups: _Groups) -> _First:
    column = (groups.hits > 0).argmax(axis=1)[:, None]
    fields = (groups.before, groups.size, groups.hits)
    return _First(*(np.take_along_axis(field, column, axis=1)[:, 0] for field in fields))


def _recall(first: _First, k: int, ties: Ties) -> np.ndarray:
    """The chance [b] that a relevant item is among the k nearest."""
    drawn = np.clip(k - first.before, 0, first.size)  # of the group, those within rank k
    if ties == "optimistic":
        return ((drawn > 0) & (first.hits > 0)).astype(float)
    if ties == "pessimistic":
        return ((drawn > first.size - first.hits) & (first.hits > 0)).astype(float)
    # Hypergeometric: none of the relevant is drawn with C(size - hits, drawn) / C(size, drawn),
    # a product of as many quotients as the smaller of hits and drawn.
    fewer, more = np.minimum(drawn, first.hits), np.maximum(drawn, first.hits)
    missed = np.ones(len(fewer))
    for i in range(int(fewer.max(initial=0))):
        quotient = np.maximum(first.size - more - i, 0) / np.maximum(first.size - i, 1)
        missed *= np.where(i < fewer, quotient, 1.0)
    return 1.0 - missed


def _r_metrics(groups: _Groups, relevant: np.ndarray, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """R-precision and average precision at R, [b] each, for R = relevant [b]."""
    rank = np.arange(1, groups.size.shape[1] + 1)
    place = rank - groups.before  # within the group, from 1
    misses = groups.size - groups.hits
    if ties == "expected":
        hit = groups.hits / groups.size
        # Given a hit here, the other hits of the group are spread evenly over its other places.
        mates_before = (place - 1) * (groups.hits - 1) / np.maximum(groups.size - 1, 1)
        hits_up_to = groups.hits_before + mates_before + 1
    elif ties == "optimistic":
        hit = (place <= groups.hits).astype(float)
        hits_up_to = groups.hits_before + place
    else:
        hit = (place > misses).astype(float)
        hits_up_to = groups.hits_before + place - misses
    hit = np.where(rank <= relevant[:, None], hit, 0.0)
    return hit.sum(axis=1) / relevant, (hit * hits_up_to / rank).sum(axis=1) / relevant


# ---------------------------------------------------------------- search, by blocks


class _Queries(NamedTuple):
    rows: Any  # [Q, D + 1] prepared
    own_rows: Any  # int32 [Q]
    codes: Any  # int32 [Q] class
    start: Any  # int32 [Q] where that class starts in the gallery's order
    count: Any  # int32 [Q] rows of that class in the gallery, the query's own included


class _Gallery(NamedTuple):
    rows: jax.Array  # [N', D + 1] prepared, padded
    first: jax.Array | None  # int32 [N'] first identical row
    codes: jax.Array  # int32 [N'] class, -1 where it only pads
    order: jax.Array  # int32 [N] rows sorted by class


class _Task(NamedTuple):
    queries: _Queries  # those scored
    gallery: _Gallery
    relevant: np.ndarray  # [Q] relevant items
    lone: int  # queries left out
    block_size: int
    length: int  # ranks listed
    beyond: bool  # recall is asked for beyond the list


def _ranked(task: _Task) -> Iterator[tuple[_Groups, _First, np.ndarray]]:
    """What the metrics of each block of queries need; the next block is under way meanwhile."""
    waiting = None
    for rows in search.blocks(len(task.relevant), task.block_size):
        lists = _rank(task, rows, count=task.beyond)
        if waiting is not None:
            yield _finish(task, *waiting)
        waiting = rows, lists
    if waiting is not None:
        yield _finish(task, *waiting)


def _rank(task: _Task, rows: slice, count: bool) -> Any:
    block = _Queries(*(search.block_of(field, rows, task.block_size) for field in task.queries))
    slots = int(task.queries.count.max()) if count else 0
    return _lists(block, task.gallery, length=task.length, slots=slots)


def _finish(task: _Task, rows: slice, lists: Any) -> tuple[_Groups, _First, np.ndarray]:
    """Tie groups from the lists of one block, which is searched again where a tie leaves them."""
    relevant = task.relevant[rows]
    fetch = functools.partial(jax.tree.map, lambda array: np.asarray(array)[: len(relevant)])
    values, hits, counts = fetch(lists)
    if counts is None and (values[:, -2] == values[:, -1]).any():
        values, hits, counts = fetch(_rank(task, rows, count=True))
    groups = _tie_groups(values[:, :-1], hits[:, :-1], counts and counts[0])
    return groups, counts[1] if counts else _first_hit(groups), relevant


@functools.partial(jax.jit, static_argnames=("length", "slots"))
def _lists(
    queries: _Queries, gallery: _Gallery, *, length: int, slots: int
) -> tuple[jax.Array, jax.Array, tuple[tuple[jax.Array, jax.Array], _First] | None]:
    """Similarities and hits of the nearest `length` + 1, [b, length + 1], and perhaps counts.

    With `slots`, the size of the largest class, whole rows are counted: items and relevant items
    as close as the last one of the list, and the group of the nearest relevant item. Counts
    compare similarities of one product with each other; recomputed ones could round differently.
    """
    scores = search.similarities(queries.rows, queries.own_rows, gallery.rows, gallery.first)
    values, columns = search.largest(scores, length + 1)
    hits = gallery.codes[columns] == queries.codes[:, None]
    if not slots:
        return values, hits, None
    slot = jnp.arange(slots, dtype=jnp.int32)[None, :]
    mates = gallery.order[jnp.clip(queries.start[:, None] + slot, 0, len(gallery.order) - 1)]
    mates = jnp.take_along_axis(scores, mates, axis=1)
    mates = jnp.where(slot < queries.count[:, None], mates, -jnp.inf)
    edge, best = values[:, length - 1 : length], mates.max(axis=1, keepdims=True)
    closer, as_close, at_edge = _counts(scores, best, edge)
    hits_at_edge, nearest_hits = (mates == edge).sum(axis=1), (mates == best).sum(axis=1)
    return values, hits, ((at_edge, hits_at_edge), _First(closer, as_close, nearest_hits))


def _counts(scores: jax.Array, best: jax.Array, edge: jax.Array) -> tuple[jax.Array, ...]:
    """How many of each row [b, N'] are above `best`, at `best` and at `edge`, [b] each.

    In strides over a loop, with counters as wide as a stride: a reduction of comparisons over the
    whole row would first write them all down.
    """
    strides = scores.reshape(len(scores), _STRIDES, -1)

    def add(i: jax.Array, counters: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        part = strides[:, i]
        seen = (part > best, part == best, part == edge)
        return tuple(count + new.astype(jnp.int32) for count, new in zip(counters, seen))

    nothing = jnp.zeros((len(scores), strides.shape[2]), jnp.int32)
    counters = lax.fori_loop(0, _STRIDES, add, (nothing,) * 3)
    return tuple(count.sum(axis=1) for count in counters)


# ---------------------------------------------------------------- labels and rows


def _task(
    embeddings: Any,
    labels: Any,
    gallery: Any,
    gallery_labels: Any,
    own_rows: Any,
    distance: search.Distance,
    block_size: int | None,
    ks: tuple[int, ...],
) -> _Task:
    """Checks everything, drops ignored rows and lone queries, and prepares the search."""
    if (gallery is None) != (gallery_labels is None):
        missing = "gallery_labels" if gallery_labels is None else "gallery"
        raise ValueError(f"{missing}: got None, expected gallery and gallery_labels together")
    codes, gallery_codes = _encoded(labels, gallery_labels)
    own = search.own_row_numbers(own_rows, gallery is None, len(codes), len(gallery_codes))
    x, kept = _kept_rows(("embeddings", embeddings), ("labels", codes))
    y, gallery_kept = x, kept
    if gallery is not None:
        y, gallery_kept = _kept_rows(("gallery", gallery), ("gallery_labels", gallery_codes))
    codes, gallery_codes = codes[kept], gallery_codes[gallery_kept]
    # Rows are numbered anew without the ignored ones; an own row of -1 reads the last entry, -1.
    own = np.append(np.where(gallery_kept, np.cumsum(gallery_kept) - 1, -1), -1)[own[kept]]

    order = np.argsort(gallery_codes, kind="stable").astype(np.int32)
    start, stop = (np.searchsorted(gallery_codes[order], codes, side) for side in ("left", "right"))
    relevant = stop - start - ((own >= 0) & (np.append(gallery_codes, -1)[own] == codes))
    scored = relevant > 0
    if not scored.any():
        raise ValueError(
            f"labels: none of {len(codes)} queries has a relevant item, expected another row of "
            "the same label in the gallery for at least one"
        )
    most = int(relevant.max())
    beyond = max(ks, default=1) > max(most, _LONGEST_LIST)
    length = most if beyond else max((most, *ks))
    names = ("embeddings", "gallery")
    extra = 4 * length  # the list, its columns and its tie groups
    prepared = search.prepare(x[scored], y, distance, own[scored], block_size, extra, names)
    for k in ks:
        search.within(k, "ks", prepared)
    padded_codes = np.full(len(prepared.gallery), -1, np.int32)
    padded_codes[: len(gallery_codes)] = gallery_codes
    numbers = (field[scored].astype(np.int32) for field in (own, codes, start, stop - start))
    return _Task(
        _Queries(prepared.queries, *numbers),
        _Gallery(prepared.gallery, prepared.first, jnp.asarray(padded_codes), jnp.asarray(order)),
        relevant=relevant[scored],
        lone=int((~scored).sum()),
        block_size=prepared.block_size,
        length=length,
        beyond=beyond,
    )


def _kept_rows(
    rows: tuple[str, Any], codes: tuple[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows [n, D] that are not ignored, checked, and which they are: bool [B]."""
    name, array = rows[0], np.asarray(rows[1])
    kept = codes[1] >= 0
    if array.ndim != 2 or len(array) != len(kept):
        raise ValueError(
            f"{codes[0]}: got {len(kept)} of them for {name} of shape {array.shape}, "
            f"expected one a row of {name} [B, D]"
        )
    if kept.all():
        return search.finite_rows(name, array), kept
    # What an ignored row holds does not matter, and a bad row is named by the caller's count.
    cleared = np.where(kept[:, None], array, np.zeros((), array.dtype))
    return search.finite_rows(name, cleared)[kept], kept


def _encoded(labels: Any, gallery_labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels of queries and gallery as class numbers 0, 1, ...; -1 where they are negative."""
    own = _label_array("labels", labels)
    other = own if gallery_labels is None else _label_array("gallery_labels", gallery_labels)
    if own.dtype.kind != other.dtype.kind:
        raise TypeError(
            f"gallery_labels: got dtype {other.dtype}, expected the kind of labels, {own.dtype}"
        )
    _, codes = np.unique(np.concatenate([own, other]), return_inverse=True)
    if own.dtype.kind == "i":
        codes = np.where(np.concatenate([own, other]) < 0, -1, codes)
    return codes[: len(own)], codes[len(own) :]


def _label_array(name: str, labels: Any) -> np.ndarray:
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
