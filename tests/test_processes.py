"""Two processes of two devices each train one model; killed, they go on; one process agrees."""

import csv
import json
import os
import signal

import jax
import numpy as np
from two_processes import together

from experiments import run
from experiments.data import Data, Images
from experiments.log import Silent
from experiments.settings import parse
from jdml.checkpoints import Checkpoints
from jdml.samplers import ClassBalanced

# Six rows do not divide by four devices; the class table lies across the processes.
TINY = "--loss arcface --classes-per-batch 3 --per-class 2 --dim 4 --widths 2 2 --steps 4"
TINY += " --checkpoint-every 2 --warp 0 --name one"
TESTS = os.path.dirname(__file__)
TRAIN = f"""
import sys
sys.path.insert(0, {TESTS!r})
from experiments import run, train
from test_processes import toy
run.load = toy
"""
SAVED = """
import pathlib, signal
import jax
from jdml.checkpoints import Checkpoints
save = Checkpoints.save
def save_and_wait(self, state, config=None):
    save(self, state, config)
    pathlib.Path({folder!r}, f"saved-{{jax.process_index()}}").touch()
    signal.pause()
Checkpoints.save = save_and_wait
"""
MAIN = "sys.exit(train.main(sys.argv[1:]))"


def toy(settings):
    """Ten classes of six small pictures, in the place of a data set that takes seconds to read."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 6).astype(np.int32)
    pictures = rng.integers(0, 255, (60, 16, 16, 1), dtype=np.uint8)
    images = Images(pictures, labels, tuple("abcdefghij"))
    sampler = ClassBalanced(labels, settings.classes_per_batch, settings.per_class)
    return Data(images, images, {"test": images}, 10, sampler)


def command(*start):
    """The command line of each process."""
    return lambda port, index: [
        *start,
        *("--coordinator", f"localhost:{port}", "--processes", "2", "--process", str(index)),
    ]


def alone(argv, folder):
    """The last state of the run in this process, without its pictures."""
    asked = parse([*argv, "--run-dir", str(folder)], prog="train", about="Trains.")
    ready = run.prepare(asked.settings, False, 0.0)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        fit = (ready.settings, ready.data, ready.parts, ready.parts.fresh, checkpoints, Silent())
        return run.fit(*fit)


def test_two_processes_killed_and_resumed_are_one_undisturbed(tmp_path, quick_compile, monkeypatch):
    monkeypatch.setattr(run, "load", toy)
    argv = TINY.split()
    expected = alone(argv, tmp_path / "alone")
    folder = tmp_path / "runs" / "one"
    split = [*argv, "--run-dir", str(folder.parent), "--model", "2"]
    saved = SAVED.format(folder=str(tmp_path))
    both_saved = lambda: len(list(tmp_path.glob("saved-*"))) == 2
    codes, said = together(command("-c", TRAIN + saved + MAIN, *split), kill_when=both_saved)
    assert codes == [-signal.SIGKILL] * 2, said
    assert os.listdir(folder / "checkpoints") == ["2"]
    codes, said = together(command("-c", TRAIN + MAIN, *split, "--resume"))
    assert codes == [0, 0], said
    assert "everything is in" in said[0][0]
    assert "training images" not in said[1][0]  # the first process talks for both
    assert sorted(os.listdir(folder / "checkpoints")) == ["2", "4"]
    with (folder / "log.csv").open() as file:
        assert [float(row["step"]) for row in csv.DictReader(file)] == [2, 4]
    assert 0 < json.loads((folder / "metrics.json").read_text())["test"]["recall_at_1"] < 1

    with Checkpoints(folder / "checkpoints") as checkpoints:
        got = checkpoints.restore_latest(expected)[0]  # saved on 2 shards of 4, read on 8 devices
    raw = lambda state: jax.tree_util.tree_leaves_with_path(
        state._replace(key=jax.random.key_data(state.key))
    )
    for (path, x), (_, y) in zip(raw(got), raw(expected), strict=True):
        name = jax.tree_util.keystr(path)
        # Adam divides by the size of the gradient, which magnifies rounding where that is near 0.
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), 1e-5, 1e-6, err_msg=name)
