"""Distances between two sets of rows: [B, D] x [R, D] -> [B, R]. Smaller is closer, always.

Every distance is called with two matrices of rows. Losses that leave the distance open take any
of these, or any function of two matrices, as `distance=`. Products accumulate in at least float32
at the highest precision, since the default of some accelerators breaks rankings.

A distance may offer `prepare(rows)`, what concerns one row alone (such as normalisation), and
`prepared(x, y, needed)`, the distance between prepared rows; engines then prepare once. `needed`
[B, R] tells which entries matter; the others may hold anything finite.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.maths import inner_products, measure, power_norm, prepare, safe_sqrt, unit
from jdml._core.options import Array, Distance

# A Gram-form squared distance below this share of |x|^2 + |y|^2 has lost digits to cancellation.
_CANCELLED = 1e-3


def _squared(x: Array, y: Array, needed: Array | None) -> Array:
    """|x - y|^2 through one matrix product, exact differences where that would lose digits.

    A product rounds to about 1e-7 of |x|^2 + |y|^2, which swamps the distance of near duplicates.
    Where any needed pair is that close, differences are summed feature by feature instead. The
    correction is a constant to autodiff: both forms have the same derivative.
    """
    center = lax.stop_gradient(
        y.mean(axis=0, keepdims=True)
    )  # a far common offset costs digits too
    x, y = x - center, y - center
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


class _Rows:
    """A distance that needs nothing prepared."""

    def __call__(self, x: Array, y: Array) -> Array:
        x, y = jnp.asarray(x), jnp.asarray(y)
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
class Normalized(_Rows):
    """A distance after rows are brought to norm 1. See `normalized`."""

    distance: Distance
    order: float = 2.0

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
    return Lp(float(p))


def normalized(distance: Distance, *, order: float = 2.0) -> Normalized:
    """`distance` between rows that are first divided by their norm.

    Args:
      distance: any distance.
      order: of the norm that is divided by.

    Returns:
      A distance.

    Example:
      >>> normalized(euclidean)(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 9.0]]))
      Array([[1.4142135]], dtype=float32)
    """
    return Normalized(distance, float(order))


euclidean = Euclidean()
squared_euclidean = SquaredEuclidean()
cosine = Cosine()
dot = Dot()
angular = Angular()
