"""What every setting has to keep to, checked before a file is written."""

from __future__ import annotations

import inspect
import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args, get_origin

from experiments.encoder import POOLING
from jdml import miners

if TYPE_CHECKING:
    from experiments.settings import Settings

_AT_LEAST_1 = (
    "steps", "classes_per_batch", "per_class", "super_classes", "dim", "checkpoint_every",
    "model", "chunks", "sample_groups",
)  # fmt: skip
_AT_LEAST_0 = (
    "seed", "folds", "fold", "warp", "weight_decay", "table_decay", "table_multiplier",
    "trunk_multiplier", "freeze_trunk_steps", "momentum", "clip_norm", "test_classes", "workers",
    "image_size", "crop", "class_rows", "sampled", "drop", "mix",
)  # fmt: skip


def _is_free(maker: Any) -> bool:
    """Whether it can be made without an argument."""
    parameters = inspect.signature(maker).parameters.values()
    return all(p.default is not p.empty for p in parameters)


_CHOICES = {
    "parallel": ("jit", "pmap", "shard_map"),
    "dtype": ("float32", "bfloat16"),
    "encoder": tuple(POOLING),
    "optimizer": ("adamw", "sgd", "rmsprop"),
    "schedule": ("cosine", "steps", "constant"),
    "select": ("last", "best"),
    "pooling": ("", "average", "max", "average+max", "gem", "grid", "token"),
    "miner": ("", *(name for name in sorted(miners.__all__) if _is_free(getattr(miners, name)))),
}


def expect(name: str, got: Any, fine: bool, expected: str) -> None:
    """Raises ValueError, one line that names a setting, unless it is fine."""
    if not fine:
        raise ValueError(f"{name}: got {got}, expected {expected}")


def check(settings: Settings, hints: Mapping[str, Any]) -> None:
    """Raises ValueError for values that no run could use.

    Args:
      settings: of a run.
      hints: the type of each of them.
    """
    for name, hint in hints.items():
        _check_type(name, getattr(settings, name), hint)
    for names, least in ((_AT_LEAST_1, 1), (_AT_LEAST_0, 0)):
        for name in names:
            value = getattr(settings, name)
            expect(name, value, least <= value < math.inf, f"{least} or more")
    for name, choices in _choices().items():
        value = getattr(settings, name)
        expect(name, repr(value), value in choices, f"one of {', '.join(filter(None, choices))}")
    _check_batches(settings)
    _check_course(settings)
    _check_loss(settings)
    rate, name = settings.learning_rate, settings.name
    expect("learning_rate", rate, 0 < rate < math.inf, "more than 0")
    whole = bool(settings.widths) and min(settings.widths) > 0
    expect("widths", settings.widths, whole, "whole numbers of 1 or more")
    ranks = bool(settings.ks) and min(settings.ks) > 0 and list(settings.ks) == sorted(settings.ks)
    expect("ks", settings.ks, ranks, "rising ranks of 1 or more")
    expect("folds", settings.folds, settings.folds != 1, "0, or 2 or more")
    part = settings.fold < max(settings.folds, 1)
    expect("fold", settings.fold, part, f"a number below folds {settings.folds}")
    plain = pathlib.PurePath(name)
    expect("name", repr(name), len(plain.parts) <= 1 and name != "..", "one folder")


def _check_type(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        fits = isinstance(value, tuple) and all(_is(x, kind) for x in value)
        words = {int: "whole numbers", float: "numbers", str: "names"}
        expect(name, repr(value), fits, f"a tuple of {words[kind]}")
    elif get_origin(hint) is Mapping or hint is Mapping:
        expect(name, value, isinstance(value, dict), "a dict")
    else:
        words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
        expect(name, repr(value), _is(value, hint), words[hint])


def _is(value: Any, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _choices() -> dict[str, tuple[str, ...]]:
    from experiments.data import SAMPLERS  # which knows the settings

    return {**_CHOICES, "sampler": SAMPLERS}


def _check_batches(settings: Settings) -> None:
    from experiments.augment import AUGMENTS

    for name in settings.augment:
        expect("augment", repr(name), name in AUGMENTS, f"some of {', '.join(AUGMENTS)}")
    twice = len(set(settings.augment)) < len(settings.augment)
    expect("augment", settings.augment, not twice, "each name once")
    scale = settings.crop_scale
    fine = len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1
    expect("crop_scale", scale, fine, "the least and the most share of the area, 0 to 1")
    if settings.image_size:
        expect("crop", settings.crop, settings.crop <= settings.image_size, "image_size or less")
    if settings.sampler == "hierarchical":
        divides = settings.classes_per_batch % settings.super_classes == 0
        expect("super_classes", settings.super_classes, divides, "a divisor of classes_per_batch")


def _check_course(settings: Settings) -> None:
    steps = settings.steps
    expect("warmup", settings.warmup, -1 <= settings.warmup < steps, f"-1 to {steps - 1}")
    stones = settings.milestones
    rising = list(stones) == sorted(set(stones)) and min(stones, default=1) > 0
    fits = rising and bool(stones) == (settings.schedule == "steps")
    expect("milestones", stones, fits, "rising steps, with --schedule steps alone")


def _check_loss(settings: Settings) -> None:
    widths = settings.matryoshka
    rising = list(widths) == sorted(set(widths)) and min(widths, default=1) > 0
    fits = rising and max(widths, default=1) <= settings.dim
    expect("matryoshka", widths, fits, f"rising widths of 1 to dim {settings.dim}")
    both = bool(settings.miner) and "miner" in settings.loss_options
    expect("miner", repr(settings.miner), not both, "nothing, as loss_options has one")
