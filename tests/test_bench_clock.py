"""The benchmark's clock, on scripted samples: order, what is dropped, when it gives up."""

from __future__ import annotations

import pytest

from experiments import bench_clock
from experiments.bench_clock import Effort, Timed, Times, alternate

TINY = Effort(samples=2, enough=1, seconds=0.01, patience=0.0, patience_in_all=0.0)


class Script:
    """Samples as a test tells them: seconds of each side, and when the machine is quiet."""

    def __init__(self, monkeypatch, quiet):
        self.order, self._quiet = [], iter(quiet)
        monkeypatch.setattr(bench_clock, "_sample", self.sample)
        monkeypatch.setattr(bench_clock.Patience, "wait", lambda patience: None)

    def sample(self, side):
        self.order.append(side.call())
        return float(len(self.order)), next(self._quiet)

    def run(self, effort: Effort, names="ab"):
        return alternate({n: Timed(lambda n=n: n, once=2.0) for n in names}, effort)


def test_sides_alternate_in_an_order_that_turns_round(monkeypatch):
    script = Script(monkeypatch, [True] * 6)
    times = script.run(Effort(samples=3, enough=3, seconds=9.0))
    assert script.order == list("abbaab")
    assert times["a"] == Times([1.0, 4.0, 5.0])
    assert times["b"] == Times([2.0, 3.0, 6.0])


def test_disturbed_samples_are_dropped_and_counted(monkeypatch):
    script = Script(monkeypatch, [True, False, True, True, True])
    times = script.run(Effort(samples=2, enough=2, seconds=9.0))
    assert times["a"] == Times([1.0, 4.0])
    assert times["b"] == Times([3.0, 5.0], dropped=1)


def test_without_patience_samples_count_as_they_come(monkeypatch):
    script = Script(monkeypatch, [True, *[False] * 9])
    effort = Effort(samples=5, enough=2, seconds=99.0, patience=0.0)
    times = script.run(effort)
    assert times["a"] == Times([1.0, 4.0], busy=True)
    assert times["b"] == Times([2.0, 3.0], busy=True)


def test_the_patience_of_a_run_is_that_of_its_rows(monkeypatch):
    effort = Effort(patience=5.0, patience_in_all=7.0)
    for left in (5.0, 4.0, 1.0):
        patience = bench_clock.Patience(effort)
        assert patience.left == left
        patience.spend(3.0)
    assert patience.left == -2.0
    assert effort.waiting(90.0) == Effort(patience=9.0, patience_in_all=90.0)
    assert effort.waiting(None) is not effort


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.1, (7, 3)), (0.3, (5, 3)), (2.0, (3, 3)), (3.0, (1, 1))]
)
def test_long_samples_are_fewer(seconds, expected):
    assert Effort(samples=7, enough=3, seconds=1.5, long=2.5).wanted(seconds) == expected


def test_others_are_what_this_process_has_not_used(monkeypatch):
    now = {"wall": 10.0, "own": 3.0, "machine": 100.0}
    monkeypatch.setattr(bench_clock.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(bench_clock.time, "process_time", lambda: now["own"])
    monkeypatch.setattr(bench_clock, "machine_seconds", lambda: now["machine"])
    watch = bench_clock.Watch()
    now.update(wall=12.0, own=4.5, machine=101.5)
    assert watch.others() == 0.0
    assert watch.quiet()
    now.update(machine=102.5)
    assert watch.others() == 0.5
    assert not watch.quiet()
    now.update(machine=None)
    assert watch.quiet()  # nobody can tell


def test_a_sample_is_the_median_call_of_a_batch():
    calls = []
    times = alternate({"a": Timed(lambda: calls.append(1))}, TINY)["a"]
    assert len(calls) >= bench_clock._MOST_CALLS
    assert all(0 <= seconds < 1 for seconds in times.samples)


def test_the_spread_is_that_of_the_quartiles():
    assert Times([5.0, 1.0, 2.0, 3.0, 4.0]).median == 3.0
    assert Times([5.0, 1.0, 2.0, 3.0, 4.0]).spread == (2.0, 4.0)
    assert Times([7.0]).spread == (7.0, 7.0)
