"""Train steps: the same parameters on any devices, state, randomness and optimizer."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdml import encoders, losses, objectives, training

WRAPPINGS = {
    "pmap": ("pmap", {}),
    "shard_map": ("shard_map", {}),
    "shard_map without varying-axes checks": ("shard_map", {"check_vma": False}),
    "sharded jit": ("jit", {}),
}
LABELS = (np.arange(16) // 2).astype(np.int32)
IMAGES = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 1), dtype=np.uint8)


def contrastive():
    return objectives.pairs(losses.contrastive)


def linear(objective, **more):
    """The parts of the smallest run: one dense layer, gradients left in the parameters by SGD."""
    parts = {"encoder": nn.Dense(2), "objective": objective, "optimizer": optax.sgd(1.0), **more}
    step = functools.partial(training.train_step, **parts)
    create = lambda images, seed=0: training.create_state(
        jax.random.key(seed), parts["encoder"], objective, parts["optimizer"], images
    )
    return create, step


def on(kind, count, step, **options):
    return training.parallel(step, kind, devices=jax.devices()[:count], **options)


def close(got, expected, **tolerance):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected)):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), err_msg=name, **tolerance)


# ---------------------------------------------------------------- one device and several


def five_steps(kind, count, dtype, **options):
    """A convnet with batch norm, a class table, moving centers and pairs across devices."""
    module = encoders.linen(
        encoders.ConvNet(dim=5, widths=(3, 4), strides=(2, 1), neck_norm="batch", dtype=dtype)
    )
    cast = functools.partial(jax.tree.map, lambda x: x.astype(dtype))
    encoder = encoders.Encoder(lambda key, x: cast(module.init(key, x)), module.apply)
    objective = objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 8, scale=8.0)),
        (0.1, objectives.center(8)),
        (1.0, contrastive()),
    )
    optimizer = training.optimizer(1e-2, steps=5, warmup=1)
    parts = {"encoder": encoder, "objective": objective, "optimizer": optimizer}
    state = training.create_state(jax.random.key(1), images=IMAGES, **parts)
    step = on(kind, count, functools.partial(training.train_step, **parts), **options)
    history = []
    for i in range(5):
        batch = {"images": np.roll(IMAGES, 3 * i, 0), "labels": np.roll(LABELS, 3 * i)}
        state, metrics = step(state, batch)
        history.append(metrics)
    return state._replace(key=jax.random.key_data(state.key)), history


@pytest.fixture(scope="module")
def single_device(quick_compile):
    with jax.enable_x64(True):
        return five_steps("jit", 1, jnp.float64)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_five_steps_give_the_parameters_of_a_single_device(wrapping, single_device):
    kind, options = WRAPPINGS[wrapping]
    with jax.enable_x64(True):
        close(five_steps(kind, 8, jnp.float64, **options), single_device, rtol=1e-5, atol=1e-10)


def test_five_steps_in_float32_give_the_parameters_of_a_single_device(quick_compile):
    got, expected = (five_steps("pmap", count, jnp.float32)[0].params for count in (8, 1))
    # Adam divides by the size of the gradient, which magnifies rounding where that is near 0.
    close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["jit", "pmap", "shard_map"])
def test_e1_loss_and_gradient_do_not_scale_with_the_number_of_devices(kind):
    create, step = linear(objectives.table(losses.cosface, 2, scale=4.0))
    batch = {"images": np.eye(4, dtype=np.float32), "labels": np.array([0, 1, 1, 0])}
    state, metrics = jax.jit(step)(create(batch["images"]), batch)
    for count in (1, 2):
        got, got_metrics = on(kind, count, step)(create(batch["images"]), batch)
        close((got.params, got_metrics), (state.params, metrics), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["jit", "pmap", "shard_map"])
def test_e2_rows_of_other_devices_carry_gradient(kind):
    # Each class has one row on each of two devices, so every positive is remote.
    create, step = linear(contrastive())
    images = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    batch = {"images": images, "labels": np.array([0, 1, 0, 1])}
    expected, _ = jax.jit(step)(create(images), batch)
    got, _ = on(kind, 2, step)(create(images), batch)
    moved = np.asarray(got.params["encoder"]["kernel"] - create(images).params["encoder"]["kernel"])
    assert np.abs(moved).max() > 0.01
    close(got.params, expected.params, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["jit", "pmap", "shard_map"])
def test_e8_one_device_is_as_unwrapped(kind):
    create, step = linear(
        objectives.weighted_sum((1.0, contrastive()), (1.0, objectives.center(2)))
    )
    batch = {"images": np.eye(3, dtype=np.float32), "labels": np.array([0, 1, 1])}
    expected = step(create(batch["images"]), batch)[0]
    got = on(kind, 1, step)(create(batch["images"]), batch)[0]
    close(got._replace(key=0), expected._replace(key=0), rtol=1e-6, atol=1e-7)


def test_a_batch_that_does_not_divide_is_as_on_one_device():
    create, step = linear(contrastive(), encoder=nn.Sequential([nn.Dense(2), encoders.BatchNorm()]))
    images = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    batch = {"images": images, "labels": np.array([0, 1, 1, 0, 2, 2, 2])}
    expected, _ = jax.jit(step)(create(images), batch)
    for kind in ("jit", "pmap", "shard_map"):
        got, _ = on(kind, 4, step)(create(images), batch)
        close(got.params, expected.params, rtol=1e-5, atol=1e-7)


def test_without_batch_norm_over_devices_the_running_statistics_are_averaged():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.BatchNorm(use_running_average=not train, momentum=0.0)(x)

    create, step = linear(contrastive(), encoder=Plain())
    batch = {"images": np.arange(4, dtype=np.float32)[:, None], "labels": np.array([0, 1, 0, 1])}
    state, _ = on("shard_map", 2, step, check_vma=False)(create(batch["images"]), batch)
    np.testing.assert_allclose(jax.tree.leaves(state.encoder_state)[0], [(0.5 + 2.5) / 2])


# ---------------------------------------------------------------- one step


def test_a_missing_row_has_no_effect_even_as_nan():
    module = encoders.ConvNet(dim=2, widths=(2,), strides=(2,))
    objective = objectives.table(losses.cosface, 3, scale=4.0)
    create, step = linear(objective, encoder=module)
    images = np.random.default_rng(3).random((5, 6, 6, 1), dtype=np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    images[2] = np.nan
    where = labels != 2
    kept = {"images": images[where], "labels": labels[where]}
    expected, _ = jax.jit(step)(create(images), kept)
    got, _ = jax.jit(step)(create(images), {"images": images, "labels": labels, "where": where})
    trained = lambda state: (state.params, state.encoder_state)
    close(trained(got), trained(expected), rtol=1e-5, atol=1e-6)


def test_gradient_norm_is_that_of_all_parameters():
    create, step = linear(objectives.table(losses.cosface, 2))
    batch = {"images": np.eye(4, dtype=np.float32), "labels": np.array([0, 1, 1, 0])}
    before = create(batch["images"])
    after, metrics = jax.jit(step)(before, batch)
    moved = jax.tree.map(lambda a, b: a - b, after.params, before.params)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(moved), rtol=1e-5)


def test_the_rules_of_the_objective_see_the_embeddings_of_the_step():
    create, step = linear(
        objectives.weighted_sum((1.0, contrastive()), (1.0, objectives.center(2)))
    )
    images = np.eye(2, dtype=np.float32)
    before = create(images)
    state, _ = jax.jit(step)(before, {"images": images, "labels": np.array([0, 1])})
    rows = training.eval_step(before, images, encoder=nn.Dense(2))
    np.testing.assert_allclose(state.objective_state[1], 0.5 * rows / 2, rtol=1e-5)


def test_dropout_changes_with_the_step_and_repeats_with_the_key():
    module = encoders.Neck(dim=2, dropout=0.5)
    create, step = linear(contrastive(), encoder=module, optimizer=optax.sgd(0.0))
    batch = {"images": np.ones((4, 8), np.float32), "labels": np.array([0, 0, 1, 1])}
    run = jax.jit(step)
    states = [create(batch["images"], seed) for seed in (0, 0, 1)]
    first, again, other = (run(state, batch)[1]["loss"] for state in states)
    second = run(run(states[0], batch)[0], batch)[1]["loss"]
    assert first == again
    assert len({float(first), float(second), float(other)}) == 3


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "jit"])
def test_augmentation_is_the_same_on_any_number_of_devices(kind):
    def augment(keys, images):
        return images + jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)

    create, step = linear(contrastive())
    step = functools.partial(step, augment=augment)
    batch = {"images": np.zeros((4, 3), np.float32), "labels": np.array([0, 0, 1, 1])}
    expected, metrics = jax.jit(step)(create(batch["images"]), batch)
    assert metrics["loss"] > 0  # rows of one image differ by their noise alone
    close(
        on(kind, 2, step)(create(batch["images"]), batch)[0].params,
        expected.params,
        rtol=1e-5,
        atol=1e-6,
    )
    assert jax.jit(step)(expected, batch)[1]["loss"] != metrics["loss"]


def test_any_pair_of_pure_functions_is_an_encoder():
    def init(key, images):
        return {"w": jax.random.normal(key, (images.shape[-1], 2))}, {"calls": jnp.int32(0)}

    def apply(params, state, images, *, train=False, key=None, where=None, axis_name=None):
        return images @ params["w"], {"calls": state["calls"] + int(train)}

    create, step = linear(contrastive(), encoder=encoders.Encoder(init, apply))
    batch = {"images": np.eye(4, dtype=np.float32), "labels": np.array([0, 0, 1, 1])}
    state, _ = on("shard_map", 2, step)(create(batch["images"]), batch)
    assert int(state.encoder_state["calls"]) == 1


def test_training_separates_classes_that_pixels_do_not():
    # Faint strokes at a fixed place name the class; each image has its own loud background tilt.
    rng = np.random.default_rng(4)
    tilts = np.linspace(-1, 1, 8)[:, None] * np.array([[1.0]])
    strokes = 0.1 * rng.choice([-1.0, 1.0], (4, 8, 8))

    def draw(labels):
        tilt = rng.normal(size=(2, len(labels), 1, 1))
        planes = tilt[0] * tilts[None] + tilt[1] * tilts.T[None]
        return (0.5 + 1.0 * planes + 0.5 * strokes[labels])[..., None].astype(np.float32)

    labels = np.tile(np.arange(4), 8)
    module = encoders.ConvNet(dim=4, widths=(8,), strides=(1,), pooling="grid")
    optimizer = training.optimizer(1e-2, steps=40, table_multiplier=4.0)
    objective = objectives.table(losses.cosface, 4, margin=0.1, scale=8.0)
    create, step = linear(objective, encoder=module, optimizer=optimizer)
    state, step = create(draw(labels)), jax.jit(step)
    history = []
    for _ in range(40):
        state, metrics = step(state, {"images": draw(labels), "labels": labels})
        history.append(float(metrics["loss"]))
    assert np.mean(history[-5:]) < 0.3 * np.mean(history[:5])

    def hits(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        nearest = np.argmax(unit @ unit.T - 2 * np.eye(len(rows)), axis=1)
        return np.mean(labels[nearest] == labels)

    images = draw(labels)
    embed = jax.jit(functools.partial(training.eval_step, encoder=module))
    pixels = images.reshape(len(images), -1)
    trained = hits(training.embed(embed, state, images, batch_size=5))
    assert trained > 0.9 > hits(pixels - pixels.mean(axis=1, keepdims=True))


# ---------------------------------------------------------------- optimizer


def updates(optimizer, gradients, params):
    with jax.numpy_dtype_promotion("standard"):
        return optimizer.update(gradients, optimizer.init(params), params)[0]


def test_class_tables_learn_at_their_own_rate_without_decay():
    tree = {
        "encoder": {"Dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
        "objective": {"proxies": jnp.ones((3, 2))},
    }
    zeros = jax.tree.map(jnp.zeros_like, tree)
    decayed = updates(training.optimizer(0.1, steps=9, warmup=0, weight_decay=0.5), zeros, tree)
    np.testing.assert_allclose(decayed["encoder"]["Dense_0"]["kernel"], -0.1 * 0.5, rtol=1e-5)
    assert not decayed["encoder"]["Dense_0"]["bias"].any()
    assert not decayed["objective"]["proxies"].any()
    fast = training.optimizer(0.1, steps=9, warmup=0, weight_decay=0.0, table_multiplier=7.0)
    moved = updates(fast, tree, tree)
    np.testing.assert_allclose(moved["encoder"]["Dense_0"]["bias"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(moved["objective"]["proxies"], -0.7, rtol=1e-4)


def test_an_objective_without_parameters_is_fine():
    tree = {"encoder": {"kernel": jnp.ones((2, 2))}, "objective": {}}
    assert updates(training.optimizer(0.1, steps=3), tree, tree)["objective"] == {}


def test_clipping_is_by_the_norm_of_all_gradients_together():
    # Adam forgets the scale of a gradient but not its epsilon: far below it, updates shrink.
    tree = {"encoder": {"kernel": jnp.full(1, 3e4)}, "objective": {"proxies": jnp.full(1, 4e4)}}
    tiny = training.optimizer(1.0, steps=9, warmup=0, weight_decay=0.0, clip_norm=5e-9)
    moved = updates(tiny, tree, tree)
    for name, clipped in (("encoder", 3e-9), ("objective", 4e-9)):
        expected = -clipped / (clipped + 1e-8)
        np.testing.assert_allclose(jax.tree.leaves(moved[name])[0], expected, rtol=1e-3)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("kind", lambda: training.parallel(training.train_step, "jmap")),
        ("steps", lambda: training.optimizer(0.1, steps=0)),
        ("warmup", lambda: training.optimizer(0.1, steps=5, warmup=5)),
        ("learning_rate", lambda: training.optimizer(-0.1, steps=5)),
        ("learning_rate", lambda: training.optimizer(float("nan"), steps=5)),
        ("weight_decay", lambda: training.optimizer(0.1, steps=5, weight_decay=-1.0)),
        ("clip_norm", lambda: training.optimizer(0.1, steps=5, clip_norm=0.0)),
        ("table_multiplier", lambda: training.optimizer(0.1, steps=5, table_multiplier=-1.0)),
        ("batch_size", lambda: training.embed(print, None, np.ones((1, 2)), batch_size=0)),
        ("images", lambda: training.embed(print, None, np.ones((0, 2)))),
    ],
)
def test_bad_input_is_one_line_that_names_it(name, call):
    with pytest.raises(ValueError, match=f"^{name}: got [^\n]*, expected [^\n]*$"):
        call()


def test_an_encoder_that_is_none_is_a_type_error():
    with pytest.raises(TypeError, match=r"^encoder: got str 'resnet', expected"):
        linear(contrastive(), encoder="resnet")[0](np.ones((1, 2), np.float32))
