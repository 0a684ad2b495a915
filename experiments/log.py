"""What a person watches during a run, and what stays of it: a bar, a CSV file, TensorBoard."""

from __future__ import annotations

import csv
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

from experiments import health

COLUMNS: tuple[str, ...] = (
    "step",
    "loss",
    "gradient_norm",
    "learning_rate",
    "images_per_second",
    "validation_map_at_r",  # now and then, as are the rest
    *health.COLUMNS,
)


class Log:
    """Rows of numbers by step, in `log.csv` and as TensorBoard events.

    Args:
      folder: of the run.
      first: rows of this step and later are dropped from the file: a resumed run writes them anew.
    """

    def __init__(self, folder: pathlib.Path, first: int):
        from tensorboardX import SummaryWriter

        path = folder / "log.csv"
        self.kept = [row for row in read_log(folder) if row["step"] < first]
        # Beside its place first: a run that is stopped at once keeps the rows that it had.
        with (beside := folder / "log.csv.part").open("w", newline="") as file:
            rows = csv.DictWriter(file, list(COLUMNS))
            rows.writeheader()
            rows.writerows(self.kept)
        os.replace(beside, path)
        self._file = path.open("a", newline="")
        self._rows = csv.DictWriter(self._file, list(COLUMNS))
        self._events = SummaryWriter(str(folder / "events"), purge_step=first if first else None)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """One row; a column that `numbers` lacks stays empty."""
        self._rows.writerow({"step": step, **numbers})
        self._file.flush()
        for name, number in numbers.items():
            self._events.add_scalar(f"train/{name}", number, step)

    def scores(self, step: int, prefix: str, scores: Mapping[str, float]) -> None:
        """Retrieval scores at the end, as TensorBoard events."""
        for name, number in scores.items():
            self._events.add_scalar(f"{prefix}/{name}", number, step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._events.close()


class Silent:
    """In the place of a log and a bar, on the processes that leave them to the first one."""

    kept: tuple[dict[str, float], ...] = ()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Nothing."""

    def scores(self, step: int, prefix: str, scores: Mapping[str, float]) -> None:
        """Nothing."""

    def show(self, step: int, loss: float, speed: float) -> None:
        """Nothing."""

    def warn(self, line: str) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def read_log(folder: pathlib.Path) -> list[dict[str, float]]:
    """The whole rows of `log.csv`, none where there is no file."""
    path = folder / "log.csv"
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0]  # the last line may have been cut short
    rows = csv.DictReader(whole.splitlines())
    return [{name: float(x) for name, x in row.items() if x} for row in rows]


class Progress:
    """A bar with loss, images a second and time left; plain lines where there is no terminal."""

    def __init__(self, steps: int, done: int):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._steps, self._start, self._done = steps, time.perf_counter(), done
        self._bar = None
        self._told = done
        if sys.stdout.isatty():
            self._bar = Bar(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(
                    "loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} images/s  left"
                ),
                TimeRemainingColumn(),
            )
            self._task = self._bar.add_task("", total=steps, completed=done, loss=0.0, speed=0.0)

    def show(self, step: int, loss: float, speed: float) -> None:
        """After a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=loss, speed=speed)
        elif step - self._told >= self._steps / 10 or step == self._steps:
            passed = time.perf_counter() - self._start
            left = passed / max(step - self._done, 1) * (self._steps - step)
            print(
                f"step {step}/{self._steps}  loss {loss:.3f}  "
                f"{speed:,.0f} images/s  {left:.0f} s left",
                flush=True,
            )
            self._told = step

    def warn(self, line: str) -> None:
        """One line above the bar, or on the error stream where there is no terminal."""
        if self._bar is not None:
            self._bar.console.print(f"warning: {line}", markup=False, style="yellow")
        else:
            print(f"warning: {line}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


class Speed:
    """Images a second between one time told and the next; 0 at first, since a step compiles.

    Args:
      images: of one step.
    """

    def __init__(self, images: int):
        self._images = images
        self._last: tuple[int, float] | None = None

    def at(self, step: int) -> float:
        """Tells that `step` is done; returns images a second since the last time."""
        now, last = time.perf_counter(), self._last
        self._last = (step, now)
        return self._images * (step - last[0]) / max(now - last[1], 1e-9) if last else 0.0

    def forget(self) -> None:
        """The time since the last step told does not count: it goes to something else."""
        if self._last is not None:
            self._last = (self._last[0], time.perf_counter())


def usual_speed(rows: Sequence[Mapping[str, float]]) -> float:
    """The median of images a second over the rows of a log, 0 where none tells."""
    told = [row["images_per_second"] for row in rows if row["images_per_second"] > 0]
    return round(statistics.median(told), 1) if told else 0.0
