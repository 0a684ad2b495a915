"""The reality check: every loss with the same encoder, batches, schedule and budget.

python -m experiments.sweep                       # hangul, all losses
python -m experiments.sweep --workers 2           # two processes share the cores and the work
python -m experiments.sweep --losses arcface supcon --seeds 5
python -m experiments.sweep --data fashion_mnist --losses contrastive multi_similarity arcface

Numbers of each loss are searched on validation classes, the same number of trials for all; the
best ones are trained anew with several seeds and tested on classes that nothing has seen. Stop it
at any time: the same command goes on, and the same command in another terminal helps.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from experiments.sweep_losses import CONTENDERS
from experiments.sweep_plan import PROG, Plan, parse
from experiments.sweep_store import Store
from experiments.sweep_work import Worker


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.

    Returns:
      The exit code: 2 for a wrong setting.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        plan = parse(argv, (__doc__ or "").partition("\n")[0])
        store = Store(plan.out)
        common, asked = plan.common(), {name: CONTENDERS[name].as_json() for name in plan.losses}
        store.check(common, asked)
        worker = Worker(plan, store)
        store.open(common, asked)  # nothing is wrong: the first file
        with helpers(plan, argv):
            raw = worker.work()
    except ValueError as error:
        print(f"{PROG}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROG}: stopped; the same command goes on", file=sys.stderr)
        return 130
    if not plan.parent:
        conclude(plan, store, raw)
    return 0


# ---------------------------------------------------------------- processes


@contextlib.contextmanager
def helpers(plan: Plan, argv: Sequence[str]) -> Iterator[None]:
    """Other processes that do the same work while the block runs, each on its share of the cores.

    A helper ends by itself when its parent is gone, after the training under way.
    """
    others = []
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if plan.workers > 1 and len(cores) >= plan.workers:
        os.sched_setaffinity(0, set(cores[:: plan.workers]))  # before JAX counts them
    for number in range(1, plan.workers):
        command = [sys.executable, "-m", "experiments.sweep", *argv]
        command += ["--workers", "1", "--parent", str(os.getpid())]
        share = cores[number :: plan.workers]
        others.append(subprocess.Popen(command))
        if share:
            os.sched_setaffinity(others[-1].pid, set(share))
    try:
        yield
    except BaseException:
        for other in others:
            other.terminate()
        raise
    finally:
        for other in others:
            other.wait()
        if cores:
            os.sched_setaffinity(0, set(cores))


def conclude(plan: Plan, store: Store, raw: dict[str, dict[str, float]]) -> None:
    """The table in the terminal, and results.json, table.md and figure.png in the folder."""
    from experiments import sweep_figure, sweep_table
    from experiments.files import write_json

    found = sweep_table.rows(store, plan.losses, plan.seeds)
    fewest = min(row.seeds for row in found)
    caption = (
        f"{plan.settings.data}: {plan.settings.steps} steps of up to "
        f"{plan.settings.classes_per_batch * plan.settings.per_class} images, {plan.trials} trials "
        f"on validation classes, then {fewest} seeds; mean ± 95 % interval (Student's t)."
    )
    if plan.test_images:
        caption += f" Of each set about {plan.test_images:,} images are searched."
    caption += "".join(f" {row.diverged_in_words()}." for row in found if row.diverged)
    what = {"settings": plan.common(), "raw": raw, "losses": sweep_table.as_json(found)}
    write_json(plan.out / "results.json", what)
    (plan.out / "table.md").write_text(sweep_table.markdown(found, raw, caption))
    sweep_figure.draw(plan.out / "figure.png", found, raw, caption)
    sweep_table.show(found, raw, caption)
    print(f"everything is in {plan.out}")


if __name__ == "__main__":
    sys.exit(main())
