"""Regularizers: values of slow loops, edges, masks, and one value on many devices."""

from __future__ import annotations

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from reference_pairs import cosine, euclidean, unit

from jdml import losses, regularizers

pytestmark = pytest.mark.usefixtures("quick_compile")

# Slow references: the rows that exist, float64 -> one value a row.


def lengths(rows, p, power):
    def length(row):
        sizes = [abs(float(v)) for v in row]
        return max(sizes) if math.isinf(p) else sum(v**p for v in sizes) ** (1 / p)

    return [length(row) ** power for row in rows]


def sums(rows):
    return [abs(sum(float(v) for v in row)) for row in rows]


def uneven_lengths(rows):
    squares = [sum(float(v) ** 2 for v in row) for row in rows]
    return [(square - sum(squares) / len(squares)) ** 2 / 4 for square in squares]


def nearest_cosines(rows):
    others = lambda i: [1 - cosine(rows[i], rows[j]) for j in range(len(rows)) if j != i]
    return [max(others(i)) for i in range(len(rows))]


def spreads(centers):
    def spread(rows):
        k, rows = len(rows), [unit(row) for row in rows]
        pairs = [(s, t) for t in range(k) for s in range(t)]
        return sum(euclidean(rows[s], rows[t]) for s, t in pairs) / max(k * (k - 1), 1)

    return [spread(rows) for rows in centers]


def _norm(p, power):
    ours = functools.partial(regularizers.norm, p=p, power=power)
    return ours, functools.partial(lengths, p=p, power=power), (8, 5)


CASES = {
    "norm": _norm(2, 1),
    "norm_squared": _norm(2, 2),
    "norm_1_power_3": _norm(1, 3),
    "norm_2.5": _norm(2.5, 1),
    "norm_inf": _norm(math.inf, 1),
    "zero_mean": (regularizers.zero_mean, sums, (8, 5)),
    "center_invariant": (regularizers.center_invariant, uneven_lengths, (8, 5)),
    "regular_face": (regularizers.regular_face, nearest_cosines, (8, 5)),
    "regular_face_blocks": (
        functools.partial(regularizers.regular_face, block_size=3), nearest_cosines, (8, 5)
    ),
    "sparse_centers": (regularizers.sparse_centers, spreads, (8, 4, 5)),
    "sparse_centers_of_two": (regularizers.sparse_centers, spreads, (8, 2, 5)),
}  # fmt: skip
every = pytest.mark.parametrize("name", CASES)
WHERE = np.arange(8) % 5 != 2
WEIGHTS = np.array([1.0, 2.0, 0.5, 0.0, 3.0, 1.5, 1.0, 2.0])


def draw(name, seed=0):
    return np.random.default_rng(seed).normal(size=CASES[name][2])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@every
def test_value_is_the_mean_of_a_slow_loop(name, x64):
    ours, reference, _ = CASES[name]
    rows = draw(name)
    value = ours(jnp.asarray(rows))
    assert value.dtype == jnp.float64
    assert value.shape == ()
    np.testing.assert_allclose(value, np.mean(reference(rows)), rtol=1e-12)
    weighted = np.average(reference(rows[WHERE]), weights=WEIGHTS[WHERE])
    got = ours(jnp.asarray(rows), where=WHERE, weights=WEIGHTS)
    np.testing.assert_allclose(got, weighted, rtol=1e-12)


@every
def test_gradient_is_the_finite_difference(name, x64):
    ours = functools.partial(CASES[name][0], where=WHERE, weights=WEIGHTS)
    rows, step, h = jnp.asarray(draw(name)), jnp.asarray(draw(name, 1)), 1e-6
    slope = (jax.grad(ours)(rows) * step).sum()
    measured = (ours(rows + h * step) - ours(rows - h * step)) / (2 * h)
    np.testing.assert_allclose(slope, measured, rtol=1e-6)


@every
def test_a_missing_row_reaches_nothing(name):
    ours = CASES[name][0]
    rows = draw(name)
    there = WHERE.reshape(8, *[1] * (rows.ndim - 1))
    holed = jnp.asarray(np.where(there, rows, np.nan), jnp.float32)
    value, gradient = jax.value_and_grad(ours)(holed, where=WHERE)
    kept = jnp.asarray(rows[WHERE], jnp.float32)
    expected, by_kept = jax.value_and_grad(ours)(kept)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[WHERE], by_kept, rtol=1e-5, atol=1e-7)
    assert not np.asarray(gradient)[~WHERE].any()


@every
def test_a_real_nan_is_not_hidden(name):
    rows = draw(name)
    rows[(1,) + (0,) * (rows.ndim - 1)] = np.nan
    assert np.isnan(CASES[name][0](jnp.asarray(rows, jnp.float32)))


@every
def test_nothing_there_is_zero_with_a_zero_gradient(name):
    ours = CASES[name][0]
    rows = jnp.asarray(draw(name), jnp.float32)
    nobody, unimportant = {"where": np.zeros(8, bool)}, {"weights": np.zeros(8)}
    for nothing in (nobody, unimportant):
        value, gradient = jax.value_and_grad(ours)(rows, **nothing)
        assert float(value) == 0
        assert not np.asarray(gradient).any()


@every
def test_bfloat16_rows_give_a_float32_value(name):
    ours, reference, _ = CASES[name]
    rows = jnp.asarray(draw(name), jnp.bfloat16)
    value, gradient = jax.value_and_grad(ours)(rows)
    assert value.dtype == jnp.float32
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(value, np.mean(reference(np.asarray(rows, float))), rtol=2e-6)


@every
def test_j7_degenerate_rows_stay_finite(name):
    """Duplicate centers, zero rows, opposite rows, very short and very long ones."""
    ours = jax.jit(jax.value_and_grad(CASES[name][0]))
    rows = draw(name)
    signs = np.where(np.arange(8) % 2, 1.0, -1.0).reshape(8, *[1] * (rows.ndim - 1))
    kinds = [
        np.zeros_like(rows),
        np.ones_like(rows),
        np.broadcast_to(rows[:1], rows.shape),
        signs * rows[:1],
        1e-20 * rows,
        1e4 * rows,
    ]
    for kind in kinds:
        value, gradient = ours(jnp.asarray(kind, jnp.float32))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_j7_merged_centers_cost_nothing_and_pull_no_more():
    """Two of three centers are equal: the pairs to the third count, |(1, 0) - (0, 1)| each."""
    centers = jnp.array([[[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]])
    value, gradient = jax.value_and_grad(regularizers.sparse_centers)(centers)
    np.testing.assert_allclose(value, 2 * math.sqrt(2) / 6, rtol=1e-6)
    np.testing.assert_allclose(gradient[0, 0], 3 * gradient[0, 1], rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_t20_one_center_a_class_is_no_pair():
    value, gradient = jax.value_and_grad(regularizers.sparse_centers)(jnp.ones((3, 1, 2)))
    assert float(value) == 0
    assert not np.asarray(gradient).any()


def test_one_class_has_no_nearest_class():
    value, gradient = jax.value_and_grad(regularizers.regular_face)(jnp.ones((1, 2)))
    assert float(value) == 0
    assert not np.asarray(gradient).any()
    where = np.array([False, True, False])
    assert float(regularizers.regular_face(jnp.ones((3, 2)), where=where)) == 0


def test_duplicate_classes_are_each_others_nearest():
    table = jnp.array([[1.0, 2.0], [2.0, 4.0], [-2.0, 1.0]])
    np.testing.assert_allclose(regularizers.regular_face(table), 2 / 3, rtol=1e-6)


def test_very_long_rows_keep_their_length():
    np.testing.assert_allclose(regularizers.norm(jnp.full((2, 4), 1e30)), 2e30, rtol=1e-6)
    np.testing.assert_allclose(regularizers.norm(jnp.full((2, 4), 1e-30)), 2e-30, rtol=1e-6)


def test_counts_as_weights_are_the_mean_over_a_batch(x64):
    """Center invariance of the paper: a term a row of the batch, of the length of its center."""
    table, labels = draw("center_invariant"), np.array([0, 3, 3, 7, 0, 0])
    expected = np.mean([uneven_lengths(table)[label] for label in labels])
    counts = np.bincount(labels, minlength=8)
    got = regularizers.center_invariant(jnp.asarray(table), weights=counts)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


# ---------------------------------------------------------------- devices


@functools.cache
def _single(name):
    """(rows, value, gradient) on one device."""
    rows = jnp.asarray(draw(name), jnp.float32)
    step = jax.jit(jax.value_and_grad(CASES[name][0]))
    return rows, *map(np.asarray, step(rows, where=WHERE, weights=jnp.asarray(WEIGHTS)))


def _mapped(name):
    ours = functools.partial(CASES[name][0], axis_name="split")
    return jax.value_and_grad(lambda rows, where, weights: ours(rows, where=where, weights=weights))


SPLIT = ["norm", "zero_mean", "center_invariant", "regular_face", "regular_face_blocks",
         "sparse_centers"]  # fmt: skip


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_is_one_device(name, check_vma):
    mesh = jax.make_mesh((2, 4), ("other", "split"), axis_types=(AxisType.Auto,) * 2)
    spec = P("split")
    step = jax.shard_map(
        _mapped(name),
        mesh=mesh,
        in_specs=(spec, spec, spec),
        out_specs=(P(), spec),
        check_vma=check_vma,
    )
    rows, value, gradient = _single(name)
    got, by_rows = jax.jit(step)(rows, WHERE, WEIGHTS.astype(np.float32))
    np.testing.assert_allclose(got, value, rtol=1e-6)
    times = 1 if check_vma else 4  # every device holds the gradient of the sum of equal values
    np.testing.assert_allclose(by_rows / times, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SPLIT)
def test_pmap_is_one_device(name):
    rows, value, gradient = _single(name)
    split = lambda v: jnp.asarray(v).reshape(4, 2, *np.shape(v)[1:])
    step = jax.pmap(_mapped(name), axis_name="split", devices=jax.devices()[:4])
    got, by_rows = step(split(rows), split(WHERE), split(WEIGHTS.astype(np.float32)))
    np.testing.assert_allclose(got, np.full(4, value), rtol=1e-6)
    np.testing.assert_allclose(by_rows.reshape(rows.shape) / 4, gradient, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- calls


def test_added_to_a_loss():
    """One derivative of both, under one jit."""
    x, y = jnp.asarray(draw("norm"), jnp.float32), jnp.arange(8) % 4
    table = jnp.asarray(draw("regular_face", 2)[:4], jnp.float32)

    def value(table):
        return losses.cosface(x, y, table) + 0.5 * regularizers.regular_face(table)

    apart = jax.grad(lambda table: losses.cosface(x, y, table))(table)
    both, alone = jax.jit(jax.grad(value))(table), jax.grad(regularizers.regular_face)(table)
    np.testing.assert_allclose(both, apart + 0.5 * alone, rtol=1e-4, atol=1e-6)


@every
def test_the_signature_is_the_convention(name):
    parameters = list(inspect.signature(CASES[name][0]).parameters.values())
    assert sum(p.kind is not p.KEYWORD_ONLY for p in parameters) == 1
    assert {"where", "weights", "axis_name"} <= {p.name for p in parameters}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"rows: got float32\[3\], expected an array \[N, D\]"):
        regularizers.norm(jnp.ones(3))
    with pytest.raises(ValueError, match=r"centers: got float32\[3, 2\], expected .* \[C, K, D\]"):
        regularizers.sparse_centers(jnp.ones((3, 2)))
    with pytest.raises(TypeError, match=r"table: got int32\[3, 2\], expected a floating dtype"):
        regularizers.regular_face(jnp.ones((3, 2), jnp.int32))
    with pytest.raises(ValueError, match=r"p: got 0, expected a number > 0"):
        regularizers.norm(jnp.ones((3, 2)), p=0)
    with pytest.raises(ValueError, match=r"where: got bool\[2\], expected shape \(3,\)"):
        regularizers.zero_mean(jnp.ones((3, 2)), where=np.ones(2, bool))
    with pytest.raises(TypeError, match=r"where: got float32\[3\], expected booleans"):
        regularizers.zero_mean(jnp.ones((3, 2)), where=jnp.ones(3))
    with pytest.raises(ValueError, match=r"block_size: got 0, expected a whole number >= 1"):
        regularizers.regular_face(jnp.ones((3, 2)), block_size=0)
