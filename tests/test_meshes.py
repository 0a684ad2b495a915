"""Five steps on meshes of data and classes, and on pmap: the parameters of one device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdml import encoders, losses, objectives, training

CLASSES, ROWS = 8, 12  # rows that do not divide by 8 devices
IMAGES = np.random.default_rng(0).integers(0, 255, (ROWS, 6, 6, 1), dtype=np.uint8)
LABELS = (np.arange(ROWS) // 2).astype(np.int32)


def parts(mixed=True):
    """A convnet with batch norm, a class table and moving centers; pairs of rows where mixed."""
    module = encoders.linen(
        encoders.ConvNet(dim=4, widths=(3,), strides=(2,), neck_norm="batch", dtype=jnp.float64)
    )
    cast = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float64))
    objective = objectives.weighted_sum(
        (1.0, objectives.table(losses.subcenter_arcface, CLASSES, sub_centers=2, scale=8.0)),
        (0.1, objectives.center(CLASSES)),
        *[(1.0, objectives.pairs(losses.contrastive))] * mixed,
    )
    return {
        "encoder": encoders.Encoder(lambda key, x: cast(module.init(key, x)), module.apply),
        "objective": objective,
        "optimizer": optax.sgd(0.1, momentum=0.9),
    }


def batch(i):
    return {"images": np.roll(IMAGES, 3 * i, 0), "labels": np.roll(LABELS, 3 * i)}


def five_steps(kind, count=8, mixed=True, **options):
    made = parts(mixed)
    step = functools.partial(training.train_step, **made)
    step = training.parallel(step, kind, devices=jax.devices()[:count], **options)
    state = training.create_state(jax.random.key(1), images=IMAGES, **made)
    for i in range(5):
        state, metrics = step(state, batch(i))
    return state, metrics


def close(got, expected):
    raw = lambda state: state._replace(key=jax.random.key_data(state.key))
    pairs = zip(
        jax.tree_util.tree_leaves_with_path((raw(got[0]), got[1])),
        jax.tree.leaves((raw(expected[0]), expected[1])),
    )
    for (path, x), y in pairs:
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), 1e-5, 1e-10, err_msg=name)


@pytest.fixture(scope="module")
def single(quick_compile):
    @functools.cache
    def of(mixed):
        with jax.enable_x64(True):
            return five_steps("jit", 1, mixed)

    return of


@pytest.mark.parametrize("model", [1, 2, 4])
@pytest.mark.parametrize("kind", ["jit", "shard_map", "shard_map without checks", "pmap"])
def test_five_steps_on_a_mesh_are_those_of_one_device(kind, model, single):
    if kind == "pmap" and model > 1:
        pytest.skip("pmap has one axis")
    kind, _, unchecked = kind.partition(" ")
    with jax.enable_x64(True):
        got = five_steps(kind, model=model, mixed=False, check_vma=not unchecked)
        close(got, single(False))
