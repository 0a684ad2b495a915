"""Who takes part in the reality check, and which of their numbers are searched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jdml import distances, miners

# Numbers of the optimizer; every other one is a keyword of the loss.
RATES = ("learning_rate", "table_multiplier")


class Number(NamedTuple):
    """A number that is searched.

    Attributes:
      default: the first trial takes it: the paper's value, or what this repository found to work.
      low, high: the bounds of the search.
      logarithm: searched by its logarithm.
    """

    default: float
    low: float
    high: float
    logarithm: bool = False


@dataclasses.dataclass(frozen=True)
class Contender:
    """A loss with its fixed options and the numbers that are searched.

    Attributes:
      loss: of `jdml.losses`.
      numbers: two or three that matter most; the optimizer's own are in `RATES`.
      options: keywords that stay as they are: a miner, a distance.
    """

    loss: str
    numbers: Mapping[str, Number]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def defaults(self) -> dict[str, float]:
        """The numbers of the first trial."""
        return {name: number.default for name, number in self.numbers.items()}

    def as_json(self) -> dict[str, Any]:
        """As a file holds it: what JSON cannot hold is written out as text."""
        numbers = {name: list(number) for name, number in self.numbers.items()}
        options = {name: repr(value) for name, value in self.options.items()}
        return {"loss": self.loss, "numbers": numbers, "options": options}


_RATE = {"learning_rate": Number(3e-3, 1e-3, 1e-2, True)}
# Class tables see few rows of their class a step and often want a higher rate.
_TABLE = {**_RATE, "table_multiplier": Number(3.0, 0.5, 50.0, True)}
_UNIT = {"distance": distances.normalized(distances.euclidean)}
_FACENET = {
    "distance": distances.normalized(distances.squared_euclidean),
    "miner": miners.SemiHard(),
}

CONTENDERS: dict[str, Contender] = {
    "contrastive": Contender(
        "contrastive", {**_RATE, "negative_margin": Number(0.9, 0.3, 1.3)}, _UNIT
    ),
    "triplet, semi-hard": Contender(
        "triplet", {**_RATE, "margin": Number(0.2, 0.05, 0.6)}, _FACENET
    ),
    "lifted_structure": Contender("lifted_structure", {**_RATE, "margin": Number(1.0, 0.3, 5.0)}),
    "n_pair": Contender("n_pair", {**_RATE, "norm_weight": Number(2e-3, 3e-4, 5e-2, True)}),
    "angular": Contender(
        "angular", {**_RATE, "angle": Number(math.radians(36), math.radians(25), math.radians(55))}
    ),
    "center + softmax": Contender("center", {**_TABLE, "weight": Number(3e-3, 3e-4, 0.1, True)}),
    "sphereface": Contender("sphereface", {**_TABLE, "margin": Number(4.0, 1.5, 4.0)}),
    "cosface": Contender(
        "cosface", {**_TABLE, "margin": Number(0.2, 0.0, 0.5), "scale": Number(30.0, 8.0, 64.0)}
    ),
    "arcface": Contender(
        "arcface", {**_TABLE, "margin": Number(0.2, 0.0, 0.6), "scale": Number(30.0, 8.0, 64.0)}
    ),
    "normalized_softmax": Contender(
        "normalized_softmax", {**_TABLE, "temperature": Number(0.05, 0.02, 0.2, True)}
    ),
    "soft_triple": Contender(
        "soft_triple", {**_TABLE, "scale": Number(20.0, 8.0, 40.0)}, {"sub_centers": 4}
    ),
    # Less than the authors' 100 times: trained from scratch, the encoder's own rate is high.
    "proxy_anchor": Contender(
        "proxy_anchor",
        {
            **_RATE,
            "table_multiplier": Number(0.3, 0.05, 5.0, True),
            "alpha": Number(32.0, 8.0, 48.0),
        },
    ),
    "multi_similarity": Contender(
        "multi_similarity",
        {**_RATE, "beta": Number(50.0, 10.0, 80.0), "base": Number(0.5, 0.2, 0.9)},
        {"miner": miners.MultiSimilarity(0.1)},
    ),
    "supcon": Contender("supcon", {**_RATE, "temperature": Number(0.1, 0.03, 0.3, True)}),
    "smooth_ap": Contender("smooth_ap", {**_RATE, "temperature": Number(0.01, 0.005, 0.1, True)}),
}
