"""Diagnostics of a training run: measured now and then, logged, and warned of once each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jdml import diagnostics
from jdml.encoders import as_encoder
from jdml.objectives import Objective
from jdml.training import TrainState

COLUMNS = ("mean_similarity", "effective_rank", "variance", "active_fraction", "saturation")
_TIMES = 20  # a run


def due(step: int, steps: int) -> bool:
    """Whether to measure after a logged step: about twenty times a run, and at its end."""
    every = max(steps // _TIMES // 20, 1) * 20
    return step % every == 0 or step == steps


def measure(
    state: TrainState,
    batch: Mapping[str, Any],
    *,
    encoder: Any,
    objective: Objective,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> dict[str, jax.Array]:
    """What a training batch looks like to the loss: one forward pass, to be wrapped in `jax.jit`.

    It stands beside the train step, which stays as fast as it is.

    Args:
      state: of the run.
      batch: a training batch.
      encoder: as in training.
      objective: as in training.
      augment: as in training.

    Returns:
      The numbers named in `COLUMNS`.
    """
    images, where = jnp.asarray(batch["images"]), batch.get("where")
    warp_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    if augment is not None:
        images = augment(jax.random.split(warp_key, len(images)), images)
    embeddings, _ = as_encoder(encoder).apply(
        state.params["encoder"],
        state.encoder_state,
        images,
        train=True,
        key=dropout_key,
        where=where,
    )
    loss = functools.partial(
        objective.loss, state.params["objective"], state.objective_state, embeddings, batch
    )
    return diagnostics.collapse(embeddings, where=where) | diagnostics.activity(loss, where=where)


class Watch:
    """Tells each kind of warning once. The first measurement only sets where training begins.

    Args:
      most_rank: the smaller one of images in a batch and width of the embedding.
      rows: of the log so far, whose warnings have been told.
    """

    def __init__(self, most_rank: int, rows: Iterable[Mapping[str, float]] = ()):
        self._most_rank = most_rank
        self._told: set[str] = set()
        self._before: Mapping[str, float] | None = None
        for row in rows:
            self.new(row)

    def new(self, row: Mapping[str, float]) -> list[str]:
        """The warnings of a row of the log that were not told before, one line each."""
        if COLUMNS[0] not in row:
            return []
        before, self._before = self._before, row
        if before is None:
            return []
        found = diagnostics.warnings(row, most_rank=self._most_rank, before=before)
        lines = [line for name, line in found.items() if name not in self._told]
        self._told |= found.keys()
        return [f"step {row['step']:.0f}: {line}" for line in lines]


def warnings(rows: Iterable[Mapping[str, float]], most_rank: int) -> list[str]:
    """The first warning of each kind in the rows of a log, with its step."""
    watch = Watch(most_rank)
    return [line for row in rows for line in watch.new(row)]
