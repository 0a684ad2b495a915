"""Reported faults of losses on the statistics of pairs, each with its right value."""

from __future__ import annotations

import golden_data
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_statistics as slow
from reference_pairs import PairSet, euclidean, normalized

from jdml import losses, objectives, states

pytestmark = pytest.mark.usefixtures("quick_compile")
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
Y = np.array([0, 0, 1, 1, 2, 0])


def test_j3_thresholds_read_the_rows_of_the_references():
    """References in another order are the same references."""
    refs, ref_labels = X[[5, 3, 1, 0, 2]] + 0.1, Y[[5, 3, 1, 0, 2]]
    order = np.array([4, 2, 0, 3, 1])
    options = {"positive_margin": 0.95, "negative_margin": -0.5}
    plain = losses.threshold_consistent_margin(X, Y, refs=refs, ref_labels=ref_labels, **options)
    mixed = losses.threshold_consistent_margin(
        X, Y, refs=refs[order], ref_labels=ref_labels[order], **options
    )
    expected = slow.threshold_consistent_margin(X, Y, refs, ref_labels, **options)
    terms = [[(v, w) for _, v, w in term if v > 0] for term in expected]
    value = sum(sum(v * w for v, w in term) / sum(w for _, w in term) for term in terms)
    np.testing.assert_allclose(plain, value, rtol=1e-5)
    np.testing.assert_allclose(mixed, plain, rtol=1e-6)


def test_j7_duplicate_rows_fill_the_last_bin():
    """Cosines of duplicates round to above 1: they stay in the last bin, and finite."""
    x = np.repeat(X[:3], 2, axis=0) * np.array([[1], [3], [1], [7], [1], [0.1]], np.float32)
    y = np.repeat(np.arange(3), 2)
    value, gradient = jax.value_and_grad(lambda x: losses.histogram(x, y))(jnp.asarray(x))
    assert 0 <= float(value) < 1e-6  # every positive is nearer than any negative
    assert np.isfinite(gradient).all()


def test_the_histogram_of_margins_is_the_one_of_the_golden():
    """State and value of the package's first call; its gradient differs, see the list."""
    with jax.enable_x64(True):
        for case, golden in golden_data.entries("losses")["dynamic_soft_margin"]["cases"].items():
            data = golden_data.inputs(case)
            x, y = jnp.asarray(data["embeddings"]), jnp.asarray(data["labels"])
            state = states.update_margins(states.margins(10).astype(jnp.float64), x, y)
            np.testing.assert_allclose(
                state, golden_data.array(golden["state_hist_after"]), rtol=1e-9, atol=1e-12
            )
            value = losses.dynamic_soft_margin(x, y, histogram=jnp.zeros(10))
            np.testing.assert_allclose(value, golden["value"], rtol=1e-9)


def test_the_rule_mixes_batches_as_a_loop_does():
    state, pairs = states.margins(8), PairSet(X, Y, distance=normalized(euclidean))
    for _ in range(2):
        counts = slow.triplet_histogram(pairs, 8, -2.0)
        expected = slow.mixed(np.asarray(state).tolist(), counts, 0.3)
        state = states.update_margins(state, X, Y, rate=0.3)
        np.testing.assert_allclose(state, expected, rtol=1e-4, atol=1e-6)
    alone = states.update_margins(state, X[:3], np.arange(3))
    np.testing.assert_array_equal(alone, state)  # no triplet: nothing to mix


def test_the_objective_keeps_the_histogram():
    objective = objectives.dynamic_soft_margin(bins=8, rate=0.3)
    params, state = objective.init(jax.random.key(0), 3)
    batch = {"labels": jnp.asarray(Y)}
    value = objective.loss(params, state, jnp.asarray(X), batch)
    new = objective.update(state, params, jnp.asarray(X), batch)
    np.testing.assert_allclose(
        value, losses.dynamic_soft_margin(X, Y, histogram=jnp.zeros(8), rate=0.3)
    )
    np.testing.assert_allclose(new, states.update_margins(states.margins(8), X, Y, rate=0.3))


def test_a_missing_histogram_is_named():
    with pytest.raises(ValueError, match="histogram: got None, expected a state such as"):
        losses.dynamic_soft_margin(X, Y)
