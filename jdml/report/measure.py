"""Everything that a report of an evaluation shows, as numbers: scores, neighbours, pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jdml import diagnostics, metrics, retrieval
from jdml.report import verification

SHOWN = 10  # neighbours of a query
KS = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)  # of the recall curve
_WHOLE = 1 << 28  # distances for which whole rankings are measured too: a few seconds
_RANKED = 2000  # rows whose effective rank is taken


class Items(NamedTuple):
    """Embeddings and what is known about them.

    Attributes:
      embeddings: [N, D].
      labels: [N], integers or strings; a negative label marks a row to ignore.
      images: [N, H, W], [N, H, W, 1] or [N, H, W, 3], or whatever gives some of them when it is
        indexed by an array of rows; None without pictures.
      cameras: [N], integers or strings: a gallery row of a query's label and camera is left out,
        as person re-identification does.
      numbers: int [N], what each row is called in the report; 0 to N - 1 by default.
    """

    embeddings: Any
    labels: Any
    images: Any = None
    cameras: Any = None
    numbers: Any = None

    def take(self, rows: np.ndarray) -> Items:
        """Some of the rows, which keep their numbers; images are not read."""
        numbers = np.arange(len(self.labels)) if self.numbers is None else np.asarray(self.numbers)
        return Items(
            np.asarray(self.embeddings)[rows],
            np.asarray(self.labels)[rows],
            None if self.images is None else _Some(self.images, rows),
            None if self.cameras is None else np.asarray(self.cameras)[rows],
            numbers[rows],
        )


class _Some:
    """Some of the images, indexed by their own rows."""

    def __init__(self, images: Any, rows: np.ndarray):
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray) -> Any:
        return self._images[self._rows[rows]]


class Score(NamedTuple):
    """One number with its bootstrap interval, between 0 and 1."""

    key: str
    name: str
    value: float
    low: float | None
    high: float | None
    about: str


class Measured(NamedTuple):
    """What `measure` found, and `write_html` shows."""

    queries: Items
    gallery: Items | None  # None: the queries among themselves
    classes: list[str]  # name of each class
    query_classes: np.ndarray  # int [B]
    gallery_classes: np.ndarray  # int [N]
    scores: list[Score]
    by_query: dict[str, np.ndarray]  # [B] each, NaN where a query has no right answer
    intervals: dict[str, tuple[float, float]]  # of the mean of each of these
    nearest: retrieval.Neighbours  # [B, k]
    pairs: verification.Pairs
    health: dict[str, float]
    distance: str
    confidence: float

    def as_json(self) -> dict[str, Any]:
        """Sizes, scores with intervals and diagnostics, as JSON takes them."""
        lone = int(np.isnan(self.by_query["map_at_r"]).sum())
        gallery = self.queries if self.gallery is None else self.gallery
        return {
            "queries": len(self.query_classes) - lone,
            "lone_queries": lone,
            "gallery": len(self.gallery_classes),
            "classes": len(self.classes),
            "dim": int(np.shape(gallery.embeddings)[1]),
            "distance": self.distance,
            "confidence": self.confidence,
            "scores": {
                score.key: {"value": score.value, "low": score.low, "high": score.high}
                for score in self.scores
            },
            "diagnostics": self.health,
        }


_RETRIEVAL = {
    "map_at_r": ("MAP@R", "mean average precision among the R nearest, R the right answers"),
    "recall_at_1": ("recall@1", "queries whose nearest neighbour is of their class"),
    "recall_at_5": ("recall@5", "queries with one of their class among the 5 nearest"),
    "recall_at_10": ("recall@10", "queries with one of their class among the 10 nearest"),
    "r_precision": ("R-precision", "share of right ones among the R nearest"),
    "map": ("MAP", "mean average precision of the whole ranking"),
    "mrr": ("MRR", "mean of 1 / rank of the first right one"),
}


def measure(
    queries: Items,
    gallery: Items | None = None,
    *,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    distance: retrieval.Distance = "cosine",
    confidence: float = 0.95,
    seed: int = 0,
) -> Measured:
    """Searches, scores with bootstrap intervals, and verifies pairs.

    Args:
      queries: what is searched for.
      gallery: what is searched among; None for the queries, each without itself.
      class_names: name of each integer label.
      distance: as in `jdml.retrieval.neighbours`.
      confidence: of the intervals.
      seed: of the bootstrap and of pairs drawn where there are too many.

    Returns:
      What was found.

    Raises:
      ValueError: shapes disagree, a row is not finite, or no query has a right answer.
      TypeError: labels that are neither integers nor strings.

    Example:
      >>> rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.2, 1.0]])
      >>> found = measure(Items(rows, ["a", "a", "b", "b", "a"]))
      >>> [(score.name, round(score.value, 3)) for score in found.scores[:2]]
      [('MAP@R', 0.6), ('recall@1', 0.6)]
    """
    queries = _kept(queries)
    gallery = None if gallery is None else _kept(gallery)
    classes, query_classes, gallery_classes = _classes(queries, gallery, class_names)
    size = len(query_classes), len(gallery_classes)
    groups = _groups(queries, gallery, query_classes, gallery_classes)
    fewest = _fewest(groups, size[1] - (gallery is None), gallery is None)
    if fewest < 1:
        raise ValueError(f"embeddings: got {size[1]} to search among, expected one more each query")
    among: dict[str, Any] = {"distance": distance}
    labelled: dict[str, Any] = {"cameras": queries.cameras}
    if gallery is not None:
        among |= {"gallery": gallery.embeddings}
        labelled |= {"gallery_labels": gallery_classes, "gallery_cameras": gallery.cameras}
    by_query = metrics.by_query(
        queries.embeddings,
        query_classes,
        ks=[k for k in KS if k <= fewest],
        whole=size[0] * size[1] <= _WHOLE,
        **among,
        **labelled,
    )
    nearest = retrieval.neighbours(queries.embeddings, k=min(SHOWN, fewest), **among, **groups)
    pairs = verification.draw(
        (queries.embeddings, query_classes, groups.get("groups")),
        None
        if gallery is None
        else (gallery.embeddings, gallery_classes, groups.get("gallery_groups")),
        distance=distance,
        seed=seed,
    )
    intervals = _intervals(by_query, confidence, seed)
    scores = [
        Score(key, name, float(np.nanmean(by_query[key])), *intervals[key], about)
        for key, (name, about) in _RETRIEVAL.items()
        if key in by_query
    ]
    scores += [Score(*one) for one in verification.scores(pairs, confidence, seed)]
    return Measured(
        queries,
        gallery,
        classes,
        query_classes,
        gallery_classes,
        scores,
        by_query,
        intervals,
        nearest,
        pairs,
        _health(queries.embeddings, seed),
        distance,
        confidence,
    )


def _intervals(
    by_query: Mapping[str, np.ndarray], confidence: float, seed: int
) -> dict[str, tuple[float, float]]:
    """The bootstrap interval of each mean; queries without a right answer are left out."""
    table = np.stack(list(by_query.values()))
    table = table[:, ~np.isnan(table).any(axis=0)]
    low, high = metrics.bootstrap(table, confidence=confidence, seed=seed)
    return dict(zip(by_query, zip(low.tolist(), high.tolist())))  # pyright: ignore[reportAttributeAccessIssue]


def _health(embeddings: Any, seed: int) -> dict[str, float]:
    rows = np.asarray(embeddings, np.float32)
    if len(rows) > _RANKED:
        rows = rows[np.random.default_rng(seed).choice(len(rows), _RANKED, replace=False)]
    return {name: float(x) for name, x in diagnostics.collapse(jnp.asarray(rows)).items()}


# ---------------------------------------------------------------- rows and classes


def _kept(items: Items) -> Items:
    """Without the rows to ignore."""
    labels = np.asarray(items.labels)
    if len(np.shape(items.embeddings)) != 2 or labels.shape != (len(items.embeddings),):
        raise ValueError(
            f"labels: got shape {labels.shape}, expected one a row of embeddings "
            f"{list(np.shape(items.embeddings))}"
        )
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind not in "iuU":
        raise TypeError(f"labels: got dtype {labels.dtype}, expected integers or strings")
    items = items._replace(labels=labels)
    if labels.dtype.kind == "U" or labels.min(initial=0) >= 0:
        return items
    return items.take(np.flatnonzero(labels >= 0))


def _classes(
    queries: Items, gallery: Items | None, names: Sequence[str] | Mapping[int, str] | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the classes and their numbers, from 0, of the queries and of the gallery."""
    labels = [queries.labels] if gallery is None else [queries.labels, gallery.labels]
    values, codes = np.unique(np.concatenate(labels), return_inverse=True)
    own = codes[: len(queries.labels)]
    other = own if gallery is None else codes[len(own) :]
    if names is None or values.dtype.kind == "U":
        return [str(value) for value in values], own, other
    if not isinstance(names, Mapping) and len(values) and int(values[-1]) >= len(names):
        raise ValueError(f"class_names: got {len(names)} for label {values[-1]}, expected one each")
    return [str(names[int(value)]) for value in values], own, other


def _groups(
    queries: Items, gallery: Items | None, own: np.ndarray, other: np.ndarray
) -> dict[str, Any]:
    """A number for each class and camera, as `neighbours` takes them; nothing without cameras."""
    if queries.cameras is None:
        return {}
    cameras = [np.asarray(queries.cameras)]
    if gallery is not None:
        if gallery.cameras is None:
            raise ValueError("cameras: got none of the gallery, expected those of both or neither")
        cameras.append(np.asarray(gallery.cameras))
    _, codes = np.unique(np.concatenate(cameras), return_inverse=True)
    count = int(codes.max(initial=0)) + 1
    groups: dict[str, Any] = {"groups": own * count + codes[: len(own)]}
    if gallery is not None:
        groups["gallery_groups"] = other * count + codes[len(own) :]
    return groups


def _fewest(groups: Mapping[str, np.ndarray], candidates: int, alone: bool) -> int:
    """Gallery rows that every query may find."""
    if not groups:
        return candidates
    others = groups.get("gallery_groups", groups["groups"])
    values, counts = np.unique(others, return_counts=True)
    met = counts[np.isin(values, groups["groups"])]
    return candidates + alone - int(met.max(initial=0))
