"""Sampled heads: the batch's classes and a random share of the others, on any number of shards."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jdml import encoders, losses, objectives, training

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES, SIZE, GROUPS = 32, 16, 4
ROWS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
LABELS = np.array([3, 30, 3, 9, 17, -1, 25, 1])
WHERE = np.arange(8) != 7
BATCH = {"labels": LABELS, "where": WHERE}
PRESENT = {3, 30, 9, 17, 25}
sample = functools.partial(objectives.sample_classes, num_classes=CLASSES, size=SIZE)


# ---------------------------------------------------------------- the sample


@pytest.mark.parametrize("groups", [1, 4])
def test_the_sample_has_the_classes_of_the_batch_and_no_class_twice(groups):
    for seed in range(5):
        key = jax.random.key(seed)
        ids = np.asarray(sample(key, LABELS, where=WHERE, groups=groups))
        assert len(set(ids.tolist())) == SIZE
        assert set(ids.tolist()) >= PRESENT
        assert ids.min() >= 0
        assert ids.max() < CLASSES
        assert (np.diff(ids) > 0).all()
        per_group = np.bincount(ids // (CLASSES // groups), minlength=groups)
        assert (per_group == SIZE // groups).all()


def test_the_others_are_drawn_alike():
    """Of 27 other classes, 11 in 16: each 400 times in 1000 or so, none for being a neighbour."""
    draw = jax.jit(jax.vmap(lambda key: sample(key, LABELS, where=WHERE)))
    counts = np.bincount(np.ravel(draw(jax.random.split(jax.random.key(0), 1000))))
    others = np.delete(counts, sorted(PRESENT))
    expected = 1000 * (SIZE - len(PRESENT)) / (CLASSES - len(PRESENT))
    assert np.abs(others - expected).max() < 5 * np.sqrt(expected)
    assert (counts[sorted(PRESENT)] == 1000).all()


def test_a_sample_of_all_classes_is_the_whole_table():
    np.testing.assert_array_equal(sample(jax.random.key(0), LABELS, size=CLASSES), range(CLASSES))


# ---------------------------------------------------------------- the head


def heads():
    """Heads with what they may own beside the table: a scale, statistics, a hardness."""
    return {
        "arcface": objectives.table(losses.arcface, CLASSES, scale=8.0),
        "sub-centers": objectives.table(
            losses.subcenter_arcface, CLASSES, sub_centers=2, scale=8.0
        ),
        "adacos": objectives.adacos(CLASSES),
        "curricularface": objectives.curricularface(CLASSES, scale=8.0),
        "proxy_anchor": objectives.table(losses.proxy_anchor, CLASSES),
    }


def head(name, groups=GROUPS):
    objective = objectives.sampled(heads()[name], SIZE, groups=groups)
    return objective, *objective.init(jax.random.key(3), ROWS.shape[1])


def value_and_gradients(objective):
    """(loss, gradient by parameters, gradient by rows, next state)."""

    def run(params, state, rows, batch, **shared):
        loss = lambda params, rows: objective.loss(params, state, rows, batch, **shared)
        value, gradients = jax.value_and_grad(loss, (0, 1))(params, rows)
        state = objective.update(state, params, rows, batch, **shared)
        return value, gradients, state._replace(key=jax.random.key_data(state.key))

    return run


def test_the_loss_is_that_of_the_sampled_rows():
    objective, params, state = head("arcface")
    got, (by_params, _), _ = jax.jit(value_and_gradients(objective))(params, state, ROWS, BATCH)
    draw, following = jax.random.split(state.key)
    ids = sample(draw, LABELS, where=WHERE, groups=GROUPS)
    expected = lambda table: losses.arcface(
        ROWS, LABELS, table[ids], proxy_labels=ids, where=WHERE, scale=8.0
    )
    value, gradient = jax.value_and_grad(expected)(params["proxies"])
    np.testing.assert_allclose(got, value, rtol=1e-6)
    np.testing.assert_allclose(by_params["proxies"], gradient, rtol=1e-5, atol=1e-7)
    drawn = np.isin(np.arange(CLASSES), ids)
    assert not gradient[~drawn].any()
    assert gradient[drawn].any(axis=1).all()
    after = objective.update(state, params, ROWS, BATCH)
    assert (jax.random.key_data(after.key) == jax.random.key_data(following)).all()
    assert set(sample(after.key, LABELS).tolist()) != set(ids.tolist())


def close(got, expected):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected)):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, err_msg=name, rtol=2e-5, atol=1e-6)


@functools.cache
def single(name):
    objective, params, state = head(name)
    return jax.tree.map(np.asarray, value_and_gradients(objective)(params, state, ROWS, BATCH))


@pytest.mark.parametrize(("name", "shards"), [("arcface", 2), *((name, 4) for name in heads())])
def test_a_sharded_head_is_the_whole_one(name, shards):
    """Rows over one axis, classes over the other; states follow the same sample."""
    objective, params, state = head(name)
    mesh = jax.make_mesh((8 // shards, shards), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    local = value_and_gradients(objective)

    def run(params, state, rows, batch):
        value, (by_params, by_rows), state = local(
            params, state, rows, batch, axis_name="batch", class_axis_name="model"
        )
        return value, (lax.pmean(by_params, "batch"), by_rows), state

    of_params = {k: P("model") if k == "proxies" else P() for k in params}
    step = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(of_params, P(), P("batch"), P("batch")),
        out_specs=(P(), (of_params, P("batch")), P()),
    )
    close(jax.jit(step)(params, state, ROWS, BATCH), single(name))


def test_sharded_jit_is_one_device():
    objective, params, state = head("arcface")
    mesh = jax.make_mesh((2, 4), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, P(*axes)))
    table = {"proxies": put(params["proxies"], "model")}
    batch = {name: put(x, "batch") for name, x in BATCH.items()}
    got = jax.jit(value_and_gradients(objective))(table, state, put(ROWS, "batch"), batch)
    close(got, single("arcface"))


def test_pmap_is_one_device():
    objective, params, state = head("adacos")
    split = lambda x: x.reshape(4, 2, *x.shape[1:])

    def run(rows, batch):
        value, (by_params, by_rows), following = value_and_gradients(objective)(
            params, state, rows, batch, axis_name="batch"
        )
        return value, (lax.pmean(by_params, "batch"), by_rows), following

    step = jax.pmap(run, "batch", out_axes=(None, (None, 0), None))
    value, (by_params, by_rows), following = step(split(ROWS), jax.tree.map(split, BATCH))
    close((value, (by_params, by_rows.reshape(8, -1) / 4), following), single("adacos"))


# ---------------------------------------------------------------- rows that stand for no class


def longer(name):
    """Heads of 30 classes, and the same in a table of 32 rows."""
    of = {
        "arcface": lambda **o: objectives.table(losses.arcface, 30, scale=8.0, **o),
        "adacos": lambda **o: objectives.adacos(30, **o),
        "proxy_anchor": lambda **o: objectives.table(losses.proxy_anchor, 30, **o),
        "soft_triple": lambda **o: objectives.table(losses.soft_triple, 30, sub_centers=2, **o),
    }[name]
    return of(), of(rows=32)


@pytest.mark.parametrize("name", ["arcface", "adacos", "proxy_anchor", "soft_triple"])
def test_rows_beyond_the_classes_do_not_exist(name):
    """Whatever they hold, and whether the head sees all rows or a sample that has them."""
    short, long = longer(name)
    params, state = long.init(jax.random.key(3), ROWS.shape[1])
    batch = {**BATCH, "labels": np.minimum(LABELS, 29)}

    def run(objective, params):
        value, gradients = jax.value_and_grad(objective.loss)(params, state, ROWS, batch)
        return value, gradients, objective.update(state, params, ROWS, batch)

    cut = {**params, "proxies": params["proxies"][:30]}
    value, gradients, after = run(long, params)
    expected = run(short, cut)
    assert not gradients["proxies"][30:].any()
    gradients = {**gradients, "proxies": gradients["proxies"][:30]}
    close((value, gradients, after), expected)
    everything = objectives.sampled(long, 32, groups=4)
    _, sampling = everything.init(jax.random.key(3), ROWS.shape[1])
    sampling = sampling._replace(inner=state)
    close(everything.loss(params, sampling, ROWS, batch), value)
    close(everything.update(sampling, params, ROWS, batch).inner, after)


# ---------------------------------------------------------------- rows that were not drawn


def test_lazy_rows_and_what_the_optimizer_holds_of_them_stay_until_they_are_drawn():
    """Rows drawn in every step move as by the optimizer itself; others not at all."""
    params = {"proxies": jnp.asarray(ROWS), "scale": jnp.float32(2.0)}
    inner = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    ways = {"lazy": objectives.lazy_rows(inner), "plain": inner}
    after = {}
    for name, optimizer in ways.items():
        state, moved = jax.jit(optimizer.init)(params), params
        with jax.numpy_dtype_promotion("standard"):
            for drawn in ([0, 1, 2], [0, 1], [0, 1, 7]):
                table = jnp.zeros_like(ROWS).at[jnp.array(drawn)].set(0.5)
                gradients = {"proxies": table, "scale": jnp.float32(0.0)}
                updates, state = jax.jit(optimizer.update)(gradients, state, moved)
                moved = optax.apply_updates(moved, updates)
        after[name] = moved, optax.tree.get(state, "mu"), optax.tree.get(state, "count")
    (lazy, lazy_mu, count), (plain, plain_mu, _) = after["lazy"], after["plain"]
    assert count == 3
    np.testing.assert_allclose(lazy["proxies"][:2], plain["proxies"][:2], rtol=1e-6)
    np.testing.assert_allclose(lazy_mu["proxies"][:2], plain_mu["proxies"][:2], rtol=1e-6)
    assert lazy["scale"] == plain["scale"]
    np.testing.assert_array_equal(lazy["proxies"][3:7], ROWS[3:7])  # no decay either
    assert not lazy_mu["proxies"][3:7].any()
    assert (np.asarray(plain["proxies"][3:7]) != ROWS[3:7]).all()
    first = (1 - 0.9) * (0.5 + 0.1 * ROWS[2])  # seen once, and not faded since
    np.testing.assert_allclose(lazy_mu["proxies"][2], first, rtol=1e-5)


# ---------------------------------------------------------------- train steps


@functools.cache
def trained(kind, model, devices):
    """Three steps with a sampled head, a center a class, a memory, and rows in two pieces."""
    objective = objectives.weighted_sum(
        (1.0, objectives.sampled(objectives.adacos(30, rows=32), 16, groups=4)),
        (0.1, objectives.center(32)),
        (1.0, objectives.with_memory(objectives.pairs(losses.contrastive), 20)),
    )
    images = np.random.default_rng(5).normal(size=(16, 5)).astype(np.float32)
    encoder = encoders.cached(nn.Dense(4), 2)
    parts = {"encoder": encoder, "objective": objective, "optimizer": optax.adam(0.1)}
    state = training.create_state(jax.random.key(0), images=images, **parts)
    step = functools.partial(training.train_step, **parts)
    run = training.parallel(step, kind, model=model, devices=jax.devices()[:devices])
    for i in range(3):
        batch = {"images": np.roll(images, i, 0), "labels": np.arange(i, 16 + i) % 7 * 4}
        state, metrics = run(state, batch)
    raw = lambda x: jax.random.key_data(x) if x.dtype == state.key.dtype else np.asarray(x)
    return jax.tree.map(raw, (state, metrics))


@pytest.mark.parametrize(("kind", "model"), [("jit", 4), ("shard_map", 2)])
def test_steps_on_class_shards_are_those_of_one_device(kind, model):
    close(trained(kind, model, 8), trained("jit", 1, 1))


# ---------------------------------------------------------------- numbers that do not fit


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("size", {"size": 7}),
        ("size", {"size": 33}),
        ("size", {"size": 10, "groups": 4}),
        ("groups", {"groups": 3}),
        ("groups", {"groups": 0}),
        ("where", {"where": np.ones(3, bool)}),
    ],
)
def test_bad_numbers_are_one_line_that_names_them(name, options):
    with pytest.raises(ValueError, match=f"^{name}: got [^\n]*, expected [^\n]*$"):
        sample(jax.random.key(0), LABELS, **options)


def test_a_table_that_is_missing_or_too_short_is_refused():
    objective = objectives.sampled(objectives.pairs(losses.triplet), 4)
    with pytest.raises(ValueError, match=r"^rows: got 7, expected 8 or more$"):
        objectives.table(losses.cosface, 8, rows=7)
    with pytest.raises(ValueError, match=r"^objective: got parameters [^\n]*, expected a class"):
        objective.init(jax.random.key(0), 3)


def test_a_sample_is_exact_over_rows_and_classes_of_a_filled_up_batch():
    """Float64, 12 rows filled up to 16, on 4 devices cut by rows, by classes, and by both."""
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        head = objectives.table(losses.cosface, 24, scale=8.0)
        objective = objectives.sampled(head, 16, groups=4)
        params, state = objective.init(jax.random.key(0), 6)
        x, y = jnp.asarray(random.normal(size=(12, 6))), jnp.asarray(random.integers(0, 24, 12))
        filled = jnp.pad(x, ((0, 4), (0, 0))), jnp.resize(y, 16), jnp.arange(16) < 12

        def step(params, x, y, where, **axes):
            batch = {"labels": y, "where": where}
            loss = lambda params: objective.loss(params, state, x, batch, **axes)
            return jax.value_and_grad(loss)(params)

        expected = step(params, x, y, None)
        axes = {"axis_name": "rows", "class_axis_name": "classes"}
        for shape in ((4, 1), (2, 2), (1, 4)):
            mesh = jax.make_mesh(
                shape,
                ("rows", "classes"),
                devices=jax.devices()[:4],
                axis_types=(AxisType.Auto,) * 2,
            )
            by_rows, by_classes = P("rows"), P("classes")
            cut = jax.shard_map(
                functools.partial(step, **axes),
                mesh=mesh,
                in_specs=(by_classes, by_rows, by_rows, by_rows),
                out_specs=(P(), by_classes),
            )
            for a, b in zip(
                jax.tree.leaves(jax.jit(cut)(params, *filled)), jax.tree.leaves(expected)
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
