"""Reported faults of losses on the statistics of pairs, each with its right value."""

from __future__ import annotations

import functools

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
    """The state after the package's first call; cases are padded, to compile once."""
    with jax.enable_x64(True):
        rule = jax.jit(states.update_margins)
        for case, golden in golden_data.entries("losses")["dynamic_soft_margin"]["cases"].items():
            batch = golden_data.padded(case)
            state = rule(jnp.zeros(10), jnp.asarray(batch.embeddings), jnp.asarray(batch.labels))
            expected = golden_data.array(golden["state_hist_after"])
            np.testing.assert_allclose(state, expected, rtol=1e-9, atol=1e-12, err_msg=case)


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
    by_state = jax.grad(lambda state: objective.loss(params, state, jnp.asarray(X), batch))(new)
    np.testing.assert_array_equal(by_state, 0.0)


def test_the_rule_weighs_rows_and_pairs_as_the_loss_does():
    """The next state, read as it is, gives the loss that mixed the batch in by itself."""
    objective = objectives.dynamic_soft_margin(bins=8, rate=0.3)
    by_row, by_pair = np.float32([5, 1, 0, 2, 1, 3]), np.float32(np.arange(36).reshape(6, 6) % 5)
    plain = states.update_margins(states.margins(8), X, Y)
    for weights in (by_row, by_pair):
        pairs = PairSet(X, Y, distance=normalized(euclidean), weights=weights)
        counts = np.asarray(slow.triplet_histogram(pairs, 8, -2.0))
        batch = {"labels": jnp.asarray(Y), "weights": jnp.asarray(weights)}
        state = objective.update(states.margins(8), {}, jnp.asarray(X), batch)
        np.testing.assert_allclose(state, counts / counts.sum(), rtol=1e-4, atol=1e-6)
        assert np.abs(state - plain).max() > 0.01
        fresh = objective.loss({}, states.margins(8), jnp.asarray(X), batch)
        after = losses.dynamic_soft_margin(X, Y, histogram=state, rate=0.0, weights=weights)
        np.testing.assert_allclose(after, fresh, rtol=1e-5)


def test_the_rule_takes_the_labels_of_the_loss():
    plain = states.update_margins(states.margins(8), X, Y)
    for labels in (np.eye(3, dtype=np.int32)[Y], Y[:, None] == Y[None, :]):
        np.testing.assert_allclose(states.update_margins(states.margins(8), X, labels), plain)


def test_the_rule_spans_devices():
    x = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    y, where, state = np.arange(16) % 5, np.arange(16) != 3, jnp.asarray(states.margins(8)) + 0.125
    weights = (np.arange(16) % 3).astype(np.float32)
    rule = lambda x, y, where, weights, **options: states.update_margins(
        state, x, y, rate=0.4, where=where, weights=weights, **options
    )
    split = [v.reshape(8, 2, *v.shape[1:]) for v in (x, y, where, weights)]
    over = jax.pmap(functools.partial(rule, axis_name="i"), axis_name="i")(*split)
    for one in over:
        np.testing.assert_allclose(one, rule(x, y, where, weights), rtol=1e-5, atol=1e-7)


def test_the_histogram_keeps_its_dtype():
    with jax.enable_x64(True):
        state = states.margins(8).astype(jnp.float32)
        assert states.update_margins(state, jnp.asarray(X, jnp.float64), Y).dtype == jnp.float32
        assert states.update_margins(state, jnp.asarray(X, jnp.bfloat16), Y).dtype == jnp.float32


def test_a_histogram_that_is_none_is_named():
    with pytest.raises(ValueError, match="histogram: got None, expected a state such as"):
        losses.dynamic_soft_margin(X, Y)
    for call in (
        lambda h: losses.dynamic_soft_margin(X, Y, histogram=h),
        lambda h: states.update_margins(h, X, Y),
    ):
        for size in (0, 1):
            with pytest.raises(ValueError, match=rf"histogram: got float32\[{size}\], expected a"):
                call(jnp.zeros(size))
