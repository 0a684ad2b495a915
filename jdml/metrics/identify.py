"""Identification by the nearest item: open sets, global average precision, confusions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jdml.metrics import counts
from jdml.metrics.task import (
    Asked,
    LabelledGallery,
    check_together,
    class_numbers,
    kept_rows,
    labelled_gallery,
    renumbered,
    same_kind,
)
from jdml.metrics.ties import Ties, known
from jdml.metrics.verification import at_far, levels
from jdml.retrieval.rows import Distance, label_array, own_row_numbers
from jdml.retrieval.rows import whole as whole_number
from jdml.retrieval.search import neighbours


class Nearest(NamedTuple):
    """What the nearest gallery rows of each query that is not ignored are."""

    codes: np.ndarray  # int [Q] class among `classes`, -1 where the gallery lacks it
    found: np.ndarray  # int [Q, k] class of each neighbour among `classes`, nearest first
    distances: np.ndarray  # [Q, k]
    classes: np.ndarray  # [C] labels of the gallery, sorted
    relevant: np.ndarray  # int [Q] rows of the query's class that it might find


def nearest(asked: Asked, k: int, distance: Distance, block_size: int | None) -> Nearest:
    """The k nearest rows of each query."""
    check_together(asked)
    labels = label_array("labels", asked.labels)
    x, kept = kept_rows(("embeddings", asked.embeddings), ("labels", labels))
    alone = asked.gallery is None
    other = labels if alone else label_array("gallery_labels", asked.gallery_labels)
    same_kind("gallery_labels", other, "labels", labels)
    own = own_row_numbers(asked.own_rows, alone, len(labels), len(other))
    names = ("embeddings", "labels", "") if alone else ("gallery", "gallery_labels", "")
    rows = asked.embeddings if alone else asked.gallery
    double = np.float64 in (x.dtype, np.asarray(rows).dtype)
    gallery: LabelledGallery = labelled_gallery(rows, other, None, distance, double, names)
    own = renumbered(own, gallery.kept)[kept]
    codes = class_numbers(labels[kept], gallery.classes)
    found = neighbours(x, gallery.index, k=k, own_rows=own, block_size=block_size)
    start, stop = gallery.starts[codes], gallery.starts[codes + (codes >= 0)]
    itself = (own >= 0) & (np.append(gallery.codes, -1)[own] == codes)
    return Nearest(
        codes,
        gallery.codes[found.indices],
        found.distances,
        gallery.classes,
        stop - start - itself,
    )


def open_set(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any,
    gallery_labels: Any,
    fars: Iterable[float] = (1e-2, 1e-1),
    rank: int = 1,
    distance: Distance = "cosine",
    block_size: int | None = None,
) -> dict[str, float | int]:
    """Detection and identification rate at a false alarm rate, for queries nobody may know.

    Queries whose label the gallery holds are known, the others unknown. A query raises an alarm
    where its nearest item is at most a threshold away. The false alarm rate (FAR) is the share of
    unknown queries that raise one; DIR is the share of known queries with an item of their own
    label among the `rank` nearest and within the threshold. Ties go to the lower gallery row.

    Args:
      embeddings: [B, D], the queries.
      labels: [B], integers or strings; a negative label marks a row to ignore.
      gallery: [N, D].
      gallery_labels: [N].
      fars: FAR levels, each above 0 and below 1.
      rank: how near the right item must stand.
      distance, block_size: as in `retrieval`.

    Returns:
      A dict: for each level `dir_at_far_{far:g}`, the largest DIR of thresholds whose FAR is at
      most the level, and `threshold_at_far_{far:g}`, that largest distance; the counts `known` and
      `unknown`.

    Raises:
      ValueError: no known or no unknown query, a level out of its range, and as in `retrieval`.

    Example:
      >>> rows, gallery = np.array([[0.1], [3.0], [9.0]]), np.array([[0.0], [5.0]])
      >>> open_set(
      ...     rows, ["a", "b", "c"], gallery=gallery, gallery_labels=["a", "b"], fars=(0.5,),
      ...     distance="euclidean",
      ... )["dir_at_far_0.5"]
      1.0

    Reference:
      Phillips, Grother and Micheals, "Evaluation Methods in Face Recognition", Handbook of Face
      Recognition, 2011.
    """
    whole_number(rank, "rank")
    levels_ = levels(fars)
    found = nearest(Asked(embeddings, labels, gallery, gallery_labels), rank, distance, block_size)
    known_ = found.codes >= 0
    if known_.all() or not known_.any():
        missing = "unknown" if known_.all() else "known"
        raise ValueError(f"labels: got no {missing} query, expected known and unknown ones")
    unknown = found.distances[~known_, 0]
    right = found.found[known_] == found.codes[known_, None]
    # The nearest right item within the rank; the threshold must let it through.
    reach = np.where(right, found.distances[known_], np.inf).min(axis=1)
    steps = np.unique(np.append(unknown, reach[np.isfinite(reach)]))
    far = np.searchsorted(np.sort(unknown), steps, side="right") / len(unknown)
    hit = np.searchsorted(np.sort(reach), steps, side="right") / len(reach)
    scores: dict[str, float | int] = {}
    for level in levels_:
        at = at_far(far, level)
        scores[f"dir_at_far_{level:g}"] = float(hit[at]) if at >= 0 else 0.0
        below = np.nextafter(steps[0], -np.inf)
        scores[f"threshold_at_far_{level:g}"] = float(steps[at] if at >= 0 else below)
    return scores | {"known": int(known_.sum()), "unknown": int((~known_).sum())}


def gap(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any = None,
    gallery_labels: Any = None,
    own_rows: Any = None,
    distance: Distance = "cosine",
    ties: Ties = "expected",
    block_size: int | None = None,
) -> float:
    """Global average precision (micro AP) of the nearest item's label as a prediction.

    All predictions stand in one list, the most confident (nearest) first, and the average
    precision of that list counts right ones. A query that nothing in the gallery answers can only
    be wrong: it should be unsure. Unlike the metrics of `retrieval`, distances of different
    queries must be comparable.

    Args:
      embeddings: [B, D], the queries.
      labels: [B], integers or strings; give queries without an answer a label of their own.
      gallery: [N, D], or None for the embeddings themselves.
      gallery_labels: [N], with a gallery.
      own_rows, distance, block_size: as in `retrieval`.
      ties: the order of predictions at equal distance; among equally near items of the gallery
        the one of the lower row is the prediction.

    Returns:
      The sum of the precision at each right prediction, over the number of queries that the
      gallery can answer.

    Raises:
      ValueError: as in `retrieval`.

    Example:
      >>> rows, gallery = np.array([[0.1], [3.0], [9.0]]), np.array([[0.0], [5.0]])
      >>> gap(rows, [0, 1, 2], gallery=gallery, gallery_labels=[0, 1], distance="euclidean")
      1.0

    Reference:
      Weyand et al., "Google Landmarks Dataset v2", CVPR 2020; Perronnin, Liu and Renders, "A
      Family of Contextual Measures of Similarity", CVPR 2009.
    """
    asked = Asked(embeddings, labels, gallery, gallery_labels, own_rows)
    found = nearest(asked, 1, distance, block_size)
    answers = int((found.relevant > 0).sum())
    if not answers:
        raise ValueError(
            f"labels: none of {len(found.codes)} queries has a relevant item, expected at least one"
        )
    right = found.found[:, 0] == found.codes
    return global_average_precision(-found.distances[:, 0], right, answers=answers, ties=ties)


def global_average_precision(
    confidences: Any, right: Any, *, answers: int | None = None, ties: Ties = "expected"
) -> float:
    """`gap` of predictions made elsewhere.

    Args:
      confidences: [P], larger is surer.
      right: bool [P].
      answers: queries that have an answer, at least the right ones; by default as many as P.
      ties: the order of equally confident predictions.

    Returns:
      The sum of the precision at each right prediction, over `answers`.

    Raises:
      ValueError: NaN, shapes that disagree, or fewer answers than right predictions.

    Example:
      >>> global_average_precision([0.9, 0.8, 0.7], [True, False, True], answers=2).__round__(4)
      0.8333
    """
    known(ties)
    confidences, right = np.asarray(confidences, np.float64), np.asarray(right)
    if right.dtype != bool or confidences.ndim != 1 or right.shape != confidences.shape:
        raise ValueError(
            f"right: got shape {right.shape} of {right.dtype}, expected bool {confidences.shape}"
        )
    if not np.isfinite(confidences).all():
        raise ValueError("confidences: got NaN or infinity, expected finite numbers")
    answers = len(right) if answers is None else answers
    whole_number(answers, "answers")
    if answers < right.sum():
        raise ValueError(f"answers: got {answers}, expected at least {right.sum()}, those right")
    if not right.any():
        return 0.0
    places = counts.count(confidences[None], confidences[right][None])
    return float(counts.values(places, (), ties)["map"][0] * right.sum() / answers)


class Confusion(NamedTuple):
    """Which classes are taken for which."""

    classes: np.ndarray  # [C] labels, sorted
    counts: np.ndarray  # int [C, C]: queries of the row's class whose nearest item is the column's


def confusion(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any = None,
    gallery_labels: Any = None,
    own_rows: Any = None,
    distance: Distance = "cosine",
    block_size: int | None = None,
) -> Confusion:
    """How often the nearest item of a query of one class is of another.

    Args:
      embeddings, labels, gallery, gallery_labels, own_rows, distance, block_size: as in
        `retrieval`; queries of a class that the gallery lacks are left out.

    Returns:
      `Confusion(classes, counts)`: the diagonal counts queries that find their own class.

    Raises:
      ValueError: as in `retrieval`.

    Example:
      >>> confusion(np.array([[0.0], [1.0], [3.0], [3.5]]), [5, 5, 6, 5], distance="euclidean")
      Confusion(classes=array([5, 6]), counts=array([[2, 1],
             [1, 0]]))
    """
    asked = Asked(embeddings, labels, gallery, gallery_labels, own_rows)
    found = nearest(asked, 1, distance, block_size)
    size = len(found.classes)
    there = found.codes >= 0
    pairs = found.codes[there].astype(np.int64) * size + found.found[there, 0]
    return Confusion(found.classes, np.bincount(pairs, minlength=size * size).reshape(size, size))
