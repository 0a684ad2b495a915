"""The comparison with pytorch-metric-learning: a tiny one, and the same start on both sides."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from test_sweep import toy

from experiments import peer, peer_table, sweep_train
from experiments.settings import Settings
from jdml.samplers import ClassBalanced

MISSING = [name for name in ("torch", "pytorch_metric_learning") if not peer._there(name)]
needs_peer = pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed")
TINY = "--steps 2 --classes-per-batch 3 --per-class 2 --dim 8 --widths 6 8"


def tiny() -> tuple[Settings, sweep_train.Sets]:
    # Wide enough that no row is 0: there the peer's gradient of a unit row is 1e11.
    settings = Settings(steps=6, dim=8, widths=(6, 8), pooling="grid", warp=1.0)
    data = toy(settings)
    data = data._replace(sampler=ClassBalanced(data.train.labels, 4, 3))
    return settings, sweep_train.Sets(data, data.tests["test"], data, data.tests)


@needs_peer
def test_all_rows_start_the_same_and_stay_together_for_some_steps(quick_compile):
    from experiments.peer_run import ROWS, Comparison

    settings, data = tiny()
    for name, row in ROWS.items():
        found = Comparison(row, settings, data).run(1)
        assert found["features_apart"] < 1e-5, name
        assert found["ours"]["seconds_a_step"] > 0
        ours, theirs = (np.array(found[side]["losses"]) for side in ("ours", "theirs"))
        assert len(ours) == 4  # steps 1, 2, 5 and 6
        if row.same:
            # Optimizer, schedule, clipping and running statistics too: six steps agree.
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4, err_msg=name)


@needs_peer
def test_sides_that_start_apart_are_refused(quick_compile, monkeypatch):
    from experiments import peer_run, peer_torch

    settings, data = tiny()
    monkeypatch.setattr(peer_torch.Peer, "embed", lambda self, images: np.zeros((len(images), 8)))
    with pytest.raises(RuntimeError, match="features are 1 apart before the first step"):
        peer_run.Comparison(peer_run.ROWS["contrastive"], settings, data).run(1)


def test_both_sides_search_the_gallery_where_there_is_one(quick_compile, monkeypatch):
    from experiments.peer_run import ROWS, Comparison

    class Pixels:  # in the place of the peer: embeds without training
        def __init__(self, *args):
            pass

        def step(self, images, labels):
            return 0.0

        def embed(self, images):
            return images.reshape(len(images), -1).astype(np.float32)

    fake = types.ModuleType("peer_torch")
    fake.Peer = Pixels
    monkeypatch.setitem(sys.modules, "experiments.peer_torch", fake)
    monkeypatch.setattr(Comparison, "_features_apart", lambda *args: 0.0)
    monkeypatch.setattr(
        sweep_train.Trainer, "embed", lambda self, state, images: Pixels().embed(images)
    )
    settings, data = tiny()
    test = data.tests["test"]
    wrong = test._replace(labels=(test.labels + 1) % 4)  # nothing is found there
    queries = test._replace(gallery=wrong)
    data = data._replace(tests={"test": queries})
    settings = dataclasses.replace(settings, steps=1)
    found = Comparison(ROWS["triplet, nearest semi-hard"], settings, data).run(1)
    assert found["theirs"]["scores"] == found["ours"]["scores"]
    assert found["ours"]["scores"]["recall_at_1"] == 0


@needs_peer
def test_the_command_writes_tables_and_goes_on(tmp_path, monkeypatch, capsys, quick_compile):
    monkeypatch.setattr(sweep_train, "load", toy)
    base = [*TINY.split(), "--out", str(tmp_path / "out"), "--losses", "contrastive", "arcface"]
    assert peer.main([*base, "--seeds", "1"]) == 0
    kept = (tmp_path / "out" / "runs" / "arcface" / "seed-0.json").read_bytes()
    assert peer.main([*base, "--seeds", "2"]) == 0
    assert (tmp_path / "out" / "runs" / "arcface" / "seed-0.json").read_bytes() == kept
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["loss"] for row in result["losses"]] == ["contrastive", "arcface"]
    assert result["losses"][0]["map_at_r"]["difference"]["half_of_95_percent"] is not None
    assert result["versions"]["torch"]
    assert (tmp_path / "out" / "table.md").read_text().count("±") == 2 * 3 + 1
    monkeypatch.setattr(peer, "_STEPS_OF_TIMES", 2)
    assert peer.main([*base, "--seeds", "2", "--times", "--losses", "arcface"]) == 0
    assert (tmp_path / "out" / "runs" / "arcface" / "times-0.json").exists()
    capsys.readouterr()
    assert peer.main([*base, "--steps", "3"]) == 2
    assert capsys.readouterr().err.startswith(f"{peer.PROG}: steps: got 3, expected 2 as in ")


@needs_peer
def test_wrong_flags_are_one_line(capsys):
    assert peer.main(["--losses", "tripplet"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"{peer.PROG}: losses: got 'tripplet', expected some of contrastive, ")
    assert line.count("\n") == 1


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert peer.main([]) == 2
    line = capsys.readouterr().err
    assert "torch and pytorch-metric-learning missing: pip install 'jdml[bench]'" in line
    assert line.count("\n") == 1


def test_a_line_of_the_table_is_about_differences_seed_by_seed():
    def run(ours: float, theirs: float) -> dict:
        return {
            "ours": {"scores": {"map_at_r": ours}, "seconds_a_step": 0.1},
            "theirs": {"scores": {"map_at_r": theirs}, "seconds_a_step": 0.3},
            "threads": 1,
        }

    # Seeds differ by far more than the sides do.
    runs = [run(0.5, 0.49), run(0.7, 0.69), run(0.9, 0.89)]
    found = peer_table.line("x", runs, None, True)
    assert found.difference.mean == pytest.approx(0.01)
    assert found.difference.half == pytest.approx(0.0, abs=1e-12)
    assert found.explained() == "outside the interval"
    assert peer_table.cells(found)[-1] == "3.0x"
    timed = {**{s: {"seconds_a_step": 0.2} for s in ("ours", "theirs")}, "threads": 2}
    quiet = peer_table.line("x", runs, timed, True)
    assert (quiet.seconds, quiet.threads, quiet.difference) == ((0.2, 0.2), 2, found.difference)
    times = peer_table.line("x", [], timed, True)
    text = peer_table.markdown([times], "Times.")
    assert text.splitlines()[0] == "|  | ms/step, jdml | ms/step, peer | ratio |"
