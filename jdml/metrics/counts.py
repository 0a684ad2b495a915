"""Metrics of the whole ranking, from the place of every relevant item. On the host.

A metric of one query is a sum over its relevant items of a credit that depends on how many items
are closer, how many are as close, and how many of these are relevant. So nothing but these four
counts is kept of a ranking, and tied items share their places in closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jdml.metrics.ties import First, Ties, recall

_FEW = 32  # items for which passes over all scores are faster than a sort


class Counts(NamedTuple):
    """For each relevant item of each query, [b, P], padded; all items of a tie group alike."""

    there: np.ndarray  # bool: an item, not padding
    closer: np.ndarray  # items closer
    tied: np.ndarray  # items as close, itself included
    hits_closer: np.ndarray  # relevant items closer
    hits_tied: np.ndarray  # relevant items as close, itself included


def count(scores: np.ndarray, relevant: np.ndarray) -> Counts:
    """Counts from similarities [b, N] and those of the relevant items [b, P].

    -inf in `scores` is an item that may not be found, in `relevant` padding. Similarities of
    relevant items must be entries of `scores`: a product computed anew could round differently.
    """
    there = relevant > -np.inf
    fields = [np.zeros(relevant.shape, np.int64) for _ in range(4)]
    closer, tied, hits_closer, hits_tied = fields
    for row, mine in enumerate(there):
        items = relevant[row, mine]
        closer[row, mine], tied[row, mine] = _above_and_equal(scores[row], items)
        hits_closer[row, mine], hits_tied[row, mine] = _above_and_equal(items, items)
    return Counts(there, closer, np.maximum(tied, 1), hits_closer, np.maximum(hits_tied, 1))


def _above_and_equal(scores: np.ndarray, items: np.ndarray) -> tuple[Any, Any]:
    """How many of the scores [N] are above each item [p], and how many equal it."""
    if len(items) <= _FEW:
        above = [np.count_nonzero(scores > item) for item in items]
        return above, [np.count_nonzero(scores == item) for item in items]
    ordered = np.sort(scores)
    left, right = (np.searchsorted(ordered, items, side) for side in ("left", "right"))
    return len(scores) - right, right - left


def values(counts: Counts, ks: tuple[int, ...], ties: Ties) -> dict[str, np.ndarray]:
    """Every metric of every query, [b] each, in the order of the docstring of `retrieval`."""
    relevant = counts.there.sum(axis=1)
    longest = int((counts.closer + counts.tied).max(initial=1))
    discount = np.cumsum(np.append(0.0, 1.0 / np.log2(np.arange(2, longest + 2))))
    first = First(*_group_of(counts, nearest=True))
    found = {f"recall_at_{k}": recall(first, k, ties) for k in ks}
    found["precision_at_1"] = _hits_within(counts, np.ones_like(relevant), ties)
    found["r_precision"] = _hits_within(counts, relevant, ties) / relevant
    found["map_at_r"] = _average_precision(counts, relevant, ties)
    for k in ks:
        within = np.full_like(relevant, k)
        found[f"precision_at_{k}"] = _hits_within(counts, within, ties) / k
        found[f"ndcg_at_{k}"] = _gain(counts, within, discount, ties)
    found["map"] = _average_precision(counts, np.full_like(relevant, longest), ties)
    found["mrr"] = _reciprocal_rank(counts, ties)
    found["ndcg"] = _gain(counts, np.full_like(relevant, longest), discount, ties)
    found["inp"] = _inverse_penalty(counts, relevant, ties)
    # A perfect ranking scores 1, not the last bits beside it that closed forms leave.
    return {name: np.where(scores > 1 - 1e-12, 1.0, scores) for name, scores in found.items()}


def _places(counts: Counts, cutoff: np.ndarray, ties: Ties) -> tuple[np.ndarray, ...]:
    """The places of each tie group that count, as (first, last, share), [b, P] each.

    Places first + 1 to last of the ranking, cut at `cutoff` [b]; each holds a relevant item with
    chance `share`. Optimistically the relevant items stand first, pessimistically last.
    """
    first, stop = counts.closer, counts.closer + counts.tied
    share = counts.hits_tied / counts.tied
    if ties == "optimistic":
        stop, share = first + counts.hits_tied, np.ones_like(share)
    elif ties == "pessimistic":
        first, share = stop - counts.hits_tied, np.ones_like(share)
    return first, np.maximum(np.minimum(stop, cutoff[:, None]), first), share


def _total(counts: Counts, of_group: np.ndarray) -> np.ndarray:
    """The sum [b] over tie groups of what each of them brings, [b, P]."""
    return np.where(counts.there, of_group / counts.hits_tied, 0.0).sum(axis=1)


def _hits_within(counts: Counts, cutoff: np.ndarray, ties: Ties) -> np.ndarray:
    """The expected number [b] of relevant items among the nearest `cutoff` [b]."""
    first, last, share = _places(counts, cutoff, ties)
    return _total(counts, share * (last - first))


def _gain(counts: Counts, cutoff: np.ndarray, discount: np.ndarray, ties: Ties) -> np.ndarray:
    """nDCG [b] over the nearest `cutoff` [b]; `discount` [n] sums the discounts of n places."""
    first, last, share = _places(counts, cutoff, ties)
    best = discount[np.minimum(counts.there.sum(axis=1), cutoff)]
    return _total(counts, share * (discount[last] - discount[first])) / best


def _average_precision(counts: Counts, cutoff: np.ndarray, ties: Ties) -> np.ndarray:
    """1/R times the sum [b] of the precision at each relevant item within `cutoff` [b].

    In a group the j-th place p counted holds a hit with chance `share`, and then
    hits_closer + 1 + (j - 1) * mates are relevant among p = before + j items, where `mates` is
    the chance of a hit at another place of the group.
    """
    first, last, share = _places(counts, cutoff, ties)
    mates = np.ones_like(share)
    if ties == "expected":
        mates = (counts.hits_tied - 1) / np.maximum(counts.tied - 1, 1)
    harmonic = np.cumsum(np.append(0.0, 1.0 / np.arange(1, int(last.max(initial=1)) + 1)))
    inverse = harmonic[last] - harmonic[first]  # the sum of 1 / p
    # The sum of (j - 1) / p, where j - 1 = p - first - 1.
    later = (last - first) - (first + 1) * inverse
    precision = share * ((counts.hits_closer + 1) * inverse + mates * later)
    return _total(counts, precision) / counts.there.sum(axis=1)


def _group_of(counts: Counts, nearest: bool) -> tuple[np.ndarray, ...]:
    """(closer, tied, hits_tied) [b] of the nearest, or the farthest, relevant item."""
    if nearest:
        column = np.where(counts.there, counts.closer, np.iinfo(np.int64).max).argmin(axis=1)
    else:
        column = np.where(counts.there, counts.closer, -1).argmax(axis=1)
    fields = (counts.closer, counts.tied, counts.hits_tied)
    return tuple(np.take_along_axis(f, column[:, None], axis=1)[:, 0] for f in fields)


def _reciprocal_rank(counts: Counts, ties: Ties) -> np.ndarray:
    """1 over the rank [b] of the nearest relevant item."""
    closer, tied, hits = _group_of(counts, nearest=True)
    if ties != "expected":
        return 1.0 / (closer + 1 + (tied - hits) * (ties == "pessimistic"))
    return _first_place_mean(closer, tied, hits, lambda closer, _, place: 1.0 / (closer + place))


def _inverse_penalty(counts: Counts, relevant: np.ndarray, ties: Ties) -> np.ndarray:
    """R over the rank [b] of the farthest relevant item."""
    closer, tied, hits = _group_of(counts, nearest=False)
    if ties != "expected":
        return relevant / (closer + np.where(ties == "optimistic", hits, tied))
    # The last of a random order is the first of the order read backwards.
    last = lambda closer, tied, place: 1.0 / (closer + tied + 1 - place)
    return relevant * _first_place_mean(closer, tied, hits, last)


def _first_place_mean(
    closer: np.ndarray,
    tied: np.ndarray,
    hits: np.ndarray,
    value: Callable[[Any, Any, Any], Any],
) -> np.ndarray:
    """The mean [b] of value(closer, tied, place), `place` the first of `hits` random places.

    Queries with one group in common, as those of collapsed embeddings, are worked out once.
    """
    groups, which = np.unique(np.stack([closer, tied, hits]), axis=1, return_inverse=True)
    means = np.empty(groups.shape[1])
    for group, (before, size, inside) in enumerate(groups.T):
        place = np.arange(1, size - inside + 2)
        # Given that it is none of the first j, it is the next one with chance inside / (size - j).
        later = (size - place - inside + 1) / np.maximum(size - place, 1)
        chance = inside / size * np.cumprod(np.append(1.0, later[:-1]))
        means[group] = (chance * value(before, size, place)).sum()
    return means[which]
