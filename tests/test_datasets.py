"""Data sets: counts, disjoint classes, preparation that is whole or not there."""

from __future__ import annotations

import gzip
import multiprocessing
import pathlib
import sys

import numpy as np
import pytest

from jdml import datasets
from jdml.datasets import fashion_mnist, hangul, prepared, render_hangul
from jdml.datasets.splits import Split, Splits, by_classes, check_class_disjoint, check_counts

LABEL_FILES = ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
pytestmark = pytest.mark.filterwarnings("default")  # of TFDS and what it imports


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def test_hangul_is_what_it_says(data_dir):
    splits = datasets.load("hangul", data_dir=data_dir)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [8000, 3200, 4800]
    assert splits.train.image_shape == (28, 28, 1)
    assert splits.num_classes == 500
    assert len(set(splits.test.class_names)) == 1000
    classes = [set(s.classes) for s in (splits.train, splits.validation, splits.test)]
    assert [len(c) for c in classes] == [500, 200, 300]
    assert len(set.union(*classes)) == 1000
    assert "tensorflow" not in sys.modules


def test_hangul_unseen_faces_share_the_training_pictures_and_no_typeface(data_dir):
    seen = datasets.load("hangul", data_dir=data_dir)
    unseen = datasets.load("hangul/unseen_faces", data_dir=data_dir)
    assert len(unseen.test) == 300 * len(hangul.HELD_OUT)
    assert set(unseen.test.classes) == set(seen.test.classes)
    as_set = lambda split: {image.tobytes() for image in split.images}
    assert as_set(seen.train) == as_set(unseen.train)
    assert not as_set(unseen.test) & (as_set(seen.train) | as_set(seen.test))


def test_hangul_is_prepared_as_array_record_and_read_again(data_dir):
    builder = hangul.Hangul(config="seen_faces", data_dir=data_dir, file_format="array_record")
    assert builder.is_prepared()
    source = builder.as_data_source("test")
    record = source[3]
    assert record["image"].dtype == np.uint8
    assert hangul._packed()["splits"][record["label"]] == "test"
    assert builder.info.features["label"].names[record["label"]] == record["syllable"].decode()
    assert builder.info.features["typeface"].names[record["typeface"]] not in hangul.HELD_OUT
    assert list(pathlib.Path(builder.data_dir).glob("*array_record*"))


def test_the_package_stays_small_and_carries_its_licences():
    folder = pathlib.Path(datasets.__file__).parent
    assert (folder / "hangul.npz").stat().st_size < 5e6
    text = (folder / "hangul_fonts.md").read_text()
    for face in render_hangul.TYPEFACES:
        assert face.name in text
    assert len(render_hangul.TYPEFACES) - len(hangul.HELD_OUT) >= 15


def test_syllables_are_chosen_again_as_they_were():
    chosen = render_hangul.choose_syllables()
    packed = hangul._packed()
    for split, syllables in chosen.items():
        assert packed["syllables"][packed["splits"] == split].tolist() == syllables


def _prepare(folder: str) -> int:
    return len(datasets.load("hangul/unseen_faces", data_dir=folder).test)


def test_processes_that_prepare_at_once_do_not_break_each_other(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_prepare, [str(tmp_path)] * 2) == [1200, 1200]


@pytest.mark.parametrize("bars", [True, False])
def test_a_preparation_is_silent_and_leaves_bars_and_stdout_as_they_were(
    bars, tmp_path, monkeypatch, capsys, caplog
):
    from tensorflow_datasets.core.utils import tqdm_utils

    found, kept = [], hangul.Hangul._split_generators

    def watched(self, dl_manager):
        found.append((sys.stdout is stdout, tqdm_utils._active))
        return {"train": kept(self, dl_manager)["train"]}

    stdout = sys.stdout
    monkeypatch.setattr(tqdm_utils, "_active", bars)
    monkeypatch.setattr(hangul.Hangul, "_split_generators", watched)
    make = lambda: hangul.Hangul(data_dir=str(tmp_path), file_format="array_record")
    prepared.prepared(make, silently=True)
    assert found == [(False, False)]
    assert tqdm_utils._active is bars
    monkeypatch.setattr(prepared, "quiet", lambda: pytest.fail("it is there"))
    prepared.prepared(make, silently=True)
    captured = capsys.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])


def test_what_is_half_prepared_is_not_read(tmp_path, monkeypatch):
    def broken(self, part, faces):
        yield from list(whole(self, part, faces))[:7]
        raise RuntimeError("out of power")

    whole = hangul.Hangul._generate_examples
    with monkeypatch.context() as patch:
        patch.setattr(hangul.Hangul, "_generate_examples", broken)
        with pytest.raises(RuntimeError, match="out of power"):
            datasets.load("hangul", data_dir=str(tmp_path))
    assert len(datasets.load("hangul", data_dir=str(tmp_path)).test) == 4800


def test_a_folder_that_lost_a_file_is_refused(tmp_path):
    datasets.load("hangul/unseen_faces", data_dir=tmp_path)
    (info,) = tmp_path.rglob("dataset_info.json")
    info.unlink()
    with pytest.raises(ValueError, match=r"data_dir: .* is not a whole data set"):
        datasets.load("hangul/unseen_faces", data_dir=tmp_path)


def test_another_file_format_is_refused():
    def make():
        raise ValueError("File format is already set to FileFormat.TFRECORD.")

    with pytest.raises(
        ValueError, match=r"data_dir: .* another file format, expected array_record"
    ):
        prepared.prepared(make)


def toy(name: str, labels: list[int]) -> Split:
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return Split(name, images, np.array(labels), tuple("abcdef"))


def test_images_come_in_the_order_asked_for_and_padding_is_no_index():
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    split = Split("toy", images, np.array([0, 1, 1]), ("a", "b"))
    np.testing.assert_array_equal(split.fetch([2, 0, 2]), images[[2, 0, 2]])
    assert split.fetch([]).shape == (0, 2, 2, 1)
    with pytest.raises(IndexError, match="indices: got -1, expected 0 to 2"):
        split.fetch(np.array([0, -1]))
    with pytest.raises(IndexError, match="indices: got 3, expected 0 to 2"):
        split.fetch([3])
    with pytest.raises(TypeError, match=r"indices: got bool\[3\], expected integers"):
        split.fetch(np.array([True, False, True]))


def test_b1_labels_without_a_name_are_refused():
    with pytest.raises(ValueError, match="labels: got 1 to 3, expected 0 to 2"):
        Split("toy", np.zeros((3, 1, 1, 1), np.uint8), np.array([1, 2, 3]), ("a", "b", "c"))
    with pytest.raises(TypeError, match="labels: got float64, expected integers"):
        Split("toy", np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1), ("a",))


def test_b7_shared_classes_and_wrong_counts_are_named():
    with pytest.raises(ValueError, match="splits: one and two share 2 classes: b, c"):
        check_class_disjoint(toy("one", [0, 1, 2]), toy("two", [1, 2, 2]))
    with pytest.raises(ValueError, match="share 1 class: a"):
        Splits(toy("train", [0, 1]), None, toy("test", [0]))
    check_counts(toy("one", [0, 1, 1]), images=3, classes=2)
    with pytest.raises(ValueError, match="one: got 3 images of 2 classes, expected 4 images"):
        check_counts(toy("one", [0, 1, 1]), images=4, classes=2)
    made = by_classes("toy", np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 2, 1]), "abc",
                      {"train": [0, 1], "test": [2]})  # fmt: skip
    assert [len(made[part]) for part in ("train", "test")] == [3, 1]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="name: got 'cub', expected one of hangul, hangul/unseen"):
        datasets.load("cub")


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="data_dir: cannot write to"):
        datasets.load("hangul", data_dir=str(tmp_path / "file"))


def test_fashion_mnist_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "_DEBIAN", tmp_path / "nowhere")
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match=r"data: fashion_mnist .*dataset-fashion-mnist"):
        datasets.load("fashion_mnist", data_dir=str(tmp_path))


@pytest.mark.skipif("tensorflow" in sys.modules, reason="TensorFlow is loaded")
def test_fashion_mnist_asks_for_tensorflow_once(tmp_path, monkeypatch):
    for name in fashion_mnist.FILES:
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path))
    monkeypatch.setattr(fashion_mnist.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs TensorFlow once"):
        datasets.load("fashion_mnist", data_dir=str(tmp_path / "data"))


def test_files_of_another_data_set_are_refused(tmp_path):
    name = "t10k-labels-idx1-ubyte.gz"
    local = fashion_mnist._LocalFiles(tmp_path, tmp_path)
    (tmp_path / name).write_bytes(gzip.compress(b"digits"))
    with pytest.raises(ValueError, match=r"data: .* is not the file of Fashion-MNIST"):
        local.download_and_extract({"labels": f"http://somewhere/{name}"})
    (tmp_path / name).write_bytes(b"half a downl")
    with pytest.raises(ValueError, match=r"data: .* cannot be unpacked"):
        local.download_and_extract({"labels": f"http://somewhere/{name}"})


@pytest.mark.skipif(not fashion_mnist._DEBIAN.is_dir(), reason="needs Debian's files")
def test_files_of_debian_are_those_of_fashion_mnist(tmp_path):
    local = fashion_mnist._LocalFiles(fashion_mnist._DEBIAN, tmp_path)
    found = local.download_and_extract({name: f"http://somewhere/{name}" for name in LABEL_FILES})
    assert [pathlib.Path(path).stat().st_size for path in found.values()] == [60_008, 10_008]
