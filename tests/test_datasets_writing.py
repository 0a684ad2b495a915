"""Data sets are prepared whole or not at all; what is stopped goes on."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import dataset_fakes as fakes
import numpy as np
import pytest
from dataset_fakes import made

from jdml import datasets
from jdml.datasets import store, writing
from jdml.datasets.protocols import PROTOCOLS

pytestmark = pytest.mark.filterwarnings("default")  # of TFDS and what it imports


@pytest.fixture
def tiny(monkeypatch):
    """The protocols with the counts of the fakes."""
    for name in fakes.FAKES:
        monkeypatch.setitem(PROTOCOLS, name, fakes.small(name))


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


# ---------------------------------------------------------------- stopped


@pytest.fixture
def shards_of_four(monkeypatch):
    monkeypatch.setattr(writing, "_AT_ONCE", 2)
    monkeypatch.setattr(writing, "_BATCHES_OF_A_SHARD", 2)


def stopped(files: pathlib.Path, data_dir: pathlib.Path, after: int) -> pathlib.Path:
    """Birds whose preparation is stopped once so many pictures are written."""

    def tell(what, done, total):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.prepare("cub200", files, data_dir=data_dir, tell=tell)
    with pytest.raises(FileNotFoundError, match="cub200 is not prepared"):
        datasets.load("cub200", data_dir=data_dir)
    return data_dir / "jdml_cub200" / "incomplete.1.0.0"


def told(files: pathlib.Path, data_dir: pathlib.Path) -> list[int]:
    """How many pictures were written whenever it was told, until the birds are prepared."""
    said = []
    tell = lambda what, done, total: said.append(done) if total else None
    datasets.prepare("cub200", files, data_dir=data_dir, tell=tell)
    return said


def test_what_is_stopped_goes_on_after_the_last_whole_shard(tiny, shards_of_four, tmp_path):
    files = fakes.pack("cub200", tmp_path / "files")
    datasets.prepare("cub200", files, data_dir=tmp_path / "undisturbed")
    stopped(files, tmp_path / "data", after=6)  # a shard of four, and two that are lost
    stopped(files, tmp_path / "data", after=10)
    assert told(files, tmp_path / "data") == [8, 10, 12, 14, 15]

    expected, got = (tmp_path / n / "jdml_cub200" / "1.0.0" for n in ("undisturbed", "data"))
    names = sorted(path.name for path in expected.iterdir())
    assert sorted(path.name for path in got.iterdir()) == names
    assert len([name for name in names if "array_record" in name]) == 4
    for name in names:
        if not name.endswith(".npz"):  # whose entries have dates
            assert (got / name).read_bytes() == (expected / name).read_bytes(), name
    tables = [store.table_of(PROTOCOLS["cub200"], tmp_path / n) for n in ("undisturbed", "data")]
    for name in tables[0]:
        np.testing.assert_array_equal(tables[0][name], tables[1][name])
    train = datasets.load("cub200", data_dir=tmp_path / "data", image_size=4).train
    reds = train.fetch(range(9))[:, 2, 2, 0].astype(int)
    assert np.abs(reds - 10 * train.labels).max() <= 3


def test_what_was_begun_with_other_files_begins_anew(tiny, shards_of_four, tmp_path):
    files = fakes.pack("cub200", tmp_path / "files")
    stopped(files, tmp_path / "data", after=8)
    os.utime(files / "CUB_200_2011.tgz", (1, 1))
    assert told(files, tmp_path / "data")[0] == 2


@pytest.mark.parametrize("broken", ["shard", "note"])
def test_a_shard_that_the_disk_lost_is_written_again(broken, tiny, shards_of_four, tmp_path):
    files = fakes.pack("cub200", tmp_path / "files")
    begun = stopped(files, tmp_path / "data", after=8)
    path = begun / "shard-00001.json" if broken == "note" else next(begun.glob("*record-00001"))
    path.write_bytes(path.read_bytes()[:40])
    assert told(files, tmp_path / "data")[:2] == [4, 6]
    assert len(datasets.load("cub200", data_dir=tmp_path / "data").train) == 9


@pytest.mark.parametrize("step", ["Shards.close", "np.savez_compressed", "Shards.forget"])
def test_what_is_stopped_at_the_very_end_loses_nothing(
    step, tiny, shards_of_four, tmp_path, monkeypatch
):
    files = fakes.pack("cub200", tmp_path / "files")

    def stop(*_, **__):
        if step == "Shards.forget":  # in the middle of it
            (begun / "shard-00002.json").unlink()
        raise KeyboardInterrupt

    begun = tmp_path / "data" / "jdml_cub200" / "incomplete.1.0.0"
    with monkeypatch.context() as patched:
        patched.setattr(f"jdml.datasets.writing.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare("cub200", files, data_dir=tmp_path / "data")
    assert told(files, tmp_path / "data")[0] == (8 if step == "Shards.forget" else 12)
    splits = datasets.load("cub200", data_dir=tmp_path / "data", image_size=4)
    for split in (splits.train, splits.test):
        reds = split.fetch(range(len(split)))[:, 2, 2, 0].astype(int)
        assert np.abs(reds - 10 * split.labels).max() <= 3


def test_an_error_keeps_what_is_whole(tiny, shards_of_four, tmp_path):
    fakes.unpacked(tmp_path / "files", fakes.cub200_tree())
    broken = next((tmp_path / "files").rglob("Bird_4_0002.jpg"))
    content = broken.read_bytes()
    broken.write_bytes(content[:300])
    with pytest.raises(ValueError, match=r"Bird_4_0002.jpg cannot be decoded"):
        datasets.prepare("cub200", tmp_path / "files", data_dir=tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        datasets.prepare("cub200", tmp_path / "nowhere", data_dir=tmp_path / "data")
    broken.unlink()
    broken.symlink_to(broken)
    with pytest.raises(OSError, match=r"Too many levels of symbolic links.*Bird_4_0002.jpg"):
        datasets.prepare("cub200", tmp_path / "files", data_dir=tmp_path / "data")
    (notes,) = (tmp_path / "data").rglob("shard-00002.json")
    assert notes.is_file()


def test_what_was_begun_goes_on_beside_other_files(tiny, shards_of_four, tmp_path):
    """In a folder for everything, which is the folder of data sets as well."""
    fakes.unpacked(tmp_path, fakes.cub200_tree())
    stopped(tmp_path, tmp_path, after=8)
    (tmp_path / "invoice.pdf").write_bytes(b"100")
    assert told(tmp_path, tmp_path)[:2] == [8, 10]


@pytest.mark.parametrize("change", ["picture", "table"])
def test_what_was_begun_with_other_content_begins_anew(change, tiny, shards_of_four, tmp_path):
    fakes.unpacked(tmp_path / "files", fakes.cub200_tree())
    stopped(tmp_path / "files", tmp_path / "data", after=8)
    name = {"picture": "Bird_1_0000.jpg", "table": "classes.txt"}[change]
    path = next((tmp_path / "files").rglob(name))
    path.write_bytes(path.read_bytes().replace(b"Bird", b"bird") + b"\n")
    assert told(tmp_path / "files", tmp_path / "data")[0] == 2


def test_what_is_killed_goes_on(tiny, shards_of_four, tmp_path):
    files = fakes.pack("cub200", tmp_path / "files")
    code = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import dataset_fakes
        from jdml import datasets
        from jdml.datasets import writing
        from jdml.datasets.protocols import PROTOCOLS
        PROTOCOLS["cub200"] = dataset_fakes.small("cub200")
        writing._AT_ONCE = writing._BATCHES_OF_A_SHARD = 2
        def tell(what, done, total):
            if done == 6:
                print(done, flush=True)
                time.sleep(60)
        datasets.prepare("cub200", {str(files)!r}, data_dir={str(tmp_path)!r}, tell=tell)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "6\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with pytest.raises(FileNotFoundError, match="cub200 is not prepared"):
        datasets.load("cub200", data_dir=tmp_path)
    assert told(files, tmp_path)[0] == 4
    assert sorted(p.name for p in (tmp_path / "jdml_cub200").iterdir()) == [".lock", "1.0.0"]
    assert len(datasets.load("cub200", data_dir=tmp_path).train) == 9


# ---------------------------------------------------------------- there


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
