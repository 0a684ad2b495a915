"""Lists of thousands of ranks, as classes of thousands of rows need: sorted on the host."""

from __future__ import annotations

import jax
import numpy as np

from jdml.metrics import ties
from jdml.retrieval.select import Block, Gallery, similarities

# From here on a partition and a sort by numpy outrun the selection on the device, whose time grows
# with the ranks: 2 times at 3,000 of 20,000, 3.4 times at 7,000 of 28,000.
LONG = 1000

_scores = jax.jit(similarities)


def fits(length: int, dtype: np.dtype) -> bool:
    """Whether lists of so many ranks are for the host: it has the scores at hand only on a CPU."""
    return length >= LONG and dtype == np.float32 and jax.default_backend() == "cpu"


def groups(
    queries: Block, gallery: Gallery, codes: np.ndarray, gallery_codes: np.ndarray, length: int
) -> ties.Groups:
    """The tie groups of the nearest `length` rows of a gallery, for a block of queries.

    Args:
      queries: of the block, [b, D] float32.
      gallery: N' rows.
      codes: [b'] the class of each query; those of the block behind them only fill it up.
      gallery_codes: [N'] the class of each row.
      length: ranks, less than N'.

    Returns:
      `ties.Groups` of [b', length].
    """
    scores = np.asarray(_scores(queries, gallery))[: len(codes)]
    hits = gallery_codes[None, :] == codes[:, None]
    values, found = largest(scores, hits, length + 1)
    edge, tied = values[:, length - 1], np.flatnonzero(values[:, -2] == values[:, -1])
    counts = None
    if len(tied):  # the group goes on beyond the list: whole rows are counted
        counts = np.ones(len(codes), int), np.zeros(len(codes), int)
        _count_to_the_edge(values[:, :-1], found[:, :-1], counts)
        there = scores[tied] == edge[tied, None]
        counts[0][tied] = there.sum(axis=1)
        counts[1][tied] = (there & hits[tied]).sum(axis=1)
    return ties.tie_groups(values[:, :-1], found[:, :-1], counts)


def largest(scores: np.ndarray, hits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row, largest first, and whether each is a hit.

    Args:
      scores: float32 [b, N], no NaN.
      hits: bool [b, N].
      k: at most N.

    Returns:
      values float32 [b, k] and hits bool [b, k].

    Example:
      >>> scores = np.array([[0.5, -1.0, 2.0]], np.float32)
      >>> values, hits = largest(scores, np.array([[False, True, True]]), 2)
      >>> values.tolist(), hits.tolist()
      ([[2.0, 0.5]], [[True, False]])
    """
    # The bits of a float order as it does, once those of negative ones are turned round; with the
    # hit below them one sort moves both. Adding 0 makes one zero of two.
    keys = (_ordered((scores + np.float32(0)).view(np.int32)).astype(np.int64) << 1) | hits
    if k < keys.shape[1]:
        keys = np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]
    keys = np.sort(keys, axis=1)[:, ::-1]
    return _ordered((keys >> 1).astype(np.int32)).view(np.float32), (keys & 1).astype(bool)


def _ordered(bits: np.ndarray) -> np.ndarray:
    """Bits of float32 as integers in their order, and back."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _count_to_the_edge(
    values: np.ndarray, hits: np.ndarray, counts: tuple[np.ndarray, np.ndarray]
) -> None:
    """Writes the items and hits of each list at the value of its last rank."""
    at_edge = values == values[:, -1:]
    counts[0][:] = at_edge.sum(axis=1)
    counts[1][:] = (at_edge & hits).sum(axis=1)
