"""States are the same on all devices, and those of one device, under every wrapping."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jdml import losses, objectives, states, training
from jdml.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES, DIM, DEVICES = 8, 4, 4
rng = np.random.default_rng(0)
ROWS = [rng.normal(size=(12, DIM)).astype(np.float32) for _ in range(3)]
LABELS = np.array([0, 1, 2, 0, 5, 2, -1, 3, 0, 7, 2, 3])
# The last device has one row that exists; its labels and masks differ from step to step.
BATCHES = [
    {"labels": np.roll(LABELS, i), "where": (np.arange(12) < 10) ^ (np.arange(12) == i)}
    for i in range(3)
]
MESH = jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
OBJECTIVES = {
    "memory": objectives.with_memory(objectives.pairs(losses.contrastive), 20),
    "centers": objectives.center(CLASSES),
    "adacos": objectives.adacos(CLASSES),
    "curricularface": objectives.curricularface(CLASSES, scale=8.0),
    "adaface": objectives.adaface(CLASSES, scale=8.0),
    "margins": objectives.dynamic_soft_margin(bins=16),
    "sampled": objectives.sampled(objectives.adacos(CLASSES), CLASSES, groups=2),
    "mixed": objectives.mixed(objectives.pairs(losses.contrastive)),
}


def plain(tree):
    """Random keys as numbers."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def starts():
    made = {name: o.init(jax.random.key(i), DIM) for i, (name, o) in enumerate(OBJECTIVES.items())}
    return [{name: both[part] for name, both in made.items()} for part in (0, 1)]


def step(params, state, rows, batch, **axes):
    """(losses, the next state of each); other losses that read a state are compared elsewhere."""
    values, following = {}, {}
    for name, objective in OBJECTIVES.items():
        if name in ("memory", "sampled", "mixed"):
            values[name] = objective.loss(params[name], state[name], rows, batch, **axes)
        following[name] = objective.update(state[name], params[name], rows, batch, **axes)
    return values, following


def three_steps(run):
    params, state = starts()
    history = []
    for rows, batch in zip(ROWS, BATCHES):
        values, state = run(params, state, rows, batch)
        history.append(values)
    return jax.tree.map(np.asarray, (history, plain(state)))


@pytest.fixture(scope="module")
def single(quick_compile):
    return three_steps(jax.jit(step))


def wrapped(kind):
    local = functools.partial(step, axis_name="batch")
    if kind == "pmap":
        split = functools.partial(jax.tree.map, lambda x: x.reshape(DEVICES, -1, *x.shape[1:]))
        # out_axes 0: the values of all devices are looked at.
        run = jax.pmap(local, "batch", in_axes=(None, None, 0, 0), devices=jax.devices()[:DEVICES])

        def same(params, state, rows, batch):
            return jax.tree.map(equal_on_all, run(params, state, split(rows), split(batch)))

        return same
    everywhere, shared = NamedSharding(MESH, P()), NamedSharding(MESH, P("batch"))
    shardings = {
        "in_shardings": (everywhere, everywhere, shared, shared),
        "out_shardings": everywhere,
    }
    if kind == "jit":
        return jax.jit(step, **shardings)
    specs = {"in_specs": (P(), P(), P("batch"), P("batch")), "out_specs": P()}
    run = jax.shard_map(local, mesh=MESH, check_vma=kind == "shard_map", **specs)
    return jax.jit(run, **shardings)


def equal_on_all(x):
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        assert (np.asarray(x) == np.asarray(x)[:1]).all()
    return x[0]


def close(got, expected):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected)):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, err_msg=name, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "shard_map unchecked", "jit"])
def test_values_and_states_of_three_steps_are_those_of_one_device(kind, single):
    close(three_steps(wrapped(kind)), single)


def test_every_state_moves(single):
    """Or the comparison would say nothing."""
    _, before = starts()
    for name, after in single[1].items():
        leaves = zip(jax.tree.leaves(plain(before[name])), jax.tree.leaves(after))
        assert any((np.asarray(a) != b).any() for a, b in leaves), name


def test_the_memory_holds_the_existing_rows_in_the_order_of_the_batch(single):
    kept = [rows[batch["where"] & (batch["labels"] >= 0)] for rows, batch in zip(ROWS, BATCHES)]
    expected = np.concatenate(kept)
    memory = single[1]["memory"].memory
    assert len(expected) > 20  # the oldest rows are gone
    assert int(memory.position) == len(expected) % 20
    np.testing.assert_array_equal(np.roll(memory.embeddings, -memory.position, 0), expected[-20:])
    assert memory.filled.all()


# ---------------------------------------------------------------- class shards


@pytest.mark.parametrize("check_vma", [True, False])
def test_rules_of_split_tables_are_those_of_whole_ones(check_vma):
    """Scale, hardness and centers, with rows over one axis and classes over the other."""
    table = rng.normal(size=(CLASSES, DIM)).astype(np.float32)
    rows, batch = ROWS[0], BATCHES[0]

    def rules(table, rows, labels, where, **axes):
        options = {"where": where, **axes}
        return (
            states.update_adacos(jnp.float32(3.0), rows, labels, table, **options),
            states.update_hardness(jnp.float32(0.2), rows, labels, table, **options),
            states.update_centers(table, rows, labels, **options),
        )

    mesh = jax.make_mesh((2, 4), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    split = jax.shard_map(
        functools.partial(rules, axis_name="batch", class_axis_name="model"),
        mesh=mesh,
        in_specs=(P("model"), P("batch"), P("batch"), P("batch")),
        out_specs=(P(), P(), P("model")),
        check_vma=check_vma,
    )
    given = (table, rows, batch["labels"], batch["where"])
    close(jax.jit(split)(*given), rules(*given))


def test_rules_of_a_sample_are_those_of_its_rows():
    """A sample of all classes in another order is the table; missing classes do not count."""
    table = rng.normal(size=(CLASSES, DIM)).astype(np.float32)
    rows, labels = ROWS[0], LABELS
    order = rng.permutation(CLASSES)
    for rule in (states.update_adacos, states.update_hardness):
        whole = rule(jnp.float32(2.0), rows, labels, table)
        moved = rule(jnp.float32(2.0), rows, labels, table[order], proxy_labels=order)
        np.testing.assert_allclose(moved, whole, rtol=1e-5)
        ids = np.array([0, 2, 3, 6])
        renumbered = np.full(CLASSES, -1)
        renumbered[ids] = np.arange(4)
        among = np.where(labels < 0, -1, renumbered[labels])
        expected = rule(jnp.float32(2.0), rows, among, table[ids])
        got = rule(jnp.float32(2.0), rows, labels, table[ids], proxy_labels=ids)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_of_four_shards_loads_on_eight_and_on_one(tmp_path):
    """Table and optimizer state; a step after it is that of the run that was never split."""
    import flax.linen as nn
    import optax

    objective = objectives.sampled(objectives.table(losses.cosface, 16, scale=4.0), 16, groups=8)
    parts = {"encoder": nn.Dense(DIM), "objective": objective, "optimizer": optax.adam(0.1)}
    images = ROWS[0]
    batch = {"images": images, "labels": np.maximum(LABELS, 0)}
    fresh = training.create_state(jax.random.key(0), images=images, **parts)
    step = jax.jit(functools.partial(training.train_step, **parts))
    undisturbed = step(step(fresh, batch)[0], batch)[0]

    def split(state, shards):
        """Whatever has a row a class lies on the class axis."""
        mesh = jax.make_mesh((shards,), ("model",), axis_types=(AxisType.Auto,),
                             devices=jax.devices()[:shards])  # fmt: skip
        place = lambda x: P("model") if x.shape[:1] == (16,) and x.ndim == 2 else P()
        return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, place(x))), state)

    with Checkpoints(tmp_path) as checkpoints:
        first, _ = step(split(fresh, 4), batch)
        assert len(first.params["objective"]["proxies"].sharding.device_set) == 4
        checkpoints.save(first)
        for shards in (8, 1):
            restored, _ = checkpoints.restore_latest(split(fresh, shards))
            for table in (restored.params["objective"]["proxies"],
                          restored.opt_state[0].mu["objective"]["proxies"]):  # fmt: skip
                assert {s.data.shape for s in table.addressable_shards} == {(16 // shards, DIM)}
            after, _ = step(restored, batch)
            close(plain(after), plain(undisturbed))
