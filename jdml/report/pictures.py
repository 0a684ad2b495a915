"""Pictures of a run, written as PNG: training curve, retrieval gallery, similarities, map.

Each function takes plain arrays and a path, and writes the whole file or nothing. Colours are
told apart by colour-blind people too, and no meaning rests on colour alone. Matplotlib comes with
the `experiments` extra and is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from jdml._core.tsne import tsne
from jdml.report import drawing, select
from jdml.report.drawing import File, figure_in

_SHOWN = 9  # neighbours of a query in the gallery


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
      >>> import pathlib, tempfile
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "curve.png"
      >>> training_curve(file, [0, 1, 2], [3.0, 2.0, 1.5], {"MAP@R": ([0, 2], [0.2, 0.7])})
      >>> file.read_bytes()[1:4]
      b'PNG'
    """
    steps, losses = np.asarray(steps), np.asarray(losses, float)
    select.expect(
        steps.ndim == 1 and steps.shape == losses.shape, "losses", losses, "one a step, [S]"
    )
    select.expect(np.isfinite(losses).any(), "losses", losses, "at least one finite loss")
    window = max(1, len(losses) // 40)
    with figure_in(path, 8, 4.5) as figure:
        axes = figure.add_subplot()
        axes.plot(steps, losses, ".", color=drawing.BLUE, alpha=0.25, markersize=4)
        name = "loss" if window == 1 else f"loss, mean of {window} records"
        lines = axes.plot(
            steps, select.running_mean(losses, window), color=drawing.BLUE, lw=2, label=name
        )
        finite = losses[np.isfinite(losses)]
        if finite.min() > 0 and finite.max() > 30 * finite.min():
            axes.set_yscale("log")
        axes.set(xlabel="training step", ylabel="loss", title="Training")
        if validation:
            right = axes.twinx()
            right.set(ylim=(0, 1.02), ylabel="validation score (0 to 1)")
            styles = zip(cycle(drawing.CLASS_COLOURS[1:]), cycle(("o-", "s--", "^-.", "d:")))
            for (name, scores), (colour, style) in zip(validation.items(), styles):
                lines += right.plot(*scores, style, color=colour, label=name)
        else:
            axes.spines["right"].set_visible(False)
        drawing.legend_below(axes, handles=lines, ncols=4)


def retrieval_gallery(
    path: File,
    images: Any,
    labels: Any,
    neighbour_indices: Any,
    class_names: Sequence[str] | None = None,
    *,
    gallery_images: Any = None,
    gallery_labels: Any = None,
    queries: int = 8,
    seed: int = 0,
) -> None:
    """Queries and their nearest neighbours, right ones and wrong ones marked.

    A right neighbour has a blue frame and a tick, a wrong one a vermilion frame and a cross. Half
    the queries are drawn at random, half are the worst: those with the fewest right neighbours
    among those shown. Different classes come first; images without a class-mate are never drawn.

    Args:
      path: of the PNG file to write.
      images: [N, H, W], [N, H, W, 1] or [N, H, W, 3], integers to 255 or any floats; or whatever
        has a shape and gives such an array of a few images when it is indexed by their rows.
      labels: int [N].
      neighbour_indices: int [N, k], nearest first; the first 9 are shown.
      gallery_images: what the neighbours are among, like images; the images by default.
      gallery_labels: int [M], of these.
      class_names: name of each label. Left out where the font lacks their script: the pictures
        speak for them.
      queries: rows of the picture.
      seed: of the random choice.

    Raises:
      ValueError: shapes disagree, an index is out of range, or no image has a class-mate.
    """
    labels, indices = np.asarray(labels), np.asarray(neighbour_indices)
    images = select.as_pictures("images", images, labels)
    shaped = indices.ndim == 2 and indices.shape[1] > 0 and len(indices) == len(labels)
    select.expect(shaped, "neighbour_indices", indices, f"[{len(labels)}, k], one row an image")
    indices = indices[:, :_SHOWN]
    found, found_labels, mates = images, labels, 1
    if gallery_images is not None:
        found_labels, mates = np.asarray(gallery_labels), 0
        found = select.as_pictures("gallery_images", gallery_images, found_labels)
    inside = 0 <= indices.min() <= indices.max() < len(found_labels)
    select.expect(inside, "neighbour_indices", indices, f"rows 0 to {len(found_labels) - 1}")
    right = found_labels[indices] == labels[:, None]
    values, counts = np.unique(found_labels, return_counts=True)
    able = np.isin(labels, values[counts > mates])
    select.expect(able.any(), "labels", labels, "a class-mate for some image")
    drawn, worst = select.choose_queries(
        right.sum(axis=1), labels, np.flatnonzero(able), queries, seed
    )
    names = drawing.drawable_names(class_names, np.concatenate([labels, found_labels]))
    columns = indices.shape[1] + 1
    height = 8 / (columns + 0.5) * (1.25 if names else 1.04) * len(drawn) + 0.8
    with figure_in(path, 8, height) as figure:
        share = right[able, 0].mean()
        figure.suptitle(f"Nearest neighbours (the first is right for {share:.1%} of all queries)")
        grid = figure.subplots(len(drawn), columns, squeeze=False)
        for row, query in enumerate(drawn):
            items = [(images[query], labels[query])]
            items += [(found[item], found_labels[item]) for item in indices[query]]
            for axes, (image, label), mark in zip(grid[row], items, (None, *right[query])):
                drawing.framed(axes, image, mark)
                if names:
                    axes.set_xlabel(names[label][:12], fontsize=8, labelpad=2)
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
    rows = select.unit_rows(embeddings, labels)
    chosen = select.balanced(labels, most_rows, seed)
    first, second = np.triu_indices(len(chosen), 1)
    similarities = (rows[chosen] @ rows[chosen].T)[first, second].clip(-1, 1)
    same = labels[chosen][first] == labels[chosen][second]
    select.expect(same.any() and not same.all(), "labels", labels, "pairs of one class and of two")
    between = ("different classes", similarities[~same], drawing.VERMILION, "--")
    kinds = (("same class", similarities[same], drawing.BLUE, "-"), between)
    with figure_in(path, 8, 4.5) as figure:
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
        drawing.legend_below(axes, ncols=2)


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
    rows = select.unit_rows(embeddings, labels)
    select.expect(len(rows) >= 4, "embeddings", rows, "at least 4 rows")
    pictures = None if images is None else select.as_pictures("images", images, labels)
    chosen, coloured = select.choose_rows(labels, min(highlighted, 12), most_rows, seed)
    places, classes = tsne(rows[chosen], seed=seed), labels[chosen]
    names = drawing.drawable_names(class_names, coloured)
    span = np.ptp(places, axis=0) * 1.2  # room for pictures around
    with figure_in(path, 8, 8 * np.clip(span[1] / span[0], 0.5, 1.1) + 0.9) as figure:
        axes = figure.add_subplot(aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.scatter(*places[~np.isin(classes, coloured)].T, s=9, color="gray", alpha=0.4, lw=0)
        taken: list[np.ndarray] = []
        for number, label in enumerate(coloured):
            here = np.flatnonzero(classes == label)
            colour, marker = drawing.CLASS_COLOURS[number % 6], drawing.MARKERS[number // 6]
            style = {"s": 36, "ec": "black", "lw": 0.4, "label": names.get(label)}
            axes.scatter(*places[here].T, color=colour, marker=marker, **style)
            if pictures is not None:
                middle = np.median(places[here], axis=0)
                nearest = here[np.square(places[here] - middle).sum(axis=1).argmin()]
                taken.append(drawing.free_place(places[nearest], places, taken, span[0] / (8 * 72)))
                drawing.thumbnail(
                    axes, pictures[chosen[nearest]], places[nearest], taken[-1], colour
                )
        center = (places.max(axis=0) + places.min(axis=0)) / 2
        low, high = center - span / 2, center + span / 2
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        some = f"{len(chosen):,} of {len(rows):,}" if len(chosen) < len(rows) else f"{len(rows):,}"
        axes.set_title(f"Map of {some} embeddings (t-SNE), {len(coloured)} classes coloured")
        if names:
            drawing.legend_below(axes, ncols=6, below=-0.01)
