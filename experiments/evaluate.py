"""Measures embeddings and writes a report that opens in any browser, without network.

python -m experiments.evaluate runs/hangul-arcface-0     # the last checkpoint of a run
python -m experiments.evaluate embeddings.npz            # embeddings and labels from anywhere
python -m experiments.evaluate embeddings.npz --output reports --distance euclidean
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, get_args

PROG = "python -m experiments.evaluate"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    from experiments.sources import KEYS
    from jdml.retrieval import Distance

    keys = "\n".join(f"  {name:<22}{about}" for name, about in KEYS.items())
    made = _Parser(
        prog=PROG,
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"an .npz file may hold (embeddings and labels at least):\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("source", metavar="RUN_OR_NPZ", help="the folder of a run, or an .npz file of embeddings")
    add("--split", default="", metavar="NAME", help="of the data of a run: test (default), ...")
    add("--config", default="", metavar="FILE", help="the settings file that a run was made with")
    add(
        "--output",
        default="",
        metavar="FOLDER",
        help="for the report; beside the source by default",
    )
    add("--distance", default="cosine", choices=get_args(Distance), help="cosine by default")
    add("--confidence", default=0.95, type=float, metavar="X", help="of the intervals (0.95)")
    add("--seed", default=0, type=int, metavar="N", help="of the bootstrap and of what is drawn")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.

    Returns:
      The exit code: 0, or 2 where something is wrong, said in one line.
    """
    arguments = parser().parse_args(argv)
    try:
        page, numbers = evaluate(arguments)
    except (ValueError, TypeError) as error:  # JAX appends more lines inside a traced function
        print(f"{PROG}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(f"report: {page}\nnumbers: {numbers}")
    return 0


def evaluate(arguments: argparse.Namespace) -> tuple[pathlib.Path, pathlib.Path]:
    """Reads, measures, shows, and writes.

    Returns:
      The HTML file and the JSON file.

    Raises:
      ValueError: one line on what is wrong; nothing is written then.
    """
    from experiments import sources
    from experiments.files import make, write_json
    from jdml import diagnostics, report

    if not 0 < arguments.confidence < 1:
        raise ValueError(f"confidence: got {arguments.confidence}, expected between 0 and 1")
    path = pathlib.Path(arguments.source)
    folder = pathlib.Path(arguments.output or (path if path.is_dir() else path.parent))
    _refuse_unwritable(folder)  # before the work, not after it
    source = sources.read(path, arguments.split, arguments.config)
    measured = report.measure(
        source.queries,
        source.gallery,
        class_names=source.class_names,
        distance=arguments.distance,
        confidence=arguments.confidence,
        seed=arguments.seed,
    )
    numbers = measured.as_json()
    most_rank = min(numbers["queries"], numbers["dim"])
    found = diagnostics.warnings(measured.health, most_rank=most_rank)
    warnings = [*source.warnings, *found.values()]
    show(measured, numbers, warnings)
    make(folder)
    page, beside = (folder / f"{source.stem}.{kind}" for kind in ("html", "json"))
    report.write_html(
        page,
        measured,
        title=source.title,
        lead=source.lead,
        about=_about(numbers, source.about),
        warnings=warnings,
        log=source.log,
        seed=arguments.seed,
    )
    for line in _unreadable(source.files):
        print(f"warning: {line}", file=sys.stderr)
    write_json(beside, numbers | {"source": str(path), "warnings": warnings})
    return page, beside


def show(measured: Any, numbers: dict[str, Any], warnings: Sequence[str]) -> None:
    """A table of the scores in the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", "score", f"{measured.confidence:.0%} interval", "", title=_sizes(numbers))
    for score in measured.scores:
        range_ = "" if score.low is None else f"{score.low:.3f} to {score.high:.3f}"
        table.add_row(score.name, f"{score.value:.3f}", range_, score.about)
    console.print(table)
    for line in warnings:
        console.print(f"warning: {line}", style="yellow", markup=False, highlight=False)


def _sizes(numbers: dict[str, Any]) -> str:
    lone = numbers["lone_queries"]
    without = f" ({lone:,} more have no right answer)" if lone else ""
    return (
        f"{numbers['queries']:,} queries{without}, {numbers['gallery']:,} rows, "
        f"{numbers['classes']:,} classes, {numbers['dim']} dimensions"
    )


def _about(numbers: dict[str, Any], about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the last section of the page tells."""
    sizes = {
        "queries": f"{numbers['queries']:,}",
        "without a right answer": f"{numbers['lone_queries']:,}",
        "searched among": f"{numbers['gallery']:,}",
        "classes": f"{numbers['classes']:,}",
        "dimensions": numbers["dim"],
        "distance": numbers["distance"],
    }
    return {"Evaluation": sizes} | about


def _unreadable(files: Sequence[Any]) -> list[str]:
    """One line where pictures could not be read; the report shows a grey square for each."""
    paths = list(dict.fromkeys(path for one in files for path in one.unreadable))
    return [f"{len(paths)} pictures cannot be read, the first is {paths[0]}"] if paths else []


def _refuse_unwritable(folder: pathlib.Path) -> None:
    """Refuses a folder that cannot be made or written, without making it."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"output: got {folder}, expected a folder that can be written")


if __name__ == "__main__":
    sys.exit(main())
