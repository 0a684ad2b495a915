"""Around the step: batches on their way, donated states, bfloat16, embedding on all devices."""

import functools
import threading
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdml import encoders, losses, objectives, training

pytestmark = pytest.mark.usefixtures("quick_compile")
IMAGES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
BATCH = {"images": IMAGES, "labels": np.array([0, 1, 0, 1, 0])}


def linear():
    objective = objectives.table(losses.cosface, 8, scale=4.0)
    return {"encoder": nn.Dense(2), "objective": objective, "optimizer": optax.adam(0.1)}


def wrapped(kind, **options):
    step = functools.partial(training.train_step, **linear())
    create = functools.partial(
        training.create_state, jax.random.key(0), images=IMAGES[:1], **linear()
    )
    step = training.parallel(step, kind, **options)
    return step, step.start(create)


# ---------------------------------------------------------------- states


@pytest.mark.parametrize(("kind", "model"), [("jit", 2), ("shard_map", 2), ("pmap", 1)])
def test_a_state_is_donated_and_the_next_one_is_in_its_place(kind, model):
    step, before = wrapped(kind, model=model)
    after, _ = step(before, BATCH)
    gone = [x.is_deleted() for x in jax.tree.leaves((before.params, before.opt_state))]
    assert all(gone)
    assert step.place(after) is after  # nothing to move


def test_a_state_is_the_same_wherever_it_is_made():
    made = training.create_state(jax.random.key(0), images=IMAGES[:1], **linear())
    for kind, model in (("jit", 4), ("pmap", 1)):
        got = wrapped(kind, model=model)[1]
        for x, y in zip(jax.tree.leaves(got.params), jax.tree.leaves(made.params), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_a_batch_that_was_put_is_not_put_again():
    for kind in ("jit", "pmap"):
        step, state = wrapped(kind)
        ready = step.put(BATCH)
        assert step.put(ready) is ready
        assert ready["where"].sum() == 5  # of 8
        got, expected = step(state, ready)[1], step(wrapped(kind)[1], BATCH)[1]
        assert float(got["loss"]) == float(expected["loss"])


# ---------------------------------------------------------------- embedding


@pytest.mark.parametrize(("kind", "model"), [("jit", 4), ("shard_map", 2), ("pmap", 1)])
def test_embedding_on_all_devices_is_that_of_one(kind, model):
    _, state = wrapped(kind, model=model)
    kernel, bias = (np.asarray(state.params["encoder"][name]) for name in ("kernel", "bias"))
    plain = functools.partial(training.eval_step, encoder=nn.Dense(2))
    step = training.parallel_eval(plain, kind, model=model)
    images = np.random.default_rng(1).normal(size=(21, 3)).astype(np.float32)
    got = training.embed(step, state, images, batch_size=9)  # 9 rows for 8 devices, 3 in the end
    np.testing.assert_allclose(got, images @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_a_state_of_another_place_can_be_embedded_with():
    """A checkpoint restored on one device, say."""
    state = training.create_state(jax.random.key(0), images=IMAGES[:1], **linear())
    state = jax.device_put(state, jax.devices()[3])
    plain = functools.partial(training.eval_step, encoder=nn.Dense(2))
    for kind in ("jit", "shard_map"):
        assert training.parallel_eval(plain, kind)(state, IMAGES).shape == (5, 2)


# ---------------------------------------------------------------- bfloat16


def test_bfloat16_is_for_the_layers_and_float32_for_all_that_lasts():
    images = np.random.default_rng(2).integers(0, 255, (8, 8, 8, 1), dtype=np.uint8)
    batch = {"images": images, "labels": np.arange(8) // 2}
    lengths = []
    for dtype in (jnp.float32, jnp.bfloat16):
        made = linear() | {
            "encoder": encoders.ConvNet(dim=4, widths=(4,), strides=(2,), dtype=dtype)
        }
        state = training.create_state(jax.random.key(0), images=images[:1], **made)
        step = jax.jit(functools.partial(training.train_step, **made))
        program = step.lower(state, batch).as_text()
        assert ("bf16" in program) == (dtype == jnp.bfloat16)
        state, metrics = step(state, batch)
        lasting = (state.params, state.encoder_state, state.opt_state, metrics)
        dtypes = {x.dtype for x in jax.tree.leaves(lasting)} - {jnp.dtype("int32")}
        assert dtypes == {jnp.dtype("float32")}
        lengths.append(float(metrics["loss"]))
    assert lengths[1] == pytest.approx(lengths[0], rel=0.02)
    assert lengths[1] != lengths[0]


# ---------------------------------------------------------------- prefetch


def test_batches_wait_before_they_are_asked_for_but_not_more_than_allowed():
    put = []
    ready = training.prefetch(range(9), lambda x: put.append(x) or x, size=3)
    assert next(ready) == 0
    deadline = time.monotonic() + 10
    while len(put) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert put[:3] == [0, 1, 2]
    assert len(put) <= 4  # the one in hand and three that wait
    assert list(ready) == list(range(1, 9))
    assert put == list(range(9))


def test_an_error_comes_where_its_batch_would():
    def broken():
        yield 1
        raise OSError("disk on fire")

    ready = training.prefetch(broken(), lambda x: x)
    assert next(ready) == 1
    with pytest.raises(OSError, match="disk on fire"):
        next(ready)


def test_closing_stops_the_thread():
    def endless():
        while True:
            yield 0

    before = threading.active_count()
    ready = training.prefetch(endless(), lambda x: x)
    next(ready)
    ready.close()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match=r"^size: got 0, expected 1 or more$"):
        training.prefetch([], lambda x: x, size=0)
