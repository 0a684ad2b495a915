"""What the benchmark found, as a table in the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from experiments import bench_machine
from experiments.bench_clock import Times
from experiments.bench_run import Result, growth
from experiments.bench_sides import DENSE, FAISS, OURS, PEER, Memory
from experiments.bench_tried import TRIED

_WIDE = 128  # columns; a narrower terminal breaks the lines, which loses nothing
SLOW_FIRST_CALL = 2.0  # seconds; no loss should take longer
SLOW_IMPORT = 0.2  # seconds that `jdml.losses` may add to importing jax
_GROWTH = {"pairs": 4.5, "table": 2.2}  # of time, at most, when the size doubles


@dataclass
class Report:
    """All of a run.

    Attributes:
      results: in the order of the table.
      machine: see `bench_machine.describe`.
      rates: floating-point operations a second of matrix products, by their shape.
      first_calls: of every loss, (seconds, whether the machine was quiet).
      imports: seconds of importing jax, and what `jdml.losses` adds; None where not measured.
      missing: packages that peers need and that are not installed.
      seconds: of the run.
      complete: it was not stopped.
    """

    results: list[Result] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=bench_machine.describe)
    rates: dict[str, float] = field(default_factory=dict)
    first_calls: dict[str, tuple[float, bool]] = field(default_factory=dict)
    imports: tuple[float, float] | None = None
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = False

    @property
    def peak(self) -> float:
        """The machine's best rate of matrix products, in operations a second."""
        return max(self.rates.values(), default=0.0)

    def add_rates(self, rates: Mapping[str, float]) -> None:
        """Rates measured once more: the best of each shape stays."""
        for name, rate in rates.items():
            self.rates[name] = max(rate, self.rates.get(name, 0.0))


# ---------------------------------------------------------------- terminal


def line(result: Result) -> str:
    """A result in one line, as it comes in during the run."""
    told = [f"{name} {_time(times)}" for name, times in result.times.items()]
    told += [f"{ratio:.3g} times as fast as {name}" for name, ratio in result.ratios.items()]
    told += [f"{result.dropped} samples dropped"] if result.dropped else []
    told += ["busy"] if result.busy else []
    return "; ".join(told + result.notes)


def show(report: Report) -> None:
    """The table, and below it what it leaves open."""
    from rich.console import Console

    console = Console(width=max(_WIDE, Console().width))
    console.print(_table(report))
    for text in _below(report):
        console.print(text, highlight=False, markup=False)


def _table(report: Report) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", min_width=18, max_width=24)
    table.add_column("size", no_wrap=True)
    times = ("jdml, ms", "dense", "peer, ms", "ratio", "target", "GEMM")
    for name in (*times, "MiB", "dense", "compile", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for result in report.results:
        title = result.row.name if result.row.name != before else ""
        for cells in _cells(result, report.peak):
            table.add_row(title, *cells, style=_style(result))
            title = ""
        before = result.row.name
    return table


def _cells(result: Result, peak: float) -> list[list[str]]:
    """A line for each peer; what is not about the peer stands in the first one."""
    rate, get = result.flops_a_second(), result.times.get
    left = [str(result.size), _time(get(OURS)), _time(get(DENSE), spread=False)]
    right = [
        f"{100 * rate / peak:.0f}%" if rate is not None and peak else "",
        *(_mebibytes(found) for found in (result.memory, result.dense_memory)),
        "" if result.compile is None else f"{result.compile:.2f}{_star(result.compile_quiet)}",
        "busy" if result.busy else str(result.dropped),
    ]
    lines = []
    for peer in [name for name in (PEER, FAISS) if name in result.times] or [PEER]:
        ratio = f"{_digits(result.ratios[peer])}x" if peer in result.ratios else ""
        target = f"{result.targets[peer]:g}x" if peer in result.targets else ""
        theirs = ("faiss " if peer == FAISS else "") + _time(get(peer))
        lines.append([*left, theirs, ratio, target, *right])
        left, right = [""] * len(left), [""] * len(right)
    return lines


def _style(result: Result) -> str:
    return "red" if result.failed or (result.short and not result.busy) else ""


def _star(quiet: bool) -> str:
    return "" if quiet else "*"


def _mebibytes(memory: Memory | None) -> str:
    return _digits(memory.temporaries / 2**20) if memory else ""


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def _time(times: Times | None, spread: bool = True) -> str:
    """Median in milliseconds, and half the distance of the quartiles."""
    if times is None:
        return ""
    low, high = times.spread
    share = f" ±{50 * (high - low) / times.median:.0f}%" if len(times.samples) > 1 else ""
    return _digits(1e3 * times.median) + (share if spread else "")


def _below(report: Report) -> list[str]:
    """Lines below the table."""
    lines = [
        "jdml, peer: milliseconds of a forward and a backward pass (of one evaluation, for "
        "retrieval), median and half the distance of the quartiles. dense: jdml without blocks, "
        "where that is another program. GEMM: the share reached of the best rate of a matrix "
        "product, counting the products that nobody can avoid. MiB: compiled temporaries. compile: "
        "seconds. lost: samples dropped because other processes used the cores; busy: they hardly "
        "ever paused, so the row says little. *: disturbed."
    ]
    if report.rates:
        best = max(report.rates, key=lambda name: report.rates[name])
        lines.append(f"Best matrix product: {report.peak / 1e9:.0f} GFLOP/s, {best}.")
    if report.imports:
        lines.append("Importing jax: {:.2f} s; jdml.losses adds {:.2f} s.".format(*report.imports))
    if report.first_calls:
        lines.append(_first_calls(report.first_calls))
    return lines + _remarks(report) + [_summary(report)]


def _summary(report: Report) -> str:
    """How many targets were reached, of those that could be judged."""
    asked = [r for r in report.results if r.judged or r.size.least_share is not None]
    judged = [result for result in asked if not result.busy]
    busy = sum(result.busy for result in report.results)
    reached = sum(not _short(result, report.peak) for result in judged)
    end = f"; {busy} more were disturbed by other processes" if busy else ""
    return f"Targets reached in {reached} of {len(judged)} rows that have one{end}."


def _first_calls(calls: Mapping[str, tuple[float, bool]]) -> str:
    slowest = sorted(calls, key=lambda name: -calls[name][0])[:5]
    told = ", ".join(f"{name} {calls[name][0]:.2f}" for name in slowest)
    quiet = sum(quiet for _, quiet in calls.values())
    return (
        f"First calls of {len(calls)} losses ({quiet} on a quiet machine), in seconds; "
        f"slowest: {told}."
    )


def _remarks(report: Report) -> list[str]:
    """What fell short, and notes of single rows."""
    lines = []
    for result in report.results:
        title = f"{result.row.name}, {result.size}"
        lines += [f"{title}: {note}" for note in result.notes]
        busy = " (busy)" if result.busy else ""
        short = _short(result, report.peak)
        lines += [f"Short of its target{busy}: {title}: {text}" for text in short]
        lines += [f"  {text}" for text in _reasons(result, report.peak)] if short else []
    kinds = {result.row.name: result.row.kind for result in report.results}
    for name, factor in growth(report.results).items():
        most = _GROWTH.get(kinds[name], 4.5)
        if factor > most:
            lines.append(
                f"Grows fast: {name}: {factor:.2f} times when its size doubles, not {most}"
            )
    for name, (seconds, quiet) in report.first_calls.items():
        if seconds > SLOW_FIRST_CALL:
            lines.append(f"Slow first call: {name}: {seconds:.2f} s{_star(quiet)}")
    if report.imports and report.imports[1] > SLOW_IMPORT:
        lines.append(f"Slow import: jdml.losses adds {report.imports[1]:.2f} s")
    return lines


def _short(result: Result, peak: float) -> list[str]:
    """One line a target that was measured and not reached, the share of products too."""
    rate, least = result.flops_a_second(), result.size.least_share
    if least is None or rate is None or not peak or rate >= least * peak:
        return result.short
    return [
        *result.short,
        f"{100 * rate / peak:.0f}% of the rate of products, not {100 * least:.0f}%",
    ]


def _reasons(result: Result, peak: float) -> list[str]:
    """Why a row falls short: what a target asks for beside what the machine can do, and tries."""
    lines = []
    work = result.row.flops(result.size)
    for name, target in result.targets.items():
        if peak and name in result.ratios and result.ratios[name] < target:
            asked = _digits(1e3 * result.times[name].median / target)
            products = _digits(1e3 * work / peak)
            lines.append(f"{target:g} times {name} is {asked} ms; the products take {products} ms")
    tried = TRIED.get(result.row.name)
    return lines + ([f"Tried: {tried}."] if tried else [])


# ---------------------------------------------------------------- files


def markdown(report: Report) -> str:
    """The table of a page: what was compared with a peer, disturbed rows marked by a star."""
    lines = [
        "| | size | jdml, ms | peer, ms | times as fast | temporaries, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for result in report.results:
        for peer, ratio in result.ratios.items():
            theirs = _time(result.times[peer], spread=False) + (" (faiss)" if peer == FAISS else "")
            own = _time(result.times[OURS], spread=False) + _star(not result.busy)
            cells = (
                result.row.name,
                str(result.size),
                own,
                theirs,
                _digits(ratio),
                _mebibytes(result.memory),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """The report in plain numbers: seconds, bytes, operations a second."""
    return {
        "machine": report.machine,
        "complete": report.complete,
        "seconds": round(report.seconds, 1),
        "missing": report.missing,
        "product_rates": report.rates,
        "import_seconds": dict(zip(("jax", "jdml.losses"), report.imports or ())),
        "first_call_seconds": {name: s for name, (s, _) in report.first_calls.items()},
        "first_calls_disturbed": [n for n, (_, quiet) in report.first_calls.items() if not quiet],
        "growth_by_doubling": growth(report.results),
        "results": [_entry(result, report.peak) for result in report.results],
    }


def _entry(result: Result, peak: float) -> dict[str, Any]:
    rate = result.flops_a_second()
    size = asdict(result.size)
    size.pop("most_bytes")  # may be infinite, which JSON cannot say
    return {
        "name": result.row.name,
        "function": result.row.loss.__name__,
        "kind": result.row.kind,
        "size": size,
        "times": {
            name: {
                "median": times.median,
                "quartiles": times.spread,
                "samples": times.samples,
                "dropped": times.dropped,
                "busy": times.busy,
            }
            for name, times in result.times.items()
        },
        "times_as_fast": result.ratios,
        "targets": result.targets,
        "short": _short(result, peak),
        "values": result.values,
        "agrees": result.agrees,
        "values_differ_because": result.row.peer.differs if result.row.peer else "",
        "share_of_product_rate": rate / peak if rate is not None and peak else None,
        "memory": result.memory._asdict() if result.memory else None,
        "memory_without_blocks": result.dense_memory._asdict() if result.dense_memory else None,
        "resident_growth": result.resident,
        "compile_seconds": result.compile,
        "compile_disturbed": not result.compile_quiet,
        "notes": result.notes,
    }
