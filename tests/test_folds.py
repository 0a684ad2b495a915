"""Folds over classes: what each trains on, going on after a stop, and the scores of all."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import folds, pictures, run
from experiments.data import load
from experiments.settings import parse
from jdml import datasets, metrics
from jdml.datasets import Split, Splits
from jdml.postprocess import concatenate

TINY = "--data toy --loss cosface --classes-per-batch 4 --per-class 2 --dim 4 --widths 2 --steps 4"
TINY += " --checkpoint-every 2 --folds 2"


def toy(name, **_):
    """Ten classes to train on and three to test, of noise."""
    labels = np.repeat(np.arange(13), 4)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 6, 6, 1), np.uint8)
    whole = Split(name, images, labels, tuple("abcdefghijklm"))
    train, test = whole.take(np.arange(40)), whole.take(np.arange(40, 52))
    return Splits(train, None, test)


@pytest.fixture(scope="module", autouse=True)
def toys(quick_compile):
    """A data set that needs no preparation, and no pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", toy)
        patch.setattr(pictures, "draw", lambda *_: None)
        yield


def call(folder, *argv):
    """Runs the command in one folder."""
    return folds.main([*TINY.split(), "--run-dir", str(folder), "--name", "all", *argv])


def test_folds_are_blocks_of_neighbours_and_every_class_validates_once():
    asked = dataclasses.replace(parse(TINY.split(), prog="", about="").settings, folds=3)
    models = folds.models_of(asked, repeats=2)
    assert [(m.seed, m.fold) for m in models] == [(s, f) for s in (0, 1) for f in range(3)]
    assert {m.select for m in models} == {"best"}
    assert len({m.folder() for m in models}) == 6
    whole = load(dataclasses.replace(asked, folds=0)).train
    seen = []
    for model in models[:3]:
        data = load(model)
        names = np.array(whole.names)
        held = np.array(data.validation.names)[np.unique(data.validation.labels)]
        places = np.flatnonzero(np.isin(names, held))
        assert (np.diff(places) == 1).all()  # neighbours
        assert set(held).isdisjoint(data.train.names)
        assert set(held) | set(data.train.names) == set(names)
        assert data.num_classes == len(names) - len(held)
        seen.extend(places)
    assert sorted(seen) == list(range(len(whole.names)))


def test_the_command_goes_on_and_scores_models_apart_and_together(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "all"
    train, trained = run.train, []

    def stop_in_the_second(ready):
        if trained:
            raise KeyboardInterrupt
        trained.append(ready.folder.name)
        return train(ready)

    with monkeypatch.context() as patch:
        patch.setattr(run, "train", stop_in_the_second)
        assert call(tmp_path) == 130
    assert trained == ["seed-0-fold-0"]
    assert not (folder / "folds.json").exists()
    assert call(tmp_path) == 0
    result = json.loads((folder / "folds.json").read_text())
    assert result["models"] == ["seed-0-fold-0", "seed-0-fold-1"]
    assert set(result["tests"]) == {"test"}
    found = result["tests"]["test"]
    alone = found["separated"]["models"][0]
    for name, scores in zip(result["models"], alone):
        told = json.loads((folder / name / "metrics.json").read_text())
        assert scores["map_at_r"] == pytest.approx(told["test"]["map_at_r"], abs=2e-5)
        assert told["tested_step"] in (2, 4)
    mean = np.mean([scores["map_at_r"] for scores in alone])
    assert found["separated"]["mean"]["map_at_r"] == pytest.approx(mean)
    assert found["separated"]["interval"]["map_at_r"] is None
    assert 0 < found["concatenated"]["mean"]["map_at_r"] < 1
    out = capsys.readouterr().out
    assert "separated" in out
    assert "concatenated" in out

    def none_again(ready):
        raise AssertionError(ready.folder)

    monkeypatch.setattr(run, "train", none_again)
    assert call(tmp_path) == 0
    assert call(tmp_path, "--dim", "5") == 2  # models of other settings are there
    assert "dim: got 5, expected 4 as in" in capsys.readouterr().err
    assert call(tmp_path, "--repeats", "0") == 2
    assert "repeats: got 0, expected 1 or more" in capsys.readouterr().err


def test_scores_are_those_of_concatenated_unit_rows_and_have_intervals():
    rng = np.random.default_rng(0)
    labels = np.arange(12) // 3
    models = [((rng.normal(size=(12, 3)).astype(np.float32), labels), None) for _ in range(4)]
    seeds = [models[:2], models[2:]]
    found = folds._summary(seeds, (1, 2))
    for number, of in enumerate(seeds):
        rows = concatenate([model[0][0] for model in of])
        wanted = metrics.retrieval(rows, labels, ks=(1, 2))["recall_at_2"]
        got = found["concatenated"]["seeds"][number]["recall_at_2"]
        assert got == pytest.approx(float(wanted), abs=1e-5)
    values = [scores["map_at_r"] for scores in found["concatenated"]["seeds"]]
    half = found["concatenated"]["interval"]["map_at_r"]
    assert half == pytest.approx(12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)
    means = [np.mean([s["map_at_r"] for s in of]) for of in found["separated"]["models"]]
    assert found["separated"]["mean"]["map_at_r"] == pytest.approx(np.mean(means))
    queries = [((rows, labels), (rows[::-1], labels[::-1])) for (rows, _), _ in models]
    assert folds._score(queries[:1], (1,))["recall_at_1"] == 1.0
