"""Many short trainings of one loss for the price of one compilation."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import augment, encoder, objectives
from experiments.data import Data, Images, load
from experiments.scores import SCORES, score_rows
from experiments.settings import Settings
from experiments.sweep_losses import RATES, Contender
from jdml import training
from jdml.samplers import ClassBalanced

_LOOK_EVERY = 50  # steps; reading a number waits for it


class Trained(NamedTuple):
    """What one training gives.

    Attributes:
      scores: {set: {score: number}}, zeros where the loss was no number any more.
      diverged: the step after which it was seen not to be, or None.
      seconds: of the training and the embedding, with what had to be compiled.
    """

    scores: dict[str, dict[str, float]]
    diverged: int | None
    seconds: float


def rated(settings: Settings, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    """The optimizer of `experiments.train` with rates that may be traced.

    AdamW's step, decay included, is its learning rate times something that does not know of it:
    the step of rate 1 is made and multiplied.

    Args:
      settings: steps and weight decay.
      numbers: "learning_rate", and "table_multiplier" (1 without).

    Returns:
      An Optax transformation for {"encoder": ..., "objective": ...}.
    """
    unit = training.optimizer(1.0, steps=settings.steps, weight_decay=settings.weight_decay)
    rate, multiplier = numbers["learning_rate"], numbers.get("table_multiplier", 1.0)
    rates = {"encoder": rate, "objective": rate * multiplier}

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = unit.update(updates, state, params)
        scaled = {
            part: jax.tree.map(lambda x, rate=rates[part]: rate * x, tree)
            for part, tree in updates.items()
        }
        return scaled, state

    return optax.GradientTransformation(unit.init, update)


class Trainer:
    """Trains one loss again and again, with other numbers and other seeds, compiled once.

    A training is that of `experiments.train` less log, pictures and checkpoints: the same encoder,
    batches, warps and optimizer.

    Args:
      settings: of the encoder, the schedule and the batches.
      contender: the loss.
      data: to train on.

    Attributes:
      start: `start(key) -> state`, compiled.
      step: `step(state, batch, numbers) -> (state, metrics)`, compiled; it rewrites its state.
    """

    def __init__(self, settings: Settings, contender: Contender, data: Data):
        self._settings, self._data = settings, data
        network, warp = encoder.build(settings), augment.build(settings)

        def parts(numbers: Mapping[str, Any]) -> dict[str, Any]:
            own = {name: value for name, value in numbers.items() if name not in RATES}
            options = {**contender.options, **own}
            objective = objectives.objective(contender.loss, data.num_classes, options)
            return {
                "encoder": network,
                "objective": objective,
                "optimizer": rated(settings, numbers),
            }

        def start(key: Any) -> training.TrainState:
            images = data.train.images[:1]
            return training.create_state(key, images=images, **parts(contender.defaults()))

        def step(state: Any, batch: Any, numbers: Any) -> Any:
            return training.train_step(state, batch, **parts(numbers), augment=warp)

        self.start, self.step = jax.jit(start), jax.jit(step, donate_argnums=0)
        self._embed = jax.jit(functools.partial(training.eval_step, encoder=network))

    def train(
        self, numbers: Mapping[str, float], seed: int
    ) -> tuple[training.TrainState, list[float]]:
        """One training.

        Args:
          numbers: of the contender.
          seed: of parameters, batches and warps.

        Returns:
          The last state, and the losses that were looked at, the last of which may be no number.
        """
        sampler = dataclasses.replace(self._data.sampler, seed=seed)
        data = self._data._replace(sampler=sampler)
        traced = {name: jnp.float32(value) for name, value in numbers.items()}
        state, losses = self.start(jax.random.key(seed)), []
        for number in range(self._settings.steps):
            state, measured = self.step(state, data.batch(number), traced)
            if (number + 1) % _LOOK_EVERY == 0 or number + 1 == self._settings.steps:
                losses.append(float(measured["loss"]))
                if not np.isfinite(losses[-1]):
                    break
        return state, losses

    def run(self, numbers: Mapping[str, float], seed: int, tests: Mapping[str, Images]) -> Trained:
        """One training and its scores.

        Args:
          numbers: of the contender.
          seed: of parameters, batches and warps.
          tests: sets of images that are searched, by name.

        Returns:
          What `Trained` says.
        """
        started = time.perf_counter()
        state, losses = self.train(numbers, seed)
        scores: dict[str, dict[str, float]]
        if np.isfinite(losses[-1]):
            scores = {name: self.score(state, images) for name, images in tests.items()}
            diverged = None
        else:
            scores = {name: dict.fromkeys(SCORES, 0.0) for name in tests}
            diverged = min(len(losses) * _LOOK_EVERY, self._settings.steps)
        return Trained(scores, diverged, round(time.perf_counter() - started, 2))

    def embed(self, state: training.TrainState, images: np.ndarray) -> np.ndarray:
        """The embeddings [N, D] of images [N, H, W, C]."""
        return training.embed(self._embed, state, images)

    def score(self, state: training.TrainState, images: Images) -> dict[str, float]:
        """Exact retrieval by the embeddings, among the images or in their gallery."""
        rows = self.embed(state, images.images)
        gallery = None if images.gallery is None else self.embed(state, images.gallery.images)
        return score_rows(rows, images, gallery, (1,))


# ---------------------------------------------------------------- data


class Sets(NamedTuple):
    """What is trained on and searched in the two halves of the check.

    Attributes:
      search: to train on while numbers are searched.
      validation: classes that are not in `search`, nor in any test.
      final: to train on with the best numbers.
      tests: classes that nothing has seen.
    """

    search: Data
    validation: Images
    final: Data
    tests: dict[str, Images]


def sets(settings: Settings, test_images: int = 0) -> Sets:
    """The data of a check, by classes that are apart.

    Where the data set has no validation classes, a third of the training classes, the last ones,
    take their part while numbers are searched; the final trainings have all of them.

    Args:
      settings: the data and the batches; where there are fewer classes than a batch wants, it
        takes all of them and more images of each, so that it is about as large.
      test_images: at most about so many of each set are searched, as many of each class; 0 is all.

    Returns:
      `Sets`.

    Raises:
      ValueError: unknown or missing data.
    """
    small = dataclasses.replace(settings, classes_per_batch=2, per_class=1)
    found = load(small)
    train, validation = found.train, found.validation
    final = _with_batches(found, settings, train)
    search = final
    if validation is None:
        classes = np.unique(train.labels)
        kept = train.labels < classes[len(classes) - max(len(classes) // 3, 2)]
        names = train.names
        validation = Images(train.images[~kept], train.labels[~kept], names)
        search = _with_batches(
            found, settings, Images(train.images[kept], train.labels[kept], names)
        )
    few = functools.partial(thinned, count=test_images)
    tests = {name: few(images) for name, images in found.tests.items()}
    return Sets(search, few(validation), final, tests)


def _with_batches(found: Data, settings: Settings, train: Images) -> Data:
    """Data that trains on some images, with batches that their classes can fill."""
    count = len(np.unique(train.labels))
    classes = min(settings.classes_per_batch, count)
    per_class = settings.classes_per_batch * settings.per_class // classes
    per_class = min(per_class, int(np.bincount(train.labels).max()))
    sampler = ClassBalanced(train.labels, classes, per_class, seed=settings.seed)
    return found._replace(
        train=train, validation=None, tests={}, num_classes=count, sampler=sampler
    )


def thinned(images: Images, count: int) -> Images:
    """The first images of each class, about `count` in all; all of them where that is 0.

    Args:
      images: of any classes.
      count: to keep.

    Returns:
      Images in their order.

    Example:
      >>> pictures = np.zeros((5, 2, 2, 1), np.uint8)
      >>> few = thinned(Images(pictures, np.array([0, 0, 0, 1, 1]), ("a", "b")), 4)
      >>> few.labels.tolist()
      [0, 0, 1, 1]
    """
    if not count:
        return images
    most = max(count // len(np.unique(images.labels)), 2)
    kept = np.zeros(len(images.labels), bool)
    for label in np.unique(images.labels):
        kept[np.flatnonzero(images.labels == label)[:most]] = True
    return images._replace(images=images.images[kept], labels=images.labels[kept])
