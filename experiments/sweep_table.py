"""What a sweep found: means and intervals over seeds, as a table, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.intervals import Interval, interval, told
from experiments.sweep_search import best
from experiments.sweep_store import Store

COLUMNS = {
    ("test", "map_at_r"): "MAP@R",
    ("test", "recall_at_1"): "R@1",
    ("unseen_faces", "map_at_r"): "MAP@R, new typefaces",
    ("unseen_faces", "recall_at_1"): "R@1, new typefaces",
}

_WIDE = 128  # columns; a narrower terminal breaks the lines, which loses nothing


class Row(NamedTuple):
    """A contender's result.

    Attributes:
      loss: its name.
      scores: {(set, score): interval}; empty before the first seed is done.
      numbers: the best ones.
      validation: MAP@R of each trial.
      seeds: how many are done.
      diverged: how many of these have scores of 0 because the loss was no number any more.
    """

    loss: str
    scores: dict[tuple[str, str], Interval]
    numbers: dict[str, float]
    validation: list[float]
    seeds: int
    diverged: int = 0

    def title(self) -> str:
        """The name, and how many seeds diverged where some did.

        Example:
          >>> Row("arcface", {}, {}, [], seeds=3, diverged=1).title()
          'arcface (1 of 3 diverged)'
        """
        told = f" ({self.diverged} of {self.seeds} diverged)" if self.diverged else ""
        return self.loss + told

    def diverged_in_words(self) -> str:
        """What a caption says of it."""
        return f"{self.loss}: {self.diverged} of {self.seeds} seeds diverged, counted as 0"


def trials(store: Store, loss: str) -> list[tuple[dict[str, float], float]]:
    """(numbers, validation MAP@R) of the finished trials, up to the first that is missing."""
    done = []
    while (found := store.read(loss, "trial", len(done))) is not None:
        done.append((found["numbers"], found["scores"]["validation"]["map_at_r"]))
    return done


def rows(store: Store, losses: Sequence[str], seeds: int) -> list[Row]:
    """What is known so far, the best first, contenders without a finished seed last.

    Args:
      store: the folder.
      losses: names of the contenders.
      seeds: of each.

    Returns:
      A `Row` for each.
    """
    found = []
    for loss in losses:
        done = trials(store, loss)
        runs = [run for n in range(1, seeds + 1) if (run := store.read(loss, "seed", n))]
        keys = [key for key in COLUMNS if runs and key[0] in runs[0]["scores"]]
        scores = {(s, k): interval([run["scores"][s][k] for run in runs]) for s, k in keys}
        numbers = done[best(done)][0] if done else {}
        diverged = sum(run.get("diverged") is not None for run in runs)
        values = [value for _, value in done]
        found.append(Row(loss, scores, numbers, values, len(runs), diverged))
    return sorted(found, key=lambda row: -row.scores[key].mean if (key := _main(row)) else 1.0)


def _main(row: Row) -> tuple[str, str] | None:
    key = ("test", "map_at_r")
    return key if key in row.scores else None


def shown(numbers: Mapping[str, float]) -> str:
    """Numbers in one line.

    Example:
      >>> shown({"learning_rate": 0.003, "margin": 0.2})
      'learning_rate 0.003, margin 0.2'
    """
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


def grid(
    found: Sequence[Row], raw: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table; the last line is what raw pixels are worth.

    Args:
      found: of `rows`.
      raw: {set: {score: number}} of the pixels themselves.

    Returns:
      Names of the columns, and the lines.
    """
    keys = [key for key in COLUMNS if key[0] in raw]
    lines = [
        [row.title(), *(str(row.scores.get(key, "")) for key in keys), shown(row.numbers)]
        for row in found
    ]
    lines.append(["raw pixels", *(f"{raw[s][k]:.3f}" for s, k in keys), ""])
    return ["", *(COLUMNS[key] for key in keys), "best of the search"], lines


def markdown(found: Sequence[Row], raw: Mapping[str, Mapping[str, float]], caption: str) -> str:
    """The table for a page.

    Example:
      >>> print(markdown([], {"test": {"map_at_r": 0.5, "recall_at_1": 0.75}}, "Nothing yet."))
      | | MAP@R | R@1 | best of the search |
      |---|---:|---:|---|
      | raw pixels | 0.500 | 0.750 | |
      <BLANKLINE>
      Nothing yet.
      <BLANKLINE>
    """
    names, lines = grid(found, raw)
    bars = ["---", *["---:"] * (len(names) - 2), "---"]
    text = ["|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines]
    head = "|" + "|".join(f" {name} " if name else " " for name in names) + "|"
    return "\n".join([head, "|" + "|".join(bars) + "|", *text, "", caption, ""])


def show(found: Sequence[Row], raw: Mapping[str, Mapping[str, float]], caption: str) -> None:
    """The table in the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names, lines = grid(found, raw)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(names):
        last = place == len(names) - 1
        table.add_column(name, no_wrap=not last, justify="left" if last or not place else "right")
    for line in lines:
        table.add_row(*line)
    console = Console(width=max(_WIDE, Console().width))
    console.print(table)
    console.print(caption, highlight=False, markup=False)


def as_json(found: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as a file holds them."""
    return [
        {
            "loss": row.loss,
            "scores": [
                {"set": s, "score": k, **told(value)} for (s, k), value in row.scores.items()
            ],
            "numbers": row.numbers,
            "validation_map_at_r": row.validation,
            "seeds": row.seeds,
            "diverged": row.diverged,
        }
        for row in found
    ]
