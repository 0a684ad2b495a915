"""Classification by embeddings: nearest centroid, nearest neighbours, few shots."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from jdml.metrics.averages import mean_of_classes
from jdml.metrics.identify import nearest
from jdml.metrics.task import Asked, check_together, class_numbers, kept_rows, same_kind
from jdml.metrics.verification import unit
from jdml.retrieval.prepare import index_of, same_width
from jdml.retrieval.rows import Distance, label_array
from jdml.retrieval.rows import whole as whole_number

_BLOCK = 1024  # queries compared at once


def knn(
    embeddings: Any,
    labels: Any,
    *,
    k: int = 5,
    gallery: Any = None,
    gallery_labels: Any = None,
    own_rows: Any = None,
    temperature: float | None = None,
    distance: Distance = "cosine",
    block_size: int | None = None,
) -> dict[str, float | int]:
    """Accuracy of the vote of the k nearest items.

    Where several classes get most votes, one of them is drawn: the credit is its chance of being
    right. Equally near items at the edge of the k go by the lower gallery row.

    Args:
      embeddings: [B, D], the queries.
      labels: [B], integers or strings; a negative label marks a row to ignore.
      k: voters, at most the number of candidates.
      gallery: [N, D], or None for the embeddings themselves, each without its own row.
      gallery_labels: [N], with a gallery.
      own_rows: int [B], as in `retrieval`.
      temperature: above 0; votes weigh exp(-distance / temperature), 0.07 with cosine being
        usual. None: one vote each.
      distance, block_size: as in `retrieval`.

    Returns:
      A dict: `accuracy`; `class_accuracy`, the mean over classes of theirs; the counts `queries`
      and `lone_queries`, those of a class that the gallery lacks, which are left out.

    Raises:
      ValueError: as in `retrieval`, or a temperature that is not above 0.

    Example:
      >>> rows = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.5]])
      >>> knn(rows, [0, 0, 0, 1, 1, 0], k=1, distance="euclidean")["accuracy"].__round__(4)
      0.8333

    Reference:
      Wu et al., "Unsupervised Feature Learning via Non-parametric Instance Discrimination", CVPR
      2018 (weighted votes).
    """
    whole_number(k, "k")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature: got {temperature}, expected a number above 0")
    found = nearest(
        Asked(embeddings, labels, gallery, gallery_labels, own_rows), k, distance, block_size
    )
    credit = np.empty(len(found.codes))
    for start in range(0, len(credit), _BLOCK):
        part = slice(start, start + _BLOCK)
        votes = np.ones_like(found.distances[part], np.float64)
        if temperature is not None:
            votes = found.distances[part].astype(np.float64)
            votes = np.exp((votes[:, :1] - votes) / temperature)
        credit[part] = _credit(found.found[part], votes, found.codes[part])
    return _accuracies(credit, found.codes, found.relevant > 0)


def _credit(classes: np.ndarray, votes: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The chance [b] that the class with most votes is right, from votes [b, k] for classes."""
    order = np.argsort(classes, axis=1, kind="stable")
    classes, votes = (np.take_along_axis(x, order, axis=1) for x in (classes, votes))
    first = np.ones(classes.shape, bool)  # voter of a class, which come one after the other
    first[:, 1:] = classes[:, 1:] != classes[:, :-1]
    row, _ = np.nonzero(first)
    total = np.add.reduceat(votes.ravel(), np.flatnonzero(first))  # of each class of each row
    most = np.maximum.reduceat(total, np.flatnonzero(np.diff(row, prepend=-1)))
    # Sums in another order differ by rounding; classes as close as that are tied.
    best = total >= most[row] * (1 - 1e-12)
    return np.bincount(row, best & (classes[first] == right[row])) / np.bincount(row, best)


def nearest_centroid(
    embeddings: Any,
    labels: Any,
    *,
    gallery: Any = None,
    gallery_labels: Any = None,
    distance: Distance = "cosine",
) -> dict[str, float | int]:
    """Accuracy of the nearest class mean.

    The mean of a class is that of its rows, of unit length first where the distance is cosine.
    Without a gallery a query's own row takes no part in the mean of its class.

    Args:
      embeddings: [B, D], the queries.
      labels: [B], integers or strings; a negative label marks a row to ignore.
      gallery: [N, D], or None for the embeddings themselves.
      gallery_labels: [N], with a gallery.
      distance: as in `retrieval`.

    Returns:
      A dict: `accuracy`, where equally near classes share the credit; `class_accuracy`, the mean
      over classes of theirs; the counts `queries` and `lone_queries`, those whose class has no
      other row, which are left out.

    Raises:
      ValueError: as in `retrieval`.

    Example:
      >>> rows = np.array([[0.0], [1.0], [7.0], [8.0], [2.0]])
      >>> nearest_centroid(rows, list("aabbb"), distance="euclidean")["accuracy"]
      0.8
    """
    asked = Asked(embeddings, labels, gallery, gallery_labels)
    check_together(asked)
    labels = label_array("labels", labels)
    x, kept = kept_rows(("embeddings", embeddings), ("labels", labels))
    index_of(x[:1], distance)  # the distance is known
    alone = gallery is None
    y, other = x, labels[kept]
    if not alone:
        other = label_array("gallery_labels", gallery_labels)
        same_kind("gallery_labels", other, "labels", labels)
        y, gallery_kept = kept_rows(("gallery", gallery), ("gallery_labels", other))
        same_width(("embeddings", "gallery"), x.shape[1], y.shape[1])
        other = other[gallery_kept]
    classes, members = np.unique(other, return_inverse=True)
    codes = class_numbers(labels[kept], classes)
    counts = np.bincount(members, minlength=len(classes)).astype(np.float64)
    sums = np.zeros((len(classes), x.shape[1]))
    for start in range(0, len(y), _BLOCK):
        part = slice(start, start + _BLOCK)
        np.add.at(sums, members[part], _ready(y[part], distance))
    has = (codes >= 0) & (counts[codes] > alone) if len(classes) else codes >= 0
    credit = np.zeros(len(x))
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        rows, right = _ready(x[part], distance), codes[part]
        found = distances_to(rows, sums / counts[:, None], distance)
        if alone:  # the mean of the others of its class
            left = np.maximum(counts[right] - 1, 1)[:, None]
            mine = distances_between(rows, (sums[right] - rows) / left, distance)
            found[np.arange(len(rows)), right] = mine
        credit[part] = shared(found, right)
    return _accuracies(credit, codes, has)


def _ready(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """Rows in float64, of unit length where the distance is cosine."""
    rows = rows.astype(np.float64)
    return unit(rows) if distance == "cosine" else rows


def distances_to(rows: np.ndarray, centers: np.ndarray, distance: Distance) -> np.ndarray:
    """Distances [b, C] of float64 rows, or numbers in their order."""
    if distance == "cosine":
        return 1.0 - rows @ unit(centers).T
    products = rows @ centers.T
    if distance == "dot":
        return -products
    return np.square(rows).sum(1)[:, None] - 2.0 * products + np.square(centers).sum(1)


def distances_between(rows: np.ndarray, centers: np.ndarray, distance: Distance) -> np.ndarray:
    """`distances_to` of each row [b, D] to one center of its own [b, D], [b]."""
    if distance == "cosine":
        return 1.0 - np.einsum("bd,bd->b", rows, unit(centers))
    products = np.einsum("bd,bd->b", rows, centers)
    if distance == "dot":
        return -products
    return np.square(rows).sum(1) - 2.0 * products + np.square(centers).sum(1)


def shared(distances: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The chance [b] that the nearest of several centers [b, C] is the right one; ties share it."""
    # Distances are differences of numbers as large as they get: closer than that is a tie.
    slack = 1e-12 * np.maximum(np.abs(distances).max(axis=1, keepdims=True), 1e-300)
    best = distances <= distances.min(axis=1, keepdims=True) + slack
    return best[np.arange(len(right)), right] / best.sum(axis=1)


def _accuracies(credit: np.ndarray, codes: np.ndarray, has: np.ndarray) -> dict[str, float | int]:
    if not has.any():
        raise ValueError(
            f"labels: none of {len(has)} queries has another row of its class, expected some"
        )
    classes = mean_of_classes(credit[None, has], codes[has])
    return {
        "accuracy": float(credit[has].mean()),
        "class_accuracy": float(classes.mean()),
        "queries": int(has.sum()),
        "lone_queries": int((~has).sum()),
    }


def few_shot(
    embeddings: Any,
    labels: Any,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 600,
    confidence: float = 0.95,
    distance: Distance = "cosine",
    seed: int = 0,
) -> dict[str, float | int]:
    """Accuracy of n-way k-shot episodes, by the nearest mean of the shots.

    Each episode draws `ways` classes and, of each, `shots` rows to learn from and `queries` others
    to classify, none twice. Classes with fewer rows than that are never drawn.

    Args:
      embeddings: [B, D].
      labels: [B], integers or strings; a negative label marks a row to ignore.
      ways: classes of an episode, at least 2.
      shots: rows a class to learn from.
      queries: rows a class to classify.
      episodes: how many, at least 2; 600 give an interval of about one percent.
      confidence: of the interval.
      distance: as in `retrieval`; squared Euclidean is that of prototypical networks.
      seed: of the draws; the same seed gives the same episodes.

    Returns:
      A dict: `accuracy`, the mean over episodes; `half_width`, of its normal interval at the
      stated confidence; `low` and `high`, its ends; the counts `episodes` and `classes`, those
      large enough to be drawn.

    Raises:
      ValueError: fewer classes of that size than `ways`, and as in `retrieval`.

    Example:
      >>> rows, labels = np.array([[0.0], [1.0], [8.0], [9.0]]), [0, 0, 1, 1]
      >>> few_shot(
      ...     rows, labels, ways=2, queries=1, episodes=9, distance="euclidean"
      ... )["accuracy"]
      1.0

    Reference:
      Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016 (episodes).
      Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017.
    """
    asked = {"ways": ways, "shots": shots, "queries": queries, "episodes": episodes}
    for name, value in asked.items():
        whole_number(value, name)
        if name in ("ways", "episodes") and value < 2:
            raise ValueError(f"{name}: got {value}, expected at least 2")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence!r}, expected a number between 0 and 1")
    labels = label_array("labels", labels)
    rows, kept = kept_rows(("embeddings", embeddings), ("labels", labels))
    index_of(rows[:1], distance)  # the distance is known
    rows = _ready(rows, distance)
    _, codes = np.unique(labels[kept], return_inverse=True)
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]
    large = [rows_ for rows_ in members if len(rows_) >= shots + queries]
    if len(large) < ways:
        raise ValueError(
            f"ways: got {ways}, expected at most {len(large)}, the classes with shots + queries = "
            f"{shots + queries} rows"
        )
    draw = np.random.default_rng(seed)
    right = np.repeat(np.arange(ways), queries)
    accuracies = np.empty(episodes)
    for episode in range(episodes):
        chosen = draw.choice(len(large), ways, replace=False)
        drawn = [draw.choice(large[c], shots + queries, replace=False) for c in chosen]
        drawn = rows[np.stack(drawn)]  # [ways, shots + queries, D]
        asked_ = drawn[:, shots:].reshape(ways * queries, -1)
        found = distances_to(asked_, drawn[:, :shots].mean(axis=1), distance)
        accuracies[episode] = shared(found, right).mean()
    mean = float(accuracies.mean())
    error = float(accuracies.std(ddof=1) / np.sqrt(episodes))
    half = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * error
    return {
        "accuracy": mean,
        "half_width": half,
        "low": mean - half,
        "high": mean + half,
        "episodes": episodes,
        "classes": len(large),
    }
