"""Batches embedded in pieces: the gradient of the pieces, whatever the encoder and the loss do."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdml import encoders, losses, objectives, training
from jdml.encoders.cached import cut, join

pytestmark = pytest.mark.usefixtures("quick_compile")

IMAGES = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 3, 3, 0, 1, 2, 3])
BATCH = {"labels": LABELS}
KEY = jax.random.key(7)


class Network(nn.Module):
    """Dropout and batch norm, each as asked."""

    dropout: float = 0.0
    norm: bool = False
    dim: int = 4

    @nn.compact
    def __call__(self, x, train=False, where=None, axis_name=None):
        x = nn.Dense(6)(x)
        if self.norm:
            x = encoders.BatchNorm()(x, train=train, where=where, axis_name=axis_name)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.dim)(x)


def value_and_gradient(encoder, objective, owned, chunks_by_hand=None, **options):
    """(loss, gradient by all parameters, state of the encoder)."""
    params, state, table, objective_state = owned

    def loss_of(params, table):
        if chunks_by_hand is None:
            rows, following = encoder.apply(params, state, IMAGES, train=True, **options)
        else:
            rows, following = by_hand(encoder, params, state, chunks_by_hand, **options)
        return objective.loss(table, objective_state, rows, BATCH), following

    run = jax.jit(jax.value_and_grad(loss_of, (0, 1), has_aux=True))
    (loss, following), gradients = run(params, table)
    return loss, gradients, following


def by_hand(encoder, params, state, chunks, *, key=None):
    """The pieces one by one, all of whose activations are kept."""
    rows, states = [], []
    for i, images in enumerate(cut(IMAGES, chunks)):
        piece_key = None if key is None else jax.random.fold_in(key, i)
        embeddings, following = encoder.apply(params, state, images, train=True, key=piece_key)
        rows.append(embeddings)
        states.append(following)
    mean = jax.tree.map(lambda *parts: sum(parts) / chunks, *states)
    return join(jnp.stack(rows), len(IMAGES)), mean


def start(encoder, objective, dim=4):
    params, state = encoders.as_encoder(encoder).init(jax.random.key(1), IMAGES)
    table, objective_state = objective.init(jax.random.key(2), dim)
    return params, state, table, objective_state


def close(got, expected, rtol=1e-5, atol=1e-6):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected)):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, err_msg=name, rtol=rtol, atol=atol)


def remembered():
    """Every kind of objective at once: a table, pairs, a filled memory, widths, centers."""
    pairs = objectives.pairs(losses.ntxent, temperature=objectives.learned_logarithm(0.5))
    nested = objectives.matryoshka(objectives.with_memory(pairs, 8), (2, 4))
    objective = objectives.weighted_sum(
        (1.0, objectives.table(losses.arcface, 4, scale=4.0)),
        (1.0, nested),
        (0.1, objectives.center(4)),
    )
    return objective


# ---------------------------------------------------------------- the gradient


def test_the_gradient_is_that_of_the_whole_batch():
    """5 pieces of 3 rows have three rows that do not exist; 12 have one row each."""
    objective, encoder = remembered(), encoders.linen(Network())
    params, state, table, filled = start(encoder, objective)
    filled = objective.update(filled, table, jnp.asarray(IMAGES[::-1, :4]), BATCH)
    owned = (params, state, table, filled)
    expected = value_and_gradient(encoder, objective, owned)
    for chunks in (5, 12):
        close(value_and_gradient(encoders.cached(encoder, chunks), objective, owned), expected)
    assert all(np.abs(g).max() > 1e-4 for g in jax.tree.leaves(expected[1]))


@pytest.mark.parametrize("chunks", [2, 4])
def test_e5_dropout_and_batch_norm_are_the_same_in_both_passes(chunks):
    encoder = encoders.linen(Network(dropout=0.5, norm=True))
    objective = objectives.pairs(losses.supcon)
    owned = start(encoder, objective)
    expected = value_and_gradient(encoder, objective, owned, chunks_by_hand=chunks, key=KEY)
    pieces = encoders.cached(encoder, chunks)
    got = value_and_gradient(pieces, objective, owned, key=KEY)
    close(got, expected)
    other = value_and_gradient(pieces, objective, owned, key=jax.random.key(8))
    assert abs(float(other[0] - got[0])) > 1e-3


def test_e5_one_piece_is_the_encoder_with_the_same_key():
    encoder = encoders.linen(Network(dropout=0.5))
    assert encoders.cached(encoder, 1) is encoder


def test_running_means_are_those_of_the_whole_batch_and_move_once_a_step():
    encoder = encoders.linen(Network(norm=True))
    params, state = encoder.init(jax.random.key(1), IMAGES)
    where = np.arange(12) % 5 != 1
    for exists in (None, where):
        running = [
            e.apply(params, state, IMAGES, train=True, where=exists)[1]["batch_stats"]
            for e in (encoder, encoders.cached(encoder, 4))
        ]
        means = [stats["BatchNorm_0"]["mean"] for stats in running]
        close(means[1], means[0])
        assert np.abs(means[0]).max() > 1e-3


def test_in_evaluation_pieces_are_the_whole_and_the_state_stays():
    encoder = encoders.linen(Network(norm=True))
    params, state = encoder.init(jax.random.key(1), IMAGES)
    rows, same = encoders.cached(encoder, 5).apply(params, state, IMAGES)
    close(rows, encoder.apply(params, state, IMAGES)[0])
    assert same is state


def test_the_memory_is_that_of_a_piece():
    """Four layers of 256: activations of 512 rows against those of 64."""
    module = nn.Sequential([layer for _ in range(4) for layer in (nn.Dense(256), nn.gelu)])
    images = jax.ShapeDtypeStruct((512, 256), jnp.float32)
    labels = jax.ShapeDtypeStruct((512,), jnp.int32)

    def temporaries(encoder):
        def step(params, images, labels):
            loss = lambda p: losses.ntxent(encoder.apply(p, {}, images, train=True)[0], labels)
            return jax.grad(loss)(params)

        params = jax.eval_shape(encoder.init, jax.random.key(0), images)[0]
        compiled = jax.jit(step).lower(params, images, labels).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole = encoders.linen(module)
    assert temporaries(encoders.cached(whole, 8)) < 0.6 * temporaries(whole)


# ---------------------------------------------------------------- devices


@functools.cache
def three_steps(kind, devices, dropout=0.0, **options):
    """Parameters, running statistics and memory after three steps of 12 rows in 3 pieces."""
    objective = objectives.with_memory(objectives.pairs(losses.supcon), 16)
    encoder = encoders.cached(Network(norm=True, dropout=dropout), 3)
    parts = {"encoder": encoder, "objective": objective, "optimizer": optax.sgd(0.1)}
    state = training.create_state(jax.random.key(1), images=IMAGES, **parts)
    step = functools.partial(training.train_step, **parts)
    run = training.parallel(step, kind, devices=jax.devices()[:devices], **options)
    for i in range(3):
        state, _ = run(state, {"images": np.roll(IMAGES, i, 0), "labels": np.roll(LABELS, i)})
    return state.params, state.encoder_state, state.objective_state.memory


@pytest.mark.parametrize(
    ("kind", "options"),
    [("jit", {}), ("pmap", {}), ("shard_map", {}), ("shard_map", {"check_vma": False})],
)
def test_pieces_are_the_same_on_any_number_of_devices(kind, options):
    """Batch norm included: a piece has the same rows wherever they are."""
    close(three_steps(kind, 4, **options), three_steps("jit", 1), rtol=1e-4, atol=1e-5)


def test_dropout_works_on_devices():
    params, _, _ = three_steps("shard_map", 4, dropout=0.5)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(params))


def sums_over_devices(jaxpr, in_loop=False):
    """(whether in a loop, shape) of what a program adds up over the devices."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("psum"):
            yield from ((in_loop, v.aval.shape) for v in equation.invars)
        for inner in jaxprs_in_params(equation.params):
            yield from sums_over_devices(inner, in_loop or equation.primitive.name == "scan")


def test_a_step_on_devices_adds_the_gradient_of_the_encoder_up_once_and_not_once_a_piece():
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))
    encoder = encoders.cached(nn.Dense(4), 3)
    params, _ = encoder.init(jax.random.key(1), IMAGES)

    def local(params, images, labels):
        rows = lambda p: encoder.apply(p, {}, images, train=True)[0]
        return jax.grad(lambda p: losses.supcon(rows(p), labels, axis_name="batch"))(params)

    specs = {"in_specs": (P(), P("batch"), P("batch")), "out_specs": P()}
    step = jax.make_jaxpr(jax.shard_map(local, mesh=mesh, **specs))
    sums = list(sums_over_devices(step(params, IMAGES, LABELS).jaxpr))
    assert (False, (5, 4)) in sums
    assert not any(in_loop for in_loop, _ in sums)


# ---------------------------------------------------------------- widths


def test_matryoshka_is_the_sum_over_its_widths():
    nested = objectives.matryoshka(objectives.pairs(losses.ntxent), (2, 5), weights=(0.5, 2.0))
    params, state = nested.init(jax.random.key(0), 5)
    expected = 0.5 * losses.ntxent(IMAGES[:, :2], LABELS) + 2.0 * losses.ntxent(IMAGES, LABELS)
    close(nested.loss(params, state, jnp.asarray(IMAGES), BATCH), expected)


def test_a_memory_around_the_widths_is_cut_like_the_rows():
    pairs = objectives.pairs(losses.contrastive)
    outside = objectives.with_memory(objectives.matryoshka(pairs, (2, 5)), 16)
    inside = objectives.matryoshka(objectives.with_memory(pairs, 16), (2, 5))
    values = []
    for objective in (outside, inside):
        params, state = objective.init(jax.random.key(0), 5)
        state = objective.update(state, params, jnp.asarray(IMAGES[::-1]), BATCH)
        values.append(objective.loss(params, state, jnp.asarray(IMAGES), BATCH))
    close(*values)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("chunks", lambda: encoders.cached(nn.Dense(1), 0)),
        ("chunks", lambda: encoders.cached(nn.Dense(1), 2.0)),
        ("dims", lambda: objectives.matryoshka(objectives.center(2), ())),
        ("dims", lambda: objectives.matryoshka(objectives.center(2), (2, 2))),
        ("dims", lambda: objectives.matryoshka(objectives.center(2), (2, 9)).init(KEY, 8)),
        ("weights", lambda: objectives.matryoshka(objectives.center(2), (2, 4), weights=(1.0,))),
        (
            "embeddings",
            lambda: objectives.matryoshka(objectives.center(2), (8,)).loss(
                ({},), (jnp.zeros((2, 8)),), jnp.asarray(IMAGES), BATCH
            ),
        ),
    ],
)
def test_bad_input_is_one_line_that_names_it(name, call):
    with pytest.raises(ValueError, match=f"^{name}: got [^\n]*, expected [^\n]*$"):
        call()
