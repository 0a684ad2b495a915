"""Pictures of a run, written as PNG: training curve, retrieval gallery, similarities, map.

Each function takes plain arrays and a path, and writes the whole file or nothing. Colours are
told apart by colour-blind people too, and no meaning rests on colour alone. Matplotlib comes with
the `experiments` extra and is imported where it is used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jdml._core.tsne import tsne

File: TypeAlias = str | os.PathLike[str]

# Okabe and Ito's colours; six of them with two markers tell twelve classes apart.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
_CLASS_COLOURS = (_BLUE, _VERMILION, "#009E73", "#E69F00", "#56B4E9", "#CC79A7")
_MARKERS = ("o", "^")
_DOTS_PER_INCH = 130  # 8 inches are 1040 pixels: sharp where a page shows them 800 wide
_SHOWN = 9  # neighbours of a query in the gallery
_THUMBNAIL = 26.0  # points, 1/72 of an inch
_STYLE: dict[Any, Any] = {"font.size": 11, "axes.titlesize": 13, "axes.spines.top": False}


def training_curve(
    path: File, steps: Any, losses: Any, validation: Mapping[str, tuple[Any, Any]] | None = None
) -> None:
    """The loss over the steps of training, and validation scores beside it.

    Every logged loss is a faint dot, its running mean a line; the axis is logarithmic when losses
    are positive and span more than a factor of 30. Validation scores have the axis on the right.

    Args:
      path: of the PNG file to write.
      steps: [S], the step of each loss.
      losses: [S]; those that are not finite leave a gap.
      validation: name of each score -> (steps, scores), scores between 0 and 1.

    Raises:
      ValueError: lengths disagree, or no loss is finite.

    Example:
      >>> import tempfile
      >>> file = Path(tempfile.mkdtemp()) / "curve.png"
      >>> training_curve(file, [0, 1, 2], [3.0, 2.0, 1.5], {"MAP@R": ([0, 2], [0.2, 0.7])})
      >>> file.read_bytes()[1:4]
      b'PNG'
    """
    steps, losses = np.asarray(steps), np.asarray(losses, float)
    _expect(steps.ndim == 1 and steps.shape == losses.shape, "losses", losses, "one a step, [S]")
    _expect(np.isfinite(losses).any(), "losses", losses, "at least one finite loss")
    window = max(1, len(losses) // 40)
    with _drawing(path, 8, 4.5) as figure:
        axes = figure.add_subplot()
        axes.plot(steps, losses, ".", color=_BLUE, alpha=0.25, markersize=4)
        name = "loss" if window == 1 else f"loss, mean of {window} records"
        lines = axes.plot(steps, _running_mean(losses, window), color=_BLUE, lw=2, label=name)
        finite = losses[np.isfinite(losses)]
        if finite.min() > 0 and finite.max() > 30 * finite.min():
            axes.set_yscale("log")
        axes.set(xlabel="training step", ylabel="loss", title="Training")
        if validation:
            right = axes.twinx()
            right.set(ylim=(0, 1.02), ylabel="validation score (0 to 1)")
            styles = zip(cycle(_CLASS_COLOURS[1:]), cycle(("o-", "s--", "^-.", "d:")))
            for (name, scores), (colour, style) in zip(validation.items(), styles):
                lines += right.plot(*scores, style, color=colour, label=name)
        else:
            axes.spines["right"].set_visible(False)
        _legend_below(axes, handles=lines, ncols=4)


def retrieval_gallery(
    path: File,
    images: Any,
    labels: Any,
    neighbour_indices: Any,
    class_names: Sequence[str] | None = None,
    *,
    queries: int = 8,
    seed: int = 0,
) -> None:
    """Queries and their nearest neighbours, right ones and wrong ones marked.

    A right neighbour has a blue frame and a tick, a wrong one a vermilion frame and a cross. Half
    the queries are drawn at random, half are the worst: those with the fewest right neighbours
    among those shown. Different classes come first; images without a class-mate are never drawn.

    Args:
      path: of the PNG file to write.
      images: [N, H, W], [N, H, W, 1] or [N, H, W, 3], integers to 255 or any floats.
      labels: int [N].
      neighbour_indices: int [N, k], nearest first; the first 9 are shown.
      class_names: name of each label. Left out where the font lacks their script: the pictures
        speak for them.
      queries: rows of the picture.
      seed: of the random choice.

    Raises:
      ValueError: shapes disagree, an index is out of range, or no image has a class-mate.
    """
    labels, indices = np.asarray(labels), np.asarray(neighbour_indices)
    images = _pictures("images", images, labels)
    shaped = indices.ndim == 2 and indices.shape[1] > 0 and len(indices) == len(labels)
    _expect(shaped, "neighbour_indices", indices, f"[{len(labels)}, k], one row an image")
    indices = indices[:, :_SHOWN]
    inside = 0 <= indices.min() <= indices.max() < len(labels)
    _expect(inside, "neighbour_indices", indices, f"rows 0 to {len(labels) - 1}")
    right = labels[indices] == labels[:, None]
    values, counts = np.unique(labels, return_counts=True)
    able = np.isin(labels, values[counts > 1])
    _expect(able.any(), "labels", labels, "a class-mate for some image")
    drawn, worst = _choose_queries(right.sum(axis=1), labels, np.flatnonzero(able), queries, seed)
    names = _names(class_names, labels)
    columns = indices.shape[1] + 1
    height = 8 / (columns + 0.5) * (1.25 if names else 1.04) * len(drawn) + 0.8
    with _drawing(path, 8, height) as figure:
        share = right[able, 0].mean()
        figure.suptitle(f"Nearest neighbours (the first is right for {share:.1%} of all queries)")
        grid = figure.subplots(len(drawn), columns, squeeze=False)
        for row, query in enumerate(drawn):
            items = (query, *indices[query])
            for axes, item, mark in zip(grid[row], items, (None, *right[query])):
                _framed(axes, images[item], mark)
                if names:
                    axes.set_xlabel(names[labels[item]][:12], fontsize=8, labelpad=2)
            grid[row, 0].set_ylabel("worst" if row >= len(drawn) - worst else "random")
        for column, axes in enumerate(grid[0]):
            axes.set_title(str(column) if column else "query", fontsize=11)


def similarity_histogram(
    path: File, embeddings: Any, labels: Any, *, most_rows: int = 3000, seed: int = 0
) -> None:
    """Cosine similarities of pairs of one class and of pairs of two classes.

    The less the two overlap, the better a threshold verifies. Each is shown as a share of its own
    pairs, for there are far more pairs of two classes. All pairs are taken of at most `most_rows`
    rows; of more, that many are drawn, as many of each class as can be.

    Args:
      path: of the PNG file to write.
      embeddings: [N, D].
      labels: int [N].
      most_rows: rows whose pairs are taken.
      seed: of the random choice.

    Raises:
      ValueError: shapes disagree, or there is no pair of one of the kinds.
    """
    labels = np.asarray(labels)
    rows = _unit_rows(embeddings, labels)
    chosen = _balanced(labels, most_rows, seed)
    first, second = np.triu_indices(len(chosen), 1)
    similarities = (rows[chosen] @ rows[chosen].T)[first, second].clip(-1, 1)
    same = labels[chosen][first] == labels[chosen][second]
    _expect(same.any() and not same.all(), "labels", labels, "pairs of one class and of two")
    between = ("different classes", similarities[~same], _VERMILION, "--")
    kinds = (("same class", similarities[same], _BLUE, "-"), between)
    with _drawing(path, 8, 4.5) as figure:
        axes = figure.add_subplot()
        for name, values, colour, line in kinds:
            label = f"{name} ({len(values):,} pairs)"
            counts, edges = np.histogram(values, np.linspace(-1, 1, 101))
            share = 100 * counts / len(values)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(share, edges, color=colour, ls=line, lw=1.8, label=label)
        lowest = np.floor(10 * min(np.quantile(kind[1], 0.0005) for kind in kinds)) / 10
        axes.set(xlim=(max(-1.0, lowest), 1.0), ylim=(0, None))
        axes.set(xlabel="cosine similarity of a pair", ylabel="share of the pairs (% per 0.02)")
        axes.set_title("Similarities within and between classes")
        axes.spines["right"].set_visible(False)
        _legend_below(axes, ncols=2)


def embedding_map(
    path: File,
    embeddings: Any,
    labels: Any,
    images: Any = None,
    class_names: Sequence[str] | None = None,
    *,
    highlighted: int = 12,
    most_rows: int = 1500,
    seed: int = 0,
) -> None:
    """A map of the embedding: rows close by cosine similarity lie close together.

    Some classes, drawn at random, are coloured, the other rows grey; a picture of each coloured
    class stands beside its middle. Clusters that keep together and apart are what training is for;
    the size of clusters and the distance between far ones mean little in such a map.

    Args:
      path: of the PNG file to write.
      embeddings: [N, D].
      labels: int [N].
      images: as in `retrieval_gallery`, or None for no pictures.
      class_names: name of each label, for a legend where the font has their script.
      highlighted: classes coloured, at most 12.
      most_rows: rows drawn, at most half of them of the coloured classes.
      seed: of the random choice and of the map.

    Raises:
      ValueError: shapes disagree, or there are fewer than 4 rows.
    """
    labels = np.asarray(labels)
    rows = _unit_rows(embeddings, labels)
    _expect(len(rows) >= 4, "embeddings", rows, "at least 4 rows")
    pictures = None if images is None else _pictures("images", images, labels)
    chosen, coloured = _choose_rows(labels, min(highlighted, 12), most_rows, seed)
    places, classes = tsne(rows[chosen], seed=seed), labels[chosen]
    names = _names(class_names, coloured)
    span = np.ptp(places, axis=0) * 1.2  # room for pictures around
    with _drawing(path, 8, 8 * np.clip(span[1] / span[0], 0.5, 1.1) + 0.9) as figure:
        axes = figure.add_subplot(aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.scatter(*places[~np.isin(classes, coloured)].T, s=9, color="gray", alpha=0.4, lw=0)
        taken: list[np.ndarray] = []
        for number, label in enumerate(coloured):
            here = np.flatnonzero(classes == label)
            colour, marker = _CLASS_COLOURS[number % 6], _MARKERS[number // 6]
            style = {"s": 36, "ec": "black", "lw": 0.4, "label": names.get(label)}
            axes.scatter(*places[here].T, color=colour, marker=marker, **style)
            if pictures is not None:
                middle = np.median(places[here], axis=0)
                nearest = here[np.square(places[here] - middle).sum(axis=1).argmin()]
                taken.append(_free_place(places[nearest], places, taken, span[0] / (8 * 72)))
                _thumbnail(axes, pictures[chosen[nearest]], places[nearest], taken[-1], colour)
        center = (places.max(axis=0) + places.min(axis=0)) / 2
        low, high = center - span / 2, center + span / 2
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        some = f"{len(chosen):,} of {len(rows):,}" if len(chosen) < len(rows) else f"{len(rows):,}"
        axes.set_title(f"Map of {some} embeddings (t-SNE), {len(coloured)} classes coloured")
        if names:
            _legend_below(axes, ncols=6, below=-0.01)


# ---------------------------------------------------------------- drawing


@contextlib.contextmanager
def _drawing(path: File, width: float, height: float) -> Iterator[Any]:
    """A figure in inches, written to `path` in one step once it is drawn without error."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(unfinished, format="png", dpi=_DOTS_PER_INCH)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def _names(class_names: Sequence[str] | None, labels: np.ndarray) -> dict[int, str]:
    """The name of each label, or nothing when the font lacks a character of any of them."""
    from matplotlib import font_manager

    if class_names is None:
        return {}
    _expect(labels.max() < len(class_names), "labels", labels, f"below {len(class_names)} names")
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    names = {int(label): str(class_names[label]) for label in np.unique(labels)}
    drawable = all(font.get_char_index(ord(character)) for character in "".join(names.values()))
    return names if drawable else {}


def _framed(axes: Any, image: np.ndarray, right: bool | None) -> None:
    """An image; right: blue frame and tick, wrong: vermilion frame and cross, None: a query."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=1.0, color="black")
    if right is None:
        return
    colour = _BLUE if right else _VERMILION
    axes.spines[:].set(linewidth=2.6, color=colour)
    badge = {"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"}
    style = {"fontsize": 9, "color": "white", "ha": "right", "va": "bottom", "bbox": badge}
    axes.text(0.97, 0.03, "\u2713" if right else "\u2717", transform=axes.transAxes, **style)


def _legend_below(axes: Any, below: float = -0.16, **options: Any) -> None:
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, below), **options)


def _thumbnail(axes: Any, image: np.ndarray, at: Any, beside: Any, colour: str) -> None:
    """A framed image at `beside` with a line to `at`, in the units of the data."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    zoom = _THUMBNAIL / max(image.shape[:2])
    box = OffsetImage(image, zoom=zoom, cmap="gray", interpolation="nearest")
    box.image.set_clim(0, 1)
    frame = {"edgecolor": colour, "linewidth": 2.2, "boxstyle": "square,pad=0.05"}
    line = {"arrowstyle": "-", "color": colour, "linewidth": 1.2}
    style = {"bboxprops": frame, "arrowprops": line, "pad": 0.1, "zorder": 5}
    axes.add_artist(AnnotationBbox(box, tuple(at), xybox=tuple(beside), boxcoords="data", **style))


def _free_place(
    at: np.ndarray, places: np.ndarray, taken: list[np.ndarray], point: float
) -> np.ndarray:
    """Where near `at` a thumbnail covers no other one and few places; `point` is 1/72 inch."""
    angles = np.arange(16) * np.pi / 8
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * _THUMBNAIL * point
    tries = at + np.concatenate([1.3 * ring, 2.0 * ring, 2.8 * ring])
    reach = 0.75 * _THUMBNAIL * point
    covered = (np.abs(tries[:, None] - places[None]).max(axis=2) < reach).sum(axis=1)
    for other in taken:
        covered += len(places) * (np.abs(tries - other).max(axis=1) < 2 * reach)
    return tries[covered.argmin()]


# ---------------------------------------------------------------- numbers


def _expect(ok: bool | np.bool, name: str, got: np.ndarray, expected: str) -> None:
    if not ok:
        raise ValueError(f"{name}: got {got.dtype}{list(got.shape)}, expected {expected}")


def _pictures(name: str, images: Any, labels: np.ndarray) -> np.ndarray:
    """Images as floats from 0 to 1, [N, H, W] or [N, H, W, 3]."""
    array = np.asarray(images)
    array = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
    shaped = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)
    _expect(shaped, name, array, "[N, H, W], [N, H, W, 1] or [N, H, W, 3]")
    _expect(labels.shape == (len(array),), f"labels of {name}", labels, f"[{len(array)}]")
    if array.dtype.kind in "iu":
        return np.clip(array, 0, 255) / np.float32(255)
    low, high = min(0.0, float(array.min())), max(1.0, float(array.max()))
    return (array.astype(np.float32) - low) / (high - low)


def _unit_rows(embeddings: Any, labels: np.ndarray) -> np.ndarray:
    rows = np.asarray(embeddings, np.float32)
    _expect(rows.ndim == 2, "embeddings", rows, "[N, D]")
    _expect(labels.shape == (len(rows),), "labels", labels, f"[{len(rows)}], one a row")
    _expect(np.isfinite(rows).all(), "embeddings", rows, "finite numbers")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over a centred window of what is finite there, narrower at the ends."""
    finite = np.isfinite(values)
    ones = np.ones(window)
    total = np.convolve(np.where(finite, values, 0.0), ones, "same")
    count = np.convolve(finite.astype(float), ones, "same")
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def _choose_queries(
    hits: np.ndarray, labels: np.ndarray, able: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, int]:
    """Queries among `able`, random ones first, and how many of the worst ones follow."""
    shuffled = np.random.default_rng(seed).permutation(able)
    firsts = np.sort(np.unique(labels[shuffled], return_index=True)[1])  # one of each class
    shuffled = np.concatenate([shuffled[firsts], np.delete(shuffled, firsts)])
    worst = shuffled[np.argsort(hits[shuffled], kind="stable")][: count // 2]
    random = shuffled[~np.isin(shuffled, worst)][: count - len(worst)]
    return np.concatenate([random, worst]), len(worst)


def _choose_rows(
    labels: np.ndarray, classes: int, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to draw and the coloured classes, whose rows are at most half where there are others."""
    rng = np.random.default_rng(seed)
    values, counts = np.unique(labels, return_counts=True)
    values = values[counts > 1] if (counts > 1).any() else values
    coloured = np.sort(rng.permutation(values)[:classes])
    shuffled = rng.permutation(len(labels))
    of_class = np.isin(labels[shuffled], coloured)
    first = shuffled[of_class][: most // 2 if not of_class.all() else most]
    return np.concatenate([first, shuffled[~of_class][: most - len(first)]]), coloured


def _balanced(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """All rows, or about `most` of them: as many of each class as can be, at least 2."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    if len(labels) <= most:
        return shuffled
    _, codes = np.unique(labels[shuffled], return_inverse=True)
    order = np.argsort(codes, kind="stable")
    place = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])  # within its class
    each = max(2, most // (int(codes.max()) + 1))
    return shuffled[order[place < each]][:most]
