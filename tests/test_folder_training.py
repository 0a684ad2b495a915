"""Folders of one's own in experiments: crops, galleries, super-classes, and what does not fit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from folder_fakes import TINY, fill
from PIL import Image

from experiments import data, pictures
from experiments.settings import Settings, parse
from jdml import datasets, report


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JDML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(*argv):
    return data.load(parse([*TINY.split(), *argv], prog="train", about="").settings)


def test_batches_are_random_crops_and_searches_see_the_middle(tmp_path, cache):
    root = fill(tmp_path / "photos")
    common = ["--data", f"folder:{root}", "--image-size", "12"]
    plain, cropped = load(*common), load(*common, "--crop", "8", "--crop-scale", "0.3", "0.6")
    assert plain.batch(0)["images"].shape == (6, 12, 12, 3)
    batch = cropped.batch(4)
    assert batch["images"].shape == (6, 8, 8, 3)
    np.testing.assert_array_equal(batch["images"], cropped.batch(4)["images"])
    copy = pickle.loads(pickle.dumps(cropped._replace(tests={})))
    np.testing.assert_array_equal(batch["images"], copy.batch(4)["images"])
    parts = [cropped.share(4, process=p, processes=2, devices=4) for p in range(2)]
    whole = np.concatenate([part["images"] for part in parts])
    np.testing.assert_array_equal(whole[:6], batch["images"])
    seen, all_of_it = cropped.tests["test"].images, plain.tests["test"].images
    assert cropped.train.images[:1].shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(seen[:], all_of_it[:][:, 2:10, 2:10])
    slices = [seen[start : start + 5] for start in range(0, len(seen), 5)]  # as embed takes them
    np.testing.assert_array_equal(np.concatenate(slices), seen[:])
    np.testing.assert_array_equal(seen[3], seen[np.array([3])][0])


def test_crops_of_a_picture_keep_its_shape(tmp_path, cache):
    for name in "abcd":
        (tmp_path / "wide" / name).mkdir(parents=True)
        for k in range(2):  # 40 x 10 pixels: a square crop is a quarter of the width at most
            pixels = np.repeat(np.arange(40, dtype=np.uint8)[None] * 6, 10, axis=0)
            Image.fromarray(pixels).save(tmp_path / "wide" / name / f"{k}.png")
    argv = ("--classes-per-batch", "2", "--crop", "10", "--crop-scale", "0.2", "0.25")
    found = load("--data", f"folder:{tmp_path / 'wide'}", "--image-size", "10", *argv)
    images = found.batch(0)["images"][..., 0].astype(int)
    spread = images[:, 0, -1] - images[:, 0, 0]
    assert spread.max() < 6 * 12  # not the whole width pressed together


def test_a_gallery_is_searched_and_super_classes_make_batches(tmp_path, cache):
    root = tmp_path / "shop"
    fill(root, list("abcdefgh"))
    part = dict(zip("abcdefgh", ["train"] * 6 + ["test"] * 2))
    lines = [
        f"{c}/Photo {k}.png,{c},{part[c] if c < 'g' else ('query', 'gallery', 'gallery')[k]},"
        f"{'xy'[c in 'def']}"
        for c in "abcdefgh"
        for k in range(3)
    ]
    (root / "all.csv").write_text("image,label,split,kind\n" + "\n".join(lines))
    columns = ("--data-options", "split=split", "super=kind", f"cache={tmp_path / 'kept'}")
    found = load(
        *("--data", f"folder:{root / 'all.csv'}", "--image-size", "8", *columns),
        *("--sampler", "hierarchical", "--super-classes", "1"),
    )
    assert list((tmp_path / "kept").iterdir())
    test = found.tests["test"]
    assert list(found.tests) == ["test"]
    assert test.gallery is not None
    assert (len(test.labels), len(test.gallery.labels)) == (2, 4)
    assert test.gallery.images[:].shape == (4, 8, 8, 3)
    for number in range(4):
        kinds = {found.train.names[label] in "def" for label in found.batch(number)["labels"]}
        assert len(kinds) == 1
    few = load(
        *("--data", f"folder:{root / 'all.csv'}", "--image-size", "8", *columns),
        *("--test-classes", "1", "--sampler", "sqrt", "--folds", "3", "--fold", "1"),
    )
    test = few.tests["test"]
    assert test.gallery is not None
    assert (len(test.labels), len(test.gallery.labels)) == (1, 2)
    assert few.validation is not None
    assert {few.validation.names[label] for label in few.validation.labels} == {"c"}
    assert few.train.names == ("a", "b", "e", "f")
    assert set(few.train.labels) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ("--data folder:/nowhere", "data: got /nowhere, expected a folder or a .csv file"),
        ("--data hangul --data-options train=0.7", "data_options: are for folder:PATH, not"),
        (
            "--data folder:{root} --data-options trian=1",
            "data_options: got 'trian=1', expect",
        ),
        (
            "--data folder:{root} --data-options train=x",
            "data_options: got 'train=x', expect",
        ),
        ("--data folder:{root} --sampler hierarchical --super-classes 1", "has no super-classes"),
        ("--data folder:{root} --folds 9", "folds: got 9, expected 4 or less, the training class"),
        ("--data folder:{root} --per-class 4", "per_class: got 4, expected 3 or less"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, cache, argv, names):
    root = fill(tmp_path / "photos")
    with pytest.raises(ValueError, match=names) as error:
        load(*argv.format(root=root).split())
    assert "\n" not in str(error.value)


def test_pictures_show_what_was_found_in_a_gallery(tmp_path, cache):
    root = tmp_path / "shop"
    fill(root / "train", "ab")
    fill(root / "query", "cd")
    fill(root / "gallery", "cde")
    argv = ("--classes-per-batch", "2", "--image-size", "8")
    test = load("--data", f"folder:{root}", *argv).tests["test"]
    assert test.gallery is not None
    rows = np.random.default_rng(0).normal(size=(15, 4)).astype(np.float32)
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    pictures.draw(tmp_path, log, rows[:6], test, rows[6:])
    for name in ("gallery", "map", "similarities", "training_curve"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    labels, found = test.gallery.labels, np.zeros((6, 2), int)
    with pytest.raises(ValueError, match=r"neighbour_indices: got .* expected rows 0 to 8"):
        report.retrieval_gallery(
            tmp_path / "a.png", test.images, test.labels, found + 9,
            gallery_images=test.gallery.images, gallery_labels=labels,
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"labels: got .* expected a class-mate for some image"):
        report.retrieval_gallery(
            tmp_path / "a.png", test.images, test.labels + 9, found,
            gallery_images=test.gallery.images, gallery_labels=labels,
        )  # fmt: skip


def test_a_crop_larger_than_the_images_is_refused():
    split = datasets.Split("toy", np.zeros((2, 9, 9, 1), np.uint8), np.array([0, 1]), ("a", "b"))
    with pytest.raises(ValueError, match="crop: got 12, expected 9 or less, the side of"):
        data._shown(Settings(crop=12), split)
    assert data._shown(Settings(crop=5), split)[:].shape == (2, 5, 5, 1)
    assert data._shown(Settings(), split) is split.images


def test_the_default_run_reads_what_it_always_did():
    assert Settings().augment == ("warp",)
    assert (Settings().crop, Settings().image_size, Settings().folds) == (0, 0, 0)
