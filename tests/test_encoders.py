"""Encoders: shapes, dtypes, pooling, batch norm over missing rows, and the pair of functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import encoders

IMAGES = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)


def small(**settings):
    return encoders.ConvNet(dim=3, widths=(2, 4), strides=(2, 1), **settings)


def run(module, images, **options):
    variables = module.init(jax.random.key(0), images)
    return module.apply(variables, images, **options)


@pytest.mark.parametrize("pooling", ["average", "max", "gem", "grid"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_embeddings_and_parameters_are_float32_at_any_compute_dtype(pooling, dtype):
    module = small(pooling=pooling, dtype=dtype)
    variables = module.init(jax.random.key(0), IMAGES)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    rows = module.apply(variables, IMAGES)
    assert (rows.shape, rows.dtype) == ((5, 3), jnp.float32)
    assert np.isfinite(rows).all()


def test_bytes_and_the_unit_interval_are_the_same_image():
    module = small(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    np.testing.assert_allclose(
        run(module, IMAGES), run(module, IMAGES.astype(np.float32) / 255), rtol=1e-5
    )


def test_an_image_by_its_own_statistics_forgets_brightness_and_contrast():
    images = np.random.default_rng(1).random((2, 4, 4, 1), dtype=np.float32)
    plain, changed = encoders.standardize(images), encoders.standardize(0.2 + 0.5 * images)
    np.testing.assert_allclose(plain, changed, atol=1e-3)
    np.testing.assert_allclose(plain.mean((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(plain.std((1, 2, 3)), 1, rtol=1e-4)


def test_a_blank_image_is_finite_with_its_gradient():
    blank = np.zeros((2, 8, 8, 1), np.float32)
    for pooling in ("average", "gem"):
        module = small(pooling=pooling)
        variables = module.init(jax.random.key(0), blank)
        loss = lambda params, module=module, rest=variables: module.apply(
            {**rest, "params": params}, blank
        ).sum()
        value, gradient = jax.value_and_grad(loss)(variables["params"])
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, gradient)))


def test_poolings_of_a_map_by_hand():
    x = jnp.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 2, 2, 1)
    gem = lambda power: run(encoders.GeM(power=power), x)
    np.testing.assert_allclose(gem(1.0), [[3.0]], rtol=1e-6)
    np.testing.assert_allclose(gem(3.0), [[((1 + 8 + 27 + 216) / 4) ** (1 / 3)]], rtol=1e-6)
    np.testing.assert_allclose(gem(300.0), [[6.0 / 4 ** (1 / 300)]], rtol=1e-4)


def test_only_the_grid_tells_places_apart():
    images = np.zeros((2, 24, 24, 1), np.float32)
    images[0, 8:10, 8:10] = images[1, 12:14, 12:14] = 1  # moved by one stride of the whole network
    for pooling, same in (("average", True), ("max", True), ("gem", True), ("grid", False)):
        rows = run(small(pooling=pooling), images)
        assert np.allclose(rows[0], rows[1], atol=1e-4) == same, pooling


# ---------------------------------------------------------------- batch norm


def test_batch_norm_is_that_of_flax_on_a_full_batch():
    x = np.random.default_rng(2).normal(3.0, 2.0, (6, 2, 2, 3)).astype(np.float32)
    ours, theirs = encoders.BatchNorm(momentum=0.9), nn.BatchNorm(momentum=0.9)
    variables = ours.init(jax.random.key(0), x)
    got, moved = ours.apply(variables, x, train=True, mutable=["batch_stats"])
    expected, reference = theirs.apply(
        variables, x, use_running_average=False, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(
            moved["batch_stats"][name], reference["batch_stats"][name], rtol=1e-4
        )


def test_batch_norm_leaves_out_missing_rows_of_uneven_devices():
    x = np.random.default_rng(3).normal(size=(6, 2)).astype(np.float32)
    where = np.array([True, False, False, True, True, True])
    module = encoders.BatchNorm()
    variables = module.init(jax.random.key(0), x)

    def apply(x, where, axis_name=None):
        return module.apply(
            variables, x, train=True, where=where, axis_name=axis_name, mutable=["batch_stats"]
        )

    expected, moved = apply(x[where], None)
    holes = np.where(where[:, None], x, np.nan)
    split = lambda a: a.reshape(2, 3, *a.shape[1:])
    devices = jax.devices()[:2]
    mapped = jax.pmap(lambda x, w: apply(x, w, "i"), "i", devices=devices)
    got, got_moved = mapped(split(holes), split(where))
    np.testing.assert_allclose(got.reshape(6, 2)[where], expected, rtol=1e-5, atol=1e-6)
    for name in ("mean", "var"):
        for device in range(2):
            np.testing.assert_allclose(
                got_moved["batch_stats"][name][device], moved["batch_stats"][name], rtol=1e-5
            )


def test_batch_norm_without_a_row_keeps_its_statistics():
    module = encoders.BatchNorm()
    x = np.full((2, 3), np.nan, np.float32)
    variables = module.init(jax.random.key(0), x)
    _, moved = module.apply(
        variables, x, train=True, where=np.zeros(2, bool), mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(moved["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(moved["batch_stats"]["var"], 1)


def test_variance_keeps_its_digits_far_from_zero():
    x = jnp.array([[10000.0], [10000.1], [10000.2]], jnp.float32)
    _, variance, _ = encoders.moments(x)
    np.testing.assert_allclose(variance, np.var(np.asarray(x, np.float64), axis=0), rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_moments_of_half_precision_count_beyond_its_largest_number(dtype):
    x = jnp.full((2, 256, 256, 1), 3.0, dtype)
    mean, variance, count = encoders.moments(x)
    assert (float(mean[0]), float(variance[0]), float(count)) == (3.0, 0.0, 2 * 256 * 256)
    assert {x.dtype for x in (mean, variance, count)} == {jnp.dtype("float32")}


# ---------------------------------------------------------------- neck


def test_neck_normalisations():
    features = np.random.default_rng(4).normal(size=(5, 6)).astype(np.float32)
    unit = run(encoders.Neck(dim=4, unit_rows=True), features)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    layer = run(encoders.Neck(dim=4, norm="layer"), features)
    np.testing.assert_allclose(layer.mean(axis=1), 0, atol=1e-5)
    batch, _ = run(
        encoders.Neck(dim=4, norm="batch"), features, train=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(batch.mean(axis=0), 0, atol=1e-5)


# ---------------------------------------------------------------- the pair of functions


def test_linen_passes_only_what_the_module_takes():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, images, train=False):
            calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
            if train:
                calls.value += 1
            return nn.Dense(2)(images)

    encoder = encoders.linen(Own())
    images = np.ones((3, 4), np.float32)
    params, state = encoder.init(jax.random.key(0), images)
    _, kept = encoder.apply(params, state, images)
    _, moved = encoder.apply(params, state, images, train=True, where=np.ones(3, bool))
    assert (int(kept["counts"]["calls"]), int(moved["counts"]["calls"])) == (0, 1)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "module", "images"),
    [
        ("images", small(), IMAGES[0]),
        ("pooling", small(pooling="mean"), IMAGES),
        ("strides", encoders.ConvNet(widths=(2, 2), strides=(2,)), IMAGES),
        ("mean and std", small(mean=(0.5, 0.5, 0.5)), IMAGES),
        ("norm", small(neck_norm="group"), IMAGES),
    ],
)
def test_bad_input_is_one_line_that_names_it(name, module, images):
    with pytest.raises(ValueError, match=f"^{name}: got .*, expected .*"):
        module.init(jax.random.key(0), images)
