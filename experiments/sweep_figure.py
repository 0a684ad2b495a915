"""The picture of a sweep: a dot a loss with its interval, the best on top."""

from __future__ import annotations

import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.sweep_table import Row

# Okabe and Ito's colours, told apart by colour-blind people too, and a marker each.
_SETS = {
    "test": ("unseen classes", "#0072B2", "o"),
    "unseen_faces": ("unseen classes in unseen typefaces", "#D55E00", "D"),
}
_SCORES = {"map_at_r": "MAP@R", "recall_at_1": "recall@1"}
_WIDE = 130  # letters of the caption in a line
_DOTS_PER_INCH = 160  # 10 inches shown 800 wide: two dots for a pixel
_STYLE: dict[Any, Any] = {"font.size": 11, "axes.titlesize": 12.5, "axes.titleweight": "bold"}


def draw(
    path: pathlib.Path,
    found: Sequence[Row],
    raw: Mapping[str, Mapping[str, float]],
    caption: str,
) -> bool:
    """Draws means with 95 % intervals, a panel a score, the whole file or nothing.

    The ground is white, so that the picture reads the same on a light and on a dark page.

    Args:
      path: of the PNG file.
      found: rows, the best first.
      raw: {set: {score: number}} of the pixels themselves, a dotted line.
      caption: a line below.

    Returns:
      Whether there was anything to draw.
    """
    found = [row for row in found if row.scores]
    if not found:
        return False
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE, "backend": "Agg"}):
        height = 0.36 * len(found) + 1.7
        figure = Figure(figsize=(10, height), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(_SCORES), sharey=True, squeeze=False)[0]
        for axes, (score, title) in zip(panels, _SCORES.items()):
            _panel(axes, found, raw, score)
            axes.set_title(title)
        panels[0].set_yticks(range(len(found)), [row.title() for row in found])
        panels[0].set_ylim(len(found) - 0.5, -0.5)  # the best on top
        handles, names = panels[0].get_legend_handles_labels()
        where = "outside upper center"
        figure.legend(handles, names, loc=where, ncols=len(names), frameon=False, fontsize=10)
        told = textwrap.fill(f"{caption} Dotted: raw pixels.", _WIDE)
        figure.supxlabel(told, fontsize=9, color="#444444")
        beside = path.with_suffix(f".part{os.getpid()}")
        figure.savefig(beside, format="png", dpi=_DOTS_PER_INCH)
        os.replace(beside, path)
    return True


def _panel(axes: Any, found: Sequence[Row], raw: Mapping[str, Any], score: str) -> None:
    sets = [name for name in _SETS if (name, score) in found[0].scores]
    for number, name in enumerate(sets):
        title, colour, marker = _SETS[name]
        shift = 0.16 * (2 * number - len(sets) + 1)
        places = [place + shift for place in range(len(found))]
        values = [row.scores[name, score] for row in found]
        axes.errorbar(
            [value.mean for value in values],
            places,
            xerr=[value.half or 0.0 for value in values],
            fmt=marker,
            color=colour,
            markersize=5.5,
            lw=1.6,
            capsize=3,
            label=title,
        )
        if name in raw:
            axes.axvline(raw[name][score], color=colour, ls=":", lw=1.3)
    axes.grid(True, axis="x", color="#d0d0d0", lw=0.7)
    axes.grid(True, axis="y", color="#ececec", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
