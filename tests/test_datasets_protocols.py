"""Protocols: the true layout of each data set, prepared, read, split, and counted."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import dataset_fakes as fakes
import numpy as np
import pytest
from PIL import Image

from jdml import datasets
from jdml.datasets import layouts, merge, store
from jdml.datasets.protocol import Contents, Counts, Entry, halves
from jdml.datasets.protocols import PROTOCOLS
from jdml.datasets.splits import Splits

pytestmark = pytest.mark.filterwarnings("default")  # of TFDS and what it imports
SETS = [name for name in fakes.FAKES if name != "lfw"]


@pytest.fixture
def tiny(monkeypatch):
    """The protocols with the counts of the fakes."""
    for name in fakes.FAKES:
        monkeypatch.setitem(PROTOCOLS, name, fakes.small(name))


def made(name: str, tmp_path: pathlib.Path) -> Splits:
    """A fake, packed, prepared and read."""
    datasets.prepare(name, fakes.pack(name, tmp_path / "files"), data_dir=tmp_path / "data")
    return datasets.load(name, data_dir=tmp_path / "data", image_size=8)


# ---------------------------------------------------------------- what each protocol says


def test_the_counts_are_those_of_the_field():
    published = {
        "cub200": [(5864, 100), (5924, 100)],
        "cars196": [(8054, 98), (8131, 98)],
        "sop": [(59551, 11318), (60502, 11316)],
        "inshop": [(25882, 3997), (14218, 3985), (12612, 3985)],
        "inaturalist": [(325846, 5690), (136093, 2452)],
        "omniglot": [(19280, 964), (13180, 659)],
        "lfw": [(13233, 5749)],
    }
    for name, counts in published.items():
        assert list(PROTOCOLS[name].counts.values()) == counts
    assert PROTOCOLS["lfw"].pairs == 6000
    for protocol in PROTOCOLS.values():
        images = [part.images for part in protocol.counts.values()]
        assert None in images or sum(images) == protocol.total.images
        classes = [c.classes for part, c in protocol.counts.items() if part != "gallery"]
        assert sum(classes) == protocol.total.classes
        assert all(file.home and file.shows for file in protocol.files)


def test_the_half_split_gives_the_larger_half_to_training():
    contents = Contents("abcde", {str(label): Entry(label) for label in range(5)})
    parts = [entry.part for entry in halves(contents).entries.values()]
    assert parts == ["train"] * 3 + ["test"] * 2


def test_every_set_has_a_name():
    assert set(datasets.known()) | set(datasets.known_pairs()) >= set(PROTOCOLS)
    with pytest.raises(ValueError, match=r"name: lfw is a set of pairs, which .*load_pairs reads"):
        datasets.load("lfw")
    with pytest.raises(ValueError, match="name: got 'cub200', expected one of lfw"):
        datasets.load_pairs("cub200")
    with pytest.raises(ValueError, match="label: is an option of folder:PATH, not of cub200"):
        datasets.load("cub200", label="kind")


# ---------------------------------------------------------------- from archive to batch


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_prepared_read_and_split(name, tiny, tmp_path):
    splits = made(name, tmp_path)
    assert isinstance(splits, Splits)
    assert splits.validation is None
    for part, expected in fakes.FAKES[name][1].items():
        split = getattr(splits, part)
        assert len(split.classes) == expected[1]
        assert expected[0] in (None, len(split))
        got = split.fetch([len(split) - 1, 0])
        assert got.shape == (2, 8, 8, PROTOCOLS[name].channels)
        assert got.dtype == np.uint8
    assert splits.num_classes == len(splits.train.classes)  # 0 .. C - 1
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(("name", "fourth"), [("cub200", "004.Bird_3"), ("cars196", "Volvo 240")])
def test_pictures_keep_their_labels(name, fourth, tiny, tmp_path):
    """Red is ten times the class in the fakes, whatever order archives have."""
    splits = made(name, tmp_path)
    for split in (splits.train, splits.test):
        reds = split.fetch(range(len(split)))[:, 4, 4, 0].astype(int)
        assert np.abs(reds - 10 * split.labels).max() <= 3
    assert splits.test.class_names[3] == fourth


def test_an_archive_its_folder_and_the_folder_above_give_the_same_rows(tiny, tmp_path):
    archive = fakes.pack("cub200", tmp_path / "packed") / "CUB_200_2011.tgz"
    fakes.unpacked(tmp_path / "above", fakes.cub200_tree())
    sources = (archive, tmp_path / "packed", tmp_path / "above", tmp_path / "above/CUB_200_2011")
    rows = []
    for number, source in enumerate(sources):
        data_dir = tmp_path / f"data{number}"
        datasets.prepare("cub200", source, data_dir=data_dir)
        test = datasets.load("cub200", data_dir=data_dir, image_size=6).test
        rows.append((test.labels.tolist(), test.fetch(range(len(test))).tobytes()))
    assert all(row == rows[0] for row in rows)


def test_cars_come_in_two_forms(tiny, tmp_path):
    fakes.unpacked(tmp_path / "old", fakes.cars196_old_tree())
    datasets.prepare("cars196", tmp_path / "old", data_dir=tmp_path)
    assert len(datasets.load("cars196", data_dir=tmp_path).train) == 6


def test_products_and_alphabets_have_groups(tiny, tmp_path):
    sop = made("sop", tmp_path)
    assert sop.train.groups is not None
    assert sop.train.groups.tolist() == [0, 0, 0, 0, 1, 1]
    assert sop.train.class_names[0] == "bicycle 1"
    omniglot = made("omniglot", tmp_path / "omniglot")
    assert omniglot.test.groups is not None
    assert set(omniglot.test.groups) == {2}
    assert isinstance(omniglot.train.images, np.ndarray)
    assert omniglot.train.class_names[:2] == ("Greek/character01", "Greek/character02")
    white = omniglot.train.images.mean(axis=(1, 2, 3))
    assert np.all(np.diff(white.reshape(4, 2).mean(1)) < -10)  # each label is darker


def test_queries_are_searched_in_the_gallery(tiny, tmp_path):
    splits = made("inshop", tmp_path)
    assert splits.gallery is not None
    assert set(splits.gallery.classes) == set(splits.test.classes) == {2, 3}
    assert splits.gallery.class_names[2] == "id_00000003"
    with pytest.raises(ValueError, match=r"splits: .*train and .*train share 2 classes"):
        dataclasses.replace(splits, gallery=splits.train)


def test_species_that_train_come_first(tiny, tmp_path):
    splits = made("inaturalist", tmp_path)
    assert splits.train.labels.tolist() == [0, 1, 1]
    assert splits.train.class_names == ("Aves/2", "Plantae/10", "Plantae/1")
    assert splits.test.labels.tolist() == [2, 2]


def test_arrays_of_bytes_come_out_as_they_went_in(tiny, tmp_path):
    splits = made("mnist", tmp_path)
    assert splits.train.labels.tolist() == sorted([0, 1, 2, 3, 4] * 3)
    full = datasets.load("mnist", data_dir=tmp_path / "data")
    assert full.test.image_shape == (28, 28, 1)
    np.testing.assert_array_equal(full.test.images[:, 5, 5, 0], full.test.labels)
    made("cifar100", tmp_path / "cifar")
    train = datasets.load("cifar100", data_dir=tmp_path / "cifar" / "data").train
    assert train.images[:, 31, 0].tolist() == [[0, 1, 2], [0, 1, 2], [1, 1, 2]]
    assert train.class_names[1] == "pear"


def test_faces_come_in_pairs(tiny, tmp_path):
    datasets.prepare("lfw", fakes.pack("lfw", tmp_path / "files"), data_dir=tmp_path)
    pairs = datasets.load_pairs("lfw", data_dir=tmp_path)
    assert pairs.split.image_shape == (250, 250, 3)
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4
    names = np.array(pairs.split.class_names)[pairs.split.labels]
    assert names[pairs.first[2]] == "Ann_Lee"
    assert names[pairs.second[2]] == "Zico"
    assert (pairs.first[0], pairs.second[0]) == (0, 1)
    assert repr(pairs) == "<lfw/pairs: 8 pairs in 2 folds, 7 images of 3 classes>"
    with pytest.raises(ValueError, match="same: got False for pair 0, which the labels deny"):
        dataclasses.replace(pairs, same=~pairs.same)
    with pytest.raises(ValueError, match="first: got 0 to 7, expected rows of the pictures, 0 to"):
        dataclasses.replace(pairs, first=np.arange(8))


def test_reading_needs_no_tensorflow_and_survives_another_process(tiny, tmp_path):
    made("sop", tmp_path)
    code = f"""
        import sys
        class Blind:
            def __init__(self, finder):
                self.finder = finder
            def __getattr__(self, name):
                return getattr(self.finder, name)
            def find_spec(self, name, *more):
                hidden = name.partition(".")[0] == "tensorflow"
                return None if hidden else self.finder.find_spec(name, *more)
        sys.meta_path[:] = map(Blind, sys.meta_path)  # as where TensorFlow is not installed
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import dataset_fakes, pickle
        from jdml import datasets
        from jdml.datasets.protocols import PROTOCOLS
        PROTOCOLS["sop"] = dataset_fakes.small("sop")
        test = datasets.load("sop", data_dir={str(tmp_path / "data")!r}).test
        print(test.fetch([0, 3]).shape, len(pickle.loads(pickle.dumps(test)).fetch([1])))
        assert "tensorflow" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "(2, 256, 256, 3) 1", done.stderr


# ---------------------------------------------------------------- whole or not there


def test_what_is_not_prepared_says_how_to(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"cars196 is not prepared in .* experiments.prepare cars196 \(cars"
    ):
        datasets.load("cars196", data_dir=tmp_path)


def test_missing_files_are_named(tiny, tmp_path):
    files = fakes.pack("lfw", tmp_path / "files")
    (files / "pairs.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"data: lfw lacks pairs.txt \(from http.*files"):
        datasets.prepare("lfw", files, data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data: .*nowhere is not there"):
        datasets.prepare("lfw", tmp_path / "nowhere", data_dir=tmp_path)


def nothing_is_left(data_dir: pathlib.Path) -> bool:
    return not [p for p in data_dir.rglob("*") if p.is_file() and p.name != ".lock"]


def test_counts_that_are_not_those_of_the_protocol_are_refused(tmp_path):
    files = fakes.pack("cub200", tmp_path / "files")
    with pytest.raises(
        ValueError, match="cub200/train: got 9 images of 3 classes, expected 5864 images of 100"
    ):
        datasets.prepare("cub200", files, data_dir=tmp_path / "data")
    assert nothing_is_left(tmp_path / "data")


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_archive_that_is_cut_short_is_refused(share, tiny, tmp_path):
    path = fakes.pack("cub200", tmp_path / "files") / "CUB_200_2011.tgz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"data: .*CUB_200_2011.tgz cannot be unpacked .*again"):
        datasets.prepare("cub200", path, data_dir=tmp_path / "data")
    assert nothing_is_left(tmp_path / "data")


def test_a_zip_and_a_table_that_are_cut_short_are_refused(tiny, tmp_path):
    path = fakes.pack("sop", tmp_path / "files") / "Stanford_Online_Products.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"data: .*Products.zip cannot be unpacked"):
        datasets.prepare("sop", path, data_dir=tmp_path)
    files = fakes.pack("oxford_flowers102", tmp_path / "flowers")
    (files / "imagelabels.mat").write_bytes(b"<html>moved</html>")
    with pytest.raises(ValueError, match=r"data: imagelabels.mat is not a file of MATLAB"):
        datasets.prepare("oxford_flowers102", files, data_dir=tmp_path)
    files = fakes.pack("mnist", tmp_path / "mnist")
    (files / "t10k-labels-idx1-ubyte.gz").write_bytes(b"half")
    with pytest.raises(ValueError, match="data: t10k-labels-idx1-ubyte cannot be unpacked"):
        datasets.prepare("mnist", files, data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"<html>", fakes.picture(1, (300, 200))[:700]])
def test_a_picture_that_cannot_be_decoded_is_named(content, tiny, tmp_path):
    fakes.unpacked(tmp_path / "files", fakes.cub200_tree())
    broken = next((tmp_path / "files").rglob("Bird_3_0001.jpg"))
    broken.write_bytes(content)
    with pytest.raises(ValueError, match=r"data: images/004.Bird_3/.*_0001.jpg cannot be decoded"):
        datasets.prepare("cub200", tmp_path / "files", data_dir=tmp_path / "data")
    assert nothing_is_left(tmp_path / "data")
    broken.unlink()
    with pytest.raises(ValueError, match=r"cub200 lacks 1 of 15 pictures, the first is images/004"):
        datasets.prepare("cub200", tmp_path / "files", data_dir=tmp_path / "data")


def test_what_is_killed_in_the_middle_is_never_read(tiny, tmp_path):
    files = fakes.pack("cub200", tmp_path / "files")
    code = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import dataset_fakes
        from jdml import datasets
        from jdml.datasets import store
        from jdml.datasets.protocols import PROTOCOLS
        PROTOCOLS["cub200"] = dataset_fakes.small("cub200")
        store._AT_ONCE = 4
        def tell(what, done, total):
            if done:
                print(done, flush=True)
                time.sleep(60)
        datasets.prepare("cub200", {str(files)!r}, data_dir={str(tmp_path)!r}, tell=tell)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "4\n"  # some pictures are written
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    place = tmp_path / "jdml_cub200"
    assert len(list(place.glob("incomplete.*/*array_record*"))) == 1
    with pytest.raises(FileNotFoundError, match="cub200 is not prepared"):
        datasets.load("cub200", data_dir=tmp_path)
    datasets.prepare("cub200", files, data_dir=tmp_path)
    assert sorted(p.name for p in place.iterdir()) == [".lock", "1.0.0"]
    assert len(datasets.load("cub200", data_dir=tmp_path).train) == 9


def test_what_is_there_stays_and_what_lost_a_file_is_refused(tiny, tmp_path):
    made("sop", tmp_path)
    datasets.prepare("sop", tmp_path / "nowhere", data_dir=tmp_path / "data")  # not looked at
    (shard,) = (tmp_path / "data").rglob("*array_record*")
    shard.unlink()
    with pytest.raises(ValueError, match=r"data_dir: .*array_record.* is lost; delete .* again"):
        datasets.load("sop", data_dir=tmp_path / "data")
    (info,) = (tmp_path / "data").rglob("dataset_info.json")
    info.unlink()
    made("sop", tmp_path)  # prepared anew
    assert len(datasets.load("sop", data_dir=tmp_path / "data").test) == 4


def test_links_are_followed_once_and_odd_tables_are_one_line(tiny, tmp_path):
    fakes.unpacked(tmp_path / "elsewhere", fakes.cub200_tree())
    birds = tmp_path / "files"
    birds.mkdir()
    (birds / "CUB_200_2011").symlink_to(tmp_path / "elsewhere" / "CUB_200_2011")
    (tmp_path / "elsewhere" / "CUB_200_2011" / "images" / "loop").symlink_to(birds)
    datasets.prepare("cub200", birds, data_dir=tmp_path / "data")
    (tmp_path / "elsewhere" / "CUB_200_2011" / "images.txt").write_text("a table, of another form")
    with pytest.raises(ValueError, match=r"data: the tables of cub200 are not in the form .*'a'"):
        datasets.prepare("cub200", birds, data_dir=tmp_path / "new")


def test_a_folder_that_cannot_be_written_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data_dir: cannot write to .*file/jdml_sop"):
        datasets.prepare("sop", fakes.pack("sop", tmp_path / "f"), data_dir=tmp_path / "file")


def test_pairs_are_as_many_as_their_file_says(tiny, tmp_path):
    files = fakes.pack("lfw", tmp_path / "files")
    lines = (files / "pairs.txt").read_text().splitlines()
    (files / "pairs.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"pairs.txt has 7 pairs, expected 8 as it says"):
        datasets.prepare("lfw", files, data_dir=tmp_path)
    (files / "pairs.txt").write_text("\n".join(lines).replace("Zico\t2", "Zico\t7"))
    with pytest.raises(ValueError, match=r"a pair names Zico/Zico_0007.jpg, which is not among"):
        datasets.prepare("lfw", files, data_dir=tmp_path)


def test_what_is_prepared_is_a_data_set_of_tfds(tiny, tmp_path):
    import tensorflow_datasets as tfds

    made("sop", tmp_path)
    builder = tfds.builder_from_directory(store.place(PROTOCOLS["sop"], tmp_path / "data"))
    source = builder.as_data_source(store.SPLIT)
    assert len(source) == 10
    assert source[0]["image"].shape == (20, 30, 3)
    assert builder.info.features["label"].int2str(0) == "bicycle 1"


def by_tfds(folder: pathlib.Path, file_format: str) -> pathlib.Path:
    """Birds as TFDS prepares them: two splits that share all classes."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    folder.mkdir(parents=True)
    birds = DatasetIdentity("caltech_birds2011", tfds.core.Version("0.2.0"), str(folder), "birds")
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=5)}
    )
    info = tfds.core.DatasetInfo(builder=birds, features=features)
    writer = tfds.core.SequentialWriter(info, 100, file_format=file_format)
    writer.initialize_splits(["train", "test"])
    if file_format == "array_record":
        for i in range(15):
            record = {"image": io.BytesIO(fakes.picture(i % 5)), "label": i % 5}
            writer.add_examples({("train", "test")[i // 8]: [record]})
    writer.close_all()
    return folder


def test_splits_that_tfds_has_prepared_are_merged(tiny, tmp_path):
    folder = by_tfds(tmp_path / "caltech_birds2011" / "0.2.0", "array_record")
    assert merge.prepared_by_tfds(tmp_path, PROTOCOLS["cub200"].merge) == folder
    assert merge.prepared_by_tfds(tmp_path, PROTOCOLS["sop"].merge) is None
    datasets.prepare("cub200", folder, data_dir=tmp_path / "data")
    splits = datasets.load("cub200", data_dir=tmp_path / "data", image_size=4)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    reds = splits.test.fetch(range(6))[:, 2, 2, 0].astype(int)
    assert np.abs(reds - 10 * splits.test.labels).max() <= 3
    other = by_tfds(tmp_path / "other", "tfrecord")
    with pytest.raises(ValueError, match=r"data: .*other cannot be read .*format=\"array_record"):
        datasets.prepare("cub200", other, data_dir=tmp_path / "new")


def test_a_size_of_no_published_half_checks_the_whole():
    assert store.counted(Counts(None, 60)) == "images of 60 classes"
    with pytest.raises(ValueError, match="dogs: got 3 images of 2 classes, expected 4 images of 2"):
        store.check_size("dogs", 3, 2, Counts(4, 2))
    store.check_size("dogs/train", 3, 2, Counts(None, 2))


def test_a_png_is_what_it_was():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(layouts.png(image)))), image)
