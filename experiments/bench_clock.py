"""Time on a shared machine: samples count only while other processes use little CPU.

Two sides are compared by alternating them, in an order that turns round each time. A sample is
the median call of a short batch, dropped where other processes used the cores meanwhile. Waiting
for a quiet machine is bounded: then samples count as they come, and are marked as busy.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_BATCH = 0.1  # seconds of a batch: the kernel counts CPU time in steps of 0.01
_MOST_CALLS = 300  # of a batch
_OTHERS = max(0.15, 0.05 * (os.cpu_count() or 1))  # cores that others may use during a sample
_TRUSTED = 1.0  # seconds of a first call that say how long the next one takes
_REST = 0.01  # seconds between sides: threads of the other one spin on for a little


def cores() -> int:
    """Cores that this process may use; both sides get as many threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------- what others do meanwhile


def machine_seconds() -> float | None:
    """CPU seconds that all processes of the machine have used, or None where nobody can tell."""
    stat = pathlib.Path("/proc/stat")
    if stat.exists():
        numbers = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _idle, _iowait, *more = numbers
        # Interrupts and stolen time are others' doing too; guests are in `user` already.
        return (user + nice + system + sum(more[:3])) / os.sysconf("SC_CLK_TCK")
    try:
        used = importlib.import_module("psutil").cpu_times()
    except ImportError:
        return None
    return sum(used) - used.idle


class Watch:
    """Since its making: how many cores other processes have used."""

    def __init__(self) -> None:
        self._wall, self._own = time.perf_counter(), time.process_time()
        self._machine = machine_seconds()

    def others(self) -> float:
        """Cores used by others on average, 0 where nobody can tell."""
        now, machine = time.perf_counter(), machine_seconds()
        if machine is None or self._machine is None:
            return 0.0
        own = time.process_time() - self._own
        return max(0.0, machine - self._machine - own) / max(now - self._wall, 1e-9)

    def quiet(self) -> bool:
        """Whether others used little."""
        return self.others() <= _OTHERS


@dataclass
class Effort:
    """How many samples to take, and how long to wait for good ones.

    Attributes:
      samples: of each side, if there is time.
      enough: of each side, whatever the time, unless calls are long.
      seconds: for the samples of a side.
      long: seconds of a call of which one sample has to do.
      patience: seconds that a row may lose to other processes.
      patience_in_all: the same for the whole run; counted down.
    """

    samples: int = 7
    enough: int = 3
    seconds: float = 1.5
    long: float = 2.5
    patience: float = 6.0
    patience_in_all: float = 60.0

    def wanted(self, seconds: float) -> tuple[int, int]:
        """Samples to take and samples that will do, when one takes so many seconds."""
        enough = 1 if seconds > self.long else self.enough
        return max(enough, min(self.samples, int(self.seconds / seconds))), enough

    def waiting(self, seconds: float | None) -> Effort:
        """A fresh one with more, or less, patience in all; a tenth of it for a row."""
        if seconds is None:
            return dataclasses.replace(self)
        return dataclasses.replace(self, patience=seconds / 10, patience_in_all=seconds)


QUICK = Effort()
FULL = Effort(samples=15, enough=5, seconds=6.0, long=6.0, patience=60.0, patience_in_all=1800.0)


class Patience:
    """What a row still has of it."""

    def __init__(self, effort: Effort) -> None:
        self._effort, self._left = effort, effort.patience

    @property
    def left(self) -> float:
        """Seconds."""
        return min(self._left, self._effort.patience_in_all)

    def spend(self, seconds: float) -> None:
        """Of the row's and of the run's."""
        self._left -= seconds
        self._effort.patience_in_all -= seconds

    def wait(self) -> None:
        """Until other processes are quiet, or patience is over."""
        while self.left > 0:
            watch = Watch()
            time.sleep(_BATCH)
            if watch.quiet():
                return
            self.spend(_BATCH)


# ---------------------------------------------------------------- samples


@dataclass
class Times:
    """Seconds a call of one side.

    Attributes:
      samples: those that count.
      dropped: how many did not, since other processes were busy.
      busy: the machine never was quiet for long enough: all samples count.
    """

    samples: list[float] = field(default_factory=list)
    dropped: int = 0
    busy: bool = False

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile."""
        if len(self.samples) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high


class Timed(NamedTuple):
    """What can be timed."""

    call: Callable[[], Any]  # returns when the work is done
    once: float = 0.0  # seconds that a call took; 0 where that is not known


class _Side(NamedTuple):
    call: Callable[[], Any]
    calls: int  # of a batch
    warm: bool  # a call that does not count goes before a batch
    wanted: int  # samples
    enough: int
    quiet: list[float]
    noisy: list[float]

    @property
    def done(self) -> bool:
        return len(self.quiet) >= self.wanted

    @property
    def taken(self) -> int:
        return len(self.quiet) + len(self.noisy)


def alternate(sides: Mapping[str, Timed], effort: Effort) -> dict[str, Times]:
    """Times each side, in turn.

    Args:
      sides: what to time, by name; each was called before.
      effort: how many samples to take.

    Returns:
      The times of each side, of the same name.
    """
    running = {name: _prepare(side, effort) for name, side in sides.items()}
    patience, forwards, was_quiet = Patience(effort), True, True
    while not all(side.done for side in running.values()):
        if patience.left <= 0 and all(side.taken >= side.enough for side in running.values()):
            break
        for side in list(running.values())[:: 1 if forwards else -1]:
            if side.done or (patience.left <= 0 and side.taken >= side.enough):
                continue
            if not was_quiet:
                patience.wait()
            began = time.perf_counter()
            seconds, was_quiet = _sample(side)
            (side.quiet if was_quiet else side.noisy).append(seconds)
            if not was_quiet:
                patience.spend(time.perf_counter() - began)
        forwards = not forwards
    # Samples of a quiet machine on one side and of a busy one on the other would not compare.
    busy = any(len(side.quiet) < side.enough for side in running.values())
    if busy:
        return {n: Times(side.quiet + side.noisy, 0, True) for n, side in running.items()}
    return {n: Times(side.quiet, len(side.noisy)) for n, side in running.items()}


def _prepare(side: Timed, effort: Effort) -> _Side:
    """How a side is sampled, from the time of one call."""
    once = side.once
    if once < _TRUSTED:  # the first call may have loaded something
        began = time.perf_counter()
        side.call()
        once = max(time.perf_counter() - began, 1e-6)
    calls = max(1, min(_MOST_CALLS, math.ceil(_BATCH / once)))
    wanted, enough = effort.wanted(once * calls)
    return _Side(side.call, calls, once < _BATCH, wanted, enough, [], [])


def _sample(side: _Side) -> tuple[float, bool]:
    """The median call of one batch, and whether the machine was quiet meanwhile."""
    gc.collect()  # not in the middle of a batch
    time.sleep(_REST)
    if side.warm:
        side.call()
    watch, seconds = Watch(), []
    for _ in range(side.calls):
        began = time.perf_counter()
        side.call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), watch.quiet()
