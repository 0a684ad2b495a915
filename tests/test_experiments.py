"""The training command: every file of a tiny run, going on after a stop, and wrong settings."""

import contextlib
import csv
import json
import os
import re

import jax
import numpy as np
import pytest

from experiments import run, settings, train
from experiments.objectives import known, objective
from experiments.settings import Settings, parse
from jdml.checkpoints import Checkpoints

TINY = "--classes-per-batch 4 --per-class 2 --dim 4 --widths 2 2 --test-classes 15"
PICTURES = ("training_curve.png", "gallery.png", "similarities.png", "map.png")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def command(tmp_path, data_dir, quick_compile):
    """Runs the command in a folder of its own."""
    base = [*TINY.split(), "--run-dir", str(tmp_path / "runs"), "--data-dir", str(data_dir)]
    return lambda *argv: train.main([*base, *argv])


def rows(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_tiny_run_writes_every_file(command, tmp_path, capsys):
    assert command("--steps", "3", "--loss", "cosface") == 0
    folder = tmp_path / "runs" / "hangul-cosface-0"
    config = json.loads((folder / "config.json").read_text())
    assert (config["loss"], config["steps"], config["widths"]) == ("cosface", 3, [2, 2])
    result = json.loads((folder / "metrics.json").read_text())
    unseen = result["unseen_faces"]
    for scores in (result["raw"], result["test"], unseen["raw"], unseen["test"]):
        assert scores.keys() == {"recall_at_1", "map_at_r", "r_precision"}
        assert all(0 < score < 1 for score in scores.values())
    assert result["seconds"] > 0
    assert [int(row["step"]) for row in rows(folder)] == [3]
    assert list((folder / "events").glob("events.out.tfevents*"))
    assert os.listdir(folder / "checkpoints") == ["3"]
    for name in PICTURES:
        assert (folder / name).read_bytes().startswith(b"\x89PNG"), name
    out = capsys.readouterr().out
    assert "raw pixels" in out
    assert "unseen faces" in out
    assert str(folder) in out


def test_workers_and_a_split_table_change_nothing_and_bfloat16_little(
    tmp_path, data_dir, quick_compile
):
    def losses(*argv):
        folders = ("--run-dir", str(tmp_path), "--data-dir", str(data_dir))
        asked = parse([*TINY.split(), *folders, "--steps", "2", *argv], prog="train", about="")
        parts = run.prepare(asked.settings, False, 0.0).parts
        found, state = [], parts.fresh
        with contextlib.closing(parts.batches(0)) as ready:
            for batch in ready:
                state, measured = parts.step(state, batch)
                found.append(float(measured["loss"]))
        assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"float32"}
        return found

    plain = losses()
    assert losses("--model", "4", "--workers", "1") == pytest.approx(plain, rel=1e-4)
    rounded = losses("--dtype", "bfloat16")
    assert rounded == pytest.approx(plain, rel=0.05)
    assert rounded != plain


def test_a_resumed_run_is_the_undisturbed_one(command, tmp_path, monkeypatch):
    argv = ("--steps", "4", "--checkpoint-every", "2", "--loss", "contrastive", "--seed", "5")
    assert command(*argv, "--name", "whole") == 0

    save = Checkpoints.save

    def save_and_stop(self, state, config=None):
        save(self, state, config)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        assert command(*argv, "--name", "cut") == 130
    runs = tmp_path / "runs"
    assert not (runs / "cut" / "metrics.json").exists()
    assert command(*argv, "--name", "cut", "--resume") == 0
    whole, cut = (json.loads((runs / n / "metrics.json").read_text()) for n in ("whole", "cut"))
    assert cut["test"] == whole["test"]
    assert [row["loss"] for row in rows(runs / "cut")] == [
        row["loss"] for row in rows(runs / "whole")
    ]


# ---------------------------------------------------------------- wrong settings


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ("--loss arcfase", "loss: got 'arcfase', expected one of .*arcface.*triplet"),
        ("--data hangeul", "data: got 'hangeul', expected one of hangul, .*fashion_mnist"),
        ("--per-class 17", "per_class: got 17, expected 16 or less"),
        ("--classes-per-batch 501", "classes_per_batch: got 501, expected 500"),
        ("--parallel jmap", "parallel: got 'jmap', expected one of jit, pmap, shard_map"),
        ("--pooling mean", "pooling: got 'mean', expected one of average"),
        ("--dtype float16", "dtype: got 'float16', expected one of float32, bfloat16"),
        ("--model 3", "model: got 3, expected a divisor of the 8 devices"),
        ("--model 8", "model: got 8, expected a divisor of the 500 classes"),
        ("--workers -1", "workers: got -1, expected 0 or more"),
        ("--processes 2", "coordinator: got '', expected host:port of process 0"),
        ("--coordinator nowhere", "coordinator: got 'nowhere', expected host:port or auto"),
        ("--process 1", "process: got 1, expected 0 to 0"),
        ("--steps 0", "steps: got 0, expected 1 or more"),
        ("--steps many", "argument --steps: invalid int value: 'many'"),
        ("--learning-rate -1", "learning_rate: got -1.0, expected more than 0"),
        ("--stepz 3", "unrecognized arguments: --stepz 3"),
        ("--config nowhere.py", "config: cannot read nowhere.py"),
        ("--name a/b", "name: got 'a/b', expected one folder"),
        ("--resume", "resume: got .*hangul-arcface-0, expected the folder of a run"),
    ],
)
def test_a_wrong_setting_is_one_line_and_writes_nothing(argv, names, command, tmp_path, capsys):
    try:
        code = command(*argv.split())
    except SystemExit as stop:  # argparse's own
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("python -m experiments.train: ")
    assert re.search(names, error), error
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_cannot_be_written_is_one_line(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command("--run-dir", str(tmp_path / "file" / "runs")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run_dir: cannot write to" in error
    assert (tmp_path / "file").read_text() == ""


def test_a_named_run_is_not_overwritten(command, tmp_path, capsys):
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"dim": 4, "seed": 7}')
    assert command("--name", "mine") == 2
    assert "name: got" in capsys.readouterr().err
    assert command("--name", "mine", "--resume") == 2  # and other settings are named
    assert "seed: got 0, expected 7 as in" in capsys.readouterr().err


# ---------------------------------------------------------------- settings


def parsed(*argv):
    return parse(argv, prog="train", about="Trains.")[0]


def test_flags_win_over_config_files_and_those_over_defaults(tmp_path):
    config = tmp_path / "mine.py"
    config.write_text('"""Mine."""\nsteps = 7\ndim = 9\nloss = "cosface"\n')
    got = parsed("--config", str(config), "--steps", "8")
    assert (got.steps, got.dim, got.loss) == (8, 9, "cosface")
    assert got.run_dir == Settings().run_dir


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("stepz = 3", "sets stepz, expected one of .*steps"),
        ("steps = 'many'", "steps: got 'many', expected a whole number"),
        ("widths = (0,)", r"widths: got \(0,\), expected whole numbers of 1 or more"),
        ("loss_options = 3", "loss_options: got 3, expected a dict"),
        ("1 / 0", "fails: ZeroDivisionError"),
        ("loss = 'cosface'", "loss: got triplet, expected that of"),
    ],
)
def test_a_wrong_config_file_is_one_line(tmp_path, text, names):
    config = tmp_path / "wrong.py"
    config.write_text(text + "\n")
    with pytest.raises(ValueError, match=names):
        parsed("--config", str(config), *(["--loss", "triplet"] if "cosface" in text else []))


def test_a_loss_that_is_asked_for_does_not_get_the_numbers_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "CONFIGS", tmp_path)
    (tmp_path / "hangul.py").write_text(
        "loss = 'cosface'\nloss_options = {'margin': 0.1}\ndim = 9\n"
    )
    (tmp_path / "arcface.py").write_text("loss_options = {'margin': 0.2}\n")
    for argv, loss, margin in (((), "cosface", 0.1), (("--loss", "arcface"), "arcface", 0.2)):
        got = parsed(*argv)
        assert (got.loss, got.loss_options, got.dim) == (loss, {"margin": margin}, 9)


@pytest.mark.parametrize("name", known())
def test_every_loss_has_an_objective(name):
    made = objective(name, 6, {})
    params, state = made.init(jax.random.key(0), 4)
    batch = {"labels": np.arange(6) // 2}
    loss = jax.eval_shape(made.loss, params, state, np.ones((6, 4), np.float32), batch)
    assert loss.shape == ()


def test_help_lists_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for flag in ("--data", "--loss", "--steps", "--seed", "--parallel", "--config", "--resume"):
        assert flag in out
