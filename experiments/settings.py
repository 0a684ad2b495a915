"""What a training run is made of: numbers from a file of the loss, a config file and flags."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from experiments.objectives import known
from experiments.processes import Processes

CONFIGS = pathlib.Path(__file__).parent / "configs"


def _field(default: Any, about: str, group: str = "the run") -> Any:
    return dataclasses.field(default=default, metadata={"about": about, "group": group})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run depends on. Each field is a flag, and a name in a config file."""

    data: str = _field("hangul", "hangul, hangul/unseen_faces or fashion_mnist")
    loss: str = _field("arcface", "of jdml.losses, with the numbers of its config")
    loss_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # no flag
    steps: int = _field(2000, "training steps")
    seed: int = _field(0, "of parameters, batches and warps")
    parallel: str = _field("jit", "how devices share a batch: jit, pmap or shard_map", "devices")
    model: int = _field(1, "devices that share one class table, a divisor of theirs", "devices")
    dtype: str = _field("float32", "the encoder computes in: float32 or bfloat16", "devices")
    workers: int = _field(0, "processes that read batches ahead; 0 is a thread", "devices")

    classes_per_batch: int = _field(32, "classes in a batch, P", "batches")
    per_class: int = _field(4, "images of each of them, K", "batches")
    warp: float = _field(1.0, "strength of the random warps; 0 turns them off", "batches")

    learning_rate: float = _field(3e-3, "the encoder's highest", "optimizer")
    table_multiplier: float = _field(1.0, "class tables learn at this times that", "optimizer")
    weight_decay: float = _field(5e-4, "decoupled, on kernels", "optimizer")

    dim: int = _field(128, "width of the embedding", "encoder")
    widths: tuple[int, ...] = _field((32, 64, 128, 256), "features of each block", "encoder")
    pooling: str = _field("grid", "average, max, gem or grid", "encoder")

    test_classes: int = _field(0, "unseen classes to search, to be quick; 0 is all", "the run")
    data_dir: str = _field("", "folder of TFDS data sets; its own by default", "files")
    run_dir: str = _field("runs", "folder of all runs", "files")
    name: str = _field("", "folder of this run in it; DATA-LOSS-SEED by default", "files")
    checkpoint_every: int = _field(500, "steps between checkpoints", "files")

    def folder(self) -> pathlib.Path:
        """Where the run writes."""
        default = f"{self.data.replace('/', '-')}-{self.loss}-{self.seed}"
        return pathlib.Path(self.run_dir) / (self.name or default)

    def as_json(self) -> dict[str, Any]:
        """As config.json holds it: what JSON cannot hold is written out as text."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=repr))

    def check(self) -> None:
        """Raises ValueError for values that no run could use."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            fits = isinstance(value, (int, float) if kind is float else kind)
            if field.name != "loss_options":
                _expect(field.name, repr(value), fits, f"a value like {field.default!r}")
        _expect("loss_options", self.loss_options, isinstance(self.loss_options, dict), "a dict")
        widths = self.widths and all(isinstance(width, int) and width > 0 for width in self.widths)
        _expect("widths", self.widths, bool(widths), "whole numbers of 1 or more")
        for name in ("steps", "classes_per_batch", "per_class", "dim", "checkpoint_every", "model"):
            _expect(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("seed", "warp", "weight_decay", "table_multiplier", "test_classes", "workers"):
            _expect(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _expect("learning_rate", self.learning_rate, self.learning_rate > 0, "more than 0")
        for name, choices in (
            ("parallel", ("jit", "pmap", "shard_map")),
            ("dtype", ("float32", "bfloat16")),
            ("pooling", ("average", "max", "gem", "grid")),
        ):
            value = getattr(self, name)
            _expect(name, repr(value), value in choices, f"one of {', '.join(choices)}")
        plain = pathlib.PurePath(self.name)
        _expect("name", repr(self.name), len(plain.parts) <= 1 and self.name != "..", "one folder")


def _expect(name: str, got: Any, fine: bool, expected: str) -> None:
    if not fine:
        raise ValueError(f"{name}: got {got}, expected {expected}")


# ---------------------------------------------------------------- config files


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """The settings that a Python file gives: its names that are fields of `Settings`.

    Raises:
      ValueError: a file that is missing or fails, or a lower-case name that is no setting.
    """
    try:
        names = runpy.run_path(str(path))
    except OSError as error:
        raise ValueError(f"config: cannot read {path} ({error.strerror})") from error
    except Exception as error:  # whatever a user's file may raise
        raise ValueError(f"config: {path} fails: {type(error).__name__}: {error}") from error
    hints = get_type_hints(Settings)
    values = {}
    for name, value in names.items():
        if name in hints:
            values[name] = value
        elif name.islower() and not name.startswith("_") and _is_plain(value):
            known = ", ".join(sorted(hints))
            raise ValueError(f"config: {path} sets {name}, expected one of {known}")
    return values


def _own_config(name: str) -> dict[str, Any]:
    """The settings of a file in `experiments/configs`, none where there is no such file."""
    path = CONFIGS / f"{name}.py"
    return read_config(path) if path.exists() else {}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, tuple, list, dict))


# ---------------------------------------------------------------- flags


class Command(NamedTuple):
    """What the command line asks for."""

    settings: Settings
    resume: bool
    processes: Processes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}\n")


def parse(argv: Sequence[str] | None, *, prog: str, about: str) -> Command:
    """Settings from the command line, whether to resume, and which process of several this is.

    Flags win over the file of `--config`, that over the files in `experiments/configs` that are
    named after the data and after the loss, and these over the defaults of `Settings`.

    Raises:
      ValueError: a wrong value, in one line.
    """
    usage = f"{prog} [--data NAME] [--loss NAME] [--steps N] [--config FILE] [options]"
    parser = _Parser(prog=prog, usage=usage, description=about, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="a Python file that sets any of these")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        if field.name == "loss_options":
            continue
        title = field.metadata["group"]
        group = groups[title] = groups.get(title) or parser.add_argument_group(title)
        default: Any = field.default
        kind, several = type(default), isinstance(default, tuple)
        default = " ".join(map(str, default)) if several else default
        about_default = f" ({default})" if default != "" else ""
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            type=int if several else kind,
            nargs="+" if several else None,
            metavar=("N" if several or kind is int else "X" if kind is float else "NAME"),
            help=field.metadata["about"] + about_default,
        )
    _add_processes(parser)
    flags = vars(parser.parse_args(argv))
    config, resume = flags.pop("config"), flags.pop("resume")
    processes = Processes(*(flags.pop(name) for name in ("coordinator", "processes", "process")))
    processes.check()
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if value is not None
    }
    from_file = read_config(pathlib.Path(config)) if config else {}
    data = pathlib.PurePath(str(given.get("data", from_file.get("data", Settings.data)))).name
    of_data = _own_config(data)
    loss = given.get("loss", from_file.get("loss", of_data.get("loss", Settings.loss)))
    _expect("loss", repr(loss), loss in known(), f"one of {', '.join(known())}")
    _expect("loss", loss, from_file.get("loss", loss) == loss, f"that of {config}")
    if of_data.get("loss") != loss:
        of_data.pop("loss_options", None)
    values = {**_own_config(loss), **of_data, **from_file, **given, "loss": loss}
    settings = Settings(**values)
    settings.check()
    return Command(settings, resume, processes)


def _add_processes(parser: argparse.ArgumentParser) -> None:
    """The flags that differ between the processes of a run, or belong to none."""
    group = parser.add_argument_group("several processes, each with its own devices")
    about = "host:port of process 0, the same for all; auto on TPU pods, SLURM, Kubernetes"
    group.add_argument("--coordinator", default="", metavar="ADDRESS", help=about)
    group.add_argument("--processes", default=1, type=int, metavar="N", help="how many (1)")
    group.add_argument("--process", default=0, type=int, metavar="N", help="which, from 0 (0)")
