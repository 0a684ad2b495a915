"""What the jitted train step does to its images, by the names in the settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from jdml.augment import Chain, ColourJitter, Cutout, Flip, GaussianBlur, Greyscale, Warp

_MAKERS: dict[str, Callable[[Any], Any]] = {
    "warp": lambda settings: scaled(settings.warp) if settings.warp else None,
    "flip": lambda _: Flip(),
    "colour": lambda _: ColourJitter(0.4, 0.4, 0.4, hue=0.2 * math.pi),
    "grey": lambda _: Greyscale(),
    "blur": lambda _: GaussianBlur(),
    "cutout": lambda _: Cutout(),
}
AUGMENTS = tuple(_MAKERS)


def build(settings: Any) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """The augmentation `f(keys [B], images [B, H, W, C]) -> float32 images` of a run.

    Args:
      settings: `augment` names what happens, in its order; `warp` is the strength of warps.

    Returns:
      The one that is asked for, several as a `Chain`, or None.

    Example:
      >>> from experiments.settings import Settings
      >>> build(Settings(warp=0.5))
      Warp(turn=0.06, shear=0.075, stretch=0.06, shift=0.03)
    """
    steps = [_MAKERS[name](settings) for name in settings.augment]
    steps = [step for step in steps if step is not None]
    return Chain(*steps) if len(steps) > 1 else steps[0] if steps else None


def scaled(strength: float) -> Warp:
    """The default warp, stronger or weaker.

    Example:
      >>> scaled(0.5).turn
      0.06
    """
    plain = Warp()
    widest = (plain.turn, plain.shear, plain.stretch, plain.shift)
    return Warp(*(strength * most for most in widest))
