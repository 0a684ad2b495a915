"""One HTML file that shows an evaluation and opens anywhere: no network, no other file."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jdml
from jdml.report.drawing import File
from jdml.report.measure import Measured, Score
from jdml.report.sections import contents

_SCRIPTS = ("base", "chart", "curves", "threshold", "gallery", "map", "confusion", "nav")
_CARDS = ("map_at_r", "recall_at_1", "eer", "tar_at_far_0.001")


def write_html(
    path: File,
    measured: Measured,
    *,
    title: str = "Evaluation",
    lead: str = "",
    about: Mapping[str, Mapping[str, object]] | None = None,
    warnings: Sequence[str] = (),
    log: Sequence[Mapping[str, float]] = (),
    seed: int = 0,
) -> None:
    """Writes the report of an evaluation as one HTML file.

    It holds all that it shows: scores with their intervals, recall over k, the threshold with its
    histogram and ROC, the worst queries and their neighbours, a map, the classes confused, and the
    curves of training. What is too much for a page is drawn from, which the page says. The same
    input gives the same file.

    Args:
      path: of the file; written beside its place and renamed, so that no half file is ever there.
      measured: from `measure`.
      title: of the page.
      lead: a line below it.
      about: for the last section, such as {"Settings": {"loss": "triplet"}}.
      warnings: lines that stand at the top.
      log: rows of a training log, with "step" and any of "loss", "validation_map_at_r",
        "gradient_norm" and the numbers of `jdml.diagnostics`.
      seed: of what is drawn at random.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from jdml.report import Items, measure
      >>> rows = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9], [0.2, 1.0]])
      >>> file = Path(tempfile.mkdtemp()) / "report.html"
      >>> write_html(file, measure(Items(rows, ["a", "a", "b", "b", "a"])), title="Five rows")
      >>> file.read_text(encoding="utf-8")[:15]
      '<!doctype html>'
    """
    data = contents(measured, log=log, seed=seed)
    interval = f"Intervals: {measured.confidence:.0%}, by bootstrap over the images."
    script = "\n".join(_part(f"{name}.js") for name in _SCRIPTS)
    fields = {
        "version": jdml.__version__,
        "title": html.escape(title),
        "lead": html.escape(lead),
        "warnings": _warnings(warnings),
        "cards": _cards(measured.scores),
        "scores": _table(measured.scores),
        "intervals": interval,
        "about": _about(about or {}),
        "style": _part("style.css"),
        # Inside a script element only "<" could end it early.
        "data": json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"),
        "script": script,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], _part("page.html"))
    write_text(path, page)


def write_text(path: File, text: str) -> None:
    """Writes beside the place and renames: the whole file or nothing."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _part(name: str) -> str:
    return resources.files("jdml.report").joinpath("web", name).read_text(encoding="utf-8").strip()


def _warnings(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    listed = "".join(f'<li class="warning">{html.escape(line)}</li>' for line in lines)
    return f'<ul class="warnings" aria-label="Warnings">{listed}</ul>'


def _cards(scores: Sequence[Score]) -> str:
    cards = []
    for score in scores:
        if score.key in _CARDS:
            small = "" if score.low is None else f"<small>{_interval(score)}</small>"
            value = f"<dd>{_percent(score.value)}{small}</dd>"
            cards.append(f"<div><dt>{html.escape(score.name)}</dt>{value}</div>")
    return f'<dl class="cards">{"".join(cards)}</dl>'


def _table(scores: Sequence[Score]) -> str:
    rows = []
    for score in scores:
        low = score.value if score.low is None else score.low
        high = score.value if score.high is None else score.high
        range_ = f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"
        mark = f'<i style="{range_}"></i><b style="left:{100 * score.value:.2f}%"></b>'
        cells = (
            f'<th scope="row">{html.escape(score.name)}</th>',
            f'<td class="number">{_percent(score.value)}</td>',
            f'<td class="number">{"" if score.low is None else _interval(score)}</td>',
            f'<td><div class="bar" aria-hidden="true">{mark}</div></td>',
            f'<td class="about">{html.escape(score.about)}</td>',
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Score", "Value", "Interval"))
    head += '<td></td><th scope="col">Meaning</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _about(groups: Mapping[str, Mapping[str, object]]) -> str:
    lists = []
    for title, facts in groups.items():
        listed = "".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>"
            for name, value in facts.items()
        )
        lists.append(f"<div><h3>{html.escape(title)}</h3><dl>{listed}</dl></div>")
    return f'<div class="about-lists">{"".join(lists)}</div>'


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _interval(score: Score) -> str:
    low: Any = score.low
    high: Any = score.high
    return f"{100 * low:.1f} to {100 * high:.1f}%"
