"""One row of the benchmark at one size, measured."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments import bench_sides
from experiments.bench_clock import Effort, Timed, Times, alternate
from experiments.bench_sides import FAISS, OURS, PEER
from experiments.bench_table import Row, Size

_AGREE = 2e-3  # relative difference of two values that are the same loss in float32


@dataclass
class Result:
    """What was measured.

    Attributes:
      row, size: what was asked for.
      times: of each side.
      values: the loss (MAP@R for retrieval) of each side: that they agree shows that the sides do
        the same work.
      compile: seconds of tracing and compiling.
      compile_quiet: whether other processes used little CPU meanwhile.
      memory, dense_memory: of our compiled programs.
      resident: bytes by which the process grew at most in our first call.
      notes: what went wrong or was left out.
      failed: our side did not run.
    """

    row: Row
    size: Size
    times: dict[str, Times] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    compile: float | None = None
    compile_quiet: bool = True
    memory: bench_sides.Memory | None = None
    dense_memory: bench_sides.Memory | None = None
    resident: int | None = None
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as fast as each peer."""
        if OURS not in self.times:
            return {}
        own = self.times[OURS].median
        return {name: self.times[name].median / own for name in (PEER, FAISS) if name in self.times}

    @property
    def targets(self) -> dict[str, float]:
        """The ratios to reach."""
        both = {PEER: self.size.target, FAISS: self.size.faiss_target}
        return {name: target for name, target in both.items() if target is not None}

    @property
    def short(self) -> list[str]:
        """One line a target that was measured and not reached."""
        lines = []
        for name, target in self.targets.items():
            if name in self.ratios and self.ratios[name] < target:
                lines.append(f"{self.ratios[name]:.2f} times as fast as {name}, not {target:g}")
        if self.memory is not None and self.memory.everything > self.size.most_bytes:
            got, most = self.memory.everything / 2**30, self.size.most_bytes / 2**30
            lines.append(f"{got:.2f} GiB in all, not {most:.2f}")
        return lines

    @property
    def judged(self) -> bool:
        """Whether something was to be reached, and measured."""
        bounded = self.memory is not None and math.isfinite(self.size.most_bytes)
        return bounded or bool(self.targets.keys() & self.ratios.keys())

    @property
    def busy(self) -> bool:
        """Whether other processes disturbed it."""
        return any(times.busy for times in self.times.values())

    @property
    def dropped(self) -> int:
        """Samples that did not count."""
        return sum(times.dropped for times in self.times.values())

    @property
    def agrees(self) -> bool | None:
        """Whether the value is that of the peer; None where there is none, or another loss."""
        named = self.row.peer is None or not self.row.peer.differs
        other = PEER if PEER in self.values else FAISS if self.row.kind == "neighbours" else None
        if other not in self.values or not named or OURS not in self.values:
            return None
        return math.isclose(self.values[OURS], self.values[other], rel_tol=_AGREE, abs_tol=1e-6)

    def flops_a_second(self) -> float | None:
        """Of the unavoidable products, at our median."""
        return self.row.flops(self.size) / self.times[OURS].median if OURS in self.times else None


def measure(row: Row, size: Size, effort: Effort) -> Result:
    """Times all sides of a row at one size.

    What fails is noted in the result, so that one row cannot end a run of many.
    """
    result = Result(row, size)
    try:
        data = bench_sides.make_data(row, size)
        if row.kind in ("retrieval", "neighbours"):
            sides = {OURS: bench_sides.our_retrieval(row, size, data)}
        else:
            sides, result.dense_memory, result.notes = bench_sides.ours(row, size, data)
        if OURS in sides:
            own = sides[OURS]
            result.compile, result.compile_quiet = own.compile, own.compile_quiet
            result.memory, result.resident = own.memory, own.resident
    except (RuntimeError, MemoryError, ValueError, TypeError) as error:
        return Result(row, size, notes=[f"jdml failed: {_line(error)}"], failed=True)
    others, notes = bench_sides.peers(row, size, data)
    sides |= others
    result.notes += notes
    result.values = {name: side.value for name, side in sides.items()}
    if OURS in sides:
        result.times = alternate(
            {n: Timed(side.call, side.once) for n, side in sides.items()}, effort
        )
    if result.agrees is False:
        told = ", ".join(f"{name} {value:.6g}" for name, value in result.values.items())
        result.notes.append(f"values differ: {told}")
    del sides, others, data
    gc.collect()
    return result


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def growth(results: Sequence[Result]) -> dict[str, float]:
    """By what factor the time of a row grows as its size doubles: the worst step of each row.

    Steps to or from a size that other processes disturbed are left out.
    """
    steps: dict[str, float] = {}
    for one, two in itertools.pairwise(results):
        if one.row is not two.row or OURS not in one.times or OURS not in two.times:
            continue
        bigger = two.size.scale / one.size.scale
        same = (one.size.per_class, one.size.dim) == (two.size.per_class, two.size.dim)
        if same and bigger > 1 and not (one.busy or two.busy):
            slower = two.times[OURS].median / one.times[OURS].median
            factor = slower ** (1 / math.log2(bigger))
            steps[one.row.name] = max(steps.get(one.row.name, 0.0), factor)
    return steps
