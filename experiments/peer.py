"""The same training with pytorch-metric-learning's losses in PyTorch, side by side.

pip install 'jdml[bench]'
python -m experiments.peer                            # five losses, three seeds
python -m experiments.peer --losses arcface --seeds 5
python -m experiments.peer --times                    # seconds a step, on a quiet machine

Encoder, initial weights, class tables, batches, warps, optimizer, schedule and the numbers of the
losses are the same on both sides. Stop it at any time: the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.files import write_json
from experiments.settings import Settings
from experiments.sweep_store import Store

PROG = "python -m experiments.peer"
_PACKAGES = {"torch": "torch", "pytorch_metric_learning": "pytorch-metric-learning"}
_COMMON = ("data", "steps", "classes_per_batch", "per_class", "warp", "weight_decay", "dim")
_COMMON += ("widths",)
_STEPS_OF_TIMES = 40


class Plan(NamedTuple):
    """What the command line asks for."""

    settings: Settings
    losses: list[str]
    seeds: int
    times: bool
    out: pathlib.Path

    def common(self) -> dict[str, Any]:
        """What all runs of a folder have in common."""
        return {name: getattr(self.settings, name) for name in _COMMON}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.

    Returns:
      The exit code: 2 for a wrong setting or a package that is missing, 1 for sides that do not
      start at the same place.
    """
    try:
        plan = parse(argv)
        compare(plan)
    except ValueError as error:
        return complain(error, 2)
    except RuntimeError as error:
        return complain(error, 1)
    except KeyboardInterrupt:
        return complain("stopped; the same command goes on", 130)
    return 0


def complain(message: object, code: int) -> int:
    """One line on the error stream."""
    print(f"{PROG}: {str(message).splitlines()[0]}", file=sys.stderr)
    return code


def parse(argv: Sequence[str] | None) -> Plan:
    """What the command line asks for.

    Raises:
      ValueError: a wrong value or a missing package, in one line.
    """
    missing = [name for module, name in _PACKAGES.items() if not _there(module)]
    parser = _Parser(prog=PROG, description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    default = Settings()
    flags: tuple[tuple[str, Any, str], ...] = (
        ("data", "hangul", "a data set of pictures with sides of 28 to 64"),
        ("seeds", 3, "trainings of each loss on each side"),
        ("steps", 300, "of each training"),
        ("out", "", "folder of the comparison; runs/peer-DATA by default"),
        ("classes-per-batch", default.classes_per_batch, "fewer where there are fewer"),
        ("per-class", default.per_class, "images of each"),
        ("dim", default.dim, "width of the embedding"),
        ("data-dir", "", "folder of TFDS data sets; its own by default"),
    )
    for name, value, what in flags:
        told = f"{what} ({value})" if value != "" else what
        parser.add_argument(f"--{name}", type=type(value), default=value, metavar="X", help=told)
    widths: dict[str, Any] = {"type": int, "nargs": "+", "default": list(default.widths)}
    parser.add_argument("--widths", **widths, metavar="N", help="features of each block")
    parser.add_argument("--losses", nargs="+", default=None, metavar="NAME", help="some of them")
    parser.add_argument("--times", action="store_true", help="only measure seconds a step")
    asked = parser.parse_args(argv)
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing: pip install 'jdml[bench]' brings them")
    from experiments.peer_run import ROWS

    losses = list(dict.fromkeys(asked.losses or ROWS))
    for name in losses:
        if name not in ROWS:
            raise ValueError(f"losses: got {name!r}, expected some of {', '.join(ROWS)}")
    if asked.seeds < 1:
        raise ValueError(f"seeds: got {asked.seeds}, expected 1 or more")
    settings = Settings(
        data=asked.data,
        steps=asked.steps,
        classes_per_batch=asked.classes_per_batch,
        per_class=asked.per_class,
        dim=asked.dim,
        widths=tuple(asked.widths),
        pooling="grid",
        data_dir=asked.data_dir,
    )
    settings.check()
    out = asked.out or os.path.join("runs", f"peer-{asked.data.replace('/', '-')}")
    return Plan(settings, losses, asked.seeds, asked.times, pathlib.Path(out))


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}\n")


def compare(plan: Plan) -> None:
    """Runs what is left, and shows and writes what was found.

    Raises:
      ValueError: a folder of other settings, or data that is missing.
      RuntimeError: sides that do not start at the same place.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from experiments import peer_table
    from experiments.peer_run import ROWS
    from experiments.sweep_train import sets

    store = Store(plan.out)
    contenders = {name: ROWS[name].contender.as_json() for name in plan.losses}
    store.check(plan.common(), contenders)
    data = sets(plan.settings)
    store.open(plan.common(), contenders)
    torch.set_num_threads(cores())
    for name in plan.losses:
        run(plan, store, name, data)
    lines = [_line(plan, store, name) for name in plan.losses]
    threads = " or ".join(str(count) for count in sorted({line.threads for line in lines}))
    caption = (
        f"{plan.settings.data}: {plan.settings.steps} steps of up to "
        f"{plan.settings.classes_per_batch * plan.settings.per_class} images, {plan.seeds} seeds; "
        "mean ± 95 % interval (Student's t), of the difference seed by seed. "
        f"Times with {threads} threads."
    )
    what = {"settings": plan.common(), "versions": _versions(), "losses": None}
    what["losses"] = [peer_table.as_json(found) for found in lines]
    write_json(plan.out / "results.json", what)
    (plan.out / "table.md").write_text(peer_table.markdown(lines, caption))
    peer_table.show(lines, caption)
    print(f"everything is in {plan.out}")


def run(plan: Plan, store: Store, name: str, data: Any) -> None:
    """The trainings of a row that are not done yet.

    Args:
      plan: of the command.
      store: its folder, open.
      name: of the row.
      data: `sweep_train.Sets`.

    Raises:
      RuntimeError: sides that do not start at the same place.
    """
    from experiments.peer_run import ROWS, Comparison

    kind, count = ("times", 1) if plan.times else ("seed", plan.seeds)
    left = [number for number in range(count) if not store.has(name, kind, number)]
    if not left:
        return
    settings = plan.settings
    if plan.times:
        settings = dataclasses.replace(settings, steps=_STEPS_OF_TIMES)
    comparison = Comparison(ROWS[name], settings, data)
    for number in left:
        found = {**comparison.run(number, tests=not plan.times), "threads": cores()}
        store.write(name, kind, number, found)
        print(_told(name, number, found), flush=True)


def _line(plan: Plan, store: Store, name: str) -> Any:
    from experiments import peer_table
    from experiments.peer_run import ROWS

    runs = [found for n in range(plan.seeds) if (found := store.read(name, "seed", n))]
    timed = store.read(name, "times", 0)
    return peer_table.line(name, runs, timed, ROWS[name].same)


def _told(name: str, seed: int, found: dict[str, Any]) -> str:
    ours, theirs = found["ours"], found["theirs"]
    times = f"{1e3 * ours['seconds_a_step']:.0f} and {1e3 * theirs['seconds_a_step']:.0f} ms a step"
    if "scores" not in ours:
        return f"{name}: jdml and peer {times}"
    scores = f"{ours['scores']['map_at_r']:.3f} and {theirs['scores']['map_at_r']:.3f}"
    return f"{name}, seed {seed}: jdml and peer MAP@R {scores}, {times}"


def _versions() -> dict[str, str]:
    import importlib.metadata

    packages = ("jax", "jaxlib", *_PACKAGES.values())
    return {name: importlib.metadata.version(name) for name in packages}


if __name__ == "__main__":
    sys.exit(main())
