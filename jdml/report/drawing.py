"""What the PNG pictures share: a figure written in one step, frames, thumbnails and legends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from jdml.report.select import expect

File: TypeAlias = str | os.PathLike[str]

# Okabe and Ito's colours; six of them with two markers tell twelve classes apart.
BLUE, VERMILION = "#0072B2", "#D55E00"
CLASS_COLOURS = (BLUE, VERMILION, "#009E73", "#E69F00", "#56B4E9", "#CC79A7")
MARKERS = ("o", "^")
DOTS_PER_INCH = 130  # 8 inches are 1040 pixels: sharp where a page shows them 800 wide
THUMBNAIL = 26.0  # points, 1/72 of an inch
_STYLE: dict[Any, Any] = {"font.size": 11, "axes.titlesize": 13, "axes.spines.top": False}


@contextlib.contextmanager
def figure_in(path: File, width: float, height: float) -> Iterator[Any]:
    """A figure in inches, written to `path` in one step once it is drawn without error."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        try:
            figure.savefig(unfinished, format="png", dpi=DOTS_PER_INCH)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def drawable_names(class_names: Sequence[str] | None, labels: np.ndarray) -> dict[int, str]:
    """The name of each label, or nothing when the font lacks a character of any of them."""
    from matplotlib import font_manager

    if class_names is None:
        return {}
    expect(labels.max() < len(class_names), "labels", labels, f"below {len(class_names)} names")
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    names = {int(label): str(class_names[label]) for label in np.unique(labels)}
    drawable = all(font.get_char_index(ord(character)) for character in "".join(names.values()))
    return names if drawable else {}


def framed(axes: Any, image: np.ndarray, right: bool | None) -> None:
    """An image; right: blue frame and tick, wrong: vermilion frame and cross, None: a query."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=1.0, color="black")
    if right is None:
        return
    colour = BLUE if right else VERMILION
    axes.spines[:].set(linewidth=2.6, color=colour)
    badge = {"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"}
    style = {"fontsize": 9, "color": "white", "ha": "right", "va": "bottom", "bbox": badge}
    axes.text(0.97, 0.03, "\u2713" if right else "\u2717", transform=axes.transAxes, **style)


def legend_below(axes: Any, below: float = -0.16, **options: Any) -> None:
    """A legend without a frame under the axes, `below` in their heights."""
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, below), **options)


def thumbnail(axes: Any, image: np.ndarray, at: Any, beside: Any, colour: str) -> None:
    """A framed image at `beside` with a line to `at`, in the units of the data."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    zoom = THUMBNAIL / max(image.shape[:2])
    box = OffsetImage(image, zoom=zoom, cmap="gray", interpolation="nearest")
    box.image.set_clim(0, 1)
    frame = {"edgecolor": colour, "linewidth": 2.2, "boxstyle": "square,pad=0.05"}
    line = {"arrowstyle": "-", "color": colour, "linewidth": 1.2}
    style = {"bboxprops": frame, "arrowprops": line, "pad": 0.1, "zorder": 5}
    axes.add_artist(AnnotationBbox(box, tuple(at), xybox=tuple(beside), boxcoords="data", **style))


def free_place(
    at: np.ndarray, places: np.ndarray, taken: list[np.ndarray], point: float
) -> np.ndarray:
    """Where near `at` a thumbnail covers no other one and few places; `point` is 1/72 inch."""
    angles = np.arange(16) * np.pi / 8
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * THUMBNAIL * point
    tries = at + np.concatenate([1.3 * ring, 2.0 * ring, 2.8 * ring])
    reach = 0.75 * THUMBNAIL * point
    covered = (np.abs(tries[:, None] - places[None]).max(axis=2) < reach).sum(axis=1)
    for other in taken:
        covered += len(places) * (np.abs(tries - other).max(axis=1) < 2 * reach)
    return tries[covered.argmin()]
