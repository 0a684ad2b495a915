"""Edges of losses on relations and of self-supervised losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdml import losses

pytestmark = pytest.mark.usefixtures("quick_compile")
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = np.array([0, 0, 1, 1, 2, 0])


@pytest.mark.parametrize("loss", [losses.vicreg, losses.barlow_twins])
def test_t20_a_batch_of_one_item_is_no_nan(loss):
    one = {"refs": X[1:2], "ref_labels": np.array([0])}
    value, gradient = jax.value_and_grad(lambda x: loss(x, np.array([0]), **one))(
        jnp.asarray(X[:1])
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", [losses.vicreg, losses.barlow_twins])
def test_collapsed_dimensions_have_a_finite_gradient_without_epsilon(loss):
    value, gradient = jax.value_and_grad(lambda x: loss(x, Y, epsilon=0.0))(jnp.ones((6, 3)))
    assert np.isfinite(value)
    assert not np.asarray(gradient).any()


def two_branches(loss, x, refs, labels, **options):
    everybody = lambda v: v if not options else lax.all_gather(v, "batch", tiled=True)
    given = {"refs": everybody(refs), "ref_labels": everybody(labels)}
    return loss(x, labels, **given, **options)


@pytest.mark.parametrize("wrap", ["pmap", "shard_map"])
@pytest.mark.parametrize("loss", [losses.vicreg, losses.barlow_twins])
def test_t18_two_branches_over_devices_are_one_device(loss, wrap):
    """Each device holds its rows of both views and gathers the second: one value, one gradient."""
    x, refs = jnp.asarray(X), jnp.asarray(np.roll(X, 1, axis=0) + 0.5 * X)
    items = jnp.arange(len(X))
    both = lambda **options: jax.value_and_grad(
        lambda x, refs, items: two_branches(loss, x, refs, items, **options), (0, 1)
    )
    expected, gradients = both()(x, refs, items)
    if wrap == "pmap":
        split = lambda v: v.reshape(3, 2, *v.shape[1:])
        step = jax.pmap(both(axis_name="batch"), axis_name="batch", devices=jax.devices()[:3])
        values, found = step(split(x), split(refs), split(items))
        found = [g.reshape(x.shape) / 3 for g in found]  # each device differentiates its own copy
    else:
        mesh = jax.make_mesh(
            (3,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:3]
        )
        spec = P("batch")
        step = jax.shard_map(
            both(axis_name="batch"), mesh=mesh, in_specs=spec, out_specs=(P(), (spec, spec))
        )
        values, found = jax.jit(step)(x, refs, items)
    np.testing.assert_allclose(values, np.full(np.shape(values), expected), rtol=1e-5)
    for got, want in zip(found, gradients):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.alignment,
        losses.uniformity,
        losses.log_ratio,
        losses.centroid_triplet,
        losses.vicreg,
        losses.barlow_twins,
    ],
)
def test_j10_memory_is_less_than_one_matrix_of_distances(loss):
    n = 1024
    x, y = jnp.zeros((n, 4)), jnp.arange(n) % 16
    step = jax.jit(jax.grad(lambda x: loss(x, y, block_size=16)))
    assert step.lower(x).compile().memory_analysis().temp_size_in_bytes < n * n * 4


def test_uniformity_does_not_underflow():
    """Two opposite rows: -4 t for every t, and a slope that does not vanish."""
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    value = lambda t: losses.uniformity(x, np.arange(2), sharpness=t)
    for t in (2.0, 30.0, 1000.0):
        np.testing.assert_allclose(value(t), -4 * t, rtol=1e-6)
        np.testing.assert_allclose(jax.grad(value)(t), -4.0, rtol=1e-6)


def test_three_views_are_three_pairs_of_views():
    """Any number of views: the invariance is the mean over the pairs of branches."""
    first, second, third = X[:2], X[2:4], X[4:]
    only = {"variance_weight": 0.0, "covariance_weight": 0.0}
    together = losses.vicreg(X, np.tile(np.arange(2), 3), **only)
    two = [
        losses.vicreg(a, np.arange(2), refs=b, ref_labels=np.arange(2), **only)
        for a, b in ((first, second), (first, third), (second, third))
    ]
    np.testing.assert_allclose(together, sum(two) / 3, rtol=1e-5)


def test_log_ratio_takes_labels_of_several_dimensions():
    """Labels that are the rows themselves, scaled and shifted: all ratios are right."""
    labels = 3.0 * X + 1.0
    value, gradient = jax.value_and_grad(lambda x: losses.log_ratio(x, labels, epsilon=0.0))(
        jnp.asarray(X)
    )
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-3)
    with pytest.raises(
        ValueError, match="ref_labels: got float32\\[6\\], expected float32\\[6, 3\\]"
    ):
        losses.log_ratio(X, labels, refs=X, ref_labels=labels[:, 0])


@pytest.mark.parametrize("side", ["anchors", "references"])
def test_a_missing_row_may_hold_a_label_that_is_no_number(side):
    """As the row itself may: NaN marks what was never measured."""
    y, where = np.arange(6.0) ** 2, np.arange(6) < 5

    def run(numbers):
        given, options = (numbers, {"where": where})
        if side == "references":
            given, options = y, {"refs": X, "ref_labels": numbers, "ref_where": where}
        return jax.value_and_grad(lambda x: losses.log_ratio(x, given, **options))(jnp.asarray(X))

    (plain, by_rows), (found, gradient) = run(y), run(np.where(where, y, np.nan))
    np.testing.assert_allclose(found, plain, rtol=1e-6)
    np.testing.assert_allclose(gradient, by_rows, rtol=1e-5, atol=1e-6)


def test_log_ratio_names_what_is_wrong_with_its_labels():
    with pytest.raises(ValueError, match=r"labels: got float32\[6, 1, 1\], expected numbers \[B\]"):
        losses.log_ratio(X, np.zeros((6, 1, 1), np.float32))
    with pytest.raises(ValueError, match=r"labels: got float32\[5\], expected 6 rows"):
        losses.log_ratio(X, np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=r"where: got bool\[5\], expected shape \(6,\)"):
        losses.log_ratio(X, np.zeros(6, np.float32), where=np.ones(5, bool))


def test_centroids_want_one_class_a_row():
    with pytest.raises(ValueError, match="labels: got bool\\[6, 6\\], expected shape \\(6,\\)"):
        losses.centroid_triplet(X, np.ones((6, 6), bool))
    with pytest.raises(ValueError, match="weights: got float32\\[6, 6\\], expected shape \\(6,\\)"):
        losses.centroid_triplet(X, Y, weights=np.ones((6, 6), np.float32))


def test_alignment_of_duplicates_has_no_nan():
    value, gradient = jax.value_and_grad(lambda x: losses.alignment(x, np.zeros(2, int)))(
        jnp.ones((2, 3))
    )
    assert float(value) == 0
    assert not np.asarray(gradient).any()
