"""Measures speed and memory of the losses beside pytorch-metric-learning and faiss.

python -m experiments.bench                          # a quick set, under five minutes
python -m experiments.bench --targets                # every size that has a target
python -m experiments.bench --full                   # every size and every loss
python -m experiments.bench --only contrastive,arcface
python -m experiments.bench --out experiments/results --full

Peers take part where they are installed: pip install ".[bench]".
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments import STARTED

if TYPE_CHECKING:
    from experiments.bench_clock import Effort
    from experiments.bench_show import Report
    from experiments.bench_table import Row, Size

PROG = "python -m experiments.bench"
OUT = pathlib.Path("runs/bench")


def main(argv: Sequence[str] | None = None, started: float | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.
      started: when, on the clock of `time.perf_counter`; now by default.

    Returns:
      The exit code: 2 for a wrong setting, 1 if a row failed, 130 if it was stopped.
    """
    started = time.perf_counter() if started is None else started
    options = parser().parse_args(argv)
    from experiments import bench_clock, bench_show, bench_sides, bench_table, files

    only = options.only.split(",") if options.only else []
    try:
        rows = list(bench_table.chosen(bench_table.ROWS, only, options.set))
        files.make(options.out)
    except ValueError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    full = options.set == "full"
    report = bench_show.Report(missing=bench_sides.missing())
    say(report, len(rows), options)
    effort = (bench_clock.FULL if full else bench_clock.QUICK).waiting(options.patience)
    try:
        run(report, rows, effort, all_losses=options.set != "quick" and not only)
        report.complete = True
    except KeyboardInterrupt:
        print("stopped; what was measured so far is kept", file=sys.stderr)
    report.seconds = time.perf_counter() - started
    write(report, options.out)
    bench_show.show(report)
    print(f"{report.seconds:.0f} s in all; bench_times.json, .md and .png are in {options.out}")
    if not report.complete:
        return 130
    return int(any(result.failed for result in report.results))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    about, _, more = (__doc__ or "").partition("\n")
    made = argparse.ArgumentParser(
        prog=PROG,
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sets = made.add_mutually_exclusive_group()
    for name, what in (
        ("quick", "the quick set (the default)"),
        ("targets", "the quick set, every size that has a target, every first call"),
        ("full", "every size"),
    ):
        sets.add_argument(f"--{name}", dest="set", action="store_const", const=name, help=what)
    made.set_defaults(set="quick")
    made.add_argument("--only", default="", metavar="NAMES", help="losses, such as contrastive")
    made.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="to lose in all to other processes before samples count as they come",
    )
    made.add_argument("--out", type=pathlib.Path, default=OUT, help=f"folder, {OUT} by default")
    return made


def say(report: Report, count: int, options: argparse.Namespace) -> None:
    """What is about to happen."""
    machine = report.machine
    print(
        f"{count} rows on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB; {options.set} set"
    )
    if report.missing:
        print(
            f'not installed, so not compared: {", ".join(report.missing)} (pip install ".[bench]")'
        )


def run(report: Report, rows: list[tuple[Row, Size]], effort: Effort, *, all_losses: bool) -> None:
    """Measures everything into the report, telling each row as it comes."""
    import jax

    from experiments import bench_first, bench_machine, bench_run
    from experiments.bench_show import line

    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    began = time.perf_counter()
    report.add_rates(bench_machine.product_rates(effort))
    print(f"matrix products: {report.peak / 1e9:.0f} GFLOP/s", flush=True)
    report.imports = bench_machine.import_seconds()
    for number, (row, size) in enumerate(rows, 1):
        result = bench_run.measure(row, size, effort)
        report.results.append(result)
        passed = time.perf_counter() - began
        print(
            f"{number}/{len(rows)}  {passed:.0f} s  {row.name}, {size}: {line(result)}", flush=True
        )
    if all_losses:
        for name, call in bench_first.every_loss().items():
            report.first_calls[name] = bench_first.first_call(call, effort)
        print(f"first calls of {len(report.first_calls)} losses measured", flush=True)
    report.add_rates(bench_machine.product_rates(effort))


def write(report: Report, folder: pathlib.Path) -> None:
    """`bench_times.json` and `.md`, and `.png` where there is a line to draw."""
    from experiments import bench_figure, bench_show, files

    files.write_json(folder / "bench_times.json", bench_show.as_json(report))
    (folder / "bench_times.md").write_text(bench_show.markdown(report))
    machine = report.machine
    caption = (
        f"forward and backward, float32; {machine['processor']}, {machine['cores']} threads, "
        f"jax {machine['packages'].get('jax', '')}"
    )
    if "torch" in machine["packages"]:
        caption += f", torch {machine['packages']['torch']}"
    if any(result.busy for result in report.results):
        caption += "; disturbed by other processes"
    bench_figure.draw(folder / "bench_times.png", report.results, caption)


if __name__ == "__main__":
    sys.exit(main(started=STARTED))
