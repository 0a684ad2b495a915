"""Augmentations: nothing at strength 0, in range, the same anywhere, and right against others."""

from __future__ import annotations

import colorsys
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image
from scipy import ndimage

from jdml import augment, losses
from jdml.augment.colour import turn_hue
from jdml.augment.geometry import crop

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.random((8, 7, 9, 3), np.float32))
KEYS = augment.keys(0, 3, jnp.arange(8))
STRONG = {
    "crop": augment.RandomResizedCrop(scale=(0.1, 0.6)),
    "flip": augment.Flip(),
    "warp": augment.Warp(),
    "colour": augment.ColourJitter(1.5, 1.5, 1.5, hue=1.0),
    "grey": augment.Greyscale(probability=0.5),
    "blur": augment.GaussianBlur(sigma=(0.1, 1.0)),
    "cutout": augment.Cutout(side=0.5),
}
CHAIN = augment.Chain(*STRONG.values())
NOTHING = {
    "flip": augment.Flip(0.0),
    "warp": augment.Warp(0.0, 0.0, 0.0, 0.0),
    "colour": augment.ColourJitter(0.0, 0.0, 0.0, hue=0.0),
    "colour, hardly": augment.ColourJitter(1e-7, 1e-7, 1e-7, hue=1e-7),
    "grey": augment.Greyscale(0.0),
    "blur": augment.GaussianBlur(sigma=(0.0, 0.0), probability=1.0),
    "no blur": augment.GaussianBlur(probability=0.0),
    "cutout": augment.Cutout(side=0.0),
    "no cutout": augment.Cutout(side=0.9, probability=0.0),
    "empty chain": augment.Chain(),
}


@functools.cache
def jitted(step):
    return jax.jit(step)


@pytest.fixture(autouse=True)
def quickly(quick_compile):
    """Values matter here, not speed."""


@pytest.mark.parametrize("name", NOTHING)
def test_no_strength_changes_nothing(name):
    np.testing.assert_allclose(jitted(NOTHING[name])(KEYS, IMAGES), IMAGES, atol=2e-6)


def test_the_whole_picture_is_no_crop():
    square = IMAGES[:, :, :7]
    whole = augment.RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(jitted(whole)(KEYS, square), square, atol=1e-6)


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_in_range_and_keep_their_shape(name, channels):
    images = IMAGES[..., :channels]
    changed = np.asarray(jitted(STRONG[name])(KEYS, images))
    assert (changed.dtype, changed.shape) == (np.float32, images.shape)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert channels == 1 or (changed != images).any(axis=(1, 2, 3)).sum() >= 2


def test_integers_are_taken_to_255_and_hash_by_value():
    pixels = np.asarray(IMAGES * 255).astype(np.uint8)
    flip = augment.Flip(1.0)
    np.testing.assert_allclose(flip(KEYS, pixels), pixels[:, :, ::-1] / np.float32(255), rtol=1e-6)
    assert hash(CHAIN) == hash(augment.Chain(*STRONG.values()))
    assert augment.Chain(augment.Flip()) != CHAIN
    assert "Flip(probability=0.5)" in repr(CHAIN)


def test_a_picture_does_not_depend_on_its_place_or_on_the_devices():
    whole = np.asarray(jitted(CHAIN)(KEYS, IMAGES))
    order = RNG.permutation(8)
    moved = jitted(CHAIN)(KEYS[order], IMAGES[order])
    np.testing.assert_allclose(moved, whole[order], atol=1e-6)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.shard_map(CHAIN, mesh=mesh, in_specs=(P("batch"), P("batch")), out_specs=P("batch"))
    np.testing.assert_allclose(jax.jit(split)(KEYS, IMAGES), whole, atol=1e-6)
    again = augment.keys(0, 3, order)
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(KEYS[order]))
    later = augment.keys(0, 4, jnp.arange(8))
    assert (np.asarray(jitted(CHAIN)(later, IMAGES)) != whole).any(axis=(1, 2, 3)).all()


def test_steps_of_a_chain_draw_for_themselves():
    half = augment.Flip(0.5)
    keys = augment.keys(1, 0, jnp.arange(64))
    images = jnp.broadcast_to(jnp.arange(2.0).reshape(1, 1, 2, 1), (64, 1, 2, 1))
    twice = np.asarray(augment.Chain(half, half)(keys, images))[:, 0, 0, 0]
    assert 16 < twice.sum() < 48  # the same draw twice would undo itself


def test_a_mirror_image_of_a_mirror_image_is_the_image():
    flip = augment.Flip(1.0)
    np.testing.assert_array_equal(flip(KEYS, flip(KEYS, IMAGES)), IMAGES)
    some = np.asarray(augment.Flip()(KEYS, IMAGES) == IMAGES).all(axis=(1, 2, 3))
    assert 0 < some.sum() < 8


def test_a_warp_is_a_function_of_its_key_and_moves_a_dot_a_little():
    images = np.zeros((6, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    keys = jax.random.split(jax.random.key(0), 6)
    warp = augment.Warp(shift=0.2)
    got = np.asarray(jitted(warp)(keys, images))
    np.testing.assert_array_equal(got, jitted(warp)(keys, images))
    assert got.min() >= 0
    assert got.max() <= 1
    places = np.array([np.argwhere(image[..., 0] > 0).mean(axis=0) for image in got])
    assert np.abs(places - 4).max() < 9 * 0.2 * 1.2 + 1
    assert np.ptp(places, axis=0).min() > 0.5  # each image its own


# ---------------------------------------------------------------- against others


def test_crops_are_those_of_pil():
    cuts = jnp.array([[0.1, 0.2, 0.5, 0.7], [0.0, 0.0, 1.0, 1.0], [0.4, 0.3, 0.2, 0.15]])
    got = np.asarray(jax.jit(crop, static_argnums=2)(IMAGES[:3], cuts, (4, 5)))
    for image, cut, found in zip(np.asarray(IMAGES), np.asarray(cuts, np.float64), got):
        left, top, wide, high = cut * [9, 7, 9, 7]
        for channel in range(3):
            picture = Image.fromarray(image[..., channel])
            box = (left, top, left + wide, top + high)
            expected = picture.resize((5, 4), Image.Resampling.BILINEAR, box=box)
            np.testing.assert_allclose(found[..., channel], expected, atol=2e-6)


def test_hues_turn_as_in_colorsys():
    angles = jnp.asarray(RNG.uniform(-math.pi, math.pi, 8), jnp.float32)
    corners = jnp.asarray(RNG.integers(0, 2, (8, 7, 9, 3)), jnp.float32)  # where channels tie
    for images in (IMAGES, corners):
        got = np.asarray(jitted(turn_hue)(images, angles))
        for b in range(8):
            for pixel, found in zip(np.asarray(images[b]).reshape(-1, 3), got[b].reshape(-1, 3)):
                hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
                turned = (hue + float(angles[b]) / (2 * math.pi)) % 1.0
                expected = colorsys.hsv_to_rgb(turned, saturation, value)
                np.testing.assert_allclose(found, expected, atol=3e-6)


def test_blurs_are_those_of_scipy():
    sigma = 1.3
    got = jitted(augment.GaussianBlur(sigma=(sigma, sigma), probability=1.0))(KEYS, IMAGES)
    axes = {"sigma": (0, sigma, sigma, 0), "mode": "nearest", "radius": (0, 4, 4, 0)}
    np.testing.assert_allclose(got, ndimage.gaussian_filter(np.asarray(IMAGES), **axes), atol=2e-6)


def test_colours_change_as_written_down():
    keys = KEYS[:1]
    draws = np.asarray(jax.random.uniform(keys[0], (4,), minval=-1.0, maxval=1.0))
    image = np.asarray(IMAGES[:1])
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    bright = augment.ColourJitter(0.3, 0.0, 0.0)(keys, image)
    np.testing.assert_allclose(bright, np.clip(image * (1 + 0.3 * draws[0]), 0, 1), rtol=1e-5)
    factor = 1 + 0.3 * draws[1]
    expected = np.clip(factor * image + (1 - factor) * grey.mean(), 0, 1)
    np.testing.assert_allclose(augment.ColourJitter(0.0, 0.3, 0.0)(keys, image), expected, 1e-5)
    factor = 1 + 0.3 * draws[2]
    expected = np.clip(factor * image + (1 - factor) * grey[..., None], 0, 1)
    np.testing.assert_allclose(augment.ColourJitter(0.0, 0.0, 0.3)(keys, image), expected, 1e-5)
    plain = np.asarray(augment.Greyscale(1.0)(keys, image))
    np.testing.assert_allclose(plain, np.repeat(grey[..., None], 3, axis=-1), rtol=1e-5)


def test_a_square_is_covered_and_the_rest_stays():
    covered = augment.Cutout(side=4 / 7, fill=0.25)
    keys = augment.keys(0, 0, jnp.arange(200))
    images = jnp.broadcast_to(IMAGES[:1], (200, 7, 9, 3))
    changed = np.asarray(jitted(covered)(keys, images) == 0.25).all(axis=-1)
    assert changed.sum(axis=(1, 2)).max() in (16, 20, 25)  # four pixels a side, or five touched
    assert (changed.sum(axis=(1, 2)) < 16).any()  # hangs over the border
    assert changed.any(axis=0).all()  # reaches every pixel
    kept = np.where(changed[..., None], 0, np.asarray(jitted(covered)(keys, images)))
    np.testing.assert_array_equal(kept, np.where(changed[..., None], 0, images))


# ---------------------------------------------------------------- boxes


@pytest.mark.parametrize("shape", [0.5, 1.0, 1.7])
def test_boxes_lie_inside_and_keep_to_their_areas_and_shapes(shape):
    found = augment.boxes(0, 1, np.arange(400), shape, scale=(0.1, 0.5), ratio=(0.75, 1.5))
    left, top, wide, high = found.T
    assert (found >= 0).all()
    assert (left + wide).max() <= 1 + 1e-12
    assert (top + high).max() <= 1 + 1e-12
    area, ratio = wide * high, wide / high * shape
    assert area.min() > 0.1 - 1e-9
    assert area.max() < 0.5 + 1e-9
    assert ratio.min() > 0.75 - 1e-9
    assert ratio.max() < 1.5 + 1e-9
    assert area.mean() == pytest.approx(0.3, abs=0.02)
    assert np.ptp(left / (1 - wide)) > 0.95


def test_a_box_is_a_function_of_seed_step_and_item():
    found = augment.boxes(3, 5, [2, 9, 2])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(augment.boxes(3, 5, [9])[0], found[1])
    assert (augment.boxes(3, 6, [9]) != found[1]).any()
    assert (augment.boxes(4, 5, [9]) != found[1]).any()
    assert augment.boxes(0, 0, np.zeros(0, int)).shape == (0, 4)


def test_a_picture_too_long_for_any_box_gives_its_middle():
    (found,) = augment.boxes(0, 0, [0], 10.0, scale=(0.9, 1.0))
    np.testing.assert_allclose(found, [0.5 - 2 / 30, 0, 4 / 30, 1])
    (found,) = augment.boxes(0, 0, [0], 0.1, scale=(0.9, 1.0))
    np.testing.assert_allclose(found, [0, 0.5 - 2 / 30, 1, 4 / 30])


# ---------------------------------------------------------------- mixtures

LABELS = jnp.array([0, 0, 1, 1, 2, -1])
ROWS = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)
ROW_KEYS = augment.keys(0, 0, jnp.arange(6))
MIX = jax.jit(augment.mix, static_argnames="partners")


@pytest.mark.parametrize("partners", ["negatives", "positives", "any"])
def test_a_mixture_is_a_pair_of_both_by_its_shares(partners):
    mixed = MIX(ROW_KEYS, ROWS, LABELS, partners=partners)
    mixed = jax.tree.map(np.asarray, mixed)
    labels, rows = np.asarray(LABELS), np.asarray(ROWS)
    np.testing.assert_array_equal(mixed.where, labels >= 0)
    for i in range(5):
        others = np.flatnonzero(np.asarray(mixed.weights)[:, i] == 0)
        others = others[others != i]
        if partners == "positives" and i == 4:  # has no class-mate
            assert len(others) == 1
            np.testing.assert_allclose(mixed.rows[i], rows[i], rtol=1e-6)
            continue
        (j,) = others
        assert j != 5
        assert partners == "any" or (labels[i] == labels[j]) == (partners == "positives")
        share = ((mixed.rows[i] - rows[j]) / (rows[i] - rows[j]))[0]
        np.testing.assert_allclose(mixed.rows[i], share * rows[i] + (1 - share) * rows[j], 1e-4)
        for b in range(5):
            degree = share * (labels[b] == labels[i]) + (1 - share) * (labels[b] == labels[j])
            assert mixed.degrees[b, i] == pytest.approx(degree, abs=1e-4)


def test_mixtures_train_any_pair_loss_and_weigh_both_sides():
    def loss(z):
        mixed = MIX(ROW_KEYS, z, LABELS)
        there = {"refs": mixed.rows, "ref_where": mixed.where, "weights": mixed.weights}
        where = LABELS >= 0
        return losses.contrastive(z, mixed.degrees, where=where, reduction="sum", **there)

    value, gradient = jax.value_and_grad(loss)(ROWS)
    mixed = jax.tree.map(np.asarray, MIX(ROW_KEYS, ROWS, LABELS))
    expected = 0.0
    for b in range(5):
        for i in range(5):
            if mixed.weights[b, i]:
                distance = np.linalg.norm(np.asarray(ROWS)[b] - mixed.rows[i])
                degree = mixed.degrees[b, i]
                expected += degree * distance + (1 - degree) * max(1 - distance, 0)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[:5] != 0).any(axis=1).all()
    assert (np.asarray(gradient)[5] == 0).all()


def test_images_are_mixed_too_and_alpha_says_how_much():
    pixels = np.asarray(IMAGES[:6] * 255).astype(np.uint8)
    mixed = jax.jit(augment.mix)(ROW_KEYS, pixels, LABELS)
    assert mixed.rows.shape == pixels.shape
    assert 0 <= float(mixed.rows.min()) <= float(mixed.rows.max()) <= 1
    keys = augment.keys(0, 0, jnp.arange(300))
    ends = jnp.arange(300.0)[:, None] % 2
    share = jax.jit(lambda alpha: augment.mix(keys, ends, jnp.arange(300) % 2, alpha=alpha).rows)
    fixed = jnp.array(2.0)  # known, but closed over by jit
    jax.jit(lambda: augment.mix(keys, ends, jnp.arange(300) % 2, alpha=fixed).rows)()
    assert np.std(share(0.3)) > np.std(share(2.0)) > np.std(share(20.0))
    assert np.mean(np.abs(share(2.0) - 0.5)) == pytest.approx(3 / 16, abs=0.03)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: augment.Flip(1.5), "probability: got 1.5, expected 0 to 1"),
        (lambda: augment.RandomResizedCrop(scale=(0.5, 0.2)), r"scale: got \(0.5, 0.2\), expected"),
        (lambda: augment.RandomResizedCrop(ratio=(0.0, 1.0)), r"ratio: got \(0.0, 1.0\), expected"),
        (lambda: augment.RandomResizedCrop(size=0), "size: got 0, expected 1 or more, or None"),
        (lambda: augment.ColourJitter(brightness=-1.0), "brightness: got -1.0, expected 0 or more"),
        (lambda: augment.ColourJitter(hue=4.0), "hue: got 4.0, expected 0 to pi, radians"),
        (lambda: augment.GaussianBlur(sigma=(-1.0, 1.0)), r"sigma: got \(-1.0, 1.0\), expected"),
        (lambda: augment.GaussianBlur(sigma=2.0), "sigma: got 2.0, expected"),  # pyright: ignore
        (lambda: augment.Cutout(side=2.0), "side: got 2.0, expected 0 to 1"),
        (lambda: augment.Greyscale()(KEYS, IMAGES[..., :2]), "images: got 2 channels, expected 1"),
        (lambda: augment.Flip()(KEYS, IMAGES[0]), r"images: got float32\[7, 9, 3\], expected"),
        (lambda: augment.boxes(0, 0, [-1]), "items: got .*expected integers of 0 or more"),
        (lambda: augment.boxes(0, 0, [1], np.nan), "shapes: got nan, expected width by height"),
        (lambda: augment.boxes(0, 0, [1, 2], [1.0, 0.0]), "shapes: got 0.0, expected width"),
        (lambda: augment.boxes(0, 0, [1, 2], [1.0] * 3), r"shapes: got \[3\] for 2 items, exp"),
        (lambda: augment.boxes(0, 0, [1], np.inf), "shapes: got inf, expected width by height"),
        (lambda: augment.Warp(turn=np.nan), "turn: got nan, expected a finite number"),
        (lambda: augment.Warp(shift=np.inf), "shift: got inf, expected a finite number"),
        (lambda: augment.ColourJitter(contrast=np.nan), "contrast: got nan, expected 0 or more"),
        (lambda: augment.mix(ROW_KEYS, ROWS, LABELS, alpha=0.0), "alpha: got 0.0, expected a numb"),
        (
            lambda: augment.mix(ROW_KEYS, ROWS, LABELS, alpha=jnp.array(np.nan)),
            "alpha: got nan, ex",
        ),
        (lambda: augment.mix(ROW_KEYS, ROWS, LABELS, alpha=np.inf), "alpha: got inf, expected a n"),
        (lambda: augment.mix(ROW_KEYS, ROWS, LABELS[:2]), r"labels: got int32\[2\], expected"),
        (lambda: augment.mix(ROW_KEYS, ROWS, LABELS, partners="x"), "partners: got 'x', expected"),
    ],
)
def test_what_cannot_be_is_refused(make, names):
    with pytest.raises(ValueError, match=names):
        make()
    with pytest.raises(TypeError, match="steps: got 'flip', expected"):
        augment.Chain("flip")
