"""Folders and tables of one's own, as people have them: what is taken, left out, and said."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from experiments import data, pictures, train
from experiments.settings import Settings, parse
from jdml import datasets, report
from jdml.datasets import folder
from jdml.datasets.folder_files import natural

CLASSES = ["class 2", "class 10", "Class 1", "été", "한글", "o'b,c", "x" * 40, "z\u0301"]
SIZE = (20, 24)  # width, height
EXPECTED = {
    "pictures that cannot be decoded": ["class 2/half.jpg", "class 2/words.png"],
    "empty files": ["class 10/empty.jpg"],
    "files that are no pictures by their names": ["class 2/notes.txt", "readme"],
    "pictures outside the folders of classes": ["stray.png"],
    "links to nothing": ["été/dangling.png"],
    "classes of fewer than 2 pictures": ["lonely"],
}


def picture(mode="RGB", value=(200, 40, 90), size=SIZE):
    return Image.new(mode, size, value)


def fill(root: pathlib.Path, classes=CLASSES, each=3) -> pathlib.Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(each):
            pixels = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            pixels[:, :, 0] = 255 * number // len(classes)
            Image.fromarray(pixels).save(root / name / f"Photo {k}.png")
    return root


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A folder with everything in it that a decoder, a sorter or a printer may stumble over."""
    root = fill(tmp_path_factory.mktemp("pictures") / "my photos")
    two, ten, ete = root / "class 2", root / "class 10", root / "été"
    picture("L", 77).save(two / "grey.PNG")
    picture("I;16", 40000).save(two / "deep.png")
    picture("CMYK", (0, 200, 90, 10)).save(two / "print.JPG")
    picture("RGBA", (10, 20, 30, 0)).save(ten / "clear.png")
    picture("LA", (10, 128)).save(ten / "half clear.png")
    picture("P", 3).save(ten / "palette.gif", transparency=3)
    picture("1", 1).save(ten / "bits.bmp")
    turned = picture("RGB", (0, 0, 0), (24, 20))
    turned.paste((255, 255, 255), (0, 0, 8, 20))  # its left is the top when it is seen
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(ete / "turned.jpeg", exif=exif, quality=95)
    (ete / "inner" / "deeper").mkdir(parents=True)
    picture().save(ete / "inner" / "deeper" / "below.webp")
    (ete / "linked.png").symlink_to(two / "grey.PNG")
    (ete / "dangling.png").symlink_to(root / "gone.png")
    (ete / "circle").symlink_to(root / "été")
    picture(size=(200, 300)).save(root / "whole.jpg")
    content = (root / "whole.jpg").read_bytes()
    (root / "whole.jpg").unlink()
    (two / "half.jpg").write_bytes(content[: len(content) // 2])
    (two / "words.png").write_text("no picture")
    (two / "notes.txt").write_text("notes")
    (two / ".DS_Store").write_bytes(b"\0")
    (two / "Thumbs.db").write_bytes(b"\0")
    (root / ".hidden").mkdir()
    picture().save(root / ".hidden" / "a.png")
    (root / "__MACOSX").mkdir()
    picture().save(root / "__MACOSX" / "a.png")
    (ten / "empty.jpg").write_bytes(b"")
    (root / "readme").write_text("all mine")
    picture().save(root / "stray.png")
    (root / "lonely").mkdir()
    picture().save(root / "lonely" / "one.png")
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JDML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(root):
    return sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*"))


def row_of(split, name):
    return next(k for k, path in enumerate(split.images.read._paths) if path.endswith(name))


def test_a_nasty_folder_is_read_and_what_is_left_out_is_said(nasty, cache):
    before = everything(nasty)
    found = folder.read(nasty, image_size=12)
    assert everything(nasty) == before
    assert found.report["left_out"] == EXPECTED
    assert found.report["splits"] == {
        "train": {"pictures": 19, "classes": 4}, "test": {"pictures": 15, "classes": 4},
    }  # fmt: skip
    said = "\n".join(found.notes)
    assert len(found.notes) == len(EXPECTED)
    for kind, names in EXPECTED.items():
        assert f"left out: {kind} ({len(names)}): {', '.join(names)}" in said
    names = found.splits.train.class_names
    assert names[:3] == ("Class 1", "class 2", "class 10")  # by number, not by letter
    assert set(names) == set(CLASSES)
    train, test = found.splits.train, found.splits.test
    assert set(train.labels) == {0, 1, 2, 3}
    assert train.image_shape == test.image_shape == (12, 12, 3)
    assert found.report["grey"] is False
    json.dumps(found.report)


def test_pictures_of_every_kind_look_right(nasty, cache):
    splits = folder.read(nasty, image_size=12).splits
    pixel = lambda split, name: split.fetch([row_of(split, name)])[0, 6, 6].tolist()
    assert pixel(splits.train, "grey.PNG") == [77] * 3
    assert pixel(splits.train, "deep.png") == pytest.approx([40000 * 255 // 65535] * 3, abs=1)
    assert pixel(splits.train, "clear.png") == [255] * 3
    assert pixel(splits.train, "half clear.png") == pytest.approx([132] * 3, abs=1)
    assert pixel(splits.train, "palette.gif") == [255] * 3
    assert pixel(splits.train, "bits.bmp") == [255] * 3
    red, green, blue = pixel(splits.train, "print.JPG")
    assert red > blue > green
    both = [splits.train, splits.test]
    split = next(s for s in both if any(p.endswith("turned.jpeg") for p in s.images.read._paths))
    (image,) = split.fetch([row_of(split, "turned.jpeg")])
    assert image[0].min() > 220  # upright: light above
    assert image[-1].max() < 30
    copy = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(copy.fetch([0]), split.fetch([0]))
    box = [[0.0, 0.0, 1.0, 0.25]]
    assert split.crop([row_of(split, "turned.jpeg")], box, 4).min() > 220


def test_a_file_is_decoded_once_and_again_when_it_changes(nasty, cache, monkeypatch, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(nasty, mine, symlinks=True)
    counts = []
    first = folder.read(mine, progress=lambda done, total: counts.append((done, total)))
    assert counts[-1] == (first.report["files"],) * 2
    (memory,) = cache.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda path: pytest.fail(f"opened {path}"))
        assert folder.read(mine).report == first.report
    (mine / "class 2" / "Photo 0.png").write_bytes(b"\x89PNG no more")
    again = folder.read(mine)
    kind = "pictures that cannot be decoded"
    added = set(again.report["left_out"][kind]) - set(first.report["left_out"][kind])
    assert added == {"class 2/Photo 0.png"}
    memory.write_text("{ half")
    assert folder.read(mine).report == again.report
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    assert folder.read(mine, cache_dir=blocked).report == again.report


def test_an_interrupted_check_goes_on(nasty, cache):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.read(nasty, progress=stop)
    (memory,) = cache.iterdir()
    assert json.loads(memory.read_text())["files"]


def test_only_grey_pictures_stay_grey(tmp_path, cache):
    for name in "abcd":
        (tmp_path / "all" / name).mkdir(parents=True)
        for k in range(2):
            picture("L", 40 * k).save(tmp_path / "all" / name / f"{k}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = datasets.load(f"folder:{tmp_path / 'all'}")
    assert splits.train.image_shape == (256, 256, 1)
    picture("RGB").save(tmp_path / "all" / "a" / "colour.png")
    assert folder.load(tmp_path / "all", image_size=8).train.image_shape == (8, 8, 3)
    (tmp_path / "all" / "a" / "no.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out: empty files \(1\): a/no\.png"):
        folder.load(tmp_path / "all")


@pytest.mark.parametrize(
    ("given", "sizes"),
    [({}, (4, 0, 4)), ({"train": 0.7}, (6, 0, 2)), ({"validation": 0.5}, (2, 2, 4))],
)
def test_classes_are_split_as_asked(tmp_path, cache, given, sizes):
    splits = folder.read(fill(tmp_path / "photos"), **given).splits
    parts = (splits.train, splits.validation, splits.test)
    assert tuple(0 if part is None else len(part.classes) for part in parts) == sizes
    again = folder.read(tmp_path / "photos", **given).splits
    np.testing.assert_array_equal(again.test.labels, splits.test.labels)
    assert splits.train.class_names == tuple(sorted(CLASSES, key=natural))


def test_folders_of_splits_are_taken_as_such(tmp_path, cache):
    fill(tmp_path / "one" / "train", ["a", "b", "c"])
    fill(tmp_path / "one" / "Val", ["d", "e"])
    found = folder.read(tmp_path / "one")
    assert "there is no test folder: the validation folder is the test" in found.notes
    assert found.report["splits"]["test"]["classes"] == 2
    fill(tmp_path / "one" / "query", ["f", "g"], each=1)
    with pytest.raises(ValueError, match="split: got train, validation, query, expected train and"):
        folder.read(tmp_path / "one")
    fill(tmp_path / "one" / "gallery", ["f", "g", "h"], each=2)
    splits = folder.read(tmp_path / "one").splits
    assert splits.validation is not None
    assert splits.gallery is not None
    assert [len(s) for s in (splits.train, splits.validation, splits.test, splits.gallery)] == [
        9, 6, 2, 6,
    ]  # fmt: skip
    assert set(splits.test.labels) < set(splits.gallery.labels)


def test_splits_that_share_classes_are_refused_or_merged(tmp_path, cache):
    for part in ("train", "test"):
        fill(tmp_path / "both" / part, ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="split: train and test share 4 classes: a, b, c"):
        folder.read(tmp_path / "both")
    splits = folder.read(tmp_path / "both", merge=True).splits
    assert len(splits.train) == len(splits.test) == 12


def test_super_classes_are_folders_above(tmp_path, cache):
    fill(tmp_path / "deep" / "cats", ["a", "b"])
    fill(tmp_path / "deep" / "dogs", ["a", "c", "d", "e"])
    splits = folder.read(tmp_path / "deep", depth=2, train=0.7).splits
    assert splits.train.class_names[:3] == ("cats/a", "cats/b", "dogs/a")
    assert splits.train.groups is not None
    assert splits.train.groups.tolist() == [0] * 6 + [1] * 9


# ---------------------------------------------------------------- tables


def table(root, text, name="list.csv", **options):
    (root / name).write_bytes(text.encode())
    return folder.read(root / name, image_size=8, **options)


@pytest.fixture
def photos(tmp_path, cache):
    return fill(tmp_path, ["a", "b", "c", "d"])


ROWS = [f"{c}/Photo {k}.png" for c in "abcd" for k in range(3)]


def test_a_table_lists_pictures_by_the_columns_that_are_named(photos):
    lines = [f"{row};{row[0]} {row[0]};{'animals' if row[0] in 'ab' else 'plants'}" for row in ROWS]
    text = "\ufefffile;product;kind\r\n" + "\r\n".join([*lines, lines[0], ";x;", "y.png;;"])
    found = table(photos, text, image="file", label="product", super_class="kind")
    assert found.splits.train.class_names == ("a a", "b b", "c c", "d d")
    assert found.splits.train.groups is not None
    assert found.splits.train.groups.tolist() == [0] * 6
    assert found.report["left_out"] == {
        "pictures that are listed again": ["a/Photo 0.png"],
        "rows without a label": ["line 15", "y.png"],
    }


def test_a_table_may_say_the_split(photos):
    part = {"a": "Train", "b": "train", "c": "query", "d": "gallery"}
    lines = [f"{row}\t{row[0]}\t{part[row[0]]}" for row in ROWS]
    lines += ["./c/Photo 0.png\td\tquery"]
    found = table(photos, "image\tlabel\tfold\n" + "\n".join(lines), "list.tsv", split="fold")
    assert found.splits.gallery is not None
    assert (len(found.splits.train), len(found.splits.test)) == (6, 4)
    assert set(found.splits.gallery.labels) & set(found.splits.test.labels) == {3}


@pytest.mark.parametrize(
    ("text", "given", "names"),
    [
        (
            "image,label\n",
            {"label": "id"},
            "label: got 'id', expected one of the columns image, la",
        ),
        ("image,label\n", {}, "folder: .* has no pictures, expected a folder for each class"),
        ("", {}, "image: got 'image', expected one of the columns"),
        (
            "image,label\nno.png,a\na/Photo 0.png,b\n",
            {},
            "image: 1 of 2 pictures of list.csv are n",
        ),
        ("image,label,s\na/Photo 0.png,b,tets\n", {"split": "s"}, "split: got 'tets' in line 2 of"),
        (
            "image,label\na/Photo 0.png,a\na/Photo 1.png,a\n",
            {},
            r"has 1 class \(a\), expected 2 or",
        ),
    ],
)
def test_a_wrong_table_is_one_line(photos, text, given, names):
    with pytest.raises(ValueError, match=names) as error:
        table(photos, text, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "given", "names"),
    [
        (lambda root: root / "nowhere", {}, "folder: got .*nowhere, expected a folder or a .csv"),
        (lambda root: root, {}, "folder: .* has no pictures, expected a folder for each class"),
        (lambda root: fill(root, ["a"]), {}, r"folder: .* has 1 class \(a\), expected 2 or more"),
        (
            lambda root: fill(root, "abc", each=1),
            {},
            "has 0 class, .* fewer than 2 pictures",
        ),
        (
            lambda root: fill(root, "ab"),
            {},
            "train: got 0.5 of 2 classes .*, expected 2 or more to",
        ),
        (
            lambda root: fill(root, "abcd"),
            {"train": 1.5},
            "train: got 1.5, expected a share of the",
        ),
        (lambda root: fill(root, "abcd"), {"depth": 3}, "depth: got 3, expected 1, or 2"),
        (
            lambda root: fill(root, "abcd"),
            {"depth": 2},
            "no pictures .*outside the folders of class",
        ),
    ],
)
def test_a_wrong_folder_is_one_line(tmp_path, cache, make, given, names):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match=names) as error:
        folder.read(make(tmp_path / "photos"), **given)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, cache):
    closed = fill(tmp_path / "photos") / "class 2"
    closed.chmod(0)
    with pytest.raises(ValueError, match=r"folder: cannot read .*class 2"):
        folder.read(tmp_path / "photos")
    closed.chmod(0o700)


# ---------------------------------------------------------------- training

TINY = "--classes-per-batch 3 --per-class 2 --dim 4 --widths 2 2 --steps 2 --loss contrastive"


def test_a_nasty_folder_trains_and_says_what_it_left_out(
    nasty, cache, tmp_path, capsys, quick_compile
):
    argv = ["--data", f"folder:{nasty}", *TINY.split(), "--run-dir", str(tmp_path / "runs")]
    argv += ["--image-size", "12", "--crop", "8", "--augment", "flip", "colour"]
    assert train.main(argv) == 0
    out = capsys.readouterr().out
    for kind, names in EXPECTED.items():
        assert f"left out: {kind} ({len(names)}): " in out
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name == "folder-my photos-contrastive-0"
    assert json.loads((run / "data.json").read_text())["left_out"] == EXPECTED
    result = json.loads((run / "metrics.json").read_text())
    assert 0 < result["test"]["recall_at_1"] <= 1
    assert (run / "gallery.png").stat().st_size > 1000


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
