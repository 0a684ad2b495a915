"""The folder of a run: whose it is, and what is in it after a run was stopped anywhere."""

from __future__ import annotations

import pytest

from experiments import best, files, log, run
from experiments.settings import Settings


def asked(tmp_path, name=""):
    return Settings(run_dir=str(tmp_path), name=name)


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    first, held = files.claim(asked(tmp_path), False)
    second, _ = files.claim(asked(tmp_path), False)
    assert (first.name, second.name) == ("hangul-arcface-0", "hangul-arcface-0-2")
    del held  # a run that was stopped before it wrote anything
    assert files.claim(asked(tmp_path), False)[0] == first
    named, held = files.claim(asked(tmp_path, "mine"), False)
    (named / "config.json").write_text("{}")
    for resume, words in ((True, "another process is writing to"), (False, "holds a run")):
        with pytest.raises(ValueError, match=f"name: got .*mine, which {words}"):
            files.claim(asked(tmp_path, "mine"), resume)
    held.close()
    assert [path.name for path in named.iterdir()] == ["config.json"]
    assert files.claim(asked(tmp_path, "mine"), True)[0] == named


def test_a_named_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"name: got .*mine, which holds other files"):
        files.choose_folder(asked(tmp_path, "mine"), False)
    assert files.choose_folder(asked(tmp_path, "other"), False) == tmp_path / "other"


def test_a_run_that_is_stopped_as_it_goes_on_keeps_its_log(tmp_path):
    with log.Log(tmp_path, 1) as rows:
        for step in (20, 40, 60):
            rows.write(step, {"loss": 1 / step, "validation_map_at_r": step / 100})
    going_on = log.Log(tmp_path, 41)
    assert [row["step"] for row in log.read_log(tmp_path)] == [20, 40]  # before any row is written
    with best.Best(tmp_path, going_on.kept) as keeper:
        assert keeper._score == 0.4
    with going_on:
        going_on.write(60, {"loss": 0.5})
    assert [row["step"] for row in log.read_log(tmp_path)] == [20, 40, 60]
    text = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(text[: text.rindex(",0.5")])  # killed in the middle of a row
    assert [row["step"] for row in log.read_log(tmp_path)] == [20, 40]


def test_a_checkpoint_that_was_being_written_is_none(tmp_path):
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not run._has_state(tmp_path)
    (tmp_path / "checkpoints" / "2").mkdir()
    assert run._has_state(tmp_path)
