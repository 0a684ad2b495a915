"""From the name of a loss to the objective that trains with it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jdml import losses, miners, objectives
from jdml.objectives import Objective

if TYPE_CHECKING:
    from experiments.settings import Settings

# Losses with several rows a class, and how many their papers take.
SUB_CENTERS = {"hist": 2, "soft_triple": 10, "subcenter_arcface": 3}


def known() -> list[str]:
    """The names of the losses, in alphabetical order."""
    return sorted(losses.__all__)


def build(settings: Settings, num_classes: int) -> Objective:
    """The objective of a run: the loss, and what the settings put around it.

    Raises:
      ValueError: what does not go with the loss, in one line.
    """
    options, loss = dict(settings.loss_options), settings.loss
    if settings.miner:
        options["miner"] = getattr(miners, settings.miner)()
    for name in ("class_rows", "sampled"):
        value = getattr(settings, name)
        if value and "proxies" not in inspect.signature(getattr(losses, loss)).parameters:
            raise ValueError(f"{name}: got {value}, expected 0, as {loss} has no class table")
    if settings.class_rows:
        rows = settings.class_rows
        if rows < num_classes:
            raise ValueError(f"class_rows: got {rows}, expected {num_classes} or more, the classes")
        options["rows"] = rows
    made = objective(loss, num_classes, options)
    if settings.mix:
        made = _mixed(loss, made, settings.mix)
    if settings.sampled:
        made = objectives.sampled(made, settings.sampled, groups=settings.sample_groups)
    if settings.matryoshka:
        made = objectives.matryoshka(made, settings.matryoshka)
    return made


def _mixed(name: str, made: Objective, weight: float) -> Objective:
    inputs = _inputs(getattr(losses, name))
    fits = inputs == ["embeddings", "labels"] and not hasattr(objectives, name)
    if not fits:
        raise ValueError(f"mix: got {weight}, expected 0, as {name} is no loss of pairs alone")
    return objectives.mixed(made, weight=weight)


def _inputs(loss: Any) -> list[str]:
    parameters = inspect.signature(loss).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def objective(name: str, num_classes: int, options: Mapping[str, Any]) -> Objective:
    """The objective of a loss: with a class table where the loss takes one.

    The center loss pulls classes together and needs another loss to hold them apart: it is added,
    with `weight` (0.003), to a softmax over cosines.

    Args:
      name: of a loss in `jdml.losses`.
      num_classes: of the training set.
      options: keywords of the loss, and with a class table `rows`, how many it has.

    Returns:
      An `Objective`.

    Raises:
      ValueError: an unknown name or keyword, or a loss that no objective here feeds.
    """
    if name not in known():
        raise ValueError(f"loss: got {name!r}, expected one of {', '.join(known())}")
    options = dict(options)
    _check_options(name, options)
    if name == "center":
        softmax = objectives.table(losses.cosface, num_classes, margin=0.0, scale=16.0)
        weight = options.pop("weight", 0.003)
        center = objectives.center(num_classes, **options)
        return objectives.weighted_sum((1.0, softmax), (weight, center))
    if hasattr(objectives, name):  # a loss that brings its own state
        make = getattr(objectives, name)
        takes_classes = "num_classes" in inspect.signature(make).parameters
        return make(*[num_classes] * takes_classes, **options)
    inputs = _inputs(getattr(losses, name))
    tables = inputs == ["embeddings", "labels", "proxies"]
    if inputs == ["embeddings", "labels"]:
        return objectives.pairs(getattr(losses, name), **options)
    if tables:
        if name in SUB_CENTERS:
            options.setdefault("sub_centers", SUB_CENTERS[name])
        return objectives.table(getattr(losses, name), num_classes, **options)
    raise ValueError(f"loss: got {name!r}, whose {', '.join(inputs[2:])} no objective here gives")


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuses a keyword that neither the loss takes nor the objective that feeds it."""
    loss, make = getattr(losses, name), getattr(objectives, name, None)
    taken, passed_on = {"weight"} if name == "center" else set(), make is None
    if make is not None:
        named = inspect.signature(make).parameters.values()
        passed_on = any(p.kind is p.VAR_KEYWORD for p in named)
        taken |= {p.name for p in named} - {"num_classes"}
    if passed_on:
        tables = _inputs(loss) == ["embeddings", "labels", "proxies"]
        taken |= {*inspect.signature(loss).parameters, *["sub_centers", "rows"] * tables}
    for option in options.keys() - taken:
        raise ValueError(f"loss_options: got {option}, which {name} does not take")
