"""Objectives that learn numbers of their loss, and the one that draws."""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdml import augment, losses, objectives, regularizers, training

pytestmark = pytest.mark.usefixtures("quick_compile")

ROWS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 0])
BATCH = {"labels": LABELS}
START = objectives.learned_logarithm(10.0, largest=100.0)
CONTRASTIVE = objectives.pairs(losses.contrastive, negative_margin=objectives.learned(0.9))


def made(objective, seed=0):
    return objective.init(jax.random.key(seed), ROWS.shape[1])


def value(objective, params, state=(), **shared):
    return objective.loss(params, state, jnp.asarray(ROWS), BATCH, **shared)


# ---------------------------------------------------------------- learned numbers


def test_a_learned_number_starts_as_the_number():
    taught = objectives.pairs(losses.siglip, scale=START, bias=objectives.learned(-3.0))
    plain = objectives.pairs(losses.siglip, scale=10.0, bias=-3.0)
    params, state = made(taught)
    assert sorted(params) == ["bias", "scale"]
    assert state == ()
    np.testing.assert_allclose(value(taught, params), value(plain, {}), rtol=1e-5)


def test_a_table_loss_learns_its_table_and_its_numbers():
    objective = objectives.table(losses.uniface, 4, bias=objectives.learned(2.0))
    params, _ = made(objective)
    assert {name: p.shape for name, p in params.items()} == {"proxies": (4, 3), "bias": ()}
    gradients = jax.grad(lambda params: value(objective, params))(params)
    by_bias = jax.grad(lambda b: losses.uniface(ROWS, LABELS, params["proxies"], bias=b))(2.0)
    np.testing.assert_allclose(gradients["bias"], by_bias, rtol=1e-6)
    assert gradients["proxies"].any()


def test_gradient_of_a_logarithm_is_relative():
    """Without bounds p = log(number): d loss / d p = number x d loss / d number."""
    taught = objectives.pairs(losses.ntxent, temperature=objectives.learned_logarithm(0.5))
    params, _ = made(taught)
    np.testing.assert_allclose(params["temperature"], math.log(0.5), rtol=1e-6)
    by_logarithm = jax.grad(lambda params: value(taught, params))(params)["temperature"]
    by_number = jax.grad(lambda t: losses.ntxent(ROWS, LABELS, temperature=t))(0.5)
    np.testing.assert_allclose(by_logarithm, 0.5 * by_number, rtol=1e-5)


def test_a18_a_learned_scale_stays_in_its_bounds_and_finite():
    """Steps of 1000 times the gradient, in either direction."""
    scale = objectives.learned_logarithm(10.0, smallest=1.0, largest=100.0)
    taught = objectives.pairs(losses.siglip, scale=scale, bias=objectives.learned(0.0))
    start, _ = made(taught)
    for sign in (1.0, -1.0):
        params = start
        for _ in range(3):
            gradients = jax.grad(lambda params: value(taught, params))(params)
            step = sign * 1000.0 * gradients["scale"]
            params = {**params, "scale": params["scale"] + step}
            assert 1.0 <= float(scale.number(params["scale"], LABELS)) <= 100.0
            assert np.isfinite(value(taught, params))


def test_bounds_hold_the_start_exactly():
    learned = objectives.learned_logarithm
    for number in (
        learned(0.07),
        learned(0.07, smallest=0.01),
        learned(0.07, largest=1.0),
        learned(0.07, smallest=0.01, largest=1.0),
    ):
        np.testing.assert_allclose(number.number(number.parameter(), LABELS), 0.07, rtol=1e-5)


def test_each_class_learns_its_boundary():
    """The gradient of a class is that of its rows; rows of unknown class keep the start."""
    beta = objectives.learned(1.2, num_classes=4)
    objective = objectives.pairs(losses.margin, beta=beta, margin=0.3, reduction="sum")
    params, _ = made(objective)
    params = {"beta": jnp.array([1.0, 1.1, 1.3, 9.0])}
    by_row = lambda b: losses.margin(ROWS, LABELS, beta=b, margin=0.3, reduction="sum")
    rows = params["beta"][LABELS]
    np.testing.assert_allclose(value(objective, params), by_row(rows), rtol=1e-6)
    gradients = jax.grad(lambda params: value(objective, params))(params)["beta"]
    expected = np.bincount(LABELS, jax.grad(by_row)(rows), minlength=4)
    np.testing.assert_allclose(gradients, expected, rtol=1e-6)
    assert gradients[3] == 0
    numbers = jax.jit(beta.number)(params["beta"], jnp.array([2, -1, 4]))
    np.testing.assert_allclose(numbers, [1.3, 1.2, 1.2], rtol=1e-6)


PER_CLASS = objectives.learned(0.9, num_classes=2)
OF_TWO = {
    "table": objectives.table(losses.cosface, 2, scale=4.0),
    "table of learned margins": objectives.table(losses.cosface, 2, margin=PER_CLASS, scale=4.0),
    "pairs": objectives.pairs(losses.margin, beta=PER_CLASS),
    "center": objectives.center(2),
    "center of more rows": objectives.center(2, rows=4),
    "adaface": objectives.adaface(2),
}


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("name", OF_TWO)
def test_a_missing_row_may_have_any_class(name, dtype):
    """Outside jit as inside: loss and next state are those without the row."""
    objective, where = OF_TWO[name], np.arange(6) != 2
    params, state = made(objective)
    few = ROWS[where], {"labels": LABELS[where].astype(dtype)}
    more = ROWS, {"labels": LABELS.astype(dtype), "where": where}
    for call in (objective.loss, jax.jit(objective.loss)):
        expected = objective.loss(params, state, *few)
        np.testing.assert_allclose(call(params, state, *more), expected, rtol=1e-5)
        following = objective.update(state, params, *more)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
        jax.tree.map(close, following, objective.update(state, params, *few))


@pytest.mark.parametrize("name", ["table", "table of learned margins", "pairs", "center"])
def test_a_row_of_a_class_beyond_is_an_error_where_labels_are_at_hand(name):
    params, state = made(OF_TWO[name])
    with pytest.raises(ValueError, match=r"^labels: got class 2, expected 0 to 1 "):
        OF_TWO[name].loss(params, state, ROWS, BATCH)


def test_centers_beyond_the_classes_stay_and_count_for_nothing():
    longer, plain = objectives.center(2, rows=4), objectives.center(2)
    start = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    got = jax.jit(longer.loss)({}, start, ROWS, BATCH)
    expected = jax.jit(plain.loss)({}, start[:2], ROWS, BATCH)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    moved = jax.jit(longer.update)(start, {}, ROWS, BATCH)
    np.testing.assert_array_equal(moved[2:], start[2:])
    expected = jax.jit(plain.update)(start[:2], {}, ROWS, BATCH)
    np.testing.assert_allclose(moved[:2], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^rows: got 1, expected 2 or more"):
        objectives.center(2, rows=1)


def test_combinators_carry_learned_numbers():
    temperature = objectives.learned_logarithm(0.1, smallest=0.01)
    objective = objectives.with_memory(objectives.pairs(losses.ntxent, temperature=temperature), 8)
    params, state = made(objective)
    gradients = jax.grad(lambda params: value(objective, params, state))(params)
    assert gradients["temperature"] != 0


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("start", lambda: objectives.learned_logarithm(100.0, largest=100.0)),
        ("start", lambda: objectives.learned_logarithm(0.0)),
        ("start", lambda: objectives.learned_logarithm(float("nan"))),
        ("smallest", lambda: objectives.learned_logarithm(1.0, smallest=-1.0)),
        ("num_classes", lambda: objectives.learned(1.0, num_classes=0)),
        ("labels", lambda: objectives.learned(1.0, num_classes=2).number(jnp.ones(2), LABELS)),
        ("bias", lambda: objectives.sphereface2(1)),
        ("num_classes", lambda: objectives.uniface(0)),
        ("weight", lambda: objectives.mixed(CONTRASTIVE, weight=0.0)),
        ("alpha", lambda: objectives.mixed(CONTRASTIVE, alpha=-1.0)),
        ("partners", lambda: objectives.mixed(CONTRASTIVE, partners="all")),  # pyright: ignore
    ],
)
def test_bad_input_is_one_line_that_names_it(name, call):
    with pytest.raises(ValueError, match=f"^{name}: got [^\n]*, expected [^\n]*$"):
        call()


# ---------------------------------------------------------------- face losses


def test_face_objectives_start_at_the_bias_of_the_loss():
    for name in ("sphereface2", "uniface"):
        objective, loss = getattr(objectives, name)(4, margin=0.2), getattr(losses, name)
        params, _ = made(objective)
        expected = loss(ROWS, LABELS, params["proxies"], margin=0.2)
        np.testing.assert_allclose(value(objective, params), expected, rtol=1e-5)
    fixed = objectives.uniface(4, bias=1.0)
    assert sorted(made(fixed)[0]) == ["proxies"]


def test_elasticface_draws_anew_each_step_and_repeats_with_the_key():
    objective = objectives.elasticface(3, margin_std=0.3)
    params, key = made(objective)
    values = []
    for state in (key, objective.update(key, params, ROWS, BATCH)):
        values += [float(value(objective, params, state)) for _ in range(2)]
    assert values[0] == values[1] != values[2] == values[3]
    assert float(value(objective, params, made(objective)[1])) == values[0]


@functools.cache
def two_steps(kind, devices):
    """Parameters and key after two steps on six rows, filled up where they do not divide."""
    objective = objectives.weighted_sum(
        (1.0, objectives.elasticface(3, plus=True, margin_std=0.3, scale=START)),
        (1.0, objectives.pairs(losses.margin, beta=objectives.learned(1.2, num_classes=3))),
        (1.0, objectives.mixed(objectives.pairs(losses.multi_similarity))),
    )
    parts = {"encoder": nn.Dense(2), "objective": objective, "optimizer": optax.sgd(0.1)}
    state = training.create_state(jax.random.key(1), images=ROWS, **parts)
    step = functools.partial(training.train_step, **parts)
    run = training.parallel(step, kind, devices=jax.devices()[:devices])
    for _ in range(2):
        state, _ = run(state, {"images": ROWS, "labels": LABELS})
    return jax.tree.leaves(state.params), jax.random.key_data(state.objective_state[0])


@pytest.mark.parametrize("kind", ["jit", "pmap", "shard_map"])
def test_learned_numbers_and_draws_are_the_same_on_any_number_of_devices(kind):
    (one, key), (four, same_key) = two_steps("jit", 1), two_steps(kind, 4)
    for a, b in zip(one, four):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(key, same_key)


# ---------------------------------------------------------------- regularized


def test_a_regularizer_of_the_table_and_one_of_the_rows():
    plain = objectives.table(losses.cosface, 4)
    params, _ = made(plain)
    table = objectives.regularized(plain, regularizers.regular_face, 0.5)
    expected = value(plain, params) + 0.5 * regularizers.regular_face(params["proxies"])
    np.testing.assert_allclose(value(table, params), expected, rtol=1e-6)
    rows = objectives.regularized(plain, regularizers.zero_mean, 0.5, of="embeddings")
    expected = value(plain, params) + 0.5 * regularizers.zero_mean(ROWS)
    np.testing.assert_allclose(value(rows, params), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="of: got 'rows', expected 'proxies' or 'embeddings'"):
        objectives.regularized(plain, regularizers.norm, 1.0, of="rows")


# ---------------------------------------------------------------- mixtures


def test_mixtures_add_the_loss_of_their_degrees():
    """Against a loop over rows and mixtures, with a missing row and rows that weigh more."""
    plain = objectives.pairs(losses.contrastive, negative_margin=0.9, reduction="sum")
    objective = objectives.mixed(plain, weight=0.25, alpha=0.7, partners="any")
    params, state = made(objective)
    batch = {"labels": np.array([0, 1, -1, 0, 1, 2]), "weights": np.arange(1.0, 7.0)}
    kept = np.array([0, 3, 4, 5])
    batch["where"] = np.arange(6) != 1
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.split(state.key)[0]))(
        np.arange(6)
    )
    mix = augment.mix(keys, ROWS, batch["labels"], where=batch["where"], alpha=0.7, partners="any")
    mix = jax.tree.map(np.asarray, mix)
    total = 0.0
    for b in kept:
        for i in kept:
            share = batch["weights"][b] * mix.weights[b, i]
            distance = np.linalg.norm(ROWS[b] - mix.rows[i])
            near, far = mix.degrees[b, i], 1 - mix.degrees[b, i]
            total += share * (near * distance + far * max(0.9 - distance, 0))
    clean = plain.loss(params, (), ROWS, batch)
    got = objective.loss(params, state, ROWS, batch)
    assert total > 0
    np.testing.assert_allclose(got - clean, 0.25 * total, rtol=1e-4)


def test_mixtures_are_drawn_anew_each_step_and_not_against_a_memory():
    objective = objectives.mixed(CONTRASTIVE)
    params, state = made(objective)
    following = objective.update(state, params, ROWS, BATCH)
    first, second = (value(objective, params, s) for s in (state, following))
    assert first != second
    remembered = objectives.with_memory(objective, 6, weight=0.5)
    _, memory = made(remembered)
    memory = remembered.update(memory, params, ROWS, BATCH)
    refs = {"refs": ROWS, "ref_labels": LABELS}
    expected = value(objective, params, memory.inner) + 0.5 * value(CONTRASTIVE, params, **refs)
    np.testing.assert_allclose(value(remembered, params, memory), expected, rtol=1e-5)
