"""Protocols: the true layout of each data set, prepared, read, split, and counted."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import textwrap

import dataset_fakes as fakes
import numpy as np
import pytest
from dataset_fakes import made
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


def test_what_is_prepared_is_a_data_set_of_tfds(tiny, tmp_path):
    import tensorflow_datasets as tfds

    made("sop", tmp_path)
    builder = tfds.builder_from_directory(store.place(PROTOCOLS["sop"], tmp_path / "data"))
    source = builder.as_data_source(store.SPLIT)
    assert len(source) == 10
    assert source[0]["image"].shape == (20, 30, 3)
    assert builder.info.features["label"].int2str(0) == "bicycle 1"


def reds_are_labels(split) -> bool:
    reds = split.fetch(range(len(split)))[:, 4, 4, 0].astype(int)
    return bool(np.abs(reds - 10 * split.labels).max() <= 3)


def test_what_is_deleted_and_prepared_again_is_read_anew(tiny, tmp_path):
    old = made("cub200", tmp_path).test
    assert reds_are_labels(old)
    copy = pickle.dumps(old)
    shutil.rmtree(store.place(PROTOCOLS["cub200"], tmp_path / "data"))
    with pytest.raises(ValueError, match=r"picture 0 cannot be decoded .*rows.npz"):
        old.fetch([0])
    fakes.tar(tmp_path / "CUB_200_2011.tgz", dict(reversed(fakes.cub200_tree().items())))
    datasets.prepare("cub200", tmp_path / "CUB_200_2011.tgz", data_dir=tmp_path / "data")
    new = datasets.load("cub200", data_dir=tmp_path / "data", image_size=8).test
    assert reds_are_labels(new)
    assert reds_are_labels(pickle.loads(pickle.dumps(new)))
    for gone in (old, pickle.loads(copy)):
        with pytest.raises(ValueError, match=r"data_dir: .*cub200.* was prepared anew .*again"):
            gone.fetch([0])


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
