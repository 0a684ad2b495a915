"""Pictures of a run, written as PNG: training curve, retrieval gallery, similarities, map.

Each function takes plain arrays and a path, and writes the whole file or nothing. Colours are
told apart by colour-blind people too, and no meaning rests on colour alone. Matplotlib is imported
where it is used, and scikit-learn for the map: both come with the `experiments` extra.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

File: TypeAlias = str | os.PathLike[str]

# Okabe and Ito's colours; six of them with two markers tell twelve classes apart.
_BLUE, _VERMILION, _GREEN, _ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
_CLASS_COLOURS = (_BLUE, _VERMILION, _GREEN, _ORANGE, "#56B4E9", "#CC79A7")
_MARKERS = ("o", "^")
_GREY = "#9A9A9A"
_DOTS_PER_INCH = 130  # 8 inches are 1040 pixels: sharp where a page shows them 800 wide
_SHOWN = 9  # neighbours of a query in the gallery
_STYLE = {"font.size": 11, "axes.titlesize": 13, "axes.spines.top": False}


def training_curve(
    path: File,
    steps: Any,
    losses: Any,
    validation: Mapping[str, tuple[Any, Any]] | None = None,
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
    _expect(bool(np.isfinite(losses).any()), "losses", losses, "at least one finite loss")
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
            styles = zip((_VERMILION, _GREEN, _ORANGE, "black"), ("o-", "s--", "^-.", "d:"))
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

    A right neighbour has a solid blue frame and a tick, a wrong one a dashed vermilion frame and a
    cross. Half the queries are drawn at random, half are the worst: those with the fewest right
    neighbours among those shown. Queries without a class-mate are never drawn.

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
    _expect(bool(able.any()), "labels", labels, "a class-mate for some image")
    drawn, worst = _choose_queries(right.sum(axis=1), np.flatnonzero(able), queries, seed)
    named = class_names is not None and all(map(_drawable, class_names))
    names = class_names if named and class_names is not None else {}

    columns = indices.shape[1] + 1
    height = 8 / (columns + 0.5) * (1.25 if names else 1.04) * len(drawn) + 0.8
    with _drawing(path, 8, height) as figure:
        share = right[able, 0].mean()
        figure.suptitle(
            f"Nearest neighbours of {len(drawn)} queries (first right: {share:.1%} of all)"
        )
        grid = figure.subplots(len(drawn), columns, squeeze=False)
        for row, query in enumerate(drawn):
            items = (query, *indices[query])
            for axes, item, mark in zip(grid[row], items, (None, *right[query])):
                _framed(axes, images[item], mark)
                if names:
                    axes.set_xlabel(str(names[int(labels[item])])[:12], fontsize=8, labelpad=2)
            grid[row, 0].set_ylabel("worst" if row >= len(drawn) - worst else "random")
        for column, axes in enumerate(grid[0]):
            axes.set_title(str(column) if column else "query", fontsize=11)


def similarity_histogram(
    path: File, embeddings: Any, labels: Any, *, most_pairs: int = 1_000_000, seed: int = 0
) -> None:
    """Cosine similarities of pairs of one class and of pairs of two classes.

    The less the two overlap, the better a threshold verifies. Each is shown as a share of its own
    pairs, for there are far more pairs of two classes. All pairs are taken where there are at most
    `most_pairs` of a kind, else that many drawn at random.

    Args:
      path: of the PNG file to write.
      embeddings: [N, D].
      labels: int [N].
      most_pairs: of either kind.
      seed: of the random choice.

    Raises:
      ValueError: shapes disagree, or there is no pair of one of the kinds.
    """
    labels = np.asarray(labels)
    rows = _unit_rows(embeddings, labels)
    found = {}
    for same, name in ((True, "same class"), (False, "different classes")):
        first, second, total = _pairs(labels, same, most_pairs, np.random.default_rng(seed))
        _expect(total > 0, "labels", labels, f"at least one pair of {name}")
        drawn = "" if len(first) == total else f"{len(first):,} of "
        found[f"{name} ({drawn}{total:,} pairs)"] = _similarities(rows, first, second)
    with _drawing(path, 8, 4.5) as figure:
        axes = figure.add_subplot()
        for (name, values), colour, line in zip(found.items(), (_BLUE, _VERMILION), ("-", "--")):
            style = {
                "bins": np.linspace(-1, 1, 101),
                "weights": np.full(len(values), 100 / len(values)),
            }
            axes.hist(values, color=colour, alpha=0.3, **style)
            axes.hist(values, color=colour, ls=line, lw=1.8, histtype="step", label=name, **style)
        lowest = min(np.quantile(values, 0.0005) for values in found.values())
        axes.set_xlim(max(-1.0, np.floor(lowest * 10) / 10), 1.0)
        axes.spines["right"].set_visible(False)
        axes.set(xlabel="cosine similarity of a pair", ylabel="share of the pairs (% per 0.02)")
        axes.set_title("Similarities within and between classes")
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

    Reference:
      van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    labels = np.asarray(labels)
    rows = _unit_rows(embeddings, labels)
    _expect(len(rows) >= 4, "embeddings", rows, "at least 4 rows")
    pictures = None if images is None else _pictures("images", images, labels)
    chosen, coloured = _choose_rows(labels, min(highlighted, 12), most_rows, seed)
    places, classes = _project(rows[chosen], seed), labels[chosen]
    named = class_names is not None and all(_drawable(class_names[int(c)]) for c in coloured)
    with _drawing(path, 8, 8) as figure:
        axes = figure.add_subplot()
        axes.scatter(*places[~np.isin(classes, coloured)].T, s=9, color=_GREY, alpha=0.5, lw=0)
        for number, label in enumerate(coloured):
            here = np.flatnonzero(classes == label)
            colour, marker = _CLASS_COLOURS[number % 6], _MARKERS[number // 6]
            axes.scatter(*places[here].T, s=36, color=colour, marker=marker, ec="black", lw=0.4,
                         label=class_names[int(label)] if named and class_names else None)  # fmt: skip
            if pictures is not None:
                middle = np.median(places[here], axis=0)
                nearest = here[np.square(places[here] - middle).sum(axis=1).argmin()]
                _thumbnail(axes, pictures[chosen[nearest]], places[nearest], places.mean(0), colour)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.1)
        some = f"{len(chosen):,} of {len(rows):,}" if len(chosen) < len(rows) else f"{len(rows):,}"
        axes.set_title(
            f"Map of the embedding (t-SNE): {some} rows, {len(coloured)} classes coloured"
        )
        if named:
            _legend_below(axes, ncols=6, below=-0.01)


# ---------------------------------------------------------------- drawing


@contextlib.contextmanager
def _drawing(path: str | os.PathLike[str], width: float, height: float) -> Iterator[Any]:
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


def _drawable(text: str) -> bool:
    """Whether the font has every character of the text."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return all(font.get_char_index(ord(character)) for character in str(text))


def _framed(axes: Any, image: np.ndarray, right: bool | None) -> None:
    """An image; right: solid frame and tick, wrong: dashed frame and cross, None: a query."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set(linewidth=1.0, color="black")
    if right is None:
        return
    colour = _BLUE if right else _VERMILION
    axes.spines[:].set(linewidth=2.6, color=colour, linestyle="-" if right else (0, (2, 1)))
    badge = {"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"}
    axes.text(0.97, 0.03, "\u2713" if right else "\u2717", transform=axes.transAxes, fontsize=9,
              color="white", ha="right", va="bottom", bbox=badge)  # fmt: skip


def _legend_below(axes: Any, below: float = -0.16, **options: Any) -> None:
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, below), **options)


def _thumbnail(
    axes: Any, image: np.ndarray, place: np.ndarray, center: np.ndarray, colour: str
) -> None:
    """A small framed image beside `place`, on the side away from `center`."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    inches = 0.36
    zoom = inches * 72 / max(image.shape[:2])
    box = OffsetImage(image, zoom=zoom, cmap="gray", interpolation="nearest")
    box.image.set_clim(0, 1)
    frame = {"edgecolor": colour, "linewidth": 2.2, "boxstyle": "square,pad=0.05"}
    line = {"arrowstyle": "-", "color": colour, "linewidth": 1.2}
    away = place - center
    shift = 40 * away / max(float(np.hypot(*away)), 1e-9)
    axes.add_artist(
        AnnotationBbox(
            box,
            place,
            xybox=shift,
            boxcoords="offset points",
            frameon=True,
            bboxprops=frame,
            arrowprops=line,
            pad=0.1,
            zorder=5,
        )  # fmt: skip
    )


# ---------------------------------------------------------------- numbers


def _expect(ok: bool, name: str, got: np.ndarray, expected: str) -> None:
    if not ok:
        raise ValueError(f"{name}: got {got.dtype}{list(got.shape)}, expected {expected}")


def _pictures(name: str, images: Any, labels: np.ndarray) -> np.ndarray:
    """Images as floats from 0 to 1, [N, H, W] or [N, H, W, 3]."""
    array = np.asarray(images)
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
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
    _expect(bool(np.isfinite(rows).all()), "embeddings", rows, "finite numbers")
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
    hits: np.ndarray, able: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, int]:
    """Queries among `able`, random ones first, and how many of the worst ones follow."""
    shuffled = np.random.default_rng(seed).permutation(able)
    worst = shuffled[np.argsort(hits[shuffled], kind="stable")][: count // 2]
    random = shuffled[~np.isin(shuffled, worst)][: count - len(worst)]
    return np.concatenate([random, worst]), len(worst)


def _choose_rows(
    labels: np.ndarray, classes: int, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to draw, at most half of them of coloured classes where there are others; the classes."""
    rng = np.random.default_rng(seed)
    values, counts = np.unique(labels, return_counts=True)
    values = values[counts > 1] if (counts > 1).any() else values
    coloured = np.sort(rng.permutation(values)[:classes])
    shuffled = rng.permutation(len(labels))
    of_class = np.isin(labels[shuffled], coloured)
    first = shuffled[of_class][: most // 2 if not of_class.all() else most]
    return np.concatenate([first, shuffled[~of_class][: most - len(first)]]), coloured


def _pairs(
    labels: np.ndarray, same: bool, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs of rows of one class, or of two: all of them or `most` drawn; and how many there are."""
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    start = np.searchsorted(sorted_labels, sorted_labels, "left")
    stop = np.searchsorted(sorted_labels, sorted_labels, "right")
    size, rank = len(labels), np.arange(len(labels))
    # Counted from the row's own class-mates, or from the end of its class, round and round.
    partners = stop - start - 1 if same else size - (stop - start)
    total = int(partners.sum()) // 2
    if total <= most:
        later = stop - rank - 1 if same else size - stop  # every pair once, from its first row
        first = np.repeat(rank, later)
        within = np.arange(len(first)) - np.repeat(np.cumsum(later) - later, later)
        second = (first + 1 if same else stop[first]) + within
    else:
        first = rng.choice(size, size=most, p=partners / partners.sum())
        step = rng.integers(0, partners[first])
        around = (
            start[first] + (first - start[first] + 1 + step) % np.maximum(stop - start, 1)[first]
        )
        second = around if same else (stop[first] + step) % size
    return order[first], order[second], total


def _similarities(rows: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Inner products of pairs of rows, a stretch at a time to bound the memory."""
    out = np.empty(len(first), np.float32)
    for at in range(0, len(first), 1 << 16):
        part = slice(at, at + (1 << 16))
        out[part] = np.einsum("nd,nd->n", rows[first[part]], rows[second[part]])
    return out.clip(-1, 1)


def _project(rows: np.ndarray, seed: int) -> np.ndarray:
    """Two dimensions of rows: t-SNE of their first 50 principal components."""
    from sklearn.manifold import TSNE

    centred = rows - rows.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    components = centred @ axes[:50].T
    start = np.random.default_rng(seed).normal(size=(len(rows), 2)).astype(np.float32)
    if values[0] > 1e-6 * len(rows):  # else all rows are the same, and noise tells that too
        width = min(2, components.shape[1])
        start[:, :width] = components[:, :width] / components[:, 0].std()
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=1e-4 * start, random_state=seed)
    return tsne.fit_transform(components)
