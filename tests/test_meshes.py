"""Five steps on meshes of data and classes, and on pmap: the parameters of one device."""

import functools
import math
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
pytestmark = pytest.mark.usefixtures("quick_compile")


def heads():
    """Softmax over sub-centers, moving centers, a scale that follows the angles, and pairs."""
    return objectives.weighted_sum(
        (1.0, objectives.table(losses.subcenter_arcface, CLASSES, sub_centers=2, scale=8.0)),
        (0.1, objectives.center(CLASSES)),
        (1.0, objectives.adacos(CLASSES)),
        (1.0, objectives.with_memory(objectives.pairs(losses.contrastive), 8)),
    )


def few():
    """The least that has a table, a state and pairs."""
    return objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, CLASSES, scale=8.0)),
        (0.1, objectives.center(CLASSES)),
        (1.0, objectives.pairs(losses.contrastive)),
    )


def pairs():
    """Sums by pair, by anchor in tiles, all triplets, the partner's distances, two stages, a number
    of the whole batch, a memory."""
    return objectives.weighted_sum(
        (1.0, objectives.with_memory(objectives.pairs(losses.contrastive), 8)),
        (1.0, objectives.pairs(losses.supcon, block_size=4)),
        (1.0, objectives.pairs(losses.triplet)),
        (1.0, objectives.pairs(losses.triplet, swap=True, block_size=4)),
        (1.0, objectives.pairs(losses.lifted_structure)),
        (1.0, objectives.pairs(losses.histogram)),
    )


def parts(objective):
    """A convnet with batch norm in float64; SGD leaves the gradients as they are."""
    module = encoders.linen(
        encoders.ConvNet(dim=4, widths=(3,), strides=(2,), neck_norm="batch", dtype=jnp.float64)
    )
    cast = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float64))
    return {
        "encoder": encoders.Encoder(lambda key, x: cast(module.init(key, x)), module.apply),
        "objective": objective(),
        "optimizer": optax.sgd(0.05, momentum=0.9),
    }


def batch(i):
    return {"images": np.roll(IMAGES, 3 * i, 0), "labels": np.roll(LABELS, 3 * i)}


def wrapped(objective, kind, count=8, **options):
    """The step, and the state before it."""
    made = parts(objective)
    step = functools.partial(training.train_step, **made)
    step = training.parallel(step, kind, devices=jax.devices()[:count], **options)
    create = functools.partial(training.create_state, jax.random.key(1), images=IMAGES[:1], **made)
    return step, step.start(create)


def five_steps(objective, kind, count=8, **options):
    step, state = wrapped(objective, kind, count, **options)
    for i in range(5):
        state, metrics = step(state, batch(i))
    return jax.tree.map(raw, (state, metrics))


def raw(x):
    """An array, or the numbers of a random key."""
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


@functools.cache
def single(objective):
    return jax.tree.map(np.asarray, five_steps(objective, "jit", 1))


@pytest.mark.parametrize(
    ("objective", "kind", "options"),
    [
        (heads, "jit", {"model": 1}),
        (heads, "jit", {"model": 2}),
        (heads, "jit", {"model": 4}),
        (heads, "shard_map", {"model": 2}),
        (heads, "shard_map", {"model": 4, "check_vma": False}),
        (heads, "pmap", {}),
        (pairs, "jit", {"model": 1}),
        (pairs, "jit", {"model": 2}),
        (pairs, "jit", {"model": 4}),
        (pairs, "shard_map", {"model": 2}),
        (pairs, "shard_map", {"check_vma": False}),
        (pairs, "pmap", {}),
    ],
)
def test_five_steps_are_those_of_one_device(objective, kind, options):
    with jax.enable_x64(True):
        got, expected = five_steps(objective, kind, **options), single(objective)
        for (path, x), y in zip(
            jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True
        ):
            name = jax.tree_util.keystr(path)
            np.testing.assert_allclose(np.asarray(x), y, 1e-5, 1e-10, err_msg=name)


def longer():
    """Six classes in tables, and centers beside them, of eight rows, which shards divide."""
    return objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 6, rows=8, scale=8.0)),
        (0.1, objectives.center(6, rows=8)),
    )


def shorter():
    """Centers that are fewer than the rows of the table."""
    return objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 6, rows=8, scale=8.0)), (0.1, objectives.center(6))
    )


@pytest.mark.parametrize("kind", ["jit", "shard_map"])
def test_centers_lie_as_the_table_beside_them(kind):
    with jax.enable_x64(True):
        step, state = wrapped(longer, kind, 4, model=2)
        got, _ = step(state, batch(0))
        step, state = wrapped(longer, kind, 1)
        expected, _ = step(state, batch(0))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, got.objective_state, expected.objective_state)
        jax.tree.map(close, got.params["objective"], expected.params["objective"])
        step, state = wrapped(shorter, kind, 4, model=2)
        message = (
            r"^rows: got 6 centers beside a class table of another length .* center\(num_classes"
        )
        with pytest.raises(ValueError, match=message):
            step(state, batch(0))


# ---------------------------------------------------------------- what lies and goes where


def many():
    """Heads over 96 classes, folded in blocks: a table far larger than a batch of embeddings."""
    return objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 96, block_size=8, scale=8.0)),
        (1.0, objectives.curricularface(96)),
        (1.0, objectives.adacos(96)),
        (0.1, objectives.center(96)),
    )


def delivered(text, kind):
    """How many numbers each operation of a kind delivers to a device, most first."""
    results = re.findall(rf"= ([^=]*?) {kind}(?:-start)?\(", text)
    shapes = re.findall(r"\w\[([\d,]*)\]", " ".join(results))
    return sorted((math.prod(int(n) for n in s.split(",") if n) for s in shapes), reverse=True)


def shards(state):
    """How many classes a device holds of each table, momentum and row of centers."""
    tables = [x for x in jax.tree.leaves(state) if x.shape == (96, 4)]
    return [len(table.addressable_shards[0].data) for table in tables]


def test_tables_are_made_and_stay_in_shards_and_never_travel():
    with jax.enable_x64(True):
        step, state = wrapped(many, "jit", model=4)
        text = step.lower(state, batch(0)).compile().as_text()
        assert shards(state) == [24] * 7
        assert shards(step(state, batch(0))[0]) == [24] * 7
    shard = 24 * 4  # numbers of a table that a device holds
    assert delivered(text, "all-reduce")[0] == shard  # its gradient, over the batch axis
    assert delivered(text, "all-gather")[0] <= 16 * 4 < shard  # embeddings, filled up to 16 rows
    assert not delivered(text, "all-to-all")


def test_a_memory_as_long_as_a_table_stays_whole():
    objective = objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 8)),
        (1.0, objectives.with_memory(objectives.pairs(losses.contrastive), 8)),
    )
    params, state = jax.eval_shape(functools.partial(objective.init, dim=3), jax.random.key(0))
    whole = training.TrainState(0, {"objective": params}, {}, state, {}, 0)
    assert not any(
        spec for spec in jax.tree.leaves(training.class_specs(whole, "m").objective_state)
    )


@pytest.mark.parametrize(
    ("kind", "model", "names"),
    [
        ("jit", 3, "model: got 3, expected a divisor of the 8 devices"),
        ("pmap", 2, "model: got 2, expected 1 for pmap"),
        ("jit", 8, "model: got 8, expected a divisor of the 12 classes"),
    ],
)
def test_what_does_not_divide_is_one_line(kind, model, names):
    def twelve():
        return objectives.table(losses.cosface, 12)

    with jax.enable_x64(True), pytest.raises(ValueError, match=f"^{names}[^\n]*$"):
        wrapped(twelve, kind, model=model)
