"""What the sections of the page hold: plain lists and numbers, of bounded size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdml._core.tsne import tsne
from jdml.report import verification
from jdml.report.measure import KS, Measured
from jdml.report.select import unit_rows
from jdml.report.sprite import sprite

MOST_QUERIES = 400  # in the gallery
MOST_POINTS = 1200  # of the map
MOST_CONFUSED = 24  # pairs of classes
_TABLE = 14  # classes in the table of confusions
_EACH = 40  # images of a class on the map


class Items:
    """The images that any section shows, each once; a section refers to them by number."""

    def __init__(self, measured: Measured):
        self._measured = measured
        self._numbers: dict[tuple[int, int], int] = {}
        self._gallery_side = 0 if measured.gallery is None else 1

    def query(self, row: Any) -> int:
        """The number of a query."""
        return self._number(0, row)

    def found(self, row: Any) -> int:
        """The number of a row of the gallery, or of the queries where they search themselves."""
        return self._number(self._gallery_side, row)

    def _number(self, side: int, row: Any) -> int:
        return self._numbers.setdefault((side, int(row)), len(self._numbers))

    def table(self) -> dict[str, list[int]]:
        """Class and row of each item."""
        classes = (self._measured.query_classes, self._measured.gallery_classes)
        return {
            "class": [int(classes[side][row]) for side, row in self._numbers],
            "row": [self._called(side, row) for side, row in self._numbers],
        }

    def _called(self, side: int, row: int) -> int:
        part = self._measured.gallery if side else self._measured.queries
        return row if part is None or part.numbers is None else int(part.numbers[row])

    def thumbnails(self) -> dict[str, Any] | None:
        """All of them in one picture; None without images."""
        gallery = self._measured.gallery
        sources = [self._measured.queries.images, None if gallery is None else gallery.images]
        return sprite(sources, list(self._numbers))


def contents(
    measured: Measured, *, log: Sequence[Mapping[str, float]] = (), seed: int = 0
) -> dict[str, Any]:
    """The data of the page.

    Args:
      measured: what was found.
      log: rows of numbers by "step", of a training run.
      seed: of what is drawn.

    Returns:
      What JSON takes; a section without data is None.
    """
    items = Items(measured)
    right, able = _right(measured), ~np.isnan(measured.by_query["map_at_r"])
    shown = _queries(measured, able)
    data = {
        "classes": measured.classes,
        "confidence": f"{measured.confidence:.0%}",
        "recall": _recall(measured, able),
        "pairs": _pairs(measured),
        "gallery": _gallery(measured, items, shown, right),
        "map": _map(measured, items, right, able, seed),
        "confusion": _confusion(measured, items, shown, able),
        "health": _health(measured),
        "training": training(log),
        "notes": {
            "gallery": _gallery_note(len(shown), int(able.sum())),
            "map": _map_note(len(able)),
        },
    }
    return data | {"items": items.table(), "thumbs": items.thumbnails()}


def _right(measured: Measured) -> np.ndarray:
    """Whether each neighbour is of the query's class, [B, k]."""
    found = measured.gallery_classes[measured.nearest.indices]
    return found == measured.query_classes[:, None]


def _recall(measured: Measured, able: np.ndarray) -> dict[str, Any]:
    ks = [k for k in KS if f"recall_at_{k}" in measured.by_query]
    curves = [measured.by_query[f"recall_at_{k}"][able] for k in ks]
    edges = [measured.intervals[f"recall_at_{k}"] for k in ks]
    return {
        "k": ks,
        "value": [_short(curve.mean()) for curve in curves],
        "low": [_short(low) for low, _ in edges],
        "high": [_short(high) for _, high in edges],
    }


def _pairs(measured: Measured) -> dict[str, Any] | None:
    pairs = measured.pairs
    counts = verification.binned(pairs)
    if counts is None:
        return None
    total, drawn = pairs.same_total + pairs.other_total, len(pairs.same)
    note = f"{drawn:,} pairs, all that there are." if drawn == total else (
        f"Counted on {drawn:,} of about {total:,} pairs, drawn at random; precision is that of all "
        f"of them, of which {pairs.same_total / total:.2%} are of one class."
    )  # fmt: skip
    return counts | {"name": verification.NAMES[measured.distance], "note": note}


# ---------------------------------------------------------------- queries and neighbours


def _queries(measured: Measured, able: np.ndarray) -> np.ndarray:
    """The queries shown: the worst of each class, then the worst and the best of the rest."""
    scores = np.where(able, measured.by_query["map_at_r"], np.inf)
    order = np.argsort(scores, kind="stable")[: int(able.sum())]
    classes = measured.query_classes[order]
    firsts = np.sort(np.unique(classes, return_index=True)[1])[:MOST_QUERIES]
    rest = np.delete(order, firsts)
    room = MOST_QUERIES - len(firsts)
    best = rest[len(rest) - room // 4 :] if len(rest) > room else rest[:0]
    worst = rest[: room - len(best)]
    return np.concatenate([order[firsts], worst, best]).astype(np.int64)


def _gallery_note(shown: int, able: int) -> str:
    if shown == able:
        return ""
    return (
        f"{shown:,} of {able:,} queries are here: the worst of each class, the worst of the rest, "
        "and some of the best."
    )


def _gallery(
    measured: Measured, items: Items, shown: np.ndarray, right: np.ndarray
) -> list[dict[str, Any]]:
    near, distances = measured.nearest
    similarity = {"cosine": lambda d: 1 - d, "dot": lambda d: -d}.get(
        measured.distance, lambda d: d
    )
    return [
        {
            "item": items.query(query),
            "score": _short(measured.by_query["map_at_r"][query]),
            "found": [items.found(row) for row in near[query]],
            "near": [_short(similarity(d)) for d in distances[query]],
            "right": right[query].astype(int).tolist(),
        }
        for query in shown
    ]


def _confusion(
    measured: Measured, items: Items, shown: np.ndarray, able: np.ndarray
) -> dict[str, Any] | None:
    """The pairs of classes confused most, and a table of their classes."""
    size = len(measured.classes)
    if size < 2:
        return None
    asked = measured.query_classes[able]
    found = measured.gallery_classes[measured.nearest.indices[able, 0]]
    values, firsts, counts = np.unique(asked * size + found, return_index=True, return_counts=True)
    total = np.bincount(asked, minlength=size)
    true, other = values // size, values % size
    wrong = np.flatnonzero(true != other)
    worst = wrong[np.lexsort((-counts[wrong] / total[true[wrong]], -counts[wrong]))][:MOST_CONFUSED]
    rows = np.flatnonzero(able)[firsts]
    with_queries = set(measured.query_classes[shown].tolist())
    pairs = [
        {
            "asked": int(true[i]),
            "found": int(other[i]),
            "count": int(counts[i]),
            "of": int(total[true[i]]),
            "items": [
                items.query(rows[i]),
                items.found(measured.nearest.indices[rows[i], 0]),
            ],
            "shown": int(true[i]) in with_queries,
        }
        for i in worst
    ]
    chosen = dict.fromkeys(np.stack([true[worst], other[worst]], axis=1).ravel().tolist())
    classes = sorted(list(dict.fromkeys([*chosen, *range(min(size, _TABLE))]))[:_TABLE])
    place = {one: i for i, one in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), int)
    others = np.zeros(len(classes), int)
    for a, b, count in zip(true.tolist(), other.tolist(), counts.tolist()):
        if a in place and b in place:
            table[place[a], place[b]] += count
        elif a in place:
            others[place[a]] += count
    matrix = {"classes": classes, "counts": table.tolist()}
    return {
        "pairs": pairs,
        "matrix": matrix | {"others": others.tolist() if len(classes) < size else None},
    }


# ---------------------------------------------------------------- map and training


def _map(
    measured: Measured, items: Items, right: np.ndarray, able: np.ndarray, seed: int
) -> dict[str, Any] | None:
    rows = _whole_classes(measured.query_classes, seed)
    if len(rows) < 4:
        return None
    embeddings = np.asarray(measured.queries.embeddings)[rows]
    places = tsne(unit_rows(embeddings, rows), seed=seed)
    span = np.ptp(places, axis=0)
    places = (places - places.min(axis=0)) / np.where(span == 0, 1, span)
    first = measured.gallery_classes[measured.nearest.indices[rows, 0]]
    return {
        "item": [items.query(row) for row in rows],
        "x": [_short(x) for x in places[:, 0]],
        "y": [_short(y) for y in places[:, 1]],
        "aspect": _short(np.clip(span[1] / max(span[0], 1e-9), 0.5, 2.0)),
        "right": np.where(able[rows], right[rows, 0], 2).tolist(),
        "found": first.tolist(),
    }


def _whole_classes(classes: np.ndarray, seed: int) -> np.ndarray:
    """All rows where they are few, else those of classes drawn at random, up to some of each."""
    if len(classes) <= MOST_POINTS:
        return np.arange(len(classes))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(classes))
    rank = rng.permutation(int(classes.max()) + 1)[classes[order]]
    order = order[np.argsort(rank, kind="stable")]
    start = np.searchsorted(np.sort(rank), np.sort(rank))
    return np.sort(order[np.arange(len(order)) - start < _EACH][:MOST_POINTS])


def _map_note(rows: int) -> str:
    some = f"{MOST_POINTS:,} of {rows:,} images, of classes drawn at random."
    return some if rows > MOST_POINTS else f"All {rows:,} images."


def _health(measured: Measured) -> list[dict[str, str]]:
    dim = np.shape(measured.queries.embeddings)[1]
    health = measured.health
    return [
        {
            "name": "Mean similarity",
            "value": f"{health['mean_similarity']:.3f}",
            "about": "of all pairs; 1 where all are one point",
        },
        {
            "name": "Effective rank",
            "value": f"{health['effective_rank']:.1f}",
            "about": f"dimensions in use, of {dim}",
        },
        {
            "name": "Variance",
            "value": _plain(health["variance"]),
            "about": "of the embeddings, all coordinates",
        },
    ]


_CURVES = {
    "loss": ("Loss", "of the batch", {"log": True}),
    "validation_map_at_r": ("MAP@R of validation", "of classes apart", {"min": 0, "max": 1}),
    "mean_similarity": ("Mean similarity", "of all pairs of a batch; 1 is a collapse", {"max": 1}),
    "effective_rank": ("Effective rank", "dimensions in use in a batch", {"min": 0}),
    "variance": ("Variance", "of the embeddings of a batch, all coordinates", {"log": True}),
    "active_fraction": ("Active tuples", "share with a loss above 0", {"min": 0, "max": 1}),
    "saturation": ("Saturation", "share of anchors with hardly any loss", {"min": 0, "max": 1}),
    "gradient_norm": ("Gradient norm", "before clipping", {"log": True}),
}


def training(log: Sequence[Mapping[str, float]]) -> list[dict[str, Any]] | None:
    """A curve for each number in a log that is known here; None without any."""
    curves = []
    for name, (title, about, axis) in _CURVES.items():
        told = [row for row in log if np.isfinite(row.get(name, np.nan))]
        told = (
            [told[i] for i in np.unique(np.linspace(0, len(told) - 1, 400).astype(int))]
            if told
            else []
        )
        if len(told) > 1:
            x, y = [row["step"] for row in told], [_short(row[name]) for row in told]
            curves.append({"title": title, "about": about, "x": x, "y": y, **axis})
    return curves or None


def _plain(x: float) -> str:
    return f"{x:,.0f}" if 1000 <= abs(x) < 1e6 else f"{x:.3g}"


def _short(x: Any) -> float:
    """Four digits are enough to draw."""
    return float(f"{float(x):.4g}")
