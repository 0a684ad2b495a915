"""Pairs of items for verification: all of them, or a fair sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdml.metrics.task import kept_rows
from jdml.metrics.verification import pair_similarities
from jdml.retrieval.rows import Distance, label_array
from jdml.retrieval.rows import whole as whole_number

_BLOCK = 8192  # pairs measured at once


class Pairs(NamedTuple):
    """Pairs of rows, and how alike they are."""

    first: np.ndarray  # int64 [P]
    second: np.ndarray  # int64 [P]
    similarities: np.ndarray  # float64 [P], larger is more alike
    same: np.ndarray  # bool [P] of one class


def pairs(
    embeddings: Any,
    labels: Any,
    *,
    most: int = 200_000,
    distance: Distance = "cosine",
    seed: int = 0,
) -> Pairs:
    """Pairs of rows for `verification`, each of two different rows and none twice.

    All pairs where there are at most `most`. Otherwise a sample: half of it pairs of one class (or
    all of these, where there are fewer), the rest pairs of different classes, each kind drawn
    evenly from all of its kind. Rates such as TAR and FAR concern one kind each, so that the
    shares of the two kinds do not bias them.

    Args:
      embeddings: [B, D], numpy or JAX.
      labels: [B], integers or strings; rows of a negative label are in no pair.
      most: pairs returned, at most.
      distance: the similarity is the cosine or inner product, or minus the Euclidean distance.
      seed: of the draws; the same seed gives the same pairs.

    Returns:
      `Pairs(first, second, similarities, same)`, first < second; [P] each.

    Raises:
      ValueError: a row holds NaN or infinity (named), or shapes disagree.

    Example:
      >>> found = pairs(np.array([[0.0], [1.0], [3.0]]), [7, 7, 8], distance="euclidean")
      >>> found.similarities, found.same
      (array([-1., -3., -2.]), array([ True, False, False]))
    """
    whole_number(most, "most")
    labels = label_array("labels", labels)
    rows, kept = kept_rows(("embeddings", embeddings), ("labels", labels))
    place = np.flatnonzero(kept)
    _, codes = np.unique(labels[kept], return_inverse=True)
    n = len(rows)
    if n * (n - 1) // 2 <= most:
        first, second = np.triu_indices(n, 1)
    else:
        first, second = _sample(codes, most, np.random.default_rng(seed))
    values = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        x, y = (rows[which[part]].astype(np.float64) for which in (first, second))
        values[part] = pair_similarities(x, y, distance)
    return Pairs(place[first], place[second], values, codes[first] == codes[second])


def _sample(
    codes: np.ndarray, most: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one class and pairs of different classes, drawn without repetition."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    starts, of_class = np.cumsum(sizes) - sizes, sizes * (sizes - 1) // 2
    total_same, n = int(of_class.sum()), len(codes)
    total_other = n * (n - 1) // 2 - total_same
    wanted = min(total_same, max(most // 2, most - total_other))
    # The number of a pair among those of its class says who its members are.
    number = _distinct(draw, total_same, wanted)
    which = np.searchsorted(np.cumsum(of_class), number, side="right")
    low, high = _members(number - (np.cumsum(of_class) - of_class)[which])
    same = np.sort([order[starts[which] + low], order[starts[which] + high]], axis=0)
    other = _other_pairs(codes, min(most - wanted, total_other), total_other, draw)
    return np.concatenate([same[0], other[0]]), np.concatenate([same[1], other[1]])


def _other_pairs(
    codes: np.ndarray, wanted: int, total: int, draw: np.random.Generator
) -> np.ndarray:
    """Pairs of different classes, [2, wanted], by rejection, or by number where few would do."""
    n = len(codes)
    if 2 * wanted > total or 2 * total < n * (n - 1) // 2 // 4:
        return _others(_distinct(draw, total, wanted), codes)
    found = np.zeros(0, np.int64)
    while len(found) < wanted:
        x, y = draw.integers(n, size=(2, 2 * wanted))
        apart = codes[x] != codes[y]
        x, y = x[apart], y[apart]
        found = np.unique(np.append(found, np.minimum(x, y) * n + np.maximum(x, y)))
    chosen = np.sort(draw.choice(found, wanted, replace=False))
    return np.stack([chosen // n, chosen % n])


def _others(number: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The numbered ones of all pairs i < j of different classes, in the order of i and then j."""
    n = len(codes)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], codes)  # of each row's class in that order
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    place -= starts  # of each row among those of its class
    sizes = np.bincount(codes)[codes]
    ends = np.cumsum((n - 1 - np.arange(n)) - (sizes - 1 - place))  # pairs of the rows up to i
    first = np.searchsorted(ends, number, side="right")
    # j is the row with this many rows of other classes before it; how many of its own class come
    # before it is a search among them, each class on a stretch of the line of its own.
    before = number - np.append(0, ends)[first] + first - place[first]
    line = codes[order] * n + (order - place[order])
    own = np.searchsorted(line, codes[first] * n + before, side="right") - starts[first]
    return np.stack([first, before + own])


def _distinct(draw: np.random.Generator, total: int, wanted: int) -> np.ndarray:
    """Distinct numbers below total, in order."""
    return np.sort(draw.choice(total, wanted, replace=False, shuffle=False))


def _members(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Members low < high of the numbered pairs (0,1), (0,2), (1,2), (0,3), ... of a class."""
    high = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > number  # the root may be rounded either way
    high += high * (high + 1) // 2 <= number
    return number - high * (high - 1) // 2, high
