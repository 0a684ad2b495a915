"""Folders and tables of one's own, as people have them: what is taken, left out, and said."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
from folder_fakes import CLASSES, TINY, fill, picture
from PIL import Image

from experiments import train
from jdml import datasets
from jdml.datasets import folder
from jdml.datasets.folder_files import natural

EXPECTED = {
    "pictures that cannot be decoded": ["class 2/half.jpg", "class 2/words.png"],
    "empty files": ["class 10/empty.jpg"],
    "files that are no pictures by their names": ["class 2/notes.txt", "readme"],
    "pictures outside the folders of classes": ["stray.png"],
    "links to nothing": ["été/dangling.png"],
    "classes of fewer than 2 pictures": ["lonely"],
}


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


def test_a_picture_too_large_for_pil_is_left_out_as_broken(tmp_path, cache, monkeypatch):
    root = fill(tmp_path / "photos", classes=list("abcd"))
    picture(size=(60, 50)).save(root / "a" / "vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # it refuses twice that
    assert folder.read(root).notes == ("left out: pictures that cannot be decoded (1): a/vast.png",)


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


def test_a_share_of_classes_is_not_rounded_up_for_what_floats_add():
    for count in range(1, 1001):
        for share in range(100):  # in hundredths
            exact = -(-share * count // 100)
            assert folder._share(share / 100, count) == exact
            assert folder._share(1 - (100 - share) / 100, count) == exact
    assert folder._share(1 / 3, 3) == folder._share(0.1 + 0.2, 10) - 2 == 1


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
