"""Distances: values by hand, digits near zero, gradients at the edges."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jdml import distances

pytestmark = pytest.mark.usefixtures("quick_compile")

PAIRS = [
    (distances.euclidean, references.euclidean),
    (distances.squared_euclidean, references.squared_euclidean),
    (distances.cosine, references.cosine),
    (distances.dot, references.dot),
    (distances.angular, references.angular_distance),
    (distances.lp(1), references.lp(1)),
    (distances.lp(0.5), references.lp(0.5)),
    (distances.lp(2.5), references.lp(2.5)),
    (distances.lp(math.inf), references.lp(math.inf)),
    (distances.normalized(distances.euclidean), references.normalized(references.euclidean)),
    (distances.normalized(distances.lp(3)), references.normalized(references.lp(3))),
]
ids = [str(ours) for ours, _ in PAIRS]


@pytest.mark.parametrize(("ours", "reference"), PAIRS, ids=ids)
def test_value_and_gradient_in_float64(ours, reference):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), rng.normal(size=(4, 5))
    with jax.enable_x64(True):
        value = lambda x, y: (ours(x, y) * w).sum()
        matrix = np.array([[reference(a, b) for b in y] for a in x])
        np.testing.assert_allclose(ours(jnp.asarray(x), jnp.asarray(y)), matrix, rtol=1e-11)
        by_x, by_y = jax.grad(value, (0, 1))(jnp.asarray(x), jnp.asarray(y))
        dx, dy, h = rng.normal(size=x.shape), rng.normal(size=y.shape), 1e-6
        up, down = (float(value(x + s * dx, y + s * dy)) for s in (h, -h))
        slope = float((by_x * dx).sum() + (by_y * dy).sum())
        np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize(("ours", "reference"), PAIRS, ids=ids)
def test_the_same_row_and_the_zero_row_have_finite_gradients(ours, reference):
    x = jnp.array([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, -2.0, 0.0]])
    values, gradient = jax.value_and_grad(lambda x: ours(x, x).sum())(x)
    assert np.isfinite(values)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("n", [2, 26, 70])
def test_j6_near_duplicates_keep_their_distance_at_any_size(n: int):
    """1e-5 stays 1e-5 in float32, however many rows there are and wherever they lie."""
    rows = np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32) + 100
    rows[1] = rows[0]
    rows[1, 3] += np.float32(1e-3)
    step = float(rows[1, 3]) - float(rows[0, 3])  # what float32 kept of it
    measured = distances.euclidean(jnp.asarray(rows), jnp.asarray(rows))
    np.testing.assert_allclose(measured[0, 1], step, rtol=1e-5)
    assert not np.diag(measured).any()


def test_a11_the_city_block_distance_is_not_a_signed_sum():
    a, n = jnp.zeros((1, 2)), jnp.array([[3.0, -3.0]])
    assert float(distances.lp(1)(a, n)[0, 0]) == 6
    np.testing.assert_allclose(distances.lp(3)(a, -n)[0, 0], 54 ** (1 / 3), rtol=1e-6)
    assert float(distances.lp(math.inf)(a, n)[0, 0]) == 3


def test_angles_at_both_ends():
    """0 and pi exactly, small angles not lost, slope 1 between."""
    x = jnp.array([[1.0, 0.0]])
    ends = distances.angular(x, jnp.array([[2.0, 0.0], [-3.0, 0.0]]))
    np.testing.assert_allclose(ends, [[0.0, math.pi]], rtol=1e-7)
    for angle in (1e-4, 0.3, 3.0):
        turned = lambda t: distances.angular(x, jnp.stack([jnp.cos(t), jnp.sin(t)])[None])[0, 0]
        value, slope = jax.value_and_grad(turned)(jnp.float32(angle))
        np.testing.assert_allclose(value, angle, rtol=1e-3)
        np.testing.assert_allclose(slope, 1.0, rtol=1e-3)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e15, 1e30])
def test_directions_of_very_short_and_very_long_rows(size: float):
    rows = jnp.array([[3.0, 4.0], [4.0, -3.0]]) * size
    np.testing.assert_allclose(distances.cosine(rows, rows), 1 - np.eye(2), atol=1e-6)


def test_a_power_that_is_no_distance_is_refused():
    with pytest.raises(ValueError, match=r"p: got 0\.0, expected a number > 0"):
        distances.lp(0)
