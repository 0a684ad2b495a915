"""The Bessel function of directional statistics, at every dimension and concentration."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_proxy_models
from scipy import special

from jdml._core.bessel import bessel_ratio, log_bessel

DIMENSIONS = [2, 3, 4, 5, 16, 33, 34, 35, 128, 511, 2048]
X = np.array([0.0, 1e-6, 1e-2, 0.3, 1.0, 2.5, 7.0, 16.0, 40.0, 150.0, 900.0, 3e3, 1e4])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_it_is_the_power_series_at_every_concentration(dim: int, x64):
    order = dim / 2 - 1
    expected = [references_proxy_models.log_bessel(order, x) for x in X]
    np.testing.assert_allclose(log_bessel(order, jnp.asarray(X)), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_value_and_derivative_are_those_of_scipy(dim: int, x64):
    """Wherever scipy's own value does not vanish."""
    order = dim / 2 - 1
    here = X[(X > 0) & (special.ive(order + 1, X) > 1e-290)]
    expected = np.log(special.ive(order, here)) + here
    expected += special.gammaln(order + 1) - order * np.log(here / 2)
    value, slope = jax.vmap(jax.value_and_grad(lambda x: log_bessel(order, x)))(jnp.asarray(here))
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)
    ratio = special.ive(order + 1, here) / special.ive(order, here)
    np.testing.assert_allclose(slope, ratio, rtol=1e-10)
    np.testing.assert_array_equal(slope, bessel_ratio(order, jnp.asarray(here)))


def test_the_smallest_dimensions_have_closed_forms(x64):
    """D = 3: sinh(x) / x. D = 5 has the ratio 1 / (coth(x) - 1 / x) - 3 / x."""
    x = X[3:8]
    np.testing.assert_allclose(log_bessel(0.5, jnp.asarray(x)), np.log(np.sinh(x) / x), rtol=1e-11)
    langevin = 1 / np.tanh(x) - 1 / x
    np.testing.assert_allclose(bessel_ratio(0.5, jnp.asarray(x)), langevin, rtol=1e-11)
    np.testing.assert_allclose(bessel_ratio(1.5, jnp.asarray(x)), 1 / langevin - 3 / x, rtol=1e-9)


@pytest.mark.parametrize("dim", [2, 5, 128])
def test_second_derivatives_are_finite_differences(dim: int, x64):
    order, h = dim / 2 - 1, 1e-5
    for x in (0.0, 0.5, 20.0, 300.0):
        curve = jax.grad(jax.grad(lambda x: log_bessel(order, x)))(jnp.float64(x))
        rise = bessel_ratio(order, jnp.float64(x + h)) - bessel_ratio(order, jnp.float64(x - h))
        np.testing.assert_allclose(curve, rise / (2 * h), rtol=1e-5, atol=1e-9)
    assert math.isclose(
        jax.grad(jax.grad(lambda x: log_bessel(order, x)))(jnp.float64(0.0)), 1 / dim
    )


def test_float32_keeps_its_digits():
    for dim in DIMENSIONS:
        order = dim / 2 - 1
        expected = [references_proxy_models.log_bessel(order, x) for x in X]
        found = log_bessel(order, jnp.asarray(X, jnp.float32))
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
