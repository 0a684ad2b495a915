"""The benchmark: its table, rows and report. Nothing here asserts how fast anything is."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from experiments import (
    bench,
    bench_clock,
    bench_figure,
    bench_first,
    bench_machine,
    bench_run,
    bench_show,
)
from experiments import bench_sides as sides
from experiments.bench_clock import Effort, Times
from experiments.bench_run import Result
from experiments.bench_sides import DENSE, FAISS, OURS, PEER
from experiments.bench_table import ROWS, Peer, Row, Size, chosen
from jdml import losses, metrics, retrieval

TINY = Effort(samples=2, enough=1, seconds=0.01, patience=0.0, patience_in_all=0.0)
CONTRASTIVE = Row(
    "contrastive", losses.contrastive, None, (Size(6, per_class=2), Size(12, per_class=2)),
    drawn=True,
)  # fmt: skip


def small(row: Row) -> Size:
    """A size that every machine can do."""
    classes = 5 if row.kind == "table" else 0
    return Size(12, per_class=3, dim=8, classes=classes)


@pytest.fixture
def alone(monkeypatch):
    """Without peers, installed or not, and without what takes seconds."""
    monkeypatch.setattr(sides, "load", lambda name: None)
    monkeypatch.setattr(bench_machine, "product_rates", lambda effort: {"2 x 2 x 2": 4e9})
    monkeypatch.setattr(bench_machine, "import_seconds", lambda: (0.5, 0.125))
    monkeypatch.setattr(bench_clock, "_BATCH", 1e-4)


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row_says_what_can_be_called(row: Row):
    data = sides.make_data(row, small(row))
    if row.kind in ("retrieval", "neighbours"):
        assert row.loss in (metrics.retrieval, retrieval.neighbours)
        return
    assert getattr(losses, row.loss.__name__) is row.loss
    sides.program(row, data, None)  # traces the loss with its options


def test_rows_have_names_of_their_own_and_growing_sizes():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        scales = [size.scale for size in row.sizes]
        if row.name != "ArcFace, 1M classes":  # of two widths
            assert scales == sorted(set(scales))
        assert row.peer is not None or not any(size.target for size in row.sizes)


def test_the_quick_set_is_part_of_the_full_one():
    quick, targets, full = (list(chosen(ROWS, [], which)) for which in ("quick", "targets", "full"))
    assert 0 < len(quick) < len(targets) < len(full)
    assert all(pair in full for pair in targets)
    assert all(pair in targets for pair in quick)
    assert all(pair in targets for pair in full if pair[1].target)
    assert max(size.rows for row, size in quick if row.kind == "pairs") <= 4096


def test_only_finds_functions_and_rows():
    names = {row.name for row, _ in chosen(ROWS, ["triplet", " SupCon"], "full")}
    assert {"triplet, all", "triplet, batch hard", "SupCon"} <= names
    assert not any("contrastive" in name for name in names)
    assert {row.name for row, _ in chosen(ROWS, ["batch hard"], "full")} == {"triplet, batch hard"}
    with pytest.raises(ValueError, match=r"^only: got 'tripel', expected some of triplet"):
        list(chosen(ROWS, ["tripel"], "quick"))


def test_only_without_a_quick_size_takes_the_smallest():
    assert [size.rows for _, size in chosen(ROWS, ["neighbours"], "quick")] == [20_000]


def test_work_counts_the_products_that_nobody_can_avoid():
    assert CONTRASTIVE.flops(Size(10, dim=3)) == 6 * 10 * 10 * 3
    table = dataclasses.replace(CONTRASTIVE, kind="table")
    assert table.flops(Size(10, dim=3, classes=7)) == 6 * 10 * 7 * 3
    search = dataclasses.replace(CONTRASTIVE, kind="retrieval")
    assert search.flops(Size(10, dim=3)) == 2 * 10 * 10 * 3


CALLS = bench_first.every_loss(rows=16, dim=6)


@pytest.mark.parametrize("name", losses.__all__)
def test_the_first_call_of_every_loss_has_inputs(name: str):
    loss, inputs, options = CALLS[name]
    assert jax.eval_shape(lambda: loss(*inputs, **options)).shape == ()


def test_a_first_call_takes_time(monkeypatch):
    monkeypatch.setattr(bench_clock.Watch, "quiet", lambda self: True)
    seconds, quiet = bench_first.first_call(CALLS["center"], TINY)
    assert seconds > 0
    assert quiet


# ---------------------------------------------------------------- rows


def test_a_loss_is_measured(alone):
    size = CONTRASTIVE.sizes[0]
    result = bench_run.measure(CONTRASTIVE, size, dataclasses.replace(TINY))
    data = sides.make_data(CONTRASTIVE, size)
    assert set(result.times) == {OURS}  # one piece is chosen anyway: the same program
    assert result.values[OURS] == pytest.approx(float(losses.contrastive(data.rows, data.labels)))
    assert result.compile > 0
    assert result.memory == result.dense_memory
    assert result.memory.everything > result.memory.temporaries + 2 * data.rows.nbytes
    assert (result.failed, result.notes, result.agrees, result.judged) == (False, [], None, False)


def test_blocks_and_one_piece_are_two_sides(alone):
    def blocks_of_two(rows, labels, *, block_size=None):
        return losses.contrastive(rows, labels, block_size=block_size or 2)

    row = dataclasses.replace(CONTRASTIVE, loss=blocks_of_two)
    result = bench_run.measure(row, row.sizes[1], dataclasses.replace(TINY))
    assert set(result.times) == {OURS, DENSE}
    assert result.values[OURS] == pytest.approx(result.values[DENSE], rel=1e-5)
    assert result.memory != result.dense_memory


def test_every_gradient_of_a_table_loss_is_asked_for(alone):
    row = Row("arcface", losses.arcface, None, (), kind="table")
    data = sides.make_data(row, small(row))
    _, (rows, table) = sides.program(row, data, None).lowered.out_info
    assert (rows.shape, table.shape) == ((12, 8), (5, 8))


def test_retrieval_is_measured(alone):
    row = Row("retrieval", metrics.retrieval, Peer("AccuracyCalculator"), (), kind="retrieval")
    result = bench_run.measure(row, small(row), dataclasses.replace(TINY))
    data = sides.make_data(row, small(row))
    assert result.values[OURS] == metrics.retrieval(data.rows, data.labels)["map_at_r"]
    assert result.memory is None


def test_what_fails_is_told_and_does_not_raise(alone):
    row = dataclasses.replace(CONTRASTIVE, options={"negative_margin": np.ones((2, 3))})
    result = bench_run.measure(row, row.sizes[0], dataclasses.replace(TINY))
    assert result.failed
    assert result.notes[0].startswith("jdml failed: ")


def test_a_peer_that_fails_is_told(monkeypatch):
    def broken(faiss, size, data):
        raise RuntimeError("no memory\nmore")

    monkeypatch.setattr(sides, "load", lambda name: object() if name == "faiss" else None)
    monkeypatch.setattr(sides, "_faiss_search", broken)
    row = Row("neighbours", retrieval.neighbours, None, (), kind="neighbours")
    found = sides.peers(row, small(row), sides.make_data(row, small(row)))
    assert found == ({}, ["faiss failed: no memory"])


def made(seconds: float, *, theirs: float | None = None, rows: int = 100, **size) -> Result:
    """A result of these times."""
    result = Result(CONTRASTIVE, Size(rows, **size), {OURS: Times([seconds])})
    if theirs is not None:
        result.times[PEER] = Times([theirs])
    return result


def test_targets_are_ratios():
    result = made(2.0, theirs=5.0, target=3.0)
    assert result.ratios == {PEER: 2.5}
    assert result.short == [f"2.50 times as fast as {PEER}, not 3"]
    assert made(2.0, theirs=6.0, target=3.0).short == []
    assert made(2.0, target=3.0).short == []
    assert not made(2.0, target=3.0).judged
    assert result.flops_a_second() == CONTRASTIVE.flops(result.size) / 2


def test_a_share_of_the_rate_of_products_can_be_a_target():
    result = made(1.0, least_share=0.8)
    rate = result.flops_a_second()
    assert bench_show._short(result, rate / 0.9) == []
    assert bench_show._short(result, rate / 0.5) == ["50% of the rate of products, not 80%"]


def test_memory_has_a_bound():
    result = made(1.0, most_bytes=2.0**30)
    result.memory = sides.Memory(0, 2**29)
    assert result.judged
    assert result.short == []
    result.memory = sides.Memory(0, 3 * 2**29)
    assert result.short == ["1.50 GiB in all, not 1.00"]


def test_values_of_both_sides_agree_or_the_row_says_why_not():
    result = made(1.0)
    assert result.agrees is None
    result.values = {OURS: 1.0, PEER: 1.0001}
    assert result.agrees
    result.values[PEER] = 1.1
    assert result.agrees is False
    peer = Peer("ContrastiveLoss", differs="another loss")
    assert (
        dataclasses.replace(result, row=dataclasses.replace(CONTRASTIVE, peer=peer)).agrees is None
    )


def test_growth_is_by_doubling():
    quarter = made(1.0, rows=100), made(16.0, rows=400), made(32.0, rows=800)
    assert bench_run.growth(quarter) == {"contrastive": pytest.approx(4.0)}
    assert bench_run.growth([made(1.0), made(9.0, rows=200, per_class=64)]) == {}


def test_resident_memory_is_that_of_a_peak():
    with bench_machine.ResidentPeak() as peak:
        np.ones(2**23).sum()  # 64 MiB
    assert peak.grown is None or peak.grown >= 2**24


# ---------------------------------------------------------------- the report


@pytest.fixture
def report():
    found = [
        made(1.0, theirs=4.0, rows=64, target=3.0),
        made(8.0, theirs=9.0, rows=128, target=3.0),
    ]
    search = Row("search", metrics.retrieval, None, (), kind="retrieval")
    found.append(Result(search, Size(50, faiss_target=2.0), {OURS: Times([1.0])}))
    found[-1].times[FAISS] = Times([3.0, 5.0], dropped=2)
    return bench_show.Report(
        found, rates={"small": 1e9, "large": 2e9}, first_calls={"a": (0.5, True), "b": (3.0, False)}
    )


def test_json_holds_plain_numbers(report):
    text = json.dumps(bench_show.as_json(report), allow_nan=False)
    found = json.loads(text)
    assert [entry["times_as_fast"] for entry in found["results"]] == [
        {PEER: 4.0}, {PEER: 1.125}, {FAISS: 4.0},
    ]  # fmt: skip
    assert found["growth_by_doubling"] == {"contrastive": 8.0}
    assert found["first_calls_disturbed"] == ["b"]
    assert found["results"][2]["times"][FAISS]["dropped"] == 2
    share = found["results"][0]["share_of_product_rate"]
    assert share == pytest.approx(6 * 64 * 64 * 128 / 2e9)


def test_the_terminal_tells_what_falls_short(report, capsys):
    bench_show.show(report)
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "1,000 4,000 4x 3x",
        "faiss 4,000 ±12% 4x 2x",
        "Targets reached in 2 of 3 rows that have one.",
        "Short of its target: contrastive, 128, 4 a class: 1.12 times as fast",
        "3 times pytorch-metric-learning is 3,000 ms; the products take 6.29 ms",
        "Tried: each pair once",
        "Grows fast: contrastive: 8.00 times when its size doubles, not 4.5",
        "Slow first call: b: 3.00 s*",
        "Best matrix product: 2 GFLOP/s, large.",
    ):
        assert text in out


def test_a_page_gets_a_line_for_every_comparison(report):
    report.results[0].times[PEER].busy = True
    report.results[0].memory = sides.Memory(3 * 2**19, 2**30)
    assert bench_show.markdown(report).splitlines()[2:] == [
        "| contrastive | 64, 4 a class | 1,000* | 4,000 | 4 | 1.5 |",
        "| contrastive | 128, 4 a class | 8,000 | 9,000 | 1.12 |  |",
        "| search | 50, 4 a class | 1,000 | 4,000 (faiss) | 4 |  |",
    ]


def test_disturbed_rows_are_not_judged(report, capsys):
    for result in report.results:
        result.times[OURS].busy = True
    bench_show.show(report)
    out = " ".join(capsys.readouterr().out.split())
    assert "Targets reached in 0 of 0 rows that have one; 3 more were disturbed" in out
    assert "Grows fast" not in out


def test_the_figure_has_a_panel_for_every_line(report, tmp_path):
    assert list(bench_figure.panels(report.results)) == ["contrastive"]
    assert bench_figure.draw(tmp_path / "times.png", report.results, "a machine")
    assert (tmp_path / "times.png").read_bytes()[1:4] == b"PNG"
    assert not bench_figure.draw(tmp_path / "none.png", report.results[:1], "a machine")
    assert [path.name for path in tmp_path.iterdir()] == ["times.png"]


# ---------------------------------------------------------------- the command


def test_the_command_writes_its_files(alone, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("experiments.bench_table.ROWS", (CONTRASTIVE,))
    code = bench.main(
        ["--full", "--only", "contrastive", "--out", str(tmp_path), "--patience", "0"]
    )
    assert code == 0
    out = capsys.readouterr().out
    assert "not installed, so not compared: torch, pytorch-metric-learning, faiss-cpu" in out
    assert "2/2" in out
    found = json.loads((tmp_path / "bench_times.json").read_text())
    assert found["complete"]
    assert [entry["size"]["rows"] for entry in found["results"]] == [6, 12]
    assert math.isfinite(found["results"][0]["times"][OURS]["median"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bench_times.json", "bench_times.md", "bench_times.png"}


def test_a_stopped_run_keeps_what_it_has(alone, monkeypatch, tmp_path, capsys):
    def stop(row, size, effort):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_run, "measure", stop)
    assert bench.main(["--out", str(tmp_path)]) == 130
    assert json.loads((tmp_path / "bench_times.json").read_text())["complete"] is False
    assert "stopped" in capsys.readouterr().err


def test_a_wrong_name_is_one_line(capsys, tmp_path):
    assert bench.main(["--only", "tripel", "--out", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("python -m experiments.bench: only: got 'tripel', expected some of ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("row", [row for row in ROWS if row.peer is not None], ids=str)
def test_peers_give_our_value(row: Row):
    pytest.importorskip("torch")
    pytest.importorskip("pytorch_metric_learning")
    size = small(row)
    result = bench_run.measure(row, size, dataclasses.replace(TINY))
    assert PEER in result.times
    assert result.agrees is not False
