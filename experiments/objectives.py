"""From the name of a loss to the objective that trains with it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from jdml import losses, objectives
from jdml.objectives import Objective

# Losses with several rows a class, and how many their papers take.
SUB_CENTERS = {"hist": 2, "soft_triple": 10, "subcenter_arcface": 3}


def known() -> list[str]:
    """The names of the losses, in alphabetical order."""
    return sorted(losses.__all__)


def objective(name: str, num_classes: int, options: Mapping[str, Any]) -> Objective:
    """The objective of a loss: with a class table where the loss takes one.

    The center loss pulls classes together and needs another loss to hold them apart: it is added,
    with `weight` (0.003), to a softmax over cosines.

    Args:
      name: of a loss in `jdml.losses`.
      num_classes: of the training set.
      options: keywords of the loss.

    Returns:
      An `Objective`.

    Raises:
      ValueError: an unknown name or keyword, or a loss that no objective here feeds.
    """
    if name not in known():
        raise ValueError(f"loss: got {name!r}, expected one of {', '.join(known())}")
    options = dict(options)
    if name == "center":
        softmax = objectives.table(losses.cosface, num_classes, margin=0.0, scale=16.0)
        weight = options.pop("weight", 0.003)
        center = objectives.center(num_classes, **options)
        return objectives.weighted_sum((1.0, softmax), (weight, center))
    if hasattr(objectives, name):  # a loss that brings its own state
        make = getattr(objectives, name)
        takes_classes = "num_classes" in inspect.signature(make).parameters
        return make(*[num_classes] * takes_classes, **options)
    parameters = inspect.signature(getattr(losses, name)).parameters
    for option in options.keys() - parameters.keys() - {"sub_centers"}:
        raise ValueError(f"loss_options: got {option}, which {name} does not take")
    inputs = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if inputs == ["embeddings", "labels"]:
        return objectives.pairs(getattr(losses, name), **options)
    if inputs == ["embeddings", "labels", "proxies"]:
        if name in SUB_CENTERS:
            options.setdefault("sub_centers", SUB_CENTERS[name])
        return objectives.table(getattr(losses, name), num_classes, **options)
    raise ValueError(f"loss: got {name!r}, whose {', '.join(inputs[2:])} no objective here gives")
