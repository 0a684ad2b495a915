"""What a sweep is asked for: its flags, checked."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.settings import Settings
from experiments.sweep_losses import CONTENDERS

PROG = "python -m experiments.sweep"
_COMMON = ("data", "steps", "classes_per_batch", "per_class", "warp", "weight_decay", "dim")
_COMMON += ("widths", "pooling", "dtype")


class Plan(NamedTuple):
    """What the command line asks for."""

    settings: Settings
    losses: list[str]
    trials: int
    seeds: int
    test_images: int
    out: pathlib.Path
    workers: int
    parent: int

    def common(self) -> dict[str, Any]:
        """What all runs of a folder have in common."""
        found = {name: getattr(self.settings, name) for name in _COMMON}
        return {**found, "trials": self.trials, "test_images": self.test_images}

    def size(self) -> int:
        """Runs in all."""
        return len(self.losses) * (self.trials + self.seeds)


def parse(argv: Sequence[str], about: str) -> Plan:
    """What the command line asks for.

    Args:
      argv: the arguments.
      about: the command, in one line.

    Returns:
      A `Plan`.

    Raises:
      ValueError: a wrong value, in one line.
    """
    parser = _Parser(prog=PROG, description=about, allow_abbrev=False)
    default = Settings()
    flags: tuple[tuple[str, Any, str], ...] = (
        ("data", "hangul", "a data set, such as hangul or fashion_mnist"),
        ("trials", 6, "of each loss in the search on validation classes"),
        ("seeds", 3, "of each loss with the best numbers; more may be asked for later"),
        ("steps", 400, "of each training"),
        ("out", "", "folder of the sweep; runs/sweep-DATA by default"),
        ("workers", 1, "processes; each takes its share of the cores"),
        ("test-images", 0, "of each set to search, as many of each class; 0 is all"),
        ("classes-per-batch", default.classes_per_batch, "fewer where there are fewer"),
        ("per-class", default.per_class, "images of each; more where there are fewer classes"),
        ("warp", default.warp, "strength of the random warps"),
        ("dim", default.dim, "width of the embedding"),
        ("data-dir", "", "folder of TFDS data sets; its own by default"),
    )
    for name, value, what in flags:
        kind = "N" if isinstance(value, int) else "X" if isinstance(value, float) else "NAME"
        told = f"{what} ({value})" if value != "" else what
        parser.add_argument(f"--{name}", type=type(value), default=value, metavar=kind, help=told)
    widths = {"type": int, "nargs": "+", "default": list(default.widths), "metavar": "N"}
    parser.add_argument("--widths", **widths, help="features of each block of the encoder")
    known = ", ".join(f'"{name}"' if " " in name else name for name in CONTENDERS)
    every = list(CONTENDERS)
    parser.add_argument("--losses", nargs="+", default=every, metavar="NAME", help=f"of {known}")
    parser.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
    return _plan(parser.parse_args(argv), known)


def _plan(asked: Any, known: str) -> Plan:
    if importlib.util.find_spec("optuna") is None:
        raise ValueError("optuna is missing: pip install 'jdml[experiments]' brings it")
    for name in asked.losses:
        if name not in CONTENDERS:
            raise ValueError(f"losses: got {name!r}, expected some of {known}")
    for name, least in (("trials", 1), ("seeds", 1), ("workers", 1), ("test_images", 0)):
        if getattr(asked, name) < least:
            raise ValueError(f"{name}: got {getattr(asked, name)}, expected {least} or more")
    if asked.classes_per_batch < 2:
        raise ValueError(f"classes_per_batch: got {asked.classes_per_batch}, expected 2 or more")
    fields = {field.name for field in dataclasses.fields(Settings)}
    given = {name: value for name, value in vars(asked).items() if name in fields - {"workers"}}
    settings = Settings(**{**given, "widths": tuple(asked.widths)})
    settings.check()
    out = asked.out or os.path.join("runs", f"sweep-{asked.data.replace('/', '-')}")
    return Plan(
        settings=settings,
        losses=list(dict.fromkeys(asked.losses)),
        trials=asked.trials,
        seeds=asked.seeds,
        test_images=asked.test_images,
        out=pathlib.Path(out),
        workers=asked.workers,
        parent=asked.parent,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}\n")
