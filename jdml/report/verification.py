"""Pairs of one class and of two, and how well a threshold on their similarity tells them apart."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jdml import metrics, retrieval
from jdml.metrics.verification import at_far, equal_error, rates
from jdml.report.select import unit_rows

Side: TypeAlias = tuple[Any, np.ndarray, np.ndarray | None]
"""Embeddings [N, D], classes [N], and groups [N] of which no two rows make a pair, or None."""

FARS = (0.01, 0.001)
_MOST = 400_000  # pairs drawn
_RESAMPLES = 200
_CHUNK = 1 << 25  # numbers gathered at once

NAMES = {
    "cosine": "cosine similarity",
    "dot": "inner product",
    "euclidean": "minus the Euclidean distance",
    "squared_euclidean": "minus the squared Euclidean distance",
}


class Pairs(NamedTuple):
    """Pairs, all of them or a draw, and how many there are."""

    first: np.ndarray  # int [P] query
    second: np.ndarray  # int [P] row of the gallery, or of the queries
    similarities: np.ndarray  # float32 [P], larger is closer
    same: np.ndarray  # bool [P] of one class
    same_total: int  # pairs of one class that there are, also those not drawn
    other_total: int
    alone: bool  # both rows are queries


def draw(
    queries: Side,
    gallery: Side | None,
    *,
    distance: retrieval.Distance = "cosine",
    seed: int = 0,
    most: int = _MOST,
) -> Pairs:
    """All pairs of a query with a row of the gallery, or about `most` of them.

    Where there are too many, half of those drawn are of one class, if there are so many.

    Args:
      queries: their rows, classes and groups.
      gallery: those of the gallery; None for pairs among the queries, each once.
      distance: whose negative is the similarity; 1 more for cosine.
      seed: of the draw.
      most: pairs drawn.

    Returns:
      The pairs.
    """
    rng = np.random.default_rng(seed)
    other = queries if gallery is None else gallery
    alone = gallery is None
    grid = len(queries[1]) * len(other[1])
    order = np.argsort(other[1], kind="stable")
    start, stop = (np.searchsorted(other[1][order], queries[1], s) for s in ("left", "right"))
    ends = np.cumsum(stop - start)
    mates = int(ends[-1]) if len(ends) else 0

    flat, share = _some(rng, mates, most // 2 * (1 + alone))
    first = np.searchsorted(ends, flat, "right")
    second = order[stop[first] - (ends[first] - flat)]
    kept = _allowed(first, second, queries[2], other[2], alone)
    same_total = round(kept.sum() / share)
    same = first[kept], second[kept]

    room = max(most - len(same[0]), most // 2)
    flat, share = _some(rng, grid, room * (1 + alone))
    first, second = flat // max(len(other[1]), 1), flat % max(len(other[1]), 1)
    kept = _allowed(first, second, queries[2], other[2], alone)
    kept &= queries[1][first] != other[1][second]
    other_total = round(kept.sum() / share)

    first, second = (np.concatenate([s, o[kept]]) for s, o in zip(same, (first, second)))
    similarities = _similarities(queries[0], other[0], first, second, distance)
    is_same = np.arange(len(first)) < len(same[0])
    return Pairs(first, second, similarities, is_same, same_total, other_total, alone)


def _some(rng: np.random.Generator, total: int, most: int) -> tuple[np.ndarray, float]:
    """Distinct whole numbers below `total`, all or about `most`, and which share that is."""
    if total <= most:
        return np.arange(total), 1.0
    found = np.unique(rng.integers(0, total, most))
    return found, len(found) / total


def _allowed(
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray | None,
    other_groups: np.ndarray | None,
    alone: bool,
) -> np.ndarray:
    kept = first < second if alone else np.ones(len(first), bool)
    if groups is not None and other_groups is not None:
        kept &= groups[first] != other_groups[second]
    return kept


def _similarities(
    x: Any, y: Any, first: np.ndarray, second: np.ndarray, distance: str
) -> np.ndarray:
    def ready(rows: Any) -> np.ndarray:
        rows = np.asarray(rows, np.float32)
        return unit_rows(rows, np.zeros(len(rows), np.int32)) if distance == "cosine" else rows

    x, y = ready(x), ready(y)
    found = np.zeros(len(first), np.float32)
    chunk = max(_CHUNK // x.shape[1], 1)
    for begin in range(0, len(first), chunk):
        part = slice(begin, begin + chunk)
        a, b = x[first[part]], y[second[part]]
        if distance in ("cosine", "dot"):
            found[part] = np.einsum("pd,pd->p", a, b)
        else:
            found[part] = -np.square(a - b).sum(axis=1)
    return -np.sqrt(-found) if distance == "euclidean" else found


# ---------------------------------------------------------------- scores


def scores(
    pairs: Pairs, confidence: float, seed: int
) -> list[tuple[str, str, float, float, float, str]]:
    """Equal error rate, area under the ROC and TAR at two FARs, with bootstrap intervals.

    Images are drawn anew, and a pair counts as often as both of its images do. Empty where there
    are no pairs of one kind.
    """
    if pairs.same.all() or not pairs.same.any():
        return []
    found = metrics.verification(pairs.similarities, pairs.same, fars=FARS)
    rng = np.random.default_rng(seed)
    order = np.argsort(-pairs.similarities, kind="stable")
    values = pairs.similarities[order]
    last = np.append(values[1:] != values[:-1], True)  # of pairs that tie
    first, second, same = pairs.first[order], pairs.second[order], pairs.same[order]
    images = int(max(first.max(), second.max() if pairs.alone else 0)) + 1
    drawn = [_rates(np.ones(len(same)), same, last)]
    for _ in range(_RESAMPLES):
        count = np.bincount(rng.integers(0, images, images), minlength=images).astype(np.float64)
        weight = count[first] * (count[second] if pairs.alone else 1.0)
        if weight[same].any() and weight[~same].any():
            drawn.append(_rates(weight, same, last))
    edges = np.quantile(np.array(drawn), [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    names = [
        ("auc", "AUC", "chance that a pair of one class is closer than a pair of two"),
        ("eer", "EER", "error where as many are wrongly accepted as wrongly refused"),
    ]
    for far in FARS:
        about = f"pairs of one class accepted where {far:.1%} of the others are"
        names.append((f"tar_at_far_{far:g}", f"TAR@FAR {far:.1%}", about))
    result = []
    for (key, name, about), low, high in zip(names, *edges.tolist()):
        value = float(found[key])
        result.append((key, name, value, min(low, value), max(high, value), about))
    return result


def _rates(weight: np.ndarray, same: np.ndarray, last: np.ndarray) -> list[float]:
    """AUC, EER and TAR at each FAR of weighted pairs, closest first."""
    far, tar = rates(same, last, weight)
    area = float(np.trapezoid(tar, far))
    return [area, equal_error(far, tar)[0], *(float(tar[at_far(far, most)]) for most in FARS)]


def binned(pairs: Pairs, bins: int = 1000) -> dict[str, Any] | None:
    """How many pairs of each kind lie in each of the bins of similarity, for the page."""
    if pairs.same.all() or not pairs.same.any():
        return None
    low, high = float(pairs.similarities.min()), float(pairs.similarities.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    scaled = (pairs.similarities.astype(np.float64) - low) / (high - low)
    places = np.minimum((bins * scaled).astype(np.int64), bins - 1)
    same, other = (
        np.bincount(places[kind], minlength=bins).tolist() for kind in (pairs.same, ~pairs.same)
    )
    totals = {"same_total": pairs.same_total, "other_total": pairs.other_total}
    return {"low": low, "high": high, "same": same, "other": other, **totals}
