"""Pictures that stay encoded: what is cut out of which, threads, odd modes, broken files."""

from __future__ import annotations

import io
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

from jdml.datasets import Images, Split
from jdml.datasets.images import _middle, cut, from_array, plain


def encoded(picture: Image.Image, kind: str = "PNG") -> Image.Image:
    """A picture as a file gives it, not yet loaded."""
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
    return Image.open(io.BytesIO(file.getvalue()))


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([across * 255 / width, down * 255 / height, 0 * across], -1)
    return Image.fromarray(image.astype(np.uint8))


def test_the_middle_is_cut_and_the_shorter_side_fits():
    images = Images(lambda row: encoded(ramp(200, 100)), (1, 50, 50, 3))
    got = images[[0]][0].astype(float)
    assert got.shape == (50, 50, 3)
    # The middle half of the width, all of the height.
    np.testing.assert_allclose(got[25, [0, -1], 0], [255 * 0.255, 255 * 0.745], atol=3)
    np.testing.assert_allclose(got[[0, -1], 25, 1], [255 * 0.01, 255 * 0.99], atol=3)


def test_a_box_is_a_share_of_the_whole_picture_whatever_scale_it_is_decoded_at():
    boxes = np.array([[0.5, 0.25, 0.25, 0.5]])
    for kind, shape in (("PNG", (160, 120)), ("JPEG", (160, 120)), ("JPEG", (1600, 1200))):
        images = Images(lambda row, k=kind, s=shape: encoded(ramp(*s), k), (1, 8, 8, 3))
        got = images.crop([0], boxes, (20, 10))[0].astype(float)
        assert got.shape == (20, 10, 3)
        np.testing.assert_allclose(got[10, [0, -1], 0], [255 * 0.5125, 255 * 0.7375], atol=4)
        np.testing.assert_allclose(got[[0, -1], 5, 1], [255 * 0.2625, 255 * 0.7375], atol=4)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same():
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    large = Image.fromarray(noise).resize((1200, 900), Image.Resampling.BICUBIC)
    file = encoded(large, "JPEG")
    got = cut(file, None, (64, 64), 3).astype(float)
    assert file.size == (300, 225)  # a quarter
    whole = cut(large, None, (64, 64), 3).astype(float)
    assert np.abs(got - whole).mean() < 2.0


@pytest.mark.parametrize("size", [(224, 224), (227, 227), (299, 299), (336, 336), (7, 300)])
def test_the_middle_lies_inside_whatever_the_sides(size):
    for side in range(1, 4000):
        for shape in ((side, 2 * side), (2 * side, side), (side, side), (side, 1000)):
            left, top, wide, high = _middle(shape, size)
            assert min(left, top) >= 0, shape
            assert 0 < min(wide, high) <= max(wide, high) <= 1, shape
    for shape in ((29, 58), (116, 29), (173, 225)):  # these ended beyond 1 by a rounding
        assert cut(ramp(*shape), None, size, 3).shape == (*size, 3)


def test_what_has_the_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 255, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(cut(Image.fromarray(image), None, (7, 9), 3), image)
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_array_equal(from_array(image[None]).crop([0], box, (7, 9))[0], image)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_rgb(mode, channels):
    grey = Image.new("L", (6, 4), 200)
    if mode in ("I;16", "I", "F"):
        scale = 257 if mode != "F" else 1
        values = np.asarray(grey, np.float32 if mode == "F" else np.int32) * scale
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        picture = Image.fromarray(values.astype(kind))
    else:
        picture = grey.convert(mode, dither=Image.Dither.NONE)
    assert picture.mode == mode
    got = cut(picture, None, (4, 6), channels)
    assert got.shape == (4, 6, channels)
    wanted = 255 if mode == "1" else 200
    assert np.abs(got.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("white", [255, 256, 65535])
def test_16_bits_are_16_bits_however_dark(kind, white):
    deep = Image.fromarray(np.array([[0, white]], np.uint16).repeat(4, 0).repeat(2, 1))
    got = cut(encoded(deep, kind), None, (4, 4), 1)[..., 0]
    assert got[:, [0, -1]].tolist() == [[0, white * 255 // 65535]] * 4


def test_integers_of_no_known_depth_are_8_bits_unless_they_are_more():
    for values, wanted in (([0, 200], [0, 200]), ([0, 51400], [0, 200])):
        picture = Image.fromarray(np.array([values], np.int32))
        assert np.asarray(plain(picture, "L"))[0].tolist() == wanted


def test_what_is_clear_is_white():
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert np.asarray(plain(clear, "RGB")).min() == 255
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert np.asarray(plain(palette, "RGB")).min() == 255


def test_rows_come_in_order_from_several_threads_and_any_kind_of_index():
    threads = set()

    def read(row: int) -> Image.Image:
        threads.add(threading.current_thread().name)
        return Image.new("L", (3, 3), row)

    images = Images(read, (9, 2, 2, 1), workers=3)
    of = lambda array: array[..., 0, 0, 0].tolist()
    assert of(images[[5, 0, 5]]) == [5, 0, 5]
    assert all(name.startswith("pictures") for name in threads)
    assert of(images[2:8:2]) == [2, 4, 6]
    assert of(images[np.arange(9) % 4 == 0]) == [0, 4, 8]
    assert images[np.int64(7)].shape == (2, 2, 1)
    assert images[[]].shape == (0, 2, 2, 1)
    assert of(np.asarray(images)) == list(range(9))
    assert of(images.take([8, 2, 3]).take([2, 0])[:]) == [3, 8]
    assert images.sized(5)[[1]].shape == (1, 5, 5, 1)
    assert (len(images), images.ndim, images.dtype) == (9, 4, np.uint8)
    assert repr(images) == "<Images 9 x 2 x 2 x 1, decoded when asked for>"
    for rows in ([9], [-1]):
        with pytest.raises(IndexError, match=r"rows: got -?\d, expected 0 to 8"):
            images[rows]
    with pytest.raises(TypeError, match=r"rows: got float64\[1\], expected integers"):
        images[[0.5]]


def test_pictures_travel_to_other_processes():
    images = from_array(np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)).take([2, 1])
    back = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(back[:], images[:])


def test_a_broken_picture_and_a_wrong_box_are_one_line():
    file = io.BytesIO()
    ramp(300, 200).save(file, "JPEG")
    cases = {"truncated": file.getvalue()[:900], "cannot identify": b"<html>"}
    for words, content in cases.items():
        images = Images(lambda row, c=content: Image.open(io.BytesIO(c)), (2, 8, 8, 3))
        with pytest.raises(ValueError, match=f"images: picture 1 cannot be decoded .*{words}"):
            images[[1]]
    images = from_array(np.zeros((1, 4, 4, 1), np.uint8))
    for box in ([0.5, 0, 0.6, 1], [-0.1, 0, 1, 1], [0, 0, 0, 1], [0, 0, np.nan, 1]):
        with pytest.raises(ValueError, match=r"boxes: got \[.*\], expected left, top, width"):
            images.crop([0], [box], 4)
    with pytest.raises(ValueError, match=r"boxes: got \[4\], expected \[1, 4\]"):
        images.crop([0], [0, 0, 1, 1], 4)
    with pytest.raises(ValueError, match=r"shape: got \(1, 4, 4\), expected \(N, H, W, C\)"):
        Images(lambda row: ramp(2, 2), (1, 4, 4))


def test_whatever_pil_raises_names_the_picture(monkeypatch):
    bomb = Images(lambda row: encoded(ramp(300, 200)), (2, 8, 8, 3))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        with pytest.raises(ValueError, match=r"images: picture 1 cannot be decoded .*60000 pixels"):
            bomb[[1]]

    def odd(row: int) -> Image.Image:
        raise ValueError("odd numbers in its head")

    with pytest.raises(ValueError, match=r"images: picture 0 cannot be decoded .*odd numbers"):
        Images(odd, (2, 8, 8, 3))[[0]]


def test_sizes_may_be_integers_of_any_kind():
    array = np.zeros((2, 6, 6, 1), np.uint8)
    for images in (array, from_array(array)):
        split = Split("toy", images, np.array([0, 0]), ("a",))
        assert split.sized(np.int64(3)).image_shape == (3, 3, 1)
        assert split.sized(np.array([3, 4])).image_shape == (3, 4, 1)
        assert split.sized(np.int32(6)) is split
        assert split.crop([0], [[0, 0, 1, 1]], np.int64(3)).shape == (1, 3, 3, 1)
        for size in (0, 2.5, (3, 4, 5), (3, -1), "3", None):
            with pytest.raises(ValueError, match=r"size: got .*, expected pixels, a side or"):
                split.sized(size)
            with pytest.raises(ValueError, match=r"size: got .*, expected pixels, a side or"):
                split.crop([0], [[0, 0, 1, 1]], size)


def test_a_split_gives_the_same_from_an_array_and_from_pictures():
    array = np.random.default_rng(1).integers(0, 255, (4, 10, 10, 3), np.uint8)
    labels, names = np.array([0, 1, 0, 1]), ("a", "b")
    in_memory = Split("toy", array, labels, names, np.array([7, 8, 7, 8]))
    decoded = Split("toy", from_array(array), labels, names)
    box = [[0.1, 0.2, 0.5, 0.4]] * 2
    np.testing.assert_array_equal(in_memory.fetch([3, 1]), decoded.fetch([3, 1]))
    np.testing.assert_array_equal(
        in_memory.crop([3, 1], box, 6), decoded.crop(np.array([3, 1]), box, 6)
    )
    np.testing.assert_array_equal(in_memory.sized(5).images, decoded.sized(5).fetch(range(4)))
    assert in_memory.sized(10) is in_memory
    part = in_memory.take([3, 0], "part")
    assert (part.name, part.labels.tolist(), part.groups.tolist()) == ("part", [1, 0], [8, 7])
    np.testing.assert_array_equal(decoded.take([3, 0]).fetch([0]), array[[3]])
    assert isinstance(decoded.take([1]).images, Images)
    with pytest.raises(IndexError, match="indices: got 4, expected 0 to 3"):
        decoded.crop([4], box[:1], 6)
    with pytest.raises(ValueError, match=r"groups: got \(3,\), expected one an image, \(4,\)"):
        Split("toy", array, labels, names, np.arange(3))
