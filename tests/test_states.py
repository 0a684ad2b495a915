"""State: rules that return the next value, the same on every device."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jdml import losses, objectives, states

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_a9_centers_move_by_the_delta_rule():
    """A class seen twice: 0.5 * (1 + 1) / (1 + 2); the other classes stay."""
    centers = states.update_centers(
        jnp.zeros((3, 2)), jnp.ones((2, 2)), jnp.array([0, 0]), rate=0.5
    )
    np.testing.assert_allclose(centers, [[1 / 3, 1 / 3], [0, 0], [0, 0]], rtol=1e-6)


def test_centers_are_the_reference():
    rng = np.random.default_rng(0)
    centers, x = rng.normal(size=(4, 3)), rng.normal(size=(9, 3))
    y, where = np.array([0, 1, 1, 0, 2, -1, 7, 1, 0]), np.arange(9) != 3
    got = states.update_centers(
        jnp.asarray(centers, jnp.float32), jnp.asarray(x, jnp.float32), y, rate=0.3, where=where
    )
    expected = references.update_centers(centers, x, y, rate=0.3, where=where)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a10_center_loss_does_not_depend_on_the_batch_size():
    x, y, centers = jnp.ones((3, 2)), jnp.array([0, 1, 0]), jnp.zeros((2, 2))
    once = losses.center(x, y, centers)
    twice = losses.center(jnp.tile(x, (2, 1)), jnp.tile(y, 2), centers)
    np.testing.assert_allclose(once, twice)


def test_rules_span_devices():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(16, 3)), jnp.float32)
    y, table = (
        jnp.asarray(rng.integers(0, 4, 16)),
        jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
    )
    split = lambda v: v.reshape(8, 2, *v.shape[1:])
    for rule in (
        lambda x, y, **o: states.update_centers(table, x, y, **o),
        lambda x, y, **o: states.push(states.memory(11, 3), x, y, **o).embeddings,
        lambda x, y, **o: states.update_adacos(jnp.float32(3.0), x, y, table, **o),
    ):
        spread = functools.partial(rule, axis_name="i")
        over = jax.pmap(spread, axis_name="i")(split(x), split(y))
        for one in over:
            np.testing.assert_allclose(one, rule(x, y), rtol=1e-5)


def test_memory_is_a_ring_without_holes():
    """Rows that do not exist take no slot, and the last rows of a large batch stay."""
    state = states.memory(3, 1)
    rows = lambda *values: jnp.array(values, jnp.float32)[:, None]
    state = states.push(state, rows(1, 2), jnp.array([1, 2]), where=jnp.array([False, True]))
    assert state.filled.tolist() == [True, False, False]
    state = states.push(state, rows(3, 4, 5, 6, 7), jnp.arange(3, 8))
    assert sorted(state.labels.tolist()) == [5, 6, 7]
    state = states.push(state, rows(8), jnp.array([8]))
    assert sorted(state.labels.tolist()) == [6, 7, 8]


OBJECTIVES = {
    "memory": objectives.with_memory(objectives.pairs(losses.contrastive), 5),
    "center": objectives.center(3),
    "adacos": objectives.adacos(3),
    "curricularface": objectives.curricularface(3),
    "adaface": objectives.adaface(3),
    "adaface, longer table": objectives.adaface(3, rows=8),
    "margins": objectives.dynamic_soft_margin(),
}
CLOSE = functools.partial(jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-5))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_b2_rows_that_the_loss_leaves_out_move_no_state(name):
    """A negative label, and one beyond the table, are as if their rows were not there."""
    objective = OBJECTIVES[name]
    params, state = objective.init(jax.random.key(0), 4)
    rows = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    labels = np.array([0, -1, 1, 7, 0, 2])
    out = (labels < 0) | ((labels > 2) if params or name == "center" else False)
    following = jax.jit(objective.update)
    expected = following(state, params, rows[~out], {"labels": labels[~out]})
    CLOSE(following(state, params, rows, {"labels": labels}), expected)
    moved = [(a != b).any() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected))]
    assert any(moved)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_without_rows_leaves_every_state(name):
    objective = OBJECTIVES[name]
    params, state = objective.init(jax.random.key(0), 4)
    none = {"labels": np.zeros(0, np.int32)}
    CLOSE(objective.update(state, params, np.zeros((0, 4), np.float32), none), state)


def test_an_empty_memory_gives_zero_and_then_its_own_batch():
    x, y = jnp.array([[0.0], [1.0]]), jnp.array([0, 0])
    state = states.memory(4, 1)
    assert float(losses.contrastive(x, y, **states.as_refs(state))) == 0
    state = states.push(state, x, y)
    # Nothing is excluded from explicit references: each row meets itself at 0 and the other at 1.
    loss = losses.contrastive(x, y, **states.as_refs(state), reduction="mean")
    np.testing.assert_allclose(loss, 0.5)


def test_adacos_scale_is_the_reference():
    rng = np.random.default_rng(2)
    x, table = rng.normal(size=(7, 4)), rng.normal(size=(5, 4))
    y, where = np.array([0, 1, 2, 3, 4, 0, 9]), np.arange(7) != 2
    arrays = (jnp.asarray(v, jnp.float32) for v in (x, table))
    got = states.update_adacos(jnp.float32(3.0), next(arrays), y, next(arrays), where=where)
    expected = references.update_adacos(3.0, x, y, table, where=where)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_adacos_survives_a_large_scale_and_an_empty_batch():
    x, table = jnp.eye(3), jnp.eye(3)
    assert np.isfinite(states.update_adacos(jnp.float32(500.0), x, jnp.arange(3), -table))
    scale = states.update_adacos(jnp.float32(5.0), x, jnp.full(3, -1), table)
    assert float(scale) == 5.0


def test_t20_two_classes_have_no_fixed_scale():
    with pytest.raises(ValueError, match="num_classes: got 2, expected 3 or more"):
        states.adacos_scale(2)
    with pytest.raises(ValueError, match="scale: got None with 2 classes"):
        losses.adacos(jnp.eye(2), jnp.arange(2), jnp.eye(2))
