"""Edges of losses on relations and of self-supervised losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
