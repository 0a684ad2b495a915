"""Slow distances: Moebius addition in the ball, and noise over signal, one coordinate at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from reference_pairs import Distance

Row = Sequence[float] | np.ndarray


def _inner(a: Row, b: Row) -> float:
    return math.fsum(float(s) * float(t) for s, t in zip(a, b))


def clipped(row: Row, radius: float) -> list[float]:
    """The row, shortened to the radius if it is longer."""
    length = math.sqrt(_inner(row, row))
    return [float(v) * min(1.0, radius / length) if length > 0 else 0.0 for v in row]


def into_the_ball(row: Row, curvature: float) -> list[float]:
    """The exponential map at the origin of the ball of curvature -c."""
    length = math.sqrt(curvature * _inner(row, row))
    return [math.tanh(length) / length * float(v) if length > 0 else 0.0 for v in row]


def moebius_addition(a: Row, b: Row, curvature: float) -> list[float]:
    """a (+) b in the ball of curvature -c."""
    aa, ab, bb = _inner(a, a), _inner(a, b), _inner(b, b)
    along_a = 1.0 + 2.0 * curvature * ab + curvature * bb
    along_b = 1.0 - curvature * aa
    below = 1.0 + 2.0 * curvature * ab + curvature**2 * aa * bb
    return [(along_a * s + along_b * t) / below for s, t in zip(a, b)]


def poincare(curvature: float = 0.1, clip_radius: float = 2.3) -> Distance:
    """2 / sqrt(c) artanh(sqrt(c) |(-x) (+) y|) of rows clipped and mapped into the ball."""

    def distance(a: Row, b: Row) -> float:
        x, y = (into_the_ball(clipped(row, clip_radius), curvature) for row in (a, b))
        step = moebius_addition([-v for v in x], y, curvature)
        root = math.sqrt(curvature)
        return 2.0 / root * math.atanh(root * math.sqrt(_inner(step, step)))

    return distance


def snr(a: Row, b: Row) -> float:
    """var(a - b) / var(a) over the features; var(a - b) alone where a has no variance."""

    def variance(row: list[float]) -> float:
        mean = math.fsum(row) / len(row)
        return math.fsum((v - mean) ** 2 for v in row) / len(row)

    noise = variance([float(s) - float(t) for s, t in zip(a, b)])
    signal = variance([float(s) for s in a])
    return noise / signal if signal > 1e-150 else noise
