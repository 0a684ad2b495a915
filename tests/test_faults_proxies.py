"""Reported faults of proxy losses, each with its right value, and what these losses promise."""

from __future__ import annotations

import math

import golden_data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_proxy_models as slow
from reference_pairs import reduce

from jdml import losses

pytestmark = pytest.mark.usefixtures("quick_compile")
RNG = np.random.default_rng(0)
X, PROXIES = (RNG.normal(size=(n, 4)).astype(np.float32) for n in (6, 3))
Y = np.array([0, 2, 1, 1, 0, 2])


def value_and_gradients(loss, x, y, proxies, **options):
    run = lambda x, proxies: loss(x, y, proxies, **options)
    x, proxies = jnp.asarray(x, jnp.float32), jnp.asarray(proxies, jnp.float32)
    value, gradients = jax.value_and_grad(run, (0, 1))(x, proxies)
    return float(value), [np.asarray(g) for g in gradients]


def finite(value, gradients):
    return math.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_j2_an_item_is_a_row_of_the_table_not_of_the_batch():
    """The value of a row depends on its item only, not on where the row stands in the batch."""
    each = losses.instance(X, Y, PROXIES, reduction="none")
    turned = losses.instance(X[::-1], Y[::-1], PROXIES, reduction="none")
    np.testing.assert_allclose(turned[::-1], each, rtol=1e-6)
    alone = [losses.instance(X[i : i + 1], Y[i : i + 1], PROXIES) for i in range(len(Y))]
    np.testing.assert_allclose(each, alone, rtol=1e-6)


def test_instance_with_each_row_as_its_item_is_the_golden():
    """To what float64 keeps of 1 + x in the package; its gradient also flows through the table."""
    golden = golden_data.entries("losses")["instance_unique"]
    options = {"scale": 64.0, "normalized": True}
    with jax.enable_x64(True):
        for case, entry in golden["cases"].items():
            x = jnp.asarray(golden_data.inputs(case)["embeddings"])
            run = lambda x: losses.instance(x, jnp.arange(len(x)), x, **options)
            value, gradient = jax.value_and_grad(run)(x)
            np.testing.assert_allclose(value, entry["value"], rtol=1e-9, atol=1e-15, err_msg=case)
            expected = golden_data.array(entry["grad_emb"])
            np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-15, err_msg=case)


def test_j7_p2s_grad_of_a_row_of_zeros():
    """All its cosines are 0: it is wrong about its own class alone."""
    value, gradients = value_and_gradients(losses.p2s_grad, np.zeros((1, 4)), [1], PROXIES)
    assert value == 0.5
    assert not any(g.any() for g in gradients)


def test_p2s_grad_has_the_gradient_of_the_paper():
    """By each cosine: the cosine, less 1 for the own class."""
    unit = PROXIES / np.linalg.norm(PROXIES, axis=1, keepdims=True)
    cosines = X / np.linalg.norm(X, axis=1, keepdims=True) @ unit.T
    wrong = cosines - np.eye(3)[Y]
    turns = unit[None] - cosines[..., None] * X[:, None] / np.linalg.norm(X, axis=1)[:, None, None]
    expected = (wrong[..., None] * turns).sum(1) / np.linalg.norm(X, axis=1)[:, None]
    _, (by_rows, _) = value_and_gradients(losses.p2s_grad, X, Y, PROXIES, reduction="sum")
    np.testing.assert_allclose(by_rows, expected, rtol=1e-5, atol=1e-6)


def test_j7_soft_triple_with_centers_that_coincide():
    centers = np.repeat(PROXIES[:, None], 3, axis=1)
    value, gradients = value_and_gradients(losses.soft_triple, X, Y, centers)
    assert finite(value, gradients)
    free = losses.soft_triple(X, Y, centers, spread_weight=0.0)
    np.testing.assert_allclose(value, free, rtol=1e-6)  # nothing lies apart


def test_soft_triple_with_one_center_has_no_spread():
    """No pairs of centers is 0, not 0 / 0; the loss is a softmax."""
    value, gradients = value_and_gradients(
        losses.soft_triple, X, Y, PROXIES[:, None], margin=0.0, scale=5.0, spread_weight=9.0
    )
    assert finite(value, gradients)
    softmax = losses.normalized_softmax(X, Y, PROXIES, temperature=0.2)
    np.testing.assert_allclose(value, softmax, rtol=1e-5)


def test_proxy_nca_plus_plus_is_rows_and_proxies_of_length_three():
    three = lambda rows: 3 * rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squares = ((three(X)[:, None] - three(PROXIES)[None]) ** 2).sum(-1)
    expected = squares[np.arange(6), Y] + np.log(np.exp(-squares).sum(1))
    found = losses.proxy_nca(X, Y, PROXIES, own="kept", scale=9.0, reduction="none")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_hist_counts_a_row_whose_probability_underflows():
    """The hardest row: on the mean of another class. Its value is a number and pulls."""
    proxies = np.stack([np.eye(4), np.zeros((4, 4))], axis=1)
    x, y = np.eye(4)[:1], np.array([1])
    value, (by_rows, by_table) = value_and_gradients(losses.hist, x, y, proxies, scale=200.0)
    assert value == 400.0  # squared distance 2; exp(-400) is 0 in float32
    assert by_rows.any()
    assert by_table.any()


def test_hist_with_equal_variances_is_proxy_nca():
    proxies = np.stack([PROXIES, np.full_like(PROXIES, math.log(2.0))], axis=1)
    found = losses.hist(X, Y, proxies, scale=8.0)
    expected = losses.proxy_nca(X, Y, PROXIES, own="kept", scale=4.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_hist_takes_means_and_variances():
    for table in (PROXIES, np.zeros((3, 3, 4), np.float32)):
        with pytest.raises(ValueError, match=r"proxies: .* expected means and logarithms"):
            losses.hist(X, Y, table)


@pytest.mark.parametrize("softening", [0.0, 1e-4])
def test_harmonic_on_a_center(softening: float):
    """On the own center nothing is left to lose; on another the price is high, and finite."""
    value, gradients = value_and_gradients(
        losses.harmonic, PROXIES, np.arange(3), PROXIES, softening=softening
    )
    assert finite(value, gradients)
    assert value < 1e-3
    value, gradients = value_and_gradients(
        losses.harmonic, PROXIES, np.array([1, 2, 0]), PROXIES, softening=softening
    )
    assert finite(value, gradients)
    assert value > 5


def test_harmonic_does_not_change_with_scale():
    plain = losses.harmonic(X, Y, PROXIES, softening=0.0)
    np.testing.assert_allclose(
        losses.harmonic(1e3 * X, Y, 1e3 * PROXIES, softening=0.0), plain, rtol=1e-5
    )


def test_one_concentration_for_all_classes_is_a_softmax():
    unit = PROXIES / np.linalg.norm(PROXIES, axis=1, keepdims=True)
    found = losses.von_mises_fisher(X, Y, unit, scale=10.0)
    np.testing.assert_allclose(
        found, losses.normalized_softmax(X, Y, PROXIES, temperature=0.1), rtol=1e-5
    )


def test_a_uniform_class_and_a_bounded_one():
    """A proxy of zeros is the uniform distribution, and a bound is one for all beyond it."""
    proxies = PROXIES * np.array([[0.0], [1.0], [50.0]], np.float32)
    value, gradients = value_and_gradients(losses.von_mises_fisher, X, Y, proxies)
    assert finite(value, gradients)
    _, (_, by_table) = value_and_gradients(
        losses.von_mises_fisher, X, Y, PROXIES, scale=1e4, upper_concentration=3.0
    )
    along = (by_table * PROXIES).sum(1)  # longer proxies change nothing
    np.testing.assert_allclose(along, 0.0, atol=1e-6)


def test_von_mises_fisher_at_the_width_of_embeddings():
    """512 dimensions, concentrations from none to 2000, in float32."""
    rng = np.random.default_rng(3)
    x, proxies = rng.normal(size=(5, 512)), rng.normal(size=(4, 512))
    proxies *= np.array([[1e-3], [1.0], [10.0], [88.0]])
    y = np.array([0, 1, 2, 3, 1])
    x += proxies[y] / np.linalg.norm(proxies[y], axis=1, keepdims=True) * 20
    expected = reduce(slow.von_mises_fisher(x, y, proxies, scale=1.0), "none", 5)
    value, gradients = value_and_gradients(losses.von_mises_fisher, x, y, proxies, scale=1.0)
    assert finite(value, gradients)
    found = losses.von_mises_fisher(
        x.astype(np.float32), y, proxies.astype(np.float32), scale=1.0, reduction="none"
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_manifold_with_the_context_alone():
    """An infinite weight is the context part, which is what is left of both less the other."""
    both, intrinsic, context = (
        losses.manifold(X, Y, PROXIES, context_weight=w) for w in (1.0, 0.0, math.inf)
    )
    np.testing.assert_allclose(context, both - intrinsic, rtol=1e-5)
    run = lambda x: losses.manifold(x, Y, PROXIES, context_weight=math.inf)
    assert np.isfinite(jax.grad(run)(jnp.asarray(X))).all()


@pytest.mark.parametrize("weight", [1e-6, 1 - 1e-6, 1 + 1e-6])
def test_manifold_is_continuous_in_the_weight_of_a_row(weight: float):
    """A row of next to no weight is next to not there; a weight near 1 is next to no weight."""
    weights = np.array([1, 1, weight, 1, 1, 1], np.float32)
    near = weights.round().astype(bool)
    found = losses.manifold(X, Y, PROXIES, weights=weights)
    np.testing.assert_allclose(found, losses.manifold(X, Y, PROXIES, where=near), rtol=1e-4)


def test_manifold_walks_over_other_rows():
    """A chain of rows leads to the proxy that the last one is not similar to itself."""
    angles = np.linspace(0.0, 0.6 * math.pi, 5)
    chain = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    proxies = np.array([[1.0, 0.0], [-1.0, -0.5]], np.float32)
    lost = lambda rows: losses.manifold(
        rows, np.zeros(len(rows), int), proxies, temperature=0.05, context_weight=0.0,
        reduction="none",
    )  # fmt: skip
    alone, led = lost(chain[-1:])[0], lost(chain)[-1]
    assert led < alone - 1e-3
