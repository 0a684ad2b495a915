"""The work of a sweep: runs that are not done yet, shared with other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.data import Images
from experiments.scores import raw_pixels, score_rows
from experiments.sweep_losses import CONTENDERS
from experiments.sweep_plan import Plan
from experiments.sweep_search import best, propose
from experiments.sweep_store import Store
from experiments.sweep_table import shown, trials
from experiments.sweep_train import Sets, Trained, Trainer, sets

_WAIT = 1.0  # seconds
# Of all searches; the final runs have the seeds from 1. Every loss has the same start, batches and
# draws, which is as fair but less than independent: see `sweep_search.propose`.
SEARCH_SEED = 0


class Task(NamedTuple):
    """A piece of work that one process takes: all trials of a loss, or one final run."""

    loss: str
    seed: int  # of a final run, 0 for the search

    @property
    def name(self) -> str:
        """Of its claim."""
        return f"{self.loss}-seed-{self.seed}" if self.seed else f"{self.loss}-search"


def unfinished(plan: Plan, store: Store) -> Iterator[Task]:
    """The tasks that can begin: final runs only once the search of their loss is over."""
    for loss in plan.losses:
        if len(trials(store, loss)) < plan.trials:
            yield Task(loss, 0)
            continue
        for seed in range(1, plan.seeds + 1):
            if store.read(loss, "seed", seed) is None:
                yield Task(loss, seed)


def finished(plan: Plan, store: Store) -> int:
    """How many runs of the plan are done."""
    kinds = {"trial": range(plan.trials), "seed": range(1, plan.seeds + 1)}
    return sum(
        store.has(loss, kind, number)
        for loss in plan.losses
        for kind, numbers in kinds.items()
        for number in numbers
    )


class Worker:
    """Does tasks, keeping what was compiled for the last loss.

    Args:
      plan: of the command.
      store: where finished runs go, open before the first one.

    Raises:
      ValueError: data that is missing or too small.
    """

    def __init__(self, plan: Plan, store: Store):
        self._plan, self._store = plan, store
        self._sets: Sets = sets(plan.settings, plan.test_images)
        self._trainers: dict[tuple[str, bool], Trainer] = {}
        self._started, self._before = time.perf_counter(), finished(plan, store)

    def work(self) -> dict[str, dict[str, float]]:
        """Does what is left, until all runs are done, here or by other processes.

        Returns:
          The scores of raw pixels on the sets of the final runs.
        """
        last, store = "", self._store
        while not self._orphan() and (tasks := list(unfinished(self._plan, store))):
            # Its own loss first, which is compiled, then searches, which let others begin.
            tasks.sort(key=lambda task: (task.loss != last, task.seed > 0))
            for task in tasks:
                with store.claim(task.name) as ours:
                    if ours and task in unfinished(self._plan, store):
                        self.do(task)
                        last = task.loss
                        break
            else:
                time.sleep(_WAIT)  # others have claimed all that is left
        return {name: _raw(images) for name, images in self._sets.tests.items()}

    def _orphan(self) -> bool:
        return bool(self._plan.parent) and os.getppid() != self._plan.parent

    def do(self, task: Task) -> None:
        """A task, from the first run of it that is not done."""
        if task.seed:
            self._final(task)
        else:
            self._search(task.loss)

    def _search(self, loss: str) -> None:
        numbers = CONTENDERS[loss].numbers
        done = trials(self._store, loss)
        while len(done) < self._plan.trials and not self._orphan():
            tried = propose(numbers, done, SEARCH_SEED)
            images = {"validation": self._sets.validation}
            trained = self._trainer(loss, search=True).run(tried, SEARCH_SEED, images)
            self._keep(loss, "trial", len(done), tried, SEARCH_SEED, trained)
            done = trials(self._store, loss)

    def _final(self, task: Task) -> None:
        done = trials(self._store, task.loss)[: self._plan.trials]
        numbers = done[best(done)][0]
        trainer = self._trainer(task.loss, search=False)
        trained = trainer.run(numbers, task.seed, self._sets.tests)
        self._keep(task.loss, "seed", task.seed, numbers, task.seed, trained)

    def _trainer(self, loss: str, *, search: bool) -> Trainer:
        same = self._sets.search is self._sets.final
        key = (loss, search or same)
        if key not in self._trainers:
            data = self._sets.search if search else self._sets.final
            self._trainers = {key: Trainer(self._plan.settings, CONTENDERS[loss], data)}
        return self._trainers[key]

    def _keep(
        self, loss: str, kind: str, number: int, numbers: Any, seed: int, trained: Trained
    ) -> None:
        result = {"loss": loss, "numbers": numbers, "seed": seed, **trained._asdict()}
        self._store.write(loss, kind, number, result)
        name = "validation" if kind == "trial" else "test"
        value = trained.scores[name]["map_at_r"]
        which = f"trial {number + 1}" if kind == "trial" else f"seed {number}"
        diverged = "" if trained.diverged is None else f", no number at step {trained.diverged}"
        print(
            f"[{self._place()}] {loss}, {which}: {name} MAP@R {value:.3f}{diverged} "
            f"({shown(numbers)}); {trained.seconds:.0f} s{self._left()}",
            flush=True,
        )

    def _place(self) -> str:
        return f"{finished(self._plan, self._store)}/{self._plan.size()}"

    def _left(self) -> str:
        """How long the rest takes at the pace of all processes since this one began."""
        done = finished(self._plan, self._store)
        passed = time.perf_counter() - self._started
        left = (self._plan.size() - done) * passed / max(done - self._before, 1)
        return f", {np.ceil(left / 60):.0f} min left" if left > 0 else ""


def _raw(images: Images) -> dict[str, float]:
    """What the pixels themselves are worth."""
    gallery = None if images.gallery is None else raw_pixels(images.gallery)
    return score_rows(raw_pixels(images), images, gallery, (1,))
