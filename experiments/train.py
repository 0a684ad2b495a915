"""Trains an embedding, measures it on classes that it never saw, and draws what it learned.

python -m experiments.train                       # hangul, two CPU cores, under four minutes
python -m experiments.train --loss triplet --seed 1
python -m experiments.train --data folder:PICTURES --encoder resnet50 --weights resnet50.tv_in1k
python -m experiments.train --config cub200_proxy_anchor_r50
python -m experiments.train --name mine --resume  # goes on after an interruption
python -m experiments.train --coordinator localhost:8476 --processes 2 --process 0  # and another 1
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments import STARTED
from experiments.processes import first
from experiments.settings import parse

PROG = "python -m experiments.train"


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.
      started: when, on the clock of `time.perf_counter`; now by default.

    Returns:
      The exit code: 2 for a wrong setting, 1 for a run that failed.
    """
    started = time.perf_counter() if started is None else started
    try:
        asked = parse(argv, prog=PROG, about=(__doc__ or "").partition("\n")[0])
        asked.processes.join()
        from experiments import run  # --help and wrong flags answer without waiting for it

        ready = run.prepare(asked.settings, asked.resume, started)
    except ValueError as error:
        return complain(error, 2)
    except KeyboardInterrupt:
        return complain("stopped before the first step", 130)
    say(f"{len(ready.data.train.labels):,} training images of {ready.data.num_classes} classes")
    for line in ready.data.notes:
        say(line)
    try:
        result = run.train(ready)
    except FloatingPointError as error:
        return complain(error, 1)
    except KeyboardInterrupt:
        again = f"--name {ready.folder.name} --resume"
        return complain(f"stopped; the same command with {again} goes on", 130)
    if first():
        show(result)
        print(f"{result['seconds']:.0f} s in all; everything is in {ready.folder}")
    return 0


def say(line: str) -> None:
    """A line of the first process."""
    if first():
        print(line)


def show(result: dict[str, Any]) -> None:
    """A table of what was measured, raw pixels beside the trained embedding."""
    from rich.console import Console
    from rich.table import Table

    tests = {name: group for name, group in result.items() if name in ("raw", "test")}
    groups = {"unseen_classes": tests}
    groups |= {name: group for name, group in result.items() if is_test(group)}
    names = {name: told(name) for name in result["test"]}
    table = Table("", *names.values())
    for title, group in groups.items():
        for row, what in (("raw pixels", "raw"), ("trained", "test")):
            scores = (f"{group[what][name]:.3f}" for name in names)
            table.add_row(f"{title.replace('_', ' ')}, {row}", *scores)
    console = Console()
    console.print(table)
    if "verification" in result:
        accuracy, error = result["verification"].values()
        console.print(f"verification: {accuracy:.2%} of pairs, standard error {error:.2%}")


def is_test(group: Any) -> bool:
    """Whether a part of a result holds the scores of a test."""
    return isinstance(group, dict) and group.keys() == {"raw", "test"}


def told(name: str) -> str:
    """The name of a score as a table tells it."""
    names = {"map_at_r": "MAP@R", "r_precision": "R-precision"}
    return names.get(name) or name.replace("recall_at_", "recall@")


def complain(message: object, code: int, prog: str = PROG) -> int:
    """One line on the error stream; JAX appends more to errors inside a traced function."""
    print(f"{prog}: {str(message).splitlines()[0]}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(started=STARTED))
