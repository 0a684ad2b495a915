"""Flax NNX models as encoders: what the model itself gives, under every wrapping."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jdml import encoders, losses, objectives, training
from jdml.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("quick_compile")

IMAGES = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2, 3, 3])


class Network(nnx.Module):
    """A list of layers, batch norm, two dropouts and one layer that is used twice."""

    def __init__(self, rngs: nnx.Rngs, dropout: float = 0.0):
        self.layers = nnx.List([nnx.Linear(5, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)])
        self.drops = nnx.List([nnx.Dropout(dropout, rngs=rngs) for _ in range(2)])
        self.twice = nnx.Linear(6, 6, rngs=rngs)
        self.again = self.twice
        self.calls = nnx.Variable(jnp.int32(0))

    def __call__(self, images):
        self.calls[...] = self.calls[...] + 1
        x = self.drops[0](self.layers[1](self.layers[0](images)))
        return self.again(nnx.relu(self.drops[1](self.twice(x))))


def close(got, expected, rtol=1e-5, atol=1e-6):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected)):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, err_msg=name, rtol=rtol, atol=atol)


# ---------------------------------------------------------------- one call


def test_values_gradients_and_statistics_are_those_of_the_model():
    model = Network(nnx.Rngs(1))
    encoder = encoders.nnx(model)
    params, state = encoder.init(jax.random.key(0), IMAGES)
    assert sorted(params) == ["again", "layers"]  # the shared layer once
    assert sorted(params["layers"]) == ["0", "1"]
    assert state["calls"] == 0

    def loss_of(params):
        rows, following = encoder.apply(params, state, IMAGES, train=True)
        return losses.supcon(rows, LABELS), following

    (loss, following), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    model.train()
    by_model = nnx.value_and_grad(lambda model: losses.supcon(model(IMAGES), LABELS))
    expected, expected_gradient = by_model(model)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    kernels = expected_gradient["again"]["kernel"][...], gradient["again"]["kernel"]
    close(*kernels)
    close(following["layers"]["1"]["mean"], model.layers[1].mean[...])
    assert following["calls"] == model.calls[...] == 1
    assert np.abs(following["layers"]["1"]["mean"]).max() > 1e-3
    # In evaluation running statistics count, and stay.
    rows, same = encoder.apply(params, following, IMAGES)
    model.eval()
    close(rows, model(IMAGES))
    assert same is following


def test_a_function_draws_parameters_by_the_key_and_a_model_keeps_its_own():
    drawn, kept = encoders.nnx(Network), encoders.nnx(Network(nnx.Rngs(5)))
    kernels = [
        e.init(jax.random.key(seed), IMAGES)[0]["again"]["kernel"]
        for e in (drawn, kept)
        for seed in (0, 1, 1)
    ]
    same = [bool((a == b).all()) for a, b in itertools.pairwise(kernels)]
    assert same == [False, True, False, True, True]


def test_dropout_is_a_function_of_the_key_alone():
    encoder = encoders.nnx(functools.partial(Network, dropout=0.5))
    params, state = encoder.init(jax.random.key(0), IMAGES)
    assert sorted(state) == ["calls", "layers"]  # random streams are no state
    draw = jax.jit(lambda key: encoder.apply(params, state, IMAGES, train=True, key=key)[0])
    first, again, other = (draw(jax.random.key(seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_a_call_is_given_what_it_takes():
    class Knows(nnx.Module):
        def __call__(self, images, train, where, axis_name=None):
            return images * float(train) + jnp.where(where, 1.0, 0.0)[:, None]

    rows, _ = encoders.nnx(Knows()).apply(
        {}, {}, jnp.ones((2, 1)), train=True, where=jnp.array([True, False])
    )
    assert rows.tolist() == [[2.0], [1.0]]


@pytest.mark.parametrize("model", ["resnet", lambda rngs: 3])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match=r"^model: got [^\n]*, expected a flax\.nnx\.Module or a"):
        encoders.nnx(model)


# ---------------------------------------------------------------- devices


@functools.cache
def run(kind, devices, chunks=1, dropout=0.0, steps=3, **options):
    """The state after some steps."""
    encoder = encoders.cached(encoders.nnx(functools.partial(Network, dropout=dropout)), chunks)
    objective = objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 4, scale=4.0)),
        (1.0, objectives.pairs(losses.supcon)),
    )
    parts = {"encoder": encoder, "objective": objective, "optimizer": optax.sgd(0.1)}
    state = training.create_state(jax.random.key(1), images=IMAGES, **parts)
    step = functools.partial(training.train_step, **parts)
    wrapped = training.parallel(step, kind, devices=jax.devices()[:devices], **options)
    for i in range(steps):
        state, _ = wrapped(state, {"images": np.roll(IMAGES, i, 0), "labels": np.roll(LABELS, i)})
    return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("jit", {}), ("pmap", {}), ("shard_map", {}), ("shard_map", {"check_vma": False})],
)
def test_steps_are_the_same_on_any_number_of_devices(kind, options):
    """Parameters, running statistics and counters, through Flax's own batch norm."""
    got, expected = run(kind, 4, **options), run("jit", 1)
    close(got, expected, rtol=1e-4, atol=1e-5)
    assert got.encoder_state["calls"] == 3


@pytest.mark.parametrize("kind", ["jit", "shard_map"])
def test_pieces_and_dropout_go_with_it(kind):
    close(run(kind, 4, chunks=2), run("jit", 1, chunks=2), rtol=1e-4, atol=1e-5)
    dropped = run(kind, 2, chunks=2, dropout=0.5, steps=1)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(dropped.params))


def test_a_checkpoint_holds_it(tmp_path):
    state = run("jit", 1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state)
        restored, _ = checkpoints.restore_latest(jax.tree.map(jnp.zeros_like, state))
    close(restored, state, rtol=0, atol=0)
