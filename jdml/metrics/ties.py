"""Credit of items at equal distance, which have no order: expected, best or worst. On the host."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

Ties: TypeAlias = Literal["expected", "optimistic", "pessimistic"]


def known(ties: Any) -> None:
    """Raises ValueError unless ties is one of the three rules."""
    if ties not in get_args(Ties):
        raise ValueError(f"ties: got {ties!r}, expected one of {', '.join(get_args(Ties))}")


class Groups(NamedTuple):
    """The group of equally distant items around each of the first K ranks, [b, K] each."""

    before: np.ndarray  # items strictly closer than the group
    hits_before: np.ndarray  # relevant ones among them
    size: np.ndarray  # items of the group, those beyond rank K included
    hits: np.ndarray  # relevant ones among them


class First(NamedTuple):
    """The group that holds the nearest relevant item, [b] each; hits 0 where none was found."""

    before: Any  # items closer than the group, all of them irrelevant
    size: Any  # items of the group
    hits: Any  # relevant ones among them


def tie_groups(
    values: np.ndarray, hits: np.ndarray, edge: tuple[np.ndarray, np.ndarray] | None
) -> Groups:
    """Groups of equal neighbours, from similarities [b, K], largest first, and hits bool [b, K].

    `edge` counts the items and relevant items of the whole gallery at the similarity of rank K,
    [b] each; None where no group goes on beyond the list.
    """
    rows, length = values.shape
    rank = np.arange(length)
    changes = values[:, 1:] != values[:, :-1]
    if changes.all() and edge is None:  # nobody ties, as is usual
        before = np.broadcast_to(rank, hits.shape)
        so_far = np.cumsum(hits, axis=1)
        return Groups(before, so_far - hits, np.broadcast_to(1, hits.shape), hits.astype(int))
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
    return Groups(start, hits_before, size, found)


def first_hit(groups: Groups) -> First:
    """The first of the groups that holds a relevant item."""
    column = (groups.hits > 0).argmax(axis=1)[:, None]
    fields = (groups.before, groups.size, groups.hits)
    return First(*(np.take_along_axis(field, column, axis=1)[:, 0] for field in fields))


def recall(first: First, k: int, ties: Ties) -> np.ndarray:
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


def r_metrics(groups: Groups, relevant: np.ndarray, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
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
