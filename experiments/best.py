"""The state of a run that does best on classes for validation."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.pictures import VALIDATION
from experiments.processes import first, told
from jdml.checkpoints import Checkpoints
from jdml.training import TrainState

FOLDER = "best"


class Best:
    """Keeps the best state so far in a folder of its own, `best`; on all processes.

    Args:
      folder: of the run.
      rows: of its log so far, which tell the best score so far; of the first process.
    """

    def __init__(self, folder: pathlib.Path, rows: Iterable[Mapping[str, float]]):
        self._checkpoints = Checkpoints(folder / FOLDER, keep=1)
        self._score = max((row[VALIDATION] for row in rows if VALIDATION in row), default=-math.inf)

    def offer(self, score: float | None, state: TrainState, config: Mapping[str, Any]) -> None:
        """Keeps a state if its score is the best so far.

        Args:
          score: on the first process, which decides for all.
          state: of the run.
          config: what JSON can hold.
        """
        better = first() and score is not None and score > self._score
        if not told(lambda: "better" * better):
            return
        self._score = self._score if score is None else score
        # A run that was stopped between this and its checkpoint comes here once more.
        if self._checkpoints.latest_step() != int(state.step):
            self._checkpoints.save(state, config)

    def state(self, template: TrainState) -> TrainState:
        """The best state, placed as the template is.

        Raises:
          ValueError: none was ever kept.
        """
        found = self._checkpoints.restore_latest(template)
        if found is None:
            raise ValueError("select: no state was measured on validation, expected one at least")
        return found[0]

    def __enter__(self) -> Best:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoints.close()
