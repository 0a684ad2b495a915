"""What a training run is made of: numbers from a file of the loss, a config file and flags."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from experiments import rules
from experiments.encoder import POOLING
from experiments.objectives import known
from experiments.processes import Processes

CONFIGS = pathlib.Path(__file__).parent / "configs"


def _field(default: Any, about: str, group: str = "the run") -> Any:
    return dataclasses.field(default=default, metadata={"about": about, "group": group})


def _options(about: str) -> Any:
    """Keywords by name: no flag, a config file gives them."""
    return dataclasses.field(default_factory=dict, metadata={"about": about})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run depends on. Each field is a flag, and a name in a config file."""

    data: str = _field("hangul", "hangul, cub200, ..., folder:PATH (a folder a class, or a .csv)")
    data_options: tuple[str, ...] = _field((), "of a folder: label=COLUMN train=0.5 ...")
    steps: int = _field(2000, "training steps")
    seed: int = _field(0, "of parameters, batches and augmentation")
    folds: int = _field(0, "parts of the training classes, one of which validates; 0 is none")
    fold: int = _field(0, "which part validates, from 0")
    select: str = _field("last", "the state to test: last, or best in MAP@R of validation")
    ks: tuple[int, ...] = _field((1,), "recall at these ranks is told")
    verify: str = _field("", "a data set of pairs for the accuracy of ten folds, such as lfw")
    test_classes: int = _field(0, "unseen classes to search, to be quick; 0 is all")

    loss: str = _field("arcface", "of jdml.losses, with the numbers of its config", "loss")
    loss_options: Mapping[str, Any] = _options("keywords of the loss")
    miner: str = _field("", "of jdml.miners with its defaults, such as SemiHard", "loss")
    matryoshka: tuple[int, ...] = _field((), "widths that are embeddings of their own", "loss")
    class_rows: int = _field(0, "rows of class tables, for shards to divide; 0 is classes", "loss")
    sampled: int = _field(0, "classes in a step, of all in a table: Partial FC; 0 is all", "loss")
    mix: float = _field(0.0, "weight of a pair loss against mixed embeddings; 0 is none", "loss")
    sample_groups: int = _field(1, "parts of a table that give as many; class shards", "loss")

    parallel: str = _field("jit", "how devices share a batch: jit, pmap or shard_map", "devices")
    model: int = _field(1, "devices that share one class table, a divisor of theirs", "devices")
    dtype: str = _field("float32", "the encoder computes in: float32 or bfloat16", "devices")
    chunks: int = _field(1, "pieces that a batch is embedded in, to save memory", "devices")
    workers: int = _field(0, "processes that read batches ahead; 0 is a thread", "devices")

    classes_per_batch: int = _field(32, "classes in a batch, P", "batches")
    per_class: int = _field(4, "images of each of them, K", "batches")
    sampler: str = _field("class_balanced", "which classes come together", "batches")
    super_classes: int = _field(2, "of a batch, where the sampler is hierarchical", "batches")
    image_size: int = _field(0, "side of prepared images; 0 is the data set's own", "batches")
    crop: int = _field(0, "side of random crops, and of a test's centre; 0 is all", "batches")
    crop_scale: tuple[float, ...] = _field((0.2, 1.0), "least and most area of a crop", "batches")
    augment: tuple[str, ...] = _field(("warp",), "in order: warp, flip, colour, ...", "batches")
    warp: float = _field(1.0, "strength of the random warps; 0 turns them off", "batches")

    optimizer: str = _field("adamw", "adamw, sgd or rmsprop", "optimizer")
    learning_rate: float = _field(3e-3, "the encoder's highest", "optimizer")
    schedule: str = _field("cosine", "of the rate: cosine, steps or constant", "optimizer")
    milestones: tuple[int, ...] = _field((), "steps where the rate drops", "optimizer")
    drop: float = _field(0.1, "factor of the rate at a milestone", "optimizer")
    warmup: int = _field(-1, "steps of a rising rate; -1 is a twentieth of all", "optimizer")
    trunk_multiplier: float = _field(1.0, "all but the neck learns at this times", "optimizer")
    table_multiplier: float = _field(1.0, "class tables learn at this times that", "optimizer")
    freeze_trunk_steps: int = _field(0, "first steps in which only the neck learns", "optimizer")
    momentum: float = _field(0.9, "of sgd and rmsprop", "optimizer")
    weight_decay: float = _field(5e-4, "decoupled in adamw, on kernels", "optimizer")
    table_decay: float = _field(0.0, "the same, on class tables", "optimizer")
    clip_norm: float = _field(1.0, "largest norm of a gradient; 0 does not clip", "optimizer")

    encoder: str = _field("convnet", ", ".join(POOLING), "encoder")
    encoder_options: Mapping[str, Any] = _options("more keywords of the encoder")
    weights: str = _field("", "pretrained: a file, or a name that timm knows", "encoder")
    dim: int = _field(128, "width of the embedding", "encoder")
    widths: tuple[int, ...] = _field((32, 64, 128, 256), "features of convnet's blocks", "encoder")
    pooling: str = _field("", "average, max, average+max, gem, grid; its own by default", "encoder")
    frozen_norm: bool = _field(False, "batch norm stays as in the weights", "encoder")

    data_dir: str = _field("", "folder of TFDS data sets; its own by default", "files")
    run_dir: str = _field("runs", "folder of all runs", "files")
    name: str = _field("", "folder of this run in it; DATA-LOSS-SEED by default", "files")
    checkpoint_every: int = _field(500, "steps between checkpoints", "files")

    def __post_init__(self) -> None:
        if not self.pooling:
            object.__setattr__(self, "pooling", POOLING.get(self.encoder, ""))

    def folder(self) -> pathlib.Path:
        """Where the run writes."""
        data = self.data.replace("/", "-")
        if self.data.startswith("folder:"):
            data = f"folder-{pathlib.PurePath(self.data.partition(':')[2]).stem}"
        return pathlib.Path(self.run_dir) / (self.name or f"{data}-{self.loss}-{self.seed}")

    def as_json(self) -> dict[str, Any]:
        """As config.json holds it: what JSON cannot hold is written out as text."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.loads(json.dumps(fields, default=_text))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Settings:
        """The settings of a config.json, of an older one too; what was text stays text."""
        known = cls.__dataclass_fields__
        return cls(**{name: _tuples(value) for name, value in stored.items() if name in known})

    def check(self) -> None:
        """Raises ValueError for values that no run could use."""
        rules.check(self, get_type_hints(type(self)))


def _text(value: Any) -> str:
    """What a distance or a miner says of itself, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _tuples(value: Any) -> Any:
    """What JSON made lists of."""
    if isinstance(value, dict):
        return {name: _tuples(x) for name, x in value.items()}
    return tuple(_tuples(x) for x in value) if isinstance(value, list) else value


# ---------------------------------------------------------------- config files


def find_config(name: str) -> pathlib.Path:
    """The file of a config: a path, or a bare name of a file in `experiments/configs`."""
    own = CONFIGS / f"{name}.py"
    return own if pathlib.PurePath(name).name == name and own.exists() else pathlib.Path(name)


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


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}\n")


def parse(argv: Sequence[str] | None, *, prog: str, about: str) -> Command:
    """Settings from the command line, whether to resume, and which process of several this is.

    Raises:
      ValueError: a wrong value, in one line.
    """
    return command(vars(parser(prog, about).parse_args(argv)))


def parser(prog: str, about: str) -> Parser:
    """A flag for each setting, and those that are none."""
    usage = f"{prog} [--data NAME] [--loss NAME] [--steps N] [--config FILE] [options]"
    made = Parser(prog=prog, usage=usage, description=about, allow_abbrev=False)
    about = "a Python file that sets any of these, or the name of one in experiments/configs"
    made.add_argument("--config", metavar="FILE", help=about)
    made.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    groups: dict[str, Any] = {}
    hints = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        title = field.metadata.get("group")
        if title is None:
            continue
        group = groups[title] = groups.get(title) or made.add_argument_group(title)
        _add_flag(group, field, hints[field.name])
    _add_processes(made)
    return made


def _add_flag(group: Any, field: dataclasses.Field[Any], hint: Any) -> None:
    name, about = "--" + field.name.replace("_", "-"), field.metadata["about"]
    if hint is bool:
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=about)
        return
    several = get_origin(hint) is tuple
    kind = get_args(hint)[0] if several else hint
    default: Any = field.default
    shown: Any = " ".join(map(str, default)) if several else default
    group.add_argument(
        name,
        type=kind,
        nargs="*" if several else None,
        metavar="N" if kind is int else "X" if kind is float else "NAME",
        help=about + (f" ({shown})" if shown != "" else ""),
    )


def _add_processes(made: Parser) -> None:
    """The flags that differ between the processes of a run, or belong to none."""
    group = made.add_argument_group("several processes, each with its own devices")
    about = "host:port of process 0, the same for all; auto on TPU pods, SLURM, Kubernetes"
    group.add_argument("--coordinator", default="", metavar="ADDRESS", help=about)
    group.add_argument("--processes", default=1, type=int, metavar="N", help="how many (1)")
    group.add_argument("--process", default=0, type=int, metavar="N", help="which, from 0 (0)")


def command(flags: dict[str, Any]) -> Command:
    """What flags ask for.

    Flags win over the file of `--config`, and that over the defaults of `Settings`. Where no file
    says both the data and the loss, the files in `experiments/configs` that are named after them
    stand between, that of the data first.

    Args:
      flags: as `parser` gives them; None where one is not given.

    Returns:
      A `Command`.

    Raises:
      ValueError: a wrong value, in one line.
    """
    config, resume = flags.pop("config"), flags.pop("resume")
    processes = Processes(*(flags.pop(name) for name in ("coordinator", "processes", "process")))
    processes.check()
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if value is not None
    }
    from_file = read_config(find_config(config)) if config else {}
    complete = {"data", "loss"} <= from_file.keys()
    data = str(given.get("data", from_file.get("data", Settings.data)))
    own = not complete and not data.startswith("folder:")
    of_data = _own_config(pathlib.PurePath(data).name) if own else {}
    loss = given.get("loss", from_file.get("loss", of_data.get("loss", Settings.loss)))
    rules.expect("loss", repr(loss), loss in known(), f"one of {', '.join(known())}")
    rules.expect("loss", loss, from_file.get("loss", loss) == loss, f"that of {config}")
    if of_data.get("loss") != loss:
        of_data.pop("loss_options", None)
    of_loss = {} if complete else _own_config(loss)
    settings = Settings(**{**of_loss, **of_data, **from_file, **given, "loss": loss})
    settings.check()
    return Command(settings, resume, processes)
