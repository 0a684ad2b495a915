"""Verification: are two items of one class? ROC, equal error, accuracy by folds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jdml.retrieval.prepare import index_of
from jdml.retrieval.rows import Distance, finite_rows
from jdml.retrieval.rows import whole as whole_number


class Roc(NamedTuple):
    """Rates at every threshold that separates similarities; accepted means at or above it."""

    thresholds: np.ndarray  # [T], falling; the first is infinite and accepts nothing
    far: np.ndarray  # [T] share of the pairs of different classes accepted
    tar: np.ndarray  # [T] share of the pairs of one class accepted


def roc(similarities: Any, same: Any, *, weights: Any = None) -> Roc:
    """The receiver operating characteristic of pairs.

    Args:
      similarities: [P], larger is more alike (the negative of a distance will do).
      same: bool [P], pairs of one class.
      weights: [P], how often each pair counts, 0 leaves it out; None for once.

    Returns:
      `Roc(thresholds, far, tar)`, float64 [T] each: one point a distinct similarity, so that
      tied pairs are accepted together, and the point (0, 0) first.

    Raises:
      ValueError: NaN, a negative weight, shapes that disagree, or no pair of one of the two kinds.

    Example:
      >>> curve = roc([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
      >>> curve.far, curve.tar
      (array([0. , 0. , 0.5, 0.5, 1. ]), array([0. , 0.5, 0.5, 1. , 1. ]))
    """
    similarities, same, weights = _weighted(similarities, same, weights)
    order = np.argsort(-similarities, kind="stable")
    sorted_ = similarities[order]
    last = np.append(sorted_[1:] != sorted_[:-1], True)
    far, tar = rates(same[order], last, None if weights is None else weights[order])
    return Roc(np.append(np.inf, sorted_[last]), far, tar)


def verification(
    similarities: Any,
    same: Any,
    *,
    fars: Iterable[float] = (1e-3, 1e-2, 1e-1),
    target_prior: float = 0.01,
    miss_cost: float = 1.0,
    false_alarm_cost: float = 1.0,
) -> dict[str, float | int]:
    """Equal error rate, TAR at FAR, minimum detection cost and more, of pairs.

    - `eer`: the rate at which as many pairs of different classes are accepted as pairs of one
      class are rejected, on the straight line between the two nearest points of the curve.
    - `tar_at_far_x`: the largest TAR among thresholds whose FAR is at most x (no interpolation).
      With fewer than 1/x pairs of different classes it is the TAR without any false accept.
    - `min_dcf`: the smallest prior * miss_cost * FRR + (1 - prior) * false_alarm_cost * FAR, over
      what accepting all, or none, would cost.
    - `auc`: the area under the curve, the chance that a pair of one class is more alike.
    - `best_accuracy`: of one threshold chosen on these same pairs. Report `fold_accuracy`.

    Args:
      similarities: [P], larger is more alike.
      same: bool [P], pairs of one class.
      fars: FAR levels, each above 0 and below 1.
      target_prior: share of pairs of one class to be expected in use.
      miss_cost: of a pair of one class that is rejected.
      false_alarm_cost: of a pair of different classes that is accepted.

    Returns:
      A dict of floats: `eer`, `eer_threshold`, `auc`, `min_dcf`, `min_dcf_threshold`,
      `best_accuracy`, `best_threshold`, `tar_at_far_{far:g}` and `threshold_at_far_{far:g}` for
      each, and the counts `same_pairs` and `other_pairs`.

    Raises:
      ValueError: as in `roc`, or a level out of its range.

    Example:
      >>> scores = verification([0.9, 0.8, 0.7, 0.6], [True, False, True, False], fars=(0.5,))
      >>> scores["eer"], scores["tar_at_far_0.5"], scores["auc"]
      (0.5, 1.0, 0.75)

    Reference:
      Grother, Ngan and Hanaoka, "Face Recognition Vendor Test", NIST (TAR at FAR); NIST Speaker
      Recognition Evaluation 2010 (detection cost).
    """
    similarities, same = _pairs(similarities, same)
    fars = levels(fars)
    prior = levels((target_prior,), "target_prior")[0]
    curve = roc(similarities, same)
    # Above the largest similarity nothing is accepted; infinity is no number to keep in a file.
    thresholds = curve.thresholds.copy()
    thresholds[0] = np.nextafter(similarities.max(), np.inf)
    eer, at = equal_error(curve.far, curve.tar)
    cost = prior * miss_cost * (1 - curve.tar) + (1 - prior) * false_alarm_cost * curve.far
    cost = cost / min(prior * miss_cost, (1 - prior) * false_alarm_cost)
    accuracy, threshold = _best_threshold(similarities, same)
    found: dict[str, float | int] = {
        "eer": eer,
        "eer_threshold": float(thresholds[at]),
        "auc": float(np.trapezoid(curve.tar, curve.far)),
        "min_dcf": float(cost.min()),
        "min_dcf_threshold": float(thresholds[cost.argmin()]),
        "best_accuracy": accuracy,
        "best_threshold": threshold,
        "same_pairs": int(same.sum()),
        "other_pairs": int((~same).sum()),
    }
    for far in fars:
        at = at_far(curve.far, far)
        found[f"tar_at_far_{far:g}"] = float(curve.tar[at])
        found[f"threshold_at_far_{far:g}"] = float(thresholds[at])
    return found


def fold_accuracy(similarities: Any, same: Any, *, folds: Any = 10) -> dict[str, Any]:
    """Verification accuracy where each fold is judged by the threshold of the other folds.

    The protocol of LFW: no pair takes part in the choice of the threshold that judges it. The
    threshold is the middle of the widest gap between similarities among those that judge most
    pairs of the other folds rightly.

    Args:
      similarities: [P], larger is more alike.
      same: bool [P], pairs of one class.
      folds: how many, of pairs in their order and as equal as can be (6,000 pairs of LFW come in
        that order), or the fold of each pair, int [P].

    Returns:
      A dict: `accuracy`, the mean over folds; `standard_error` of that mean; `accuracies` and
      `thresholds`, a list of one number a fold.

    Raises:
      ValueError: as in `roc`, fewer than two folds or more than pairs, or a fold that holds all
        pairs of one kind.

    Example:
      >>> similarities, same = [0.9, 0.1, 0.8, 0.3], [True, False, True, False]
      >>> fold_accuracy(similarities, same, folds=2)["accuracy"]
      1.0

    Reference:
      Huang et al., "Labeled Faces in the Wild", 2007 (view 2).
    """
    similarities, same = _pairs(similarities, same)
    if np.ndim(folds) == 0:
        whole_number(folds, "folds")
        if folds > len(same):
            raise ValueError(f"folds: got {folds}, expected at most {len(same)}, the pairs")
        folds = np.arange(len(same)) * int(folds) // len(same)
    folds = np.asarray(folds)
    if folds.shape != same.shape or folds.dtype.kind not in "iu":
        raise ValueError(f"folds: got shape {folds.shape}, expected integers {same.shape}")
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise ValueError(f"folds: got {len(numbers)}, expected at least two")
    accuracies, thresholds = [], []
    for fold in numbers:
        here = folds == fold
        if same[~here].all() or not same[~here].any():
            raise ValueError(f"folds: without fold {fold} there is one kind of pair, expected both")
        _, threshold = _best_threshold(similarities[~here], same[~here])
        accuracies.append(float(((similarities[here] >= threshold) == same[here]).mean()))
        thresholds.append(threshold)
    error = float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies)))
    return {
        "accuracy": float(np.mean(accuracies)),
        "standard_error": error,
        "accuracies": accuracies,
        "thresholds": thresholds,
    }


def triplet_accuracy(
    anchors: Any, positives: Any, negatives: Any, *, distance: Distance = "cosine"
) -> float:
    """The share of triplets whose positive is closer to the anchor than its negative.

    Args:
      anchors: [B, D].
      positives: [B, D].
      negatives: [B, D].
      distance: as in `jdml.retrieval.neighbours`.

    Returns:
      The share; equal distances count one half.

    Raises:
      ValueError: a row holds NaN or infinity (named), shapes disagree, or there is no row.

    Example:
      >>> triplet_accuracy([[0.0]], [[1.0]], [[2.0]], distance="euclidean")
      1.0
    """
    rows = {"anchors": anchors, "positives": positives, "negatives": negatives}
    a, p, n = (finite_rows(name, value).astype(np.float64) for name, value in rows.items())
    for name, other in (("positives", p), ("negatives", n)):
        if other.shape != a.shape:
            raise ValueError(f"{name}: got shape {other.shape}, expected {a.shape}, as anchors")
    if not len(a):
        raise ValueError("anchors: got 0 rows, expected at least one")
    closer = pair_similarities(a, p, distance) - pair_similarities(a, n, distance)
    return float((0.5 + 0.5 * np.sign(closer)).mean())


def pair_similarities(x: np.ndarray, y: np.ndarray, distance: Distance) -> np.ndarray:
    """Similarities [P] of rows of x to rows of y: the cosine, or minus the distance."""
    index_of(x[:1], distance)  # the distance is known
    if distance == "dot":
        return np.einsum("pd,pd->p", x, y)
    if distance == "cosine":
        x, y = unit(x), unit(y)
        squared = np.square(x - y).sum(axis=1)  # keeps the digits of near duplicates
        return np.where(x.any(axis=1) & y.any(axis=1), 1.0 - 0.5 * squared, 0.0)
    squared = np.square(x - y).sum(axis=1)
    return -np.sqrt(squared) if distance == "euclidean" else -squared


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; zero rows stay."""
    rows = rows / np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(rows.dtype).tiny)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm == 0, 1.0, norm)


def levels(fars: Any, name: str = "fars") -> tuple[float, ...]:
    """Rates as floats, checked."""
    found = tuple(float(far) for far in fars)
    for far in found:
        if not 0 < far < 1:
            raise ValueError(f"{name}: got {far:g}, expected rates above 0 and below 1")
    return found


def rates(
    same: np.ndarray, last: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR, [T] each from (0, 0) on, of sorted pairs [P]: a point where a tie is over."""
    kinds = (~same, same)
    if weights is not None:
        kinds = tuple(np.where(kind, weights, 0.0) for kind in kinds)
    counts = (np.cumsum(kind)[last] for kind in kinds)
    far, tar = (np.append(0.0, count / count[-1]) for count in counts)
    return far, tar


def at_far(far: np.ndarray, level: float) -> int:
    """The last point of a rising FAR [T] that is at most the level."""
    return int(np.searchsorted(far, level * (1 + 1e-12), side="right")) - 1


def equal_error(far: np.ndarray, tar: np.ndarray) -> tuple[float, int]:
    """The equal error rate of a curve, and its point where FAR first reaches FRR."""
    frr = 1 - tar
    at = int((far >= frr).argmax())
    gap, after = frr[at - 1] - far[at - 1], far[at] - frr[at]
    step = gap / (gap + after)
    return float(far[at - 1] + step * (far[at] - far[at - 1])), at


def _weighted(
    similarities: Any, same: Any, weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The pairs that have a weight, checked."""
    values, same = _pairs(similarities, same)
    if weights is None:
        return values, same, None
    weights = np.asarray(weights, np.float64)
    if weights.shape != same.shape:
        raise ValueError(f"weights: got shape {weights.shape}, expected {same.shape}, one a pair")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        pair = int(wrong.argmax())
        raise ValueError(f"weights: pair {pair} has {weights[pair]}, expected finite numbers >= 0")
    there = weights > 0
    _check_kinds(same[there])
    return values[there], same[there], weights[there]


def _pairs(similarities: Any, same: Any) -> tuple[np.ndarray, np.ndarray]:
    values, same = np.asarray(similarities), np.asarray(same)
    if values.dtype.kind not in "fiu" and values.dtype.name != "bfloat16":
        raise TypeError(f"similarities: got dtype {values.dtype}, expected real numbers")
    values = values.astype(np.float64)
    if same.dtype != bool:
        raise TypeError(f"same: got dtype {same.dtype}, expected bool, one a pair")
    if values.ndim != 1 or values.shape != same.shape:
        raise ValueError(f"same: got shape {same.shape}, expected {values.shape}, one a pair [P]")
    finite = np.isfinite(values)
    if not finite.all():
        pair = int(finite.argmin())
        raise ValueError(f"similarities: pair {pair} is {values[pair]}, expected finite numbers")
    _check_kinds(same)
    return values, same


def _check_kinds(same: np.ndarray) -> None:
    if same.all() or not same.any():
        missing = "different classes" if same.all() else "one class"
        raise ValueError(f"same: got no pair of {missing}, expected pairs of both kinds")


def _best_threshold(similarities: np.ndarray, same: np.ndarray) -> tuple[float, float]:
    """The best accuracy of one threshold, and the middle of the widest gap that reaches it."""
    curve = roc(similarities, same)
    right = curve.tar * same.sum() + (1 - curve.far) * (~same).sum()
    values = curve.thresholds[1:]
    # Each point of the curve accepts what is above a gap; the outermost gaps have no other end.
    upper, lower = np.append(values[0], values), np.append(values, values[-1])
    best = np.flatnonzero(np.round(right) == np.round(right.max()))
    at = best[np.argmax((upper - lower)[best])]
    middle = lower[at] + (upper[at] - lower[at]) / 2
    if at == 0:
        middle = np.nextafter(values[0], np.inf)
    elif at < len(values) and middle <= lower[at]:
        middle = upper[at]
    return float(right.max() / len(same)), float(middle)
