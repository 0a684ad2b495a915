"""One training run, from data to metrics, pictures and a checkpoint that it can go on from."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import augment, health, objectives, pictures
from experiments.data import Data, Images, load
from experiments.files import choose_folder, make, write_json
from experiments.log import Log, Progress, Silent, Speed, read_log, usual_speed
from experiments.pipeline import batches
from experiments.processes import first, one_before_the_rest, together, told
from experiments.settings import Settings
from jdml import encoders, metrics, training
from jdml.checkpoints import Checkpoints
from jdml.training import TrainState

SCORES = ("recall_at_1", "map_at_r", "r_precision")


class Run(NamedTuple):
    """A run that can start: nothing is wrong with it, and nothing written yet."""

    settings: Settings
    folder: pathlib.Path
    resume: bool
    data: Data
    parts: Parts
    started: float  # seconds of `time.perf_counter`


class Parts(NamedTuple):
    """What a run is built from; nothing of it changes while it trains."""

    step: training.Parallel  # (state, batch) -> (state, metrics), on all devices
    batches: Any  # number of the first -> batches on the devices, of this process
    embed: Any  # (state, images [N, H, W, C]) -> embeddings [N, D]
    fresh: TrainState
    rate: Any  # step -> learning rate
    diagnose: Any  # (state, number of a batch) -> numbers of `health.COLUMNS`


def build(settings: Settings, data: Data) -> Parts:
    """Encoder, objective and optimizer, and the steps that tie them together."""
    encoder = encoders.ConvNet(
        dim=settings.dim,
        widths=settings.widths,
        strides=tuple(2 if block < 3 else 1 for block in range(len(settings.widths))),
        pooling=settings.pooling,  # pyright: ignore[reportArgumentType]
        dtype=jnp.dtype(settings.dtype),
    )
    objective = objectives.objective(settings.loss, data.num_classes, settings.loss_options)
    optimizer = training.optimizer(
        settings.learning_rate,
        steps=settings.steps,
        weight_decay=settings.weight_decay,
        table_multiplier=settings.table_multiplier,
    )
    parts = {"encoder": encoder, "objective": objective, "optimizer": optimizer}
    warp = augment.warper(augment.scaled(settings.warp)) if settings.warp else None
    plain = functools.partial(training.train_step, **parts, augment=warp)
    create = functools.partial(training.create_state, images=data.train.images[:1], **parts)
    create = functools.partial(create, jax.random.key(settings.seed))
    # This says what does not fit before a file is written.
    jax.eval_shape(plain, jax.eval_shape(create), data.batch(0))
    kind: Any = settings.parallel
    step = training.parallel(plain, kind, model=settings.model)
    embed = training.parallel_eval(
        functools.partial(training.eval_step, encoder=encoder), kind, model=settings.model
    )
    return Parts(
        step=step,
        batches=functools.partial(_batches, settings, data, step),
        embed=functools.partial(training.embed, embed),
        fresh=step.start(create),
        rate=training.schedule(settings.learning_rate, steps=settings.steps),
        diagnose=_diagnosis(kind, data, step, parts | {"augment": warp}),
    )


def _share(data: Data) -> Any:
    """From the number of a batch to the rows of it that this process loads."""
    return functools.partial(
        data._replace(validation=None, tests={}).share,  # what travels to workers stays small
        process=jax.process_index(),
        processes=jax.process_count(),
        devices=jax.device_count(),
    )


def _batches(settings: Settings, data: Data, step: training.Parallel, start: int) -> Iterator[Any]:
    """Batches from number `start` on, on their way to the devices before they are asked for."""
    read = batches(_share(data), start, settings.steps, settings.workers)
    return training.prefetch(read, step.put)


def _diagnosis(kind: str, data: Data, step: training.Parallel, parts: dict[str, Any]) -> Any:
    """From (state, number of a batch) to diagnostics of that batch."""
    parts = {name: parts[name] for name in ("encoder", "objective", "augment")}
    measure = jax.jit(functools.partial(health.measure, **parts))
    # The shares of pmap make no batch for another program: every process takes all of it.
    load, put = (data.batch, dict) if kind == "pmap" else (_share(data), step.put)
    return lambda state, number: measure(state, dict(put(load(number))))


def fit(
    settings: Settings,
    data: Data,
    parts: Parts,
    state: TrainState,
    checkpoints: Checkpoints,
    log: Log | Silent,
) -> TrainState:
    """Trains from the state's step to the last one.

    Returns:
      The last state.

    Raises:
      FloatingPointError: the loss is no number any more.
    """
    speed = Speed(settings.classes_per_batch * settings.per_class)
    done = int(state.step)
    watch = health.Watch(most_rank(settings), log.kept)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(settings.steps, done) if first() else Silent())
        ready = stack.enter_context(contextlib.closing(parts.batches(done)))
        for step, batch in zip(range(done + 1, settings.steps + 1), ready):
            state, measured = parts.step(state, batch)
            last = step == settings.steps
            save = last or step % settings.checkpoint_every == 0
            # Reading a number waits for it: after each step, cores would stand idle.
            if save or step % 20 == 0:
                row = {name: float(value) for name, value in measured.items()}
                if not np.isfinite(row["loss"]):
                    raise FloatingPointError(f"loss: got {row['loss']} at step {step}")
                row |= {"learning_rate": float(parts.rate(step - 1))}
                row |= {"images_per_second": speed.at(step)}
                progress.show(step, row["loss"], row["images_per_second"])
                row |= validate(parts, state, data.validation) if save else {}
                if diagnosed := health.due(step, settings.steps):
                    found = parts.diagnose(state, step - 1)
                    row |= {name: float(value) for name, value in found.items()}
                    for line in watch.new({"step": step, **row}):
                        progress.warn(line)
                log.write(step, row)
                if save:  # after the row, so that a checkpoint never lacks its log
                    checkpoints.save(state, settings.as_json())
                if save or diagnosed:
                    speed.forget()  # what came since the last step was no training
    return state


def most_rank(settings: Settings) -> int:
    """The largest effective rank that the embeddings of a batch can have."""
    return min(settings.dim, settings.classes_per_batch * settings.per_class)


def validate(parts: Parts, state: TrainState, images: Images | None) -> dict[str, float]:
    """How well classes apart from training and test are retrieved so far."""
    if images is None:
        return {}
    rows = parts.embed(state, images.images)  # on all processes
    if not first():
        return {}
    scores = score(rows, images.labels)
    return {"validation_map_at_r": scores["map_at_r"]}


def score(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Exact retrieval among the images themselves."""
    found = metrics.retrieval(embeddings, labels)
    return {name: round(float(found[name]), 5) for name in SCORES}


def raw_pixels(searched: Images) -> np.ndarray:
    """The pixels as embeddings: what retrieval is worth without training."""
    return searched.images.reshape(len(searched.labels), -1).astype(np.float32) / 255.0


def prepare(settings: Settings, resume: bool, started: float) -> Run:
    """Everything before the first file is written: what is wrong is found here.

    Args:
      settings: of the run.
      resume: go on from its last checkpoint.
      started: when the command started, on the clock of `time.perf_counter`.

    Returns:
      A run that `train` takes.

    Raises:
      ValueError: one line that names the wrong setting.
    """
    folder = pathlib.Path(told(lambda: str(choose_folder(settings, resume))))
    data = one_before_the_rest(lambda: load(settings))
    parts = together(lambda: build(settings, data))
    together(lambda: make(folder))
    return Run(settings, folder, resume, data, parts, started)


def train(run: Run) -> dict[str, Any]:
    """Trains, evaluates, draws, and writes all of it to the folder of the run.

    Returns:
      What `metrics.json` holds; nothing on other processes than the first, which writes.
    """
    settings, folder, data, parts = run.settings, run.folder, run.data, run.parts
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints"))
        state = parts.fresh
        if run.resume and (found := checkpoints.restore_latest(state)) is not None:
            state = found[0]
        if first():
            write_json(folder / "config.json", settings.as_json())
        log = stack.enter_context(Log(folder, int(state.step) + 1) if first() else Silent())
        state = fit(settings, data, parts, state, checkpoints, log)
        rows = {name: parts.embed(state, images.images) for name, images in data.tests.items()}
        if not first():
            return {}
        found = {name: score(rows[name], images.labels) for name, images in data.tests.items()}
        for name, scores in found.items():
            log.scores(settings.steps, name, scores)
    raw = {name: score(raw_pixels(images), images.labels) for name, images in data.tests.items()}
    result = {"raw": raw.pop("test"), "test": found.pop("test")}
    result |= {name: {"raw": raw[name], "test": scores} for name, scores in found.items()}
    told = read_log(folder)
    pictures.draw(folder, told, rows["test"], data.tests["test"])
    seconds = round(time.perf_counter() - run.started, 1)
    result |= {"seconds": seconds, "images_per_second": usual_speed(told)}
    result |= {"warnings": health.warnings(told, most_rank(settings))}
    write_json(folder / "metrics.json", result)
    return result
