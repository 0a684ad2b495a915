"""Numbers of a loss that are learned with the encoder: scales, biases, boundaries of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jdml._core import checks
from jdml._core.options import Array
from jdml.states.rows import existing_labels


@dataclass(frozen=True)
class Learned:
    """A number to learn, as `learned` and `learned_logarithm` give it.

    Attributes:
      start: its value before the first step.
      logarithm: the parameter is a logarithm of the number.
      smallest, largest: bounds of the number, which it comes near to and never passes.
      num_classes: C where each class has a number of its own, None for one number.
    """

    start: float
    logarithm: bool = False
    smallest: float = 0.0
    largest: float = math.inf
    num_classes: int | None = None

    def parameter(self) -> Array:
        """The parameter at the start: a float32 scalar, or one a class [C]."""
        start = self.start
        if self.logarithm:
            below, above = start - self.smallest, self.largest - start
            start = math.log(below) - (0.0 if math.isinf(above) else math.log(above))
        shape = () if self.num_classes is None else (self.num_classes,)
        return jnp.full(shape, start, jnp.float32)

    def number(self, parameter: Array, labels: Array, where: Array | None = None) -> Array:
        """The number of a parameter, or the numbers of the classes of the rows [B].

        Raises:
          ValueError: an existing row of a class beyond `num_classes`, where labels are at hand.
        """
        value = self._value(parameter)
        if self.num_classes is None:
            return value
        labels = existing_labels(labels, where)
        checks.known_classes(labels, self.num_classes)
        inside = (labels >= 0) & (labels < self.num_classes)
        own = value[jnp.where(inside, labels, 0)]
        return jnp.where(inside, own, self.start)

    def _value(self, parameter: Array) -> Array:
        if not self.logarithm:
            return parameter
        if math.isinf(self.largest):
            return self.smallest + jnp.exp(parameter)
        return self.smallest + (self.largest - self.smallest) * jax.nn.sigmoid(parameter)


def learned(start: float, *, num_classes: int | None = None) -> Learned:
    """A number of a loss that is learned, in the place of the number.

    Any number that a loss takes can be learned: it becomes a parameter of the objective, beside
    the class table if there is one. With `num_classes` each class learns its own, which a loss
    sees as one number a row; the boundaries of `losses.margin` are meant so.

    Args:
      start: its value before the first step.
      num_classes: C, for one number a class. A row of a class beyond it is an error outside jit;
        under jit, where labels cannot be looked at, it keeps `start`, as missing rows do anywhere.

    Returns:
      What `pairs`, `table` and the objectives of single losses take for a number.

    Example:
      >>> objective = pairs(losses.margin, beta=learned(1.2, num_classes=3), margin=0.1)
      >>> params, state = objective.init(jax.random.key(0), 2)
      >>> print(params["beta"])
      [1.2 1.2 1.2]

    Reference:
      Wu, Manmatha, Smola, Krahenbuhl: Sampling Matters in Deep Embedding Learning, ICCV 2017.
    """
    return Learned(float(start), num_classes=_classes(num_classes))


def learned_logarithm(
    start: float,
    *,
    smallest: float = 0.0,
    largest: float = math.inf,
    num_classes: int | None = None,
) -> Learned:
    """A positive number of a loss that is learned by its logarithm, within bounds.

    For scales and temperatures: steps are relative to their size and they never turn negative. A
    scale that grows without bound makes the loss overflow, so bound it. Far below `largest` the
    parameter is the logarithm but for a constant; near it the number slows down instead of
    being cut off, so that its gradient does not vanish at once.

        smallest + exp(p), and with a largest smallest + (largest - smallest) / (1 + exp(-p))

    Args:
      start: its value before the first step, between the bounds.
      smallest, largest: what it never passes.
      num_classes: C, for one number a class; see `learned` for rows of a class beyond it.

    Returns:
      What `pairs`, `table` and the objectives of single losses take for a number.

    Raises:
      ValueError: a start outside the bounds, or negative bounds.

    Example:
      >>> scale = learned_logarithm(10.0, largest=100.0)
      >>> objective = pairs(losses.siglip, scale=scale, bias=learned(-10.0))
      >>> params, _ = objective.init(jax.random.key(0), 2)
      >>> print(f"{params['scale']:.4f}", params["bias"])  # log(10 / 90)
      -2.1972 -10.0

    Reference:
      Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, 2021;
      there the scale is cut off at 100.
    """
    if smallest < 0:
        raise ValueError(f"smallest: got {smallest}, expected 0 or more")
    if not smallest < start < largest:
        bounds = f"more than {smallest} and less than {largest}"
        raise ValueError(f"start: got {start}, expected {bounds}")
    return Learned(float(start), True, float(smallest), float(largest), _classes(num_classes))


def split(numbers: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Learned]]:
    """The keywords of a loss that stay as they are, and those to learn."""
    taught = {name: value for name, value in numbers.items() if isinstance(value, Learned)}
    return {name: value for name, value in numbers.items() if name not in taught}, taught


def starts(taught: Mapping[str, Learned]) -> dict[str, Array]:
    """The parameters before the first step."""
    return {name: number.parameter() for name, number in taught.items()}


def values(
    taught: Mapping[str, Learned], params: Any, labels: Any, where: Any = None
) -> dict[str, Array]:
    """The keywords of the loss that these parameters are."""
    return {name: number.number(params[name], labels, where) for name, number in taught.items()}


def _classes(num_classes: int | None) -> int | None:
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes: got {num_classes}, expected 1 or more")
    return num_classes
