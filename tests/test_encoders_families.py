"""Residual networks, faces, transformers and EfficientNet-Lite0: what they share and what not."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jdml import encoders, losses, objectives, training
from jdml.encoders import layers

pytestmark = pytest.mark.usefixtures("quick_compile")

IMAGES = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1])
SMALL = {
    "resnet": functools.partial(encoders.ResNet, depths=(1,), widths=(2,)),
    "iresnet": functools.partial(encoders.IResNet, depths=(1,), widths=(2,)),
    "vit": functools.partial(encoders.ViT, patch=8, width=4, depth=1, heads=2),
    "efficientnet_lite0": encoders.EfficientNetLite0,
}


def draw(module, images=IMAGES):
    return jax.jit(module.init)(jax.random.key(0), images)


def form(module, images=IMAGES):
    """Embeddings and variables, their shapes and dtypes alone."""
    return jax.eval_shape(module.init_with_output, jax.random.key(0), images)


# ---------------------------------------------------------------- the shared head


@pytest.mark.parametrize("name", SMALL)
def test_settings_are_the_same_for_all(name):
    small = SMALL[name]
    poolings = ["average", "max", "average+max", "gem", "grid", *["token"] * (name == "vit")]
    for i, pooling in enumerate(poolings):
        dtype = (jnp.bfloat16, jnp.float32)[i % 2]
        rows, variables = form(small(5, pooling=pooling, dtype=dtype, neck_norm="layer"))
        assert (rows.shape, rows.dtype) == ((4, 5), jnp.float32)
        assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    features, variables = form(small(None, pooling="average", feature_norm="layer"))
    assert features.shape == (4, {"vit": 4, "efficientnet_lite0": 1280, "resnet": 8}.get(name, 2))
    assert "Neck_0" not in variables["params"]


@pytest.mark.parametrize("name", ["resnet", "iresnet", "vit"])
def test_bfloat16_is_near_float32(name):
    wide, narrow = (
        SMALL[name](None, pooling="average", dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16)
    )
    variables = draw(wide)
    expected = jax.jit(wide.apply)(variables, IMAGES)
    np.testing.assert_allclose(jax.jit(narrow.apply)(variables, IMAGES), expected, atol=0.1)


def test_average_and_max_are_added():
    x = jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 2, 2, 1)
    assert encoders.pool(x, "average+max").tolist() == [[3.0 + 6.0]]


def test_layer_norm_before_the_neck_has_no_parameters():
    module = SMALL["vit"](None, feature_norm="layer")
    rows = jax.jit(module.apply)(draw(module), IMAGES)
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(1), 1, rtol=1e-3)
    unit = SMALL["vit"](None, unit_rows=True)
    lengths = jnp.linalg.norm(jax.jit(unit.apply)(draw(module), IMAGES), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_grey_images_are_three_equal_channels():
    module = SMALL["vit"](3)
    grey = IMAGES[..., :1]
    apply, variables = jax.jit(module.apply), draw(module)
    np.testing.assert_array_equal(
        apply(variables, grey), apply(variables, np.repeat(grey, 3, axis=-1))
    )


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (encoders.resnet18, 11.177),
        (encoders.resnet50, 23.508),
        (encoders.vit_small, 21.666),
        (encoders.efficientnet_lite0, 3.371),
    ],
)
def test_networks_have_the_published_number_of_parameters(make, millions):
    images = np.zeros((1, 224, 224, 3), np.uint8)
    params = form(make(None), images)[1]["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, abs=1e-3)


# ---------------------------------------------------------------- frozen batch norm


def step(module):
    objective = objectives.matryoshka(objectives.table(losses.cosface, 2, scale=4.0), (2, 4))
    optimizer = training.optimizer(0.1, steps=5, warmup=0, weight_decay=0.1)
    parts = {"encoder": module, "objective": objective, "optimizer": optimizer}
    state = training.create_state(jax.random.key(0), images=IMAGES, **parts)
    stepped = jax.jit(functools.partial(training.train_step, **parts))
    return state, stepped(state, {"images": IMAGES, "labels": LABELS})[0]


@pytest.mark.parametrize("name", ["resnet", "iresnet"])
def test_frozen_norms_stay_and_all_else_learns(name):
    before, after = step(SMALL[name](4, frozen_norm=True))
    flat = jax.tree_util.tree_leaves_with_path(before.params["encoder"])
    for (path, old), new in zip(flat, jax.tree.leaves(after.params["encoder"])):
        key = jax.tree_util.keystr(path)
        norm = "kernel" not in key and "prelu" not in key and "Neck_0" not in key
        if norm:
            np.testing.assert_array_equal(old, new, err_msg=key)
        elif "kernel" in key:
            assert (old != new).any(), key
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(before.encoder_state),
        jax.tree.leaves(after.encoder_state),
    ):
        key = jax.tree_util.keystr(path)
        assert bool((old == new).all()) == ("Neck_0" not in key), key


@pytest.mark.parametrize("frozen", [True, False])
def test_residual_branches_learn_with_frozen_norms_and_else_begin_as_nothing(frozen):
    module = SMALL["resnet"](4, frozen_norm=frozen)
    variables = draw(module)
    last = variables["params"]["layer1_0"]["bn3"]["scale"]
    assert bool(last.any()) == frozen

    def loss(params):
        rows, _ = module.apply(
            {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
        )
        return (rows**2).sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])["layer1_0"]
    learns = [bool(gradients[f"conv{i}"]["kernel"].any()) for i in (1, 2, 3)]
    assert learns == [frozen] * 3  # free ones learn once the scale has moved


def test_a_frozen_norm_is_that_of_evaluation_even_in_training():
    x = np.random.default_rng(1).normal(3.0, 2.0, (5, 3)).astype(np.float32)
    frozen, free = encoders.BatchNorm(frozen=True), encoders.BatchNorm()
    variables = draw(free, x)
    stats = {"mean": np.full(3, 2.0, np.float32), "var": np.full(3, 4.0, np.float32)}
    variables = {**variables, "batch_stats": stats}
    got, moved = frozen.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(got, free.apply(variables, x))
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], stats)

    def loss(params):
        rows, _ = frozen.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return (rows**2).sum()

    assert not any(g.any() for g in jax.tree.leaves(jax.grad(loss)(variables["params"])))


# ---------------------------------------------------------------- depthwise convolution


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_sums_are_the_convolution_of_xla(padding, stride):
    draws = np.random.default_rng(2)
    x = draws.normal(size=(2, 6, 7, 3)).astype(np.float32)
    layer = layers.Depthwise(5, stride, padding)
    kernel = draws.normal(size=(5, 5, 1, 3)).astype(np.float32)
    weight = draws.normal(size=layer.apply({"params": {"kernel": kernel}}, x).shape)
    weight = weight.astype(np.float32)

    def ours(x, kernel):
        return (layer.apply({"params": {"kernel": kernel}}, x) * weight).sum()

    def theirs(x, kernel):
        border = ((2, 2), (2, 2)) if padding == "symmetric" else "SAME"
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), border, dimension_numbers=numbers, feature_group_count=3
        )
        return (y * weight).sum()

    for got, expected in zip(
        jax.tree.leaves(jax.jit(jax.value_and_grad(ours, (0, 1)))(x, kernel)),
        jax.tree.leaves(jax.jit(jax.value_and_grad(theirs, (0, 1)))(x, kernel)),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "unchecked shard_map"])
def test_depthwise_goes_with_every_wrapping(kind):
    layer = layers.Depthwise(3)
    x = np.random.default_rng(3).normal(size=(4, 3, 3, 2)).astype(np.float32)
    kernel = draw(layer, x)["params"]["kernel"]

    def gradient(kernel, x):
        loss = lambda kernel: (layer.apply({"params": {"kernel": kernel}}, x) ** 2).sum()
        return jax.grad(loss)(kernel)

    def total(kernel, x):
        return jax.lax.psum(gradient(kernel, x), "i")

    expected = gradient(kernel, x)
    devices = jax.devices()[:2]
    if kind == "pmap":
        mapped = jax.pmap(total, "i", in_axes=(None, 0), out_axes=None, devices=devices)
        got = mapped(kernel, x.reshape(2, 2, 3, 3, 2))
    else:
        mesh = jax.make_mesh((2,), ("i",), (jax.sharding.AxisType.Auto,), devices=devices)
        checked = kind == "shard_map"  # where the gradient of what is shared is summed by itself
        specs = {"in_specs": (jax.P(), jax.P("i")), "out_specs": jax.P(), "check_vma": checked}
        mapped = jax.shard_map(gradient if checked else total, mesh=mesh, **specs)
        got = jax.jit(mapped)(np.asarray(kernel), x)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


# ---------------------------------------------------------------- any model


class OwnLinen(nn.Module):
    """A network as a user has it, with Flax's own batch norm."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Conv(4, (3, 3), (2, 2))(images)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(3)(nn.relu(x).mean((1, 2)))


class OwnNNX(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), (2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, images):
        return self.dense(nnx.relu(self.norm(self.conv(images))).mean((1, 2)))


@pytest.mark.parametrize("encoder", [OwnLinen(), encoders.nnx(OwnNNX)], ids=["linen", "nnx"])
def test_any_model_learns_with_any_loss(encoder):
    images = IMAGES.astype(np.float32) / 255 + LABELS[:, None, None, None].astype(np.float32)
    parts = {
        "encoder": encoder,
        "objective": objectives.pairs(losses.contrastive),
        "optimizer": optax.sgd(0.05),
    }
    state = training.create_state(jax.random.key(0), images=images, **parts)
    stepped = jax.jit(functools.partial(training.train_step, **parts))
    history = []
    for _ in range(20):
        state, metrics = stepped(state, {"images": images, "labels": LABELS})
        history.append(float(metrics["loss"]))
    assert history[-1] < 0.5 * history[0]
    means = [x for x in jax.tree.leaves(state.encoder_state) if np.abs(x).max() > 1e-3]
    assert means  # running statistics have moved


class FrozenLinen(nn.Module):
    """One whose batch norm always goes by its running statistics."""

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(nn.BatchNorm(use_running_average=True)(images.mean((1, 2))))


@pytest.mark.parametrize(
    ("encoder", "moves"),
    [
        (encoders.linen(OwnLinen()), True),
        (encoders.linen(FrozenLinen()), False),
        (encoders.linen(SMALL["resnet"](3)), False),
        (encoders.nnx(OwnNNX), True),
    ],
    ids=["linen", "frozen linen", "linen that takes where", "nnx"],
)
def test_statistics_that_count_missing_rows_are_refused(encoder, moves):
    """Only where rows are missing, in training, and the norm does not know of them."""
    images = IMAGES.astype(np.float32) / 255
    params, state = encoder.init(jax.random.key(0), images)
    encoder.apply(params, state, images, train=True)
    apply = jax.jit(functools.partial(encoder.apply, train=True))
    where = np.array([True, True, True, False])
    if not moves:
        apply(params, state, images, where=where)
        return
    encoder.apply(params, state, images, where=where)
    with pytest.raises(ValueError, match=r"^where: got rows that may not exist, expected Own.* to"):
        apply(params, state, images, where=where)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "module", "images"),
    [
        ("images", SMALL["vit"](3), IMAGES[:, :15]),
        ("heads", SMALL["vit"](3, heads=3), IMAGES),
        ("depths", encoders.ResNet(depths=(1, 1), widths=(2,)), IMAGES),
        ("depths", encoders.IResNet(depths=(0,), widths=(2,)), IMAGES),
        ("mean and std", SMALL["vit"](3), IMAGES[..., :2]),
        ("feature_norm", SMALL["vit"](3, feature_norm="batch"), IMAGES),
        ("pooling", SMALL["resnet"](3, pooling="token"), IMAGES),
    ],
)
def test_bad_input_is_one_line_that_names_it(name, module, images):
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected "):
        form(module, images)


def test_a_transformer_takes_oblong_images_of_its_grid_alone():
    """Two by three patches are as many as three by two, and two by eight as four by four."""
    wide = np.zeros((1, 16, 24, 3), np.uint8)
    module = SMALL["vit"](3, grid=(2, 3))
    variables = draw(module, wide)
    assert variables["params"]["pos_embed"].shape == (1, 7, 4)
    tall = r"^images: got 3 x 2 patches of 8 pixels, expected grid \(2, 3\)"
    with pytest.raises(ValueError, match=tall):
        module.apply(variables, wide.transpose(0, 2, 1, 3))
    square = SMALL["vit"](3)
    variables = draw(square, np.zeros((1, 32, 32, 3), np.uint8))
    long = r"^images: got 2 x 8 patches of 8 pixels, expected a square image, or a `grid`"
    with pytest.raises(ValueError, match=long):
        square.apply(variables, np.zeros((1, 16, 64, 3), np.uint8))


def test_a_transformer_says_that_its_image_size_is_fixed():
    module = SMALL["vit"](3)
    variables = draw(module)
    message = r"^images: got 3 x 2 patches of 8 pixels, expected the 4 that the first call fixed"
    with pytest.raises(ValueError, match=message):
        module.apply(variables, np.zeros((1, 24, 16, 3), np.uint8))
