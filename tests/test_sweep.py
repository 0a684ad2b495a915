"""The sweep: tiny ones from start to end, stopped and gone on with, refused, and its arithmetic."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import (
    intervals,
    run,
    sweep,
    sweep_search,
    sweep_store,
    sweep_table,
    sweep_train,
    sweep_work,
)
from experiments.data import Data, Images
from experiments.settings import Settings
from experiments.sweep_losses import CONTENDERS, Contender, Number
from jdml.samplers import ClassBalanced

TINY = "--steps 2 --classes-per-batch 3 --per-class 2 --dim 4 --widths 2"
TWO = ("--losses", "contrastive", "arcface", "--trials", "2", "--seeds", "2")


def toy(settings: Settings, *, validation: bool = True) -> Data:
    """Noise around a pattern a class, on 8 x 8 pixels."""
    rng = np.random.default_rng(0)

    def images(classes: int) -> Images:
        labels = np.repeat(np.arange(classes, dtype=np.int32), 4)
        patterns = rng.integers(0, 128, (classes, 8, 8, 1))
        pixels = patterns[labels] + rng.integers(0, 128, (len(labels), 8, 8, 1))
        return Images(pixels.astype(np.uint8), labels, tuple("abcdef"[:classes]))

    train = images(6)
    sampler = ClassBalanced(train.labels, 2, 1, seed=settings.seed)
    return Data(train, images(3) if validation else None, {"test": images(4)}, 6, sampler)


@pytest.fixture
def command(tmp_path, monkeypatch, quick_compile):
    """Runs the command on the toy data in a folder of its own."""
    monkeypatch.setattr(sweep_train, "load", toy)
    base = [*TINY.split(), "--out", str(tmp_path / "out")]
    return lambda *argv: sweep.main([*base, *argv])


def files(folder: pathlib.Path) -> dict[str, bytes]:
    runs = folder / "runs"
    return {str(p.relative_to(runs)): p.read_bytes() for p in sorted(runs.glob("*/*.json"))}


def timeless(found: dict[str, bytes]) -> dict[str, dict]:
    return {
        name: {k: v for k, v in json.loads(text).items() if k != "seconds"}
        for name, text in found.items()
    }


def test_a_tiny_sweep_stopped_and_gone_on_with(command, tmp_path, monkeypatch, capsys):
    whole, out = [], tmp_path / "out"
    train = sweep_train.Trainer.run

    def stops(self, *args):
        if len(files(out)) == 3:
            raise KeyboardInterrupt
        whole.append(args)
        return train(self, *args)

    monkeypatch.setattr(sweep_train.Trainer, "run", stops)
    assert command(*TWO) == 130
    assert "the same command goes on" in capsys.readouterr().err
    before = files(out)
    assert len(before) == 3
    monkeypatch.setattr(sweep_train.Trainer, "run", train)
    assert command(*TWO) == 0
    after = files(out)
    assert {name: after[name] for name in before} == before  # nothing is done twice
    expected = {
        f"{loss}/{kind}.json"
        for loss in ("arcface", "contrastive")
        for kind in ("trial-0", "trial-1", "seed-1", "seed-2")
    }
    assert after.keys() == expected
    printed = capsys.readouterr().out
    assert "[8/8]" in printed
    assert "min left" in printed
    assert "raw pixels" in printed
    result = json.loads((out / "results.json").read_text())
    assert [row["seeds"] for row in result["losses"]] == [2, 2]
    table = (out / "table.md").read_text()
    assert table.count("±") == 4 + 1
    assert "| raw pixels |" in table
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    # Uninterrupted, in another folder, it finds the same numbers.
    assert command(*TWO, "--out", str(tmp_path / "again")) == 0
    assert timeless(files(tmp_path / "again")) == timeless(after)
    # More seeds and losses go on; what all runs share may not change.
    assert command(*TWO, "--seeds", "3") == 0
    assert len(files(out)) == 10
    capsys.readouterr()
    for flag, value in (("steps", "3"), ("trials", "3"), ("dim", "5"), ("data", "mnist")):
        assert command(*TWO, f"--{flag}", value) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"{sweep.PROG}: {flag}: got {value}, expected ")
        assert "another --out starts anew" in line
        assert line.count("\n") == 1


def test_a_changed_contender_is_refused(command, monkeypatch, capsys):
    base = (*TWO, "--trials", "1", "--seeds", "1", "--losses", "contrastive")
    assert command(*base) == 0
    other = Contender("contrastive", {"learning_rate": Number(0.1, 0.01, 1.0)})
    monkeypatch.setitem(CONTENDERS, "contrastive", other)
    assert command(*base) == 2
    assert capsys.readouterr().err.startswith(f"{sweep.PROG}: contrastive: got {{'loss':")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--losses", "tripplet"), "losses: got 'tripplet', expected some of contrastive, "),
        (("--trials", "0"), "trials: got 0, expected 1 or more"),
        (("--seeds", "0"), "seeds: got 0, expected 1 or more"),
        (("--workers", "0"), "workers: got 0, expected 1 or more"),
        (("--classes-per-batch", "1"), "classes_per_batch: got 1, expected 2 or more"),
        (("--steps", "0"), "steps: got 0, expected 1 or more"),
        (("--data", "no_such_set"), "data: "),
    ],
)
def test_wrong_flags_are_one_line(argv, message, tmp_path, capsys):
    assert sweep.main(["--out", str(tmp_path / "out"), *argv]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"{sweep.PROG}: {message}")
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


KILLED = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import conftest, test_sweep
from experiments import sweep, sweep_train
sweep_train.load = test_sweep.toy
sweep.main({argv!r})
"""


def test_a_killed_process_loses_only_the_run_under_way(command, tmp_path):
    out, tests = tmp_path / "out", pathlib.Path(__file__).parent
    argv = [*TINY.split(), "--out", str(out), *TWO, "--trials", "400"]
    code = KILLED.format(tests=str(tests), root=str(tests.parent), argv=argv)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while not files(out) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
    kept = files(out)
    assert 0 < len(kept) < 400
    plan = sweep.parse([*argv, "--trials", str(len(kept) + 1)], "")
    store = sweep_store.Store(out)
    with store.claim("contrastive-search") as ours:  # the dead process holds nothing
        assert ours
    done = sweep_table.trials(store, "contrastive")
    assert len(done) == len(kept)  # every file is whole
    plan = plan._replace(losses=["contrastive"], seeds=1)
    sweep_work.Worker(plan, store).work()
    after = files(out)
    assert {name: after[name] for name in kept} == kept
    assert len(after) == len(kept) + 2


def test_a_helper_ends_after_the_training_in_which_its_parent_goes(command, tmp_path, monkeypatch):
    parent, train, gone = os.getppid(), sweep_train.Trainer.run, []

    def goes(self, *args):
        gone.append(True)
        return train(self, *args)

    monkeypatch.setattr(sweep_train.Trainer, "run", goes)
    monkeypatch.setattr(os, "getppid", lambda: parent if not gone else 1)
    assert command(*TWO, "--trials", "5", "--parent", str(parent)) == 0
    assert list(files(tmp_path / "out")) == ["contrastive/trial-0.json"]


def test_claims_are_given_to_one_and_given_back(tmp_path):
    store = sweep_store.Store(tmp_path)
    store.open({"steps": 1}, {})
    with store.claim("arcface-search") as first, store.claim("arcface-search") as second:
        assert (first, second) == (True, False)
        with store.claim("arcface-seed-1") as other:
            assert other
    with store.claim("arcface-search") as third:
        assert third
    with contextlib.suppress(RuntimeError), store.claim("x"):
        raise RuntimeError
    with store.claim("x") as again:
        assert again


def test_a_training_is_that_of_the_train_command(monkeypatch, quick_compile):
    contender = CONTENDERS["arcface"]
    numbers = {"learning_rate": 2e-3, "table_multiplier": 5.0, "margin": 0.1, "scale": 20.0}
    settings = Settings(
        loss="arcface",
        loss_options={"margin": 0.1, "scale": 20.0},
        learning_rate=2e-3,
        table_multiplier=5.0,
        steps=3,
        dim=4,
        widths=(2, 3),
        seed=3,
    )
    data = toy(settings)
    data = data._replace(sampler=ClassBalanced(data.train.labels, 3, 2, seed=3))
    parts = run.build(settings, data)
    state = parts.fresh
    with contextlib.closing(parts.batches(0)) as ready:
        for batch in ready:
            state, measured = parts.step(state, batch)
    trainer = sweep_train.Trainer(settings, contender, data)
    ours, losses = trainer.train(numbers, 3)
    assert losses[-1] == pytest.approx(float(measured["loss"]), rel=1e-5)
    for mine, theirs in zip(jax.tree.leaves(ours.params), jax.tree.leaves(state.params)):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=1e-6)
    # Other numbers, the same program.
    trainer.train({**numbers, "margin": 0.4, "learning_rate": 1e-3}, 4)
    assert trainer.step._cache_size() == 1


def test_every_contender_trains_at_its_defaults(quick_compile):
    assert len(CONTENDERS) >= 12
    settings = Settings(steps=1, dim=4, widths=(2,), warp=0.0)
    data = toy(settings)
    data = data._replace(sampler=ClassBalanced(data.train.labels, 3, 2))
    for name, contender in CONTENDERS.items():
        assert 2 <= len(contender.numbers) <= 4
        for number in contender.numbers.values():
            assert number.low <= number.default <= number.high
        trainer = sweep_train.Trainer(settings, contender, data)
        traced = {key: jax.numpy.float32(value) for key, value in contender.defaults().items()}
        batch = data.batch(0)
        state = jax.eval_shape(trainer.start, jax.random.key(0))
        _, measured = jax.eval_shape(trainer.step, state, batch, traced)
        assert measured["loss"].shape == (), name


def test_a_loss_that_is_no_number_scores_nothing(quick_compile):
    settings = Settings(steps=3, dim=4, widths=(2,), warp=0.0)
    data = toy(settings)
    data = data._replace(sampler=ClassBalanced(data.train.labels, 3, 2))
    trainer = sweep_train.Trainer(settings, CONTENDERS["contrastive"], data)
    found = trainer.run({"learning_rate": 1e-3, "negative_margin": float("nan")}, 1, data.tests)
    assert found.diverged == 3
    assert set(found.scores["test"].values()) == {0.0}


def test_a_seed_that_diverged_is_told_wherever_its_zero_counts(
    command, tmp_path, monkeypatch, capsys
):
    def scored(self, numbers, seed, tests):
        diverged = 2 if seed == 2 and len(numbers) == 2 else None  # contrastive has two numbers
        value = 0.0 if diverged else 0.7
        scores = {name: {"map_at_r": value, "recall_at_1": value} for name in tests}
        return sweep_train.Trained(scores, diverged, 0.1)

    monkeypatch.setattr(sweep_train.Trainer, "run", scored)
    assert command(*TWO, "--trials", "1") == 0
    told = "contrastive: 1 of 2 seeds diverged, counted as 0."
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| contrastive (1 of 2 diverged) | 0.350 ± " in table
    assert "| arcface | 0.700 ± " in table
    assert table.splitlines()[-1].endswith(f"(Student's t). {told}")
    assert "contrastive (1 of 2 diverged)" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["loss"]: row["diverged"] for row in result["losses"]} == {
        "arcface": 0,
        "contrastive": 1,
    }


def test_a_third_of_the_classes_stands_in_for_missing_validation(monkeypatch):
    monkeypatch.setattr(sweep_train, "load", lambda s: toy(s, validation=False))
    found = sweep_train.sets(Settings(classes_per_batch=5, per_class=3), test_images=8)
    assert np.unique(found.search.train.labels).tolist() == [0, 1, 2, 3]
    assert np.unique(found.validation.labels).tolist() == [4, 5]
    assert found.search.num_classes == 4
    assert (found.search.sampler.classes_per_batch, found.search.sampler.per_class) == (
        4,
        3,
    )  # 15 // 4
    assert np.unique(found.final.train.labels).tolist() == [0, 1, 2, 3, 4, 5]
    assert (found.final.sampler.classes_per_batch, found.final.sampler.per_class) == (5, 3)
    assert np.bincount(found.tests["test"].labels).tolist() == [2, 2, 2, 2]


def test_the_search_is_a_function_of_its_seed_and_stays_in_its_bounds():
    numbers = {"a": Number(0.5, 0.0, 1.0), "b": Number(1e-2, 1e-3, 1e-1, True)}

    def value(tried):
        return -((tried["a"] - 0.3) ** 2) - (np.log10(tried["b"]) + 1.5) ** 2

    def search(seed):
        done = []
        for _ in range(8):
            tried = sweep_search.propose(numbers, done, seed)
            done.append((tried, value(tried)))
        return done

    first, again, other = search(0), search(0), search(1)
    assert first == again
    assert first[0] == other[0] == ({"a": 0.5, "b": 1e-2}, value({"a": 0.5, "b": 1e-2}))
    assert first[1:] != other[1:]
    for tried, _ in first + other:
        assert 0.0 <= tried["a"] <= 1.0
        assert 1e-3 <= tried["b"] <= 1e-1
    assert sweep_search.best(first) == int(np.argmax([v for _, v in first]))


def test_intervals_are_those_of_scipy():
    values = [0.71, 0.74, 0.69, 0.80]
    found = intervals.interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean - found.half == pytest.approx(low)
    assert found.mean + found.half == pytest.approx(high)
    assert str(intervals.interval([0.5])) == "0.500"
    assert intervals.interval([0.5, 0.5]).half == 0.0
