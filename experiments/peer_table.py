"""What a comparison found: both sides, their difference with its interval, and times."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.intervals import Interval, interval, told

_WIDE = 128  # columns; a narrower terminal breaks the lines, which loses nothing


class Line(NamedTuple):
    """A row of the table.

    Attributes:
      name: of the row.
      ours, theirs: MAP@R over seeds, None where only times were taken.
      difference: ours less theirs, seed by seed.
      same: the losses are one function.
      seconds: a step, ours and theirs: medians over steps, then over seeds.
      threads: that these are of.
    """

    name: str
    ours: Interval | None
    theirs: Interval | None
    difference: Interval | None
    same: bool
    seconds: tuple[float, float]
    threads: int

    def explained(self) -> str:
        """Whether the difference is within what seeds do by themselves."""
        if self.difference is None or self.difference.half is None:
            return ""
        within = abs(self.difference.mean) <= self.difference.half
        return "within the interval" if within else "outside the interval"


def line(
    name: str, runs: Sequence[Mapping[str, Any]], timed: Mapping[str, Any] | None, same: bool
) -> Line:
    """A row from its runs.

    Args:
      name: of the row.
      runs: one a seed, as `peer_run.Comparison.run` gives them.
      timed: a run for its times alone; those of the others count where there is none.
      same: the losses are one function.

    Returns:
      A `Line`.

    Example:
      >>> side = lambda score, time: {"scores": {"map_at_r": score}, "seconds_a_step": time}
      >>> runs = [
      ...     {"ours": side(0.7 + x, 0.1), "theirs": side(0.7, 0.2), "threads": 1}
      ...     for x in (0.01, 0.03)]
      >>> found = line("arcface", runs, None, True)
      >>> print(found.difference, found.seconds, found.explained())
      0.020 ± 0.127 (0.1, 0.2) within the interval
    """
    clocks = [timed] if timed is not None else runs
    seconds = tuple(
        statistics.median(run[side]["seconds_a_step"] for run in clocks)
        for side in ("ours", "theirs")
    )
    ours = theirs = difference = None
    if runs:
        left, right = (
            [run[side]["scores"]["map_at_r"] for run in runs] for side in ("ours", "theirs")
        )
        ours, theirs = interval(left), interval(right)
        difference = interval([a - b for a, b in zip(left, right)])
    threads = clocks[0]["threads"]
    return Line(name, ours, theirs, difference, same, (seconds[0], seconds[1]), threads)


def cells(found: Line) -> list[str]:
    """The cells of a row."""
    scores = [found.ours, found.theirs, found.difference]
    ours, theirs = found.seconds
    return [
        found.name + ("" if found.same else " (peer: all)"),
        *("" if score is None else str(score) for score in scores),
        f"{1e3 * ours:.0f}",
        f"{1e3 * theirs:.0f}",
        f"{theirs / ours:.1f}x",
    ]


HEADER = ("", "MAP@R, jdml", "MAP@R, peer", "difference", "ms/step, jdml", "ms/step, peer", "ratio")


def markdown(lines: Sequence[Line], caption: str) -> str:
    """The table for a page."""
    rows = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *(cells(found) for found in lines)]
    kept = [column for column in range(len(HEADER)) if any(row[column] for row in rows[2:])]
    text = ["| " + " | ".join(row[column] for column in kept) + " |" for row in rows]
    return "\n".join([*text, "", caption, ""])


def show(lines: Sequence[Line], caption: str) -> None:
    """The table in the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in HEADER:
        table.add_column(name, no_wrap=True, justify="right" if name else "left")
    for found in lines:
        table.add_row(*cells(found))
    console = Console(width=max(_WIDE, Console().width))
    console.print(table)
    console.print(caption, highlight=False, markup=False)


def as_json(found: Line) -> dict[str, Any]:
    """The row as a file holds it."""
    scores = {"ours": found.ours, "theirs": found.theirs, "difference": found.difference}
    return {
        "loss": found.name,
        "map_at_r": {name: x and told(x) for name, x in scores.items()},
        "same_function": found.same,
        "verdict": found.explained(),
        "seconds_a_step": {"ours": found.seconds[0], "theirs": found.seconds[1]},
        "threads": found.threads,
    }
