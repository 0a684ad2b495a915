"""The picture of the benchmark: time against size, a panel a loss, a line a library."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.bench_run import Result
from experiments.bench_sides import DENSE, FAISS, OURS, PEER

# Okabe and Ito's colours, told apart by colour-blind people too, and a marker each.
_LINES = {
    OURS: ("#0072B2", "o", "-", 2.4),
    DENSE: ("#56B4E9", "v", ":", 1.5),
    PEER: ("#D55E00", "s", "-", 2.0),
    FAISS: ("#009E73", "^", "--", 1.8),
}
_COLUMNS = 4
_DOTS_PER_INCH = 160  # 10 inches shown 800 wide: two dots for a pixel
_STYLE: dict[Any, Any] = {"font.size": 10, "axes.titlesize": 11.5, "axes.titleweight": "bold"}


def panels(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Rows to draw with two sizes or more, that make a line."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.row.drawn and OURS in result.times:
            found.setdefault(result.row.name, []).append(result)
    return {name: group for name, group in found.items() if len(group) > 1}


def draw(path: pathlib.Path, results: Sequence[Result], caption: str) -> bool:
    """Draws log time against log size, the whole file or nothing.

    The ground is white, so that the picture reads the same on a light and on a dark page.

    Args:
      path: of the PNG file.
      results: of the run.
      caption: a line below, on the machine.

    Returns:
      Whether there was a line to draw.
    """
    groups = panels(results)
    if not groups:
        return False
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(groups))
    rows = -(-len(groups) // columns)
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE, "backend": "Agg"}):
        figure = Figure(figsize=(10, 2.55 * rows + 0.7), layout="constrained", facecolor="white")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (name, group) in zip(grid.flat, groups.items()):
            _panel(axes, name, group)
        for axes in list(grid.flat)[len(groups) :]:
            axes.set_axis_off()
        for line in grid[:, 0]:
            line.set_ylabel("milliseconds")
        _legend(figure, grid)
        figure.supxlabel(caption, fontsize=9, color="#444444")
        beside = path.with_suffix(".part")
        figure.savefig(beside, format="png", dpi=_DOTS_PER_INCH)
        os.replace(beside, path)
    return True


def _panel(axes: Any, name: str, group: list[Result]) -> None:
    table = group[0].row.kind == "table"
    for side, (colour, marker, style, width) in _LINES.items():
        seen = [result for result in group if side in result.times]
        if not seen:
            continue
        x = [result.size.classes if table else result.size.rows for result in seen]
        y = [1e3 * result.times[side].median for result in seen]
        axes.plot(x, y, marker=marker, ls=style, lw=width, color=colour, markersize=4.5, label=side)
    axes.set(xscale="log", yscale="log", title=name)
    what = "classes" if table else "rows" if group[0].row.kind == "pairs" else "rows searched"
    axes.set_xlabel(what, labelpad=1)
    axes.grid(True, which="major", color="#d0d0d0", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    sizes = [result.size.classes if table else result.size.rows for result in group]
    _size_ticks(axes, sorted(set(sizes)))


def _size_ticks(axes: Any, sizes: list[int]) -> None:
    """The sizes themselves, as many as there is room for."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    step = -(-len(sizes) // 4)
    shown = sizes[::-1][::step]
    axes.set_xticks(shown, [_short(size) for size in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _short(size: int) -> str:
    if size % 1000 == 0 and size >= 1000:
        return f"{size // 1000}k" if size < 10**6 else f"{size // 10**6}M"
    return f"{size // 1024}Ki" if size % 1024 == 0 and size >= 8192 else f"{size:,}"


def _legend(figure: Any, grid: Any) -> None:
    """One legend of all panels."""
    found = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            found.setdefault(label, handle)
    names = [name for name in _LINES if name in found]
    figure.legend(
        [found[name] for name in names],
        names,
        loc="outside upper center",
        ncols=len(names),
        frameon=False,
    )
