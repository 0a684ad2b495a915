"""Distances: values by hand, digits near zero, gradients at the edges."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
import references_distances

from jdml import distances, losses, miners

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
    (distances.snr, references_distances.snr),
    (distances.poincare(), references_distances.poincare()),
    (distances.poincare(1.0, 1.5), references_distances.poincare(1.0, 1.5)),
    (distances.poincare(1e-8), references_distances.poincare(1e-8)),
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


# ---------------------------------------------------------------- signal to noise


def test_signal_to_noise_is_not_symmetric_and_has_no_scale():
    """The anchor is the signal: (1, -1) against (2, -2) is noise of 1 / 1 and of 1 / 4."""
    x, y = jnp.array([[1.0, -1.0]]), jnp.array([[2.0, -2.0]])
    assert float(distances.snr(x, y)[0, 0]) == 1
    assert float(distances.snr(y, x)[0, 0]) == 0.25
    assert float(distances.snr(7 * x + 3, 7 * y - 2)[0, 0]) == 1


def test_j7_a_row_without_signal_leaves_the_noise():
    x, y = jnp.array([[0.0, 0.0], [5.0, 5.0]]), jnp.array([[2.0, -2.0], [3.0, 3.0]])
    value = lambda x: distances.snr(x, y)
    np.testing.assert_array_equal(value(x), [[4, 0], [4, 0]])
    gradient = jax.grad(lambda x: value(x).sum())(x)
    np.testing.assert_array_equal(gradient, [[-2, 2], [-2, 2]])  # of var(x - y)
    for size in (1e-30, 1e-20, 1e-10, 1e-5):
        tiny = jnp.array([[1.0, -1.0]]) * size
        assert np.isfinite(jax.grad(lambda x: value(x).sum())(tiny)).all()


def test_the_anchor_is_the_signal_in_a_loss():
    """The positive is 1 / 1 away from the anchor, which is 1 / 4 away from it."""
    rows, y = jnp.array([[1.0, -1.0], [2.0, -2.0]]), jnp.array([0, 0])
    by_anchor = losses.contrastive(rows, y, distance=distances.snr, reduction="none")
    np.testing.assert_allclose(by_anchor, [1.0, 0.25])


# ---------------------------------------------------------------- hyperbolic


@pytest.mark.parametrize(("curvature", "clip_radius"), [(0.1, 2.3), (1.0, 6.0), (0.01, 100.0)])
def test_poincare_in_float32_is_moebius_addition_in_float64(curvature, clip_radius):
    """Rows on all scales, up to 1e-5 off the boundary of the ball, near duplicates among them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9, 4)) * np.logspace(-3, 1, 9)[:, None]
    rows = np.concatenate([rows, rows[3:6] + 1e-3, np.zeros((1, 4))]).astype(np.float32)
    ours = distances.poincare(curvature, clip_radius)
    reference = references_distances.poincare(curvature, clip_radius)
    matrix = np.array([[reference(a, b) for b in rows] for a in rows])
    np.testing.assert_allclose(ours(rows, rows), matrix, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("radius", [1e-3, 1.0, 5.0, 12.0])
def test_poincare_keeps_steps_along_a_ray_at_any_radius(radius: float):
    """Twice the step, with slope 2, where points of the ball would be equal in float32."""
    ours = distances.poincare(1.0, 20.0)
    near, far = np.float32(radius), np.float32(radius * 1.01)
    away = lambda near: ours(jnp.array([[0.6, 0.8]]) * near, jnp.array([[0.6, 0.8]]) * far)[0, 0]
    value, slope = jax.value_and_grad(away)(near)
    np.testing.assert_allclose(value, 2 * (float(far) - float(near)), rtol=1e-3)
    np.testing.assert_allclose(slope, -2, rtol=1e-3)


def test_poincare_tends_to_twice_the_euclidean_distance():
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (4, 5))
    for curvature in (1e-6, 1e-12, 1e-20):
        flat = distances.poincare(curvature, 100.0)(x, y)
        np.testing.assert_allclose(flat, 2 * distances.euclidean(x, y), rtol=2e-5)


def test_poincare_from_the_origin_is_twice_the_clipped_length():
    rows = jnp.array([[0.0, 0.5], [3.0, 4.0], [-1e18, 0.0], [0.0, 0.0]])
    measured = distances.poincare(0.3, 2.0)(jnp.zeros((1, 2)), rows)
    np.testing.assert_allclose(measured, [[1, 4, 4, 0]], rtol=1e-6)


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_equal_rows_are_at_distance_zero_with_a_zero_gradient(size: float):
    """Within one batch, and prepared in two batches of different lengths."""
    rows = np.random.default_rng(2).normal(size=(33, 65)).astype(np.float32) * np.float32(size)
    rows, again = jnp.asarray(rows), jnp.asarray(np.concatenate([rows, rows[::-1]]))
    ours = distances.poincare(1.0, 6.0)
    matrix = jax.jit(ours)(again, rows)
    assert not np.diag(matrix[:33]).any()
    assert not np.diag(matrix[33:][::-1]).any()
    pulled = jax.jit(jax.grad(lambda x: jnp.diag(ours(x, again)).sum()))(rows)
    assert not np.asarray(pulled).any()


def test_beyond_the_clip_radius_only_the_direction_counts():
    x, y = jnp.array([[3.0, 4.0]]), jnp.array([[0.5, 0.1]])
    gradient = jax.grad(lambda x: distances.poincare()(x, y)[0, 0])(x)
    np.testing.assert_allclose((gradient * x).sum(), 0, atol=1e-6)
    assert np.abs(gradient).max() > 0.1


def test_hyperbolic_infonce_sees_the_miner_the_blocks_and_the_mask():
    """The distance serves every pair loss: what the engine does with others it does with this."""
    rng = np.random.default_rng(3)
    x, y = jnp.asarray(rng.normal(size=(9, 3)), jnp.float32), jnp.arange(9) % 3
    options = {"distance": distances.poincare(), "where": jnp.arange(9) != 4}
    whole = losses.ntxent(x, y, denominator="all", **options)
    cut = losses.ntxent(x.at[4].set(jnp.nan), y, denominator="all", block_size=4, **options)
    np.testing.assert_allclose(cut, whole, rtol=1e-6)
    mined = losses.triplet(x, y, miner=miners.BatchHard(), **options)
    assert np.isfinite(mined)


def test_distances_are_choices():
    assert distances.poincare(0.1) == distances.poincare(np.float64(0.1))
    assert hash(distances.poincare(0.1)) == hash(distances.poincare(0.1))
    assert distances.poincare(0.1) != distances.poincare(0.2)


def test_a_ball_that_float32_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"curvature: got 0\.0, expected a number > 0"):
        distances.poincare(0)
    with pytest.raises(ValueError, match=r"clip_radius: got -1\.0, expected a number > 0"):
        distances.poincare(clip_radius=-1)
    with pytest.raises(ValueError, match=r"clip_radius: got inf, expected at most .* = 63\.25"):
        distances.poincare(clip_radius=math.inf)
