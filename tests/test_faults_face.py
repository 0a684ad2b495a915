"""Reported faults of margin-softmax and binary face losses; see `test_faults`."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import losses
from jdml.losses.binary_face import sphereface2_bias, uniface_bias

pytestmark = pytest.mark.usefixtures("quick_compile")

KEY = jax.random.key(7)
elasticface = functools.partial(losses.elasticface, key=KEY, margin_std=0.1)
HEADS = {
    "elasticface": elasticface,
    "elasticface_plus": functools.partial(elasticface, plus=True),
    "elasticface_cos": functools.partial(elasticface, variant="cos"),
    "large_margin_softmax": losses.large_margin_softmax,
    "sphereface2": losses.sphereface2,
    "uniface": losses.uniface,
}
every = pytest.mark.parametrize("loss", HEADS.values(), ids=HEADS)


def value_and_gradients(loss, x, y, table, **options):
    arrays = (jnp.asarray(v, jnp.float32) for v in (x, table))
    run = jax.value_and_grad(lambda x, w: loss(x, np.asarray(y), w, **options), (0, 1))
    return jax.tree.map(np.asarray, run(*arrays))


def rows_at(angles):
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)


# ---------------------------------------------------------------- A: values and gradients


@every
def test_a14_the_loss_never_falls_with_the_angle(loss):
    angles = jnp.linspace(0.0, math.pi, 61)
    # The other class stands at right angles to the plane, so that only the own angle moves.
    x, table = jnp.pad(rows_at(angles), ((0, 0), (0, 1))), jnp.eye(3)[jnp.array([0, 2])]
    options = {"scale": 1.0, "reduction": "none"}
    if loss is not losses.large_margin_softmax and "key" in getattr(loss, "keywords", {}):
        options["margin_std"] = 0.0
    values = loss(x, jnp.zeros(61, jnp.int32), table, **options)
    assert (np.diff(values) > -1e-6).all()


def test_a14_large_margin_softmax_falls_through_its_steps():
    """psi is 1, -1, -3, -5, -7 at 0, 45, 90, 135 and 180 degrees; the lengths multiply it."""
    x, table = 0.5 * rows_at(jnp.arange(5.0) * math.pi / 4), jnp.array([[4.0, 0.0], [0.0, 0.0]])
    values = losses.large_margin_softmax(x, jnp.zeros(5, jnp.int32), table, reduction="none")
    np.testing.assert_allclose(-jnp.log(jnp.expm1(values)), [2, -2, -6, -10, -14], atol=1e-3)


@every
def test_a15_rows_on_and_opposite_their_class(loss):
    w = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    x = np.array([w[0], -w[0], w[0] * (1 + 1e-7), -w[0] * (1 + 1e-7), w[1], -w[1]])
    value, gradients = value_and_gradients(loss, x, [0, 0, 0, 0, 1, 1], w)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("scale", [1e3, 1e6])
@every
def test_a18_a_scale_that_explodes_stays_finite(loss, scale):
    x, w = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32), jnp.eye(3)
    grad = jax.value_and_grad(lambda s: loss(x, np.array([0, 1, 2, 0]), w, scale=s))
    value, by_scale = grad(jnp.float32(scale))
    assert np.isfinite(value)
    assert np.isfinite(by_scale)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@every
def test_a19_a20_half_precision_rows(loss, dtype):
    """Rows of norm 400, whose squares overflow float16: lifted first, then the float32 answer."""
    rng = np.random.default_rng(0)
    x, table = rng.normal(size=(5, 8)), rng.normal(size=(3, 8))
    x *= 400 / np.linalg.norm(x, axis=1, keepdims=True)
    x, table, y = jnp.asarray(x, dtype), jnp.asarray(table, dtype), np.array([0, 1, 2, 1, 0])
    value = loss(x, y, table)
    assert value.dtype == jnp.float32
    lifted = loss(x.astype(jnp.float32), y, table.astype(jnp.float32))
    np.testing.assert_allclose(value, lifted, rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.uniface, losses.sphereface2])
def test_a21_labels_stay_those_of_the_whole_table(loss):
    """Four classes of which two are sampled: label 3 is the second row of the sample."""
    rng = np.random.default_rng(1)
    x, table, ids = rng.normal(size=(3, 5)), rng.normal(size=(4, 5)), np.array([1, 3])
    y, options = np.array([3, 1, 0]), {"reduction": "none", "bias": 2.0}
    x, kept = jnp.asarray(x, jnp.float32), jnp.asarray(table[ids], jnp.float32)
    sampled = loss(x, y, kept, proxy_labels=ids, **options)
    expected = loss(x[:2], np.array([1, 0]), kept, **options)
    np.testing.assert_allclose(sampled[:2], expected, rtol=1e-6)
    assert float(sampled[2]) == 0  # its class is not in the sample


def test_uniface_learns_beyond_the_exponents_that_its_authors_clamp():
    """A row opposite to its class: the exponent is -64 (1 + 0.4) - b, far below -64."""
    angle = math.pi - 0.1
    x, table = rows_at(jnp.array([angle])), jnp.array([[1.0, 0.0]])
    value, (by_rows, _) = value_and_gradients(losses.uniface, x, [0], table, bias=5.0)
    np.testing.assert_allclose(value, 64 * (math.cos(0.1) + 0.4) + 5, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(by_rows), 64 * math.sin(0.1), rtol=1e-4)


# ---------------------------------------------------------------- B: labels


@pytest.mark.parametrize("plus", [False, True])
def test_b2_padding_shifts_no_margin(plus):
    """Rows of label -1 in the middle or at the end: the others keep their margins."""
    rng = np.random.default_rng(2)
    x, table = (jnp.asarray(rng.normal(size=(n, 4)), jnp.float32) for n in (5, 3))
    run = functools.partial(losses.elasticface, key=KEY, margin_std=0.3, plus=plus, scale=4.0)
    y = np.array([0, -1, 2, 1, 0])
    holed = run(x, y, table, reduction="none")
    padded = run(jnp.pad(x, ((0, 4), (0, 0))), np.pad(y, (0, 4), constant_values=-1), table,
                 reduction="none")  # fmt: skip
    np.testing.assert_allclose(padded[:5], holed, rtol=1e-6)
    assert not padded[5:].any()
    assert float(holed[1]) == 0
    if not plus:  # where draws are dealt out, they are dealt out to the rows that count
        whole = run(x, np.array([0, 1, 2, 1, 0]), table, reduction="none")
        there = y >= 0
        np.testing.assert_allclose(holed[there], whole[there], rtol=1e-6)


# ---------------------------------------------------------------- drawn margins


def test_elasticface_needs_a_key():
    x, y = jnp.eye(2), np.arange(2)
    with pytest.raises(ValueError, match=r"^key: got None, expected a random key"):
        losses.elasticface(x, y, x)
    with pytest.raises(TypeError, match=r"^key: got int32"):
        losses.elasticface(x, y, x, key=7)
    with pytest.raises(ValueError, match=r"^variant: got 'sin', expected 'arc' or 'cos'"):
        elasticface(x, y, x, variant="sin")


def test_new_keys_draw_anew_and_do_not_compile_again():
    x, y = jnp.eye(3), np.arange(3)
    values = [float(elasticface(x, y, x))]
    before = losses.elasticface.jitted._cache_size()
    values += [float(elasticface(x, y, x, key=jax.random.key(seed))) for seed in range(3)]
    assert losses.elasticface.jitted._cache_size() == before
    assert len(set(values)) == 4


def test_raw_keys_are_keys():
    x, y = jnp.eye(3), np.arange(3)
    raw = jax.random.key_data(KEY)
    np.testing.assert_array_equal(elasticface(x, y, x, key=raw), elasticface(x, y, x))


def test_plus_gives_the_nearest_row_the_smallest_margin():
    """With a large deviation, the gap to the loss without margin tells each row's margin."""
    angles = jnp.array([1.0, 0.1, 1.4, 0.5])
    x, y, table = rows_at(angles), np.zeros(4, int), jnp.array([[1.0, 0.0], [0.0, 0.0]])
    run = functools.partial(losses.elasticface, variant="cos", scale=1.0, reduction="none")
    values = run(x, y, table, key=KEY, margin=0.0, margin_std=5.0, plus=True)
    margins = jnp.log(jnp.expm1(values)) + jnp.cos(angles)  # log(1 + exp(m - cos))
    assert np.argsort(margins).tolist() == np.argsort(angles).tolist()
    plain = run(x, y, table, key=KEY, margin=0.0, margin_std=5.0)
    drawn = jnp.log(jnp.expm1(plain)) + jnp.cos(angles)
    np.testing.assert_allclose(np.sort(margins), np.sort(drawn), rtol=1e-4)


def test_draws_have_the_mean_and_the_deviation_asked_for():
    n = 4000
    x, table = jnp.tile(jnp.array([[1.0, 0.0]]), (n, 1)), jnp.array([[1.0, 0.0], [0.0, 0.0]])
    options = {"variant": "cos", "scale": 1.0, "reduction": "none"}
    values = losses.elasticface(x, np.zeros(n, int), table, key=KEY, margin_std=0.2, **options)
    margins = np.log(np.expm1(values)) + 1
    np.testing.assert_allclose([margins.mean(), margins.std()], [0.35, 0.2], atol=0.015)


# ---------------------------------------------------------------- where a bias starts


@pytest.mark.parametrize("classes", [2, 3, 4, 1000, 10**6])
@pytest.mark.parametrize("numbers", [{}, {"balance": 0.95, "margin": 0.1, "scale": 8.0}], ids=len)
def test_sphereface2_starts_where_yes_and_no_pull_equally(classes, numbers):
    full = {"balance": 0.7, "scale": 40.0, "margin": 0.4, "exponent": 3.0, **numbers}
    bias = float(sphereface2_bias(classes, **numbers))
    middle = 2 * 0.5 ** full["exponent"] - 1
    own = full["scale"] * (middle - full["margin"]) + bias
    other = full["scale"] * (middle + full["margin"]) + bias
    log_sigmoid = lambda z: min(z, 0.0) - math.log1p(math.exp(-abs(z)))
    yes = math.log(full["balance"]) + log_sigmoid(-own)
    no = math.log((1 - full["balance"]) * (classes - 1)) + log_sigmoid(other)
    np.testing.assert_allclose(yes, no, atol=1e-4)


def test_a_bias_that_is_not_given_is_where_it_starts():
    x, table = rows_at(jnp.arange(3.0)), rows_at(jnp.arange(4.0))
    y = np.arange(3)
    for loss, start in (
        (losses.sphereface2, sphereface2_bias(4)),
        (losses.uniface, uniface_bias(4)),
    ):
        np.testing.assert_allclose(loss(x, y, table), loss(x, y, table, bias=start), rtol=1e-6)
    with pytest.raises(ValueError, match=r"^bias: got None with num_classes 1, expected a number"):
        losses.sphereface2(x, np.zeros(3, int), table[:1])
