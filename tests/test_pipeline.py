"""Batches of several processes, and the launcher of a TPU slice."""

import os
import pathlib
import shlex
import subprocess

import numpy as np
import pytest

import experiments
from experiments.data import Data, Images
from experiments.pipeline import batches
from experiments.settings import parse
from jdml.samplers import ClassBalanced

LABELS = np.repeat(np.arange(5), 4).astype(np.int32)
SCRIPT = pathlib.Path(experiments.__file__).parent / "tpu.sh"


class Counted:
    """Images that tell which rows were read."""

    def __init__(self):
        self.read = []

    def __getitem__(self, rows):
        self.read.extend(rows.tolist())
        return np.asarray(rows)[:, None]


def toy(images):
    sampler = ClassBalanced(LABELS, classes_per_batch=3, per_class=2, seed=1)
    return Data(Images(images, LABELS, ()), None, {}, 5, sampler)


@pytest.mark.parametrize(("processes", "devices"), [(1, 1), (2, 2), (3, 6), (2, 4), (4, 8)])
def test_the_shares_of_all_processes_are_the_batch_in_its_order(processes, devices):
    for number in range(3):
        images = [Counted() for _ in range(processes)]
        shares = [
            toy(images[p]).share(number, process=p, processes=processes, devices=devices)
            for p in range(processes)
        ]
        assert len({len(share["labels"]) for share in shares}) == 1
        assert len({frozenset(share) for share in shares}) == 1
        whole = {name: np.concatenate([s[name] for s in shares]) for name in shares[0]}
        expected = toy(np.arange(20)[:, None]).batch(number)
        assert len(whole["labels"]) == len(expected["labels"]) + -6 % devices
        assert ("where" in whole) == (6 % devices > 0)
        exists = whole.get("where", np.ones(6, bool))
        np.testing.assert_array_equal(whole["images"][exists], expected["images"])
        np.testing.assert_array_equal(whole["labels"][exists], expected["labels"])
        assert exists.sum() == 6
        for p, share in enumerate(shares):  # each reads its own rows and no others
            assert images[p].read == share["images"][:, 0].tolist()


def test_a_pipeline_starts_anywhere_and_keeps_the_order():
    load = toy(np.arange(20)[:, None]).share
    got = list(batches(load, 3, 8))
    assert len(got) == 5
    for number, batch in enumerate(got, 3):
        np.testing.assert_array_equal(batch["images"], load(number)["images"])
    assert list(batches(load, 8, 8)) == []


# ---------------------------------------------------------------- the launcher


def launch(*argv):
    """The launcher on a machine without the tools that it calls."""
    environment = {"PATH": os.defpath, "HOME": "/nonexistent"}
    return subprocess.run(
        ["bash", str(SCRIPT), *argv], capture_output=True, text=True, env=environment
    )


def test_a_dry_run_prints_every_command_and_runs_none():
    flags = "--name demo --zone us-central2-b --type v4-16 --bucket mine --spot --dry-run"
    done = launch(*flags.split(), "--", "--loss", "cosface", "--steps", "7")
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.replace("\\\n", "").splitlines()]
    known = ("create", "archive", "scp", "ssh", "mkdir", "rsync", "delete")
    verbs = [next(word for word in known if word in line) for line in lines]
    assert verbs == ["create", "archive", "scp", "ssh", "ssh", "ssh", "mkdir", "rsync", "delete"]
    assert "--spot" in lines[0]
    assert {"--accelerator-type", "v4-16", "us-central2-b"} <= set(lines[0])
    assert all("--worker=all" in line for line in lines[2:6])
    install, mount, train = (line[line.index("--command") + 1] for line in lines[3:6])
    assert "'jax[tpu]' './jdml[experiments]'" in install
    assert "gcsfuse --implicit-dirs 'mine' runs" in mount
    _, _, arguments = train.partition("-m experiments.train ")
    asked = parse(shlex.split(arguments), prog="train", about="Trains.")
    assert (asked.processes.coordinator, asked.settings.run_dir) == ("auto", "../runs")
    assert (asked.settings.loss, asked.settings.steps) == ("cosface", 7)
    kept = launch(*flags.split(), "--keep", "--project", "p", "--", "--resume").stdout
    assert " delete " not in kept
    assert kept.count("--project p") == 5


def test_a_wrong_flag_of_the_launcher_is_one_line():
    for argv, message in (
        (("--name", "x"), "zone: got nothing, expected --zone VALUE"),
        (("--nmae", "x"), "unknown argument --nmae; --help lists all"),
        (("--name",), "name: got nothing, expected a value"),
    ):
        done = launch(*argv)
        assert (done.returncode, done.stderr) == (2, f"experiments/tpu.sh: {message}\n")
    assert "--dry-run" in launch("--help").stdout
