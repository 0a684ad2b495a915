"""Distances between two sets of rows: [B, D] x [R, D] -> [B, R]. Smaller is closer, always.

Every distance is called with two matrices of rows, and gives at least float32. Losses that leave
the distance open take any of these, or any function of two matrices, as `distance=`. Products
accumulate at the highest precision, since the default of some accelerators breaks rankings.

A distance may offer `prepare(rows)`, what concerns one row alone (such as normalisation), and
`prepared(x, y, needed)`, the distance between prepared rows; engines then prepare once. `needed`
[B, R] tells which entries matter; the others may hold anything finite. One with `symmetric = True`,
d(x, y) = d(y, x), lets engines visit each pair of a batch once.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.checks import describe, expect, same_width
from jdml._core.choices import function
from jdml._core.maths import inner_products, measure, power_norm, prepare, safe_sqrt, unit
from jdml._core.options import Array, Distance

# A Gram-form squared distance below this share of |x|^2 + |y|^2 has lost digits to cancellation.
_CANCELLED = 1e-3
# sinh of twice this, squared, is still a float32.
_FARTHEST = 20.0


def _squared(x: Array, y: Array, needed: Array | None) -> Array:
    """|x - y|^2 through one matrix product, exact differences where that would lose digits.

    A product rounds to about 1e-7 of |x|^2 + |y|^2, which swamps the distance of near duplicates.
    Where any needed pair is that close, differences are summed feature by feature instead. The
    correction is a constant to autodiff: both forms have the same derivative.
    """
    # A far common offset costs digits too.
    center = lax.stop_gradient(y.mean(axis=0, keepdims=True))
    one = x is y
    x = x - center
    y = x if one else y - center
    scale = (x * x).sum(axis=-1)[:, None] + (y * y).sum(axis=-1)[None, :]
    gram = scale - 2.0 * inner_products(x, y)
    rows_x, rows_y, rough, size = lax.stop_gradient((x, y, gram, scale))
    close = rough <= _CANCELLED * size
    wanted = close if needed is None else close & needed

    def differences() -> Array:
        step = lambda k, out: out + (rows_x[:, k][:, None] - rows_y[:, k][None, :]) ** 2
        exact = lax.fori_loop(0, rows_x.shape[1], step, jnp.zeros_like(rough))
        return jnp.where(close, exact - rough, 0.0)

    correction = lax.cond(wanted.any(), differences, lambda: jnp.zeros_like(rough))
    return jnp.maximum(gram + correction, 0.0)


def _lifted(name: str, rows: Array) -> Array:
    """Rows called for directly; squares of half a precision would soon be infinite."""
    rows = jnp.asarray(rows)
    expect(rows.ndim == 2, name, rows, "a matrix [B, D], one row an item")
    half = jnp.issubdtype(rows.dtype, jnp.floating) and jnp.finfo(rows.dtype).bits < 32
    return rows.astype(jnp.float32) if half else rows


def _number(name: str, value: float) -> float:
    """A plain number: a distance is a choice, and is hashed by it."""
    if getattr(value, "ndim", 0):
        raise TypeError(f"{name}: got {describe(value)}, expected a number; call it for a distance")
    return float(value)


class _Rows:
    """A distance that needs nothing prepared."""

    symmetric: ClassVar[bool] = True

    def __call__(self, x: Array, y: Array) -> Array:
        x, y = _lifted("x", x), _lifted("y", y)
        same_width("y", y, "x", x)
        return self.prepared(self.prepare(x), self.prepare(y))

    def prepare(self, rows: Array) -> Array:
        return rows

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Euclidean(_Rows):
    """|x - y|, with gradient 0 at distance 0.

    Near duplicates keep their distance: it is not lost to the cancellation of the usual
    |x|^2 + |y|^2 - 2 x.y.

    Example:
      >>> euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]]))
      Array([[5., 0.]], dtype=float32)
    """

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        return safe_sqrt(_squared(x, y, needed))


@dataclasses.dataclass(frozen=True)
class SquaredEuclidean(_Rows):
    """|x - y|^2.

    Example:
      >>> squared_euclidean(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]]))
      Array([[25.]], dtype=float32)
    """

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        return _squared(x, y, needed)


@dataclasses.dataclass(frozen=True)
class Cosine(_Rows):
    """1 - cos(x, y), from 0 (same direction) to 2 (opposite). A zero row is at 1 from all others.

    Example:
      >>> cosine(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))
      Array([[0., 1., 2.]], dtype=float32)
    """

    def prepare(self, rows: Array) -> Array:
        return unit(rows)

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        return 1.0 - inner_products(x, y)


@dataclasses.dataclass(frozen=True)
class Dot(_Rows):
    """The negative inner product -x.y: unbounded, smaller is closer.

    Example:
      >>> dot(jnp.array([[2.0, 1.0]]), jnp.array([[3.0, 4.0]]))
      Array([[-10.]], dtype=float32)
    """

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        return -inner_products(x, y)


@dataclasses.dataclass(frozen=True)
class Angular(_Rows):
    """The angle between x and y in radians, 0 to pi, with gradient 0 at both ends.

    The chord and its complement give the angle by an arc tangent, which keeps small angles and
    has the finite gradient that arccos of a cosine lacks.

    Example:
      >>> angular(jnp.array([[1.0, 0.0]]), jnp.array([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
      Array([[0.       , 1.5707964, 3.1415927]], dtype=float32)
    """

    def prepare(self, rows: Array) -> Array:
        return unit(rows)

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        chord = safe_sqrt(_squared(x, y, needed))
        across = safe_sqrt(2.0 + 2.0 * inner_products(x, y))
        return 2.0 * jnp.arctan2(chord, across)


@dataclasses.dataclass(frozen=True)
class Lp(_Rows):
    """The p-norm of x - y. See `lp`."""

    p: float

    def __post_init__(self) -> None:
        if not self.p > 0:
            raise ValueError(f"p: got {self.p}, expected a number > 0 or math.inf")

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        # Differences [B, R, D] are formed again in the backward pass rather than kept.
        between = jax.checkpoint(lambda x, y: power_norm(x[:, None, :] - y[None, :, :], self.p))
        return between(x, y)


@dataclasses.dataclass(frozen=True)
class SignalToNoise(_Rows):
    """var(x - y) / var(x), with the variance over the features of a row: x is the signal.

    How much noise turns x into y, in shares of the signal: 0 for equal rows, 1 where the noise is
    as strong as the signal, unbounded above. It does not depend on the common scale of x and y,
    nor on what is added to all features of a row. It is not symmetric: an anchor is the signal,
    and what it is compared with is that signal with noise. With a contrastive loss it is the SNR
    loss of the paper, to which `regularizers.zero_mean` belongs:

        losses.contrastive(embeddings, labels, distance=distances.snr, negative_margin=0.2)

    A row whose features are all equal has no signal. Its variance is then taken as 1, which leaves
    the noise alone, var(x - y): finite, with a finite gradient. In float32 that is the case below
    a variance of about 1e-19.

    Example:
      >>> snr(jnp.array([[1.0, -1.0]]), jnp.array([[1.0, -1.0], [3.0, -3.0], [5.0, 5.0]]))
      Array([[0., 4., 1.]], dtype=float32)

    Reference:
      Yuan, Deng, Tang, Tang, Chen: Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric
      Learning, CVPR 2019.
    """

    symmetric: ClassVar[bool] = False

    def prepare(self, rows: Array) -> Array:
        return rows - rows.mean(axis=-1, keepdims=True)

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        signal = (x * x).mean(axis=-1, keepdims=True)
        # What is divided by is squared in the gradient.
        silent = signal < math.sqrt(jnp.finfo(x.dtype).tiny)
        return _squared(x, y, needed) / x.shape[-1] / jnp.where(silent, 1.0, signal)


@dataclasses.dataclass(frozen=True)
class Poincare(_Rows):
    """The distance in a ball of constant negative curvature. See `poincare`.

    A row is kept as its direction u and its share of the distance r, side by side. With
    delta = sqrt(c) d / 2 the law of cosines of hyperbolic geometry reads

        sinh(delta)^2 = sinh(r_x - r_y)^2 + sinh(2 r_x) sinh(2 r_y) |u_x - u_y|^2 / 4

    a sum of two terms that are never negative, and keep their digits. Points of the ball itself,
    tanh(r) u, would lose them near its boundary.
    """

    curvature: float
    clip_radius: float

    def __post_init__(self) -> None:
        for name in ("curvature", "clip_radius"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a number > 0")
        farthest = math.sqrt(self.curvature) * self.clip_radius
        if farthest > _FARTHEST:
            raise ValueError(
                f"clip_radius: got {self.clip_radius}, expected at most {_FARTHEST} / "
                f"sqrt(curvature) = {_FARTHEST / math.sqrt(self.curvature):.4g}, since float32 "
                "holds no distances beyond"
            )

    def prepare(self, rows: Array) -> Array:
        direction = unit(rows)
        length = (rows * direction).sum(axis=-1, keepdims=True)
        radius = math.sqrt(self.curvature) * jnp.minimum(length, self.clip_radius)
        return jnp.concatenate([direction, radius], axis=-1)

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        r_x, r_y = x[:, -1:], y[:, -1:].swapaxes(0, 1)
        further = r_x - r_y
        turned = _squared(x[:, :-1], y[:, :-1], needed)
        # Equal rows that were prepared in two batches may differ by their last digits: they are
        # at distance 0, which has gradient 0, and not at one of 1e-7, which has gradient 1.
        rounding = 4.0 * jnp.finfo(x.dtype).eps
        further = jnp.where(jnp.abs(further) <= rounding * jnp.maximum(r_x, r_y), 0.0, further)
        turned = jnp.where(turned <= rounding**2, 0.0, turned)
        across = 0.25 * jnp.sinh(2.0 * r_x) * jnp.sinh(2.0 * r_y) * turned
        delta = jnp.arcsinh(safe_sqrt(jnp.sinh(further) ** 2 + across))
        return 2.0 / math.sqrt(self.curvature) * delta


@dataclasses.dataclass(frozen=True)
class Normalized(_Rows):
    """A distance after rows are brought to norm 1. See `normalized`."""

    distance: Distance
    order: float = 2.0

    def __post_init__(self) -> None:
        function("distance", self.distance, "distances.euclidean", "two matrices")
        if not self.order > 0:
            raise ValueError(f"order: got {self.order}, expected a number > 0 or math.inf")

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        return getattr(self.distance, "symmetric", False)

    def prepare(self, rows: Array) -> Array:
        return prepare(self.distance, unit(rows, self.order))

    def prepared(self, x: Array, y: Array, needed: Array | None = None) -> Array:
        return measure(self.distance, x, y, needed)


def lp(p: float) -> Lp:
    """The p-norm distance (sum_k |x_k - y_k|^p)^(1/p).

    p = 1 is the city-block distance, `math.inf` the largest difference; p below 1 is allowed
    though it is no norm. The gradient of a coordinate is 0 where the difference is 0.

    Args:
      p: a number > 0.

    Returns:
      A distance.

    Raises:
      ValueError: p is not above 0.

    Example:
      >>> lp(1)(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0]]))
      Array([[7.]], dtype=float32)
    """
    return Lp(_number("p", p))


def poincare(curvature: float = 0.1, clip_radius: float = 2.3) -> Poincare:
    """The distance 2 / sqrt(c) artanh(sqrt(c) |(-x) (+) y|) between rows mapped into a ball.

    Room in hyperbolic space grows exponentially with the distance from its origin, as the leaves
    of a tree do with its depth: it suits classes that form a hierarchy, and few dimensions. Rows
    come as an encoder gives them, neither normalised nor on the ball: a row longer than
    `clip_radius` is shortened to it, then the exponential map at the origin puts the row v to
    tanh(sqrt(c) |v|) v / (sqrt(c) |v|). (+) is the addition of Moebius in the ball of curvature -c.

    The distance of a row from the origin is twice its (clipped) length. As the curvature tends to
    0 the distance tends to 2 |x - y|. The gradient is 0 at distance 0 and for a row of zeros; of a
    row beyond the clip radius only the direction counts. Hyperbolic vision transformers are
    trained by

        losses.ntxent(z, y, temperature=0.2, denominator="all", distance=distances.poincare())

    Args:
      curvature: c > 0, the curvature being -c; 0.1 in the paper, 0.01 to 1 is sensible. A choice:
        another value compiles anew.
      clip_radius: greatest length of a row before it is mapped, 2.3 in the paper, which keeps rows
        off the boundary of the ball; at most 20 / sqrt(curvature).

    Returns:
      A distance.

    Raises:
      ValueError: a number is not above 0, or the clip radius is too large.

    Example:
      >>> rows = jnp.array([[0.0, 1.0], [30.0, 40.0]])
      >>> near, clipped = poincare()(jnp.zeros((1, 2)), rows)[0]
      >>> print(f"{near:.3f} {clipped:.3f}")
      2.000 4.600

    Note:
      The authors' code also keeps points 1e-3 off the boundary and lengths 1e-5 off 0. Neither is
      needed here, where the distance is not computed from points of the ball.

    Reference:
      Ermolov, Mirvakhabova, Khrulkov, Sebe, Oseledets: Hyperbolic Vision Transformers: Combining
      Improvements in Metric Learning, CVPR 2022.
    """
    return Poincare(_number("curvature", curvature), _number("clip_radius", clip_radius))


def normalized(distance: Distance, *, order: float = 2.0) -> Normalized:
    """`distance` between rows that are first divided by their norm.

    Args:
      distance: any distance.
      order: of the norm that is divided by, a number > 0.

    Returns:
      A distance.

    Raises:
      TypeError: distance is no function.
      ValueError: order is not above 0.

    Example:
      >>> normalized(euclidean)(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 9.0]]))
      Array([[1.4142135]], dtype=float32)
    """
    return Normalized(distance, _number("order", order))


euclidean = Euclidean()
squared_euclidean = SquaredEuclidean()
cosine = Cosine()
dot = Dot()
angular = Angular()
snr = SignalToNoise()
