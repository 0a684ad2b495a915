"""The command that prepares data sets, and what it fetches."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dataset_fakes as fakes
import numpy as np
import pytest

from experiments import prepare
from jdml import datasets
from jdml.datasets import fashion_mnist, prepared
from jdml.datasets.download import fetch
from jdml.datasets.protocol import File
from jdml.datasets.protocols import PROTOCOLS

pytestmark = pytest.mark.filterwarnings("default")  # of TFDS and what it imports


@pytest.fixture
def tiny(monkeypatch):
    """The protocols with the counts of the fakes, and no address."""
    for name in fakes.FAKES:
        small = fakes.small(name)
        files = tuple(file._replace(address="") for file in small.files)
        monkeypatch.setitem(PROTOCOLS, name, fakes.dataclasses.replace(small, files=files))


class Server:
    """Serves files, with or without pieces of them, and counts what is asked."""

    def __init__(self, files: dict[str, bytes], pieces: bool = True, short: int = 0):
        server = self
        self.asked: list[str | None] = []
        self.short = short

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = files.get(self.path)
                asked = self.headers.get("Range")
                server.asked.append(asked)
                if content is None:
                    self.send_error(404, "Not Found")
                    return
                first = int(asked.split("=")[1].rstrip("-")) if asked and pieces else 0
                if first >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(content) - first))
                self.end_headers()
                self.wfile.write(content[first : server.short or None])

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


CONTENT = bytes(range(256)) * 5000
SUM = hashlib.sha256(CONTENT).hexdigest()


def test_a_file_is_fetched_on_from_where_it_stopped(tmp_path):
    path, told = tmp_path / "new" / "file.zip", []
    with Server({"/file.zip": CONTENT}, short=100_000) as server:
        address = server.address + "/file.zip"
        with pytest.raises(ConnectionError, match=r"file.zip does not answer \(.*more expected"):
            fetch(address, path, sha256=SUM)
        assert not path.exists()
        assert (path.parent / "file.zip.part").stat().st_size == 100_000
        server.short = 0
        fetch(address, path, sha256=SUM, tell=lambda *numbers: told.append(numbers))
        assert server.asked == [None, "bytes=100000-"]
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in path.parent.iterdir()] == ["file.zip"]


def test_a_server_that_knows_no_pieces_gives_all_again(tmp_path):
    (tmp_path / "file.part").write_bytes(b"xx")
    with Server({"/file": CONTENT}, pieces=False) as server:
        fetch(server.address + "/file", tmp_path / "file", sha256=SUM)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_is_whole_but_not_yet_named_is_taken(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    with Server({"/file": CONTENT}) as server:
        fetch(server.address + "/file", tmp_path / "file", sha256=SUM)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_calls_at_once_take_turns_and_ask_once(tmp_path):
    with Server({"/file.zip": CONTENT}) as server, ThreadPoolExecutor(6) as pool:
        ask = lambda _: fetch(server.address + "/file.zip", tmp_path / "file.zip")
        assert list(pool.map(ask, range(6))) == [None] * 6
        assert server.asked == [None]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["file.zip"]


def test_what_lies_on_the_disk_is_measured_and_not_what_was_counted(tmp_path):
    path, part = tmp_path / "file", tmp_path / "file.part"

    def meddle(done, total):
        with part.open("ab") as file:
            file.write(b"of somebody else")

    with Server({"/file": CONTENT}) as server:
        with pytest.raises(ValueError, match=r"gave another file than expected \(it has 1,280,0"):
            fetch(server.address + "/file", path, tell=meddle)
        assert list(tmp_path.iterdir()) == []
        part.write_bytes(CONTENT + b"too much")
        with pytest.raises(ValueError, match=r"1,280,008 bytes, not 1,280,000"):
            fetch(server.address + "/file", path)
        assert list(tmp_path.iterdir()) == []
        fetch(server.address + "/file", path)
    assert path.read_bytes() == CONTENT


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_disk_that_is_full_is_not_taken_for_the_network(tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with Server({"/file": CONTENT}) as server:
        with pytest.raises(ValueError, match=r"cannot write to .*\(No space left on device\)"):
            fetch(server.address + "/file", tmp_path / "file")
        (tmp_path / "folder").write_text("")
        with pytest.raises(ValueError, match=r"data_dir: cannot write to .*folder"):
            fetch(server.address + "/file", tmp_path / "folder" / "file")


def test_turns_are_taken_on_a_file_that_does_not_stay(tmp_path):
    inside, path = [], tmp_path / ".lock"

    def work(number):
        for _ in range(20):
            with prepared.turn(path, keep=False):
                inside.append(number)
                assert len(inside) == 1
                inside.clear()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert not path.exists()
    with prepared.turn(path):
        pass
    assert path.exists()


def test_another_file_and_no_file_are_refused(tmp_path):
    with Server({"/file": b"<html>moved</html>"}) as server:
        with pytest.raises(ValueError, match="gave another file than expected"):
            fetch(server.address + "/file", tmp_path / "file", sha256=SUM)
        with pytest.raises(ConnectionError, match="answers 404 Not Found"):
            fetch(server.address + "/other", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionError, match="does not answer"):
        fetch(server.address + "/file", tmp_path / "file", patience=1.0)


def test_nobody_waits_long_for_an_address_that_is_silent(tmp_path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(ConnectionError, match=r"does not answer \(.*timed out"):
            fetch(address, tmp_path / "file", patience=0.3)
    assert time.monotonic() - began < 5


# ---------------------------------------------------------------- the command


def test_it_prepares_and_says_so_and_again(tiny, tmp_path, capsys):
    files = fakes.pack("cub200", tmp_path / "files")
    command = ["cub200", "--from", str(files), "--data-dir", str(tmp_path)]
    assert prepare.main(command) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[-1].startswith(
        "cub200 is ready: test 6 images of 2 classes, train 9 images of 3 classes; in "
    )
    assert "writing pictures: 15 of 15" in first
    assert prepare.main(["cub200", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("cub200 was there: test 6 images")
    assert len(datasets.load("cub200", data_dir=tmp_path).train) == 9


def test_files_put_by_hand_are_found(tiny, tmp_path, capsys):
    fakes.pack("lfw", tmp_path / "downloads" / "manual" / "lfw")
    fakes.pack("cars196", tmp_path / "downloads" / "manual")
    assert prepare.main(["lfw", "cars196", "--data-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "lfw is ready: lfw/pairs: 8 pairs in 2 folds, 7 images of 3 classes; in" in out
    assert "cars196 is ready" in out


def test_what_cannot_be_fetched_is_one_line(tiny, tmp_path, capsys):
    command = ["inshop", "--data-dir", str(tmp_path)]
    assert prepare.main(command) == 1
    error = capsys.readouterr().err
    manual = tmp_path / "downloads" / "manual" / "inshop"
    assert error == (
        "python -m experiments.prepare: inshop: put img.zip, list_eval_partition.txt (from "
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html) into "
        f"{manual}, or name its place in --from\n"
    )
    fakes.pack("inshop", manual)
    (manual / "img.zip").unlink()
    assert prepare.main(command) == 1
    assert "inshop: put img.zip (from https" in capsys.readouterr().err
    assert prepare.main(["sop", "--from", str(tmp_path), "--data-dir", str(tmp_path)]) == 1
    assert "sop lacks Stanford_Online_Products.zip (from https" in capsys.readouterr().err


def test_what_has_an_address_is_fetched(tiny, tmp_path, capsys, monkeypatch):
    packed = fakes.pack("omniglot", tmp_path / "files")
    served = {f"/{path.name}": path.read_bytes() for path in packed.iterdir()}
    with Server(served) as server:
        files = tuple(
            file._replace(address=f"{server.address}/{file.name}", sha256="")
            for file in PROTOCOLS["omniglot"].files
        )
        small = fakes.dataclasses.replace(PROTOCOLS["omniglot"], files=files)
        monkeypatch.setitem(PROTOCOLS, "omniglot", small)
        command = ["omniglot", "--data-dir", str(tmp_path)]
        assert prepare.main([*command, "--no-download"]) == 1
        assert "omniglot: put images_background.zip, images_" in capsys.readouterr().err
        assert prepare.main(command) == 0
        assert len(server.asked) == 2
    assert "fetching images_evaluation.zip" in capsys.readouterr().out
    other = fakes.dataclasses.replace(
        small, files=(File(("x.zip",), "x", "the author", server.address + "/x.zip"),)
    )
    monkeypatch.setitem(PROTOCOLS, "omniglot", other)
    assert prepare.main(["omniglot", "--data-dir", str(tmp_path / "new")]) == 1
    error = capsys.readouterr().err
    assert "omniglot: put x.zip (from the author) into" in error
    assert error.count("\n") == 1
    assert "does not answer" in error


def test_the_list_shows_all_and_what_is_there(tiny, tmp_path, capsys):
    datasets.prepare("sop", fakes.pack("sop", tmp_path / "files"), data_dir=tmp_path)
    assert prepare.main(["--list", "--data-dir", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    for name in ("hangul", "fashion_mnist", *PROTOCOLS):
        (row,) = [row for row in rows if f" {name} " in row]
        assert ("yes" in row) == (name in ("sop", "hangul"))
    (row,) = [row for row in rows if " sop " in row]
    assert "6 / 4" in row
    assert "3 / 2" in row


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["imagenet"], "NAME: got imagenet, expected one of hangul, fashion_mnist, cub200"),
        ([], "NAME: none given, expected one of hangul"),
        (["sop", "lfw", "--from", "x"], "--from: goes with one NAME"),
        (["hangul", "--from", "/nowhere"], "--from: hangul comes with the package, expected"),
        (["fashion_mnist", "--from", "a", "b"], "--from: got 2 paths, expected one folder"),
    ],
)
def test_wrong_arguments_are_one_line(command, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare.main(command)
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_sets_that_prepare_themselves(tmp_path, capsys, monkeypatch):
    assert prepare.main(["hangul", "--data-dir", str(tmp_path)]) == 0
    assert "hangul is ready: <hangul/seen_faces/train: 8000 images" in capsys.readouterr().out
    small = datasets.load("hangul", data_dir=tmp_path, image_size=14)
    assert small.test.image_shape == (14, 14, 1)
    assert isinstance(small.train.images, np.ndarray)
    monkeypatch.setattr(fashion_mnist, "_DEBIAN", tmp_path / "nowhere")
    command = ["fashion_mnist", "--data-dir", str(tmp_path), "--from", str(tmp_path)]
    assert prepare.main(command) == 1
    error = capsys.readouterr().err
    assert "fashion_mnist is not prepared, and its files are not in" in error
    assert "train-images-idx3-ubyte.gz" in error


def test_a_terminal_shows_a_bar_and_a_file_shows_lines(monkeypatch, capsys):
    with prepare._progress() as tell:
        for done in (0, 1, 100, 100):
            tell("writing", done, 100)
        tell("listing x.tgz", 0, 0)
    assert capsys.readouterr().out.splitlines() == ["writing: 0 of 100", "listing x.tgz"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with prepare._progress() as tell:
        tell("writing", 40, 100)
    assert "40 of 100" in capsys.readouterr().out
