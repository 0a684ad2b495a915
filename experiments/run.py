"""One training run, from data to metrics, pictures and a checkpoint that it can go on from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import augment, best, encoder, health, objectives, pictures
from experiments.data import Data, Images, load
from experiments.files import Held, choose_folder, claim, make, write_json
from experiments.log import Log, Progress, Silent, Speed, read_log, usual_speed
from experiments.pictures import VALIDATION
from experiments.pipeline import batches
from experiments.processes import first, one_before_the_rest, together, told
from experiments.scores import check_ranks, raw_pixels, score_rows
from experiments.settings import Settings
from experiments.verify import load_pairs, verify
from jdml import datasets, encoders, training
from jdml.checkpoints import Checkpoints
from jdml.training import TrainState

LAST = "checkpoints"  # folder of the newest states


class Run(NamedTuple):
    """A run that can start: nothing is wrong with it, and nothing written yet."""

    settings: Settings
    folder: pathlib.Path
    resume: bool
    data: Data
    parts: Parts
    pairs: datasets.Pairs | None  # to verify
    started: float  # seconds of `time.perf_counter`
    held: Held | None  # the folder, on the first process; until it is trained


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
    module = encoder.build(settings)
    parts = {
        "encoder": encoders.cached(module, settings.chunks),
        "objective": objectives.build(settings, data.num_classes),
        "optimizer": optimizer(settings),
    }
    warp = augment.build(settings)
    plain = functools.partial(training.train_step, **parts, augment=warp)
    create = functools.partial(training.create_state, images=data.train.images[:1], **parts)
    create = functools.partial(create, jax.random.key(settings.seed))
    # This says what does not fit before a file is written.
    jax.eval_shape(plain, jax.eval_shape(create), data.batch(0))
    kind: Any = settings.parallel
    step = training.parallel(plain, kind, model=settings.model)
    embed = functools.partial(training.eval_step, encoder=module)
    embed = training.parallel_eval(embed, kind, model=settings.model)
    return Parts(
        step=step,
        batches=functools.partial(_batches, settings, data, step),
        embed=functools.partial(training.embed, embed),
        fresh=step.start(create),
        rate=training.schedule(settings.learning_rate, **_course(settings)),
        diagnose=_diagnosis(kind, data, step, parts | {"augment": warp}),
    )


def restored(settings: Settings, data: Data, folder: pathlib.Path) -> tuple[Parts, TrainState]:
    """A run that was trained, on any devices, with the state that its tests are of.

    Args:
      settings: of the run.
      data: of the run.
      folder: of the run.

    Returns:
      What it is built from, and its best or last state.

    Raises:
      ValueError: no checkpoint, or one of another encoder, objective or optimizer.
    """
    parts = build(dataclasses.replace(settings, model=1), data)
    with Checkpoints(folder / (best.FOLDER if settings.select == "best" else LAST)) as checkpoints:
        found = checkpoints.restore_latest(parts.fresh)
    if found is None:
        raise ValueError(f"source: {folder} has no checkpoint, expected one in its checkpoints")
    return parts, found[0]


def _course(settings: Settings) -> dict[str, Any]:
    """How the learning rate goes."""
    return {
        "steps": settings.steps,
        "warmup": None if settings.warmup < 0 else settings.warmup,
        "course": settings.schedule,
        "milestones": settings.milestones,
        "drop": settings.drop,
    }


def optimizer(settings: Settings) -> Any:
    """The optimizer of a run."""
    return training.optimizer(
        settings.learning_rate,
        **_course(settings),
        kind=settings.optimizer,  # pyright: ignore[reportArgumentType]
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        table_decay=settings.table_decay,
        clip_norm=settings.clip_norm or None,
        trunk_multiplier=settings.trunk_multiplier,
        table_multiplier=settings.table_multiplier,
        freeze_trunk_steps=settings.freeze_trunk_steps,
        lazy_tables=settings.sampled > 0,
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
    keeper: best.Best | None = None,
) -> TrainState:
    """Trains from the state's step to the last one.

    Args:
      settings: of the run.
      data: to train on.
      parts: of the run.
      state: to go on from.
      checkpoints: get the state now and then.
      log: gets a row now and then.
      keeper: gets the states that are saved, with how well they do on validation classes.

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
                if save and keeper is not None:  # before the checkpoint: a run goes on from that
                    keeper.offer(row.get(VALIDATION), state, settings.as_json())
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
    rows, gallery = _embedded(parts, state, images)
    return {VALIDATION: score_rows(rows, images, gallery, (1,))["map_at_r"]} if first() else {}


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
    folder = pathlib.Path(told(lambda: str(choose_folder(settings, resume))))  # or what is wrong
    data = one_before_the_rest(lambda: load(settings))
    check_ranks(settings.ks, data.tests)
    if settings.select == "best" and data.validation is None:
        raise ValueError(f"select: got best, expected last: {settings.data} has no validation")
    pairs = one_before_the_rest(lambda: load_pairs(settings)) if settings.verify else None
    parts = together(lambda: build(settings, data))
    if settings.weights and not (resume and _has_state(folder)):
        fresh = together(lambda: encoder.pretrained(settings, parts.fresh))
        parts = parts._replace(fresh=parts.step.place(fresh))
    holds: list[Held] = []

    def taken() -> str:
        folder, held = claim(settings, resume)
        holds.append(held)
        return str(folder)

    folder = pathlib.Path(told(taken))
    together(lambda: make(folder))
    return Run(settings, folder, resume, data, parts, pairs, started, *(holds or [None]))


def _has_state(folder: pathlib.Path) -> bool:
    """Whether there is a whole checkpoint: one that is being written has a longer name."""
    return any(path.name.isdigit() for path in (folder / LAST).glob("*"))


def train(run: Run) -> dict[str, Any]:
    """Trains, evaluates, draws, and writes all of it to the folder of the run.

    Returns:
      What `metrics.json` holds; nothing on other processes than the first, which writes.
    """
    with contextlib.nullcontext() if run.held is None else contextlib.closing(run.held):
        return _trained(run)


def _trained(run: Run) -> dict[str, Any]:
    settings, folder, data, parts = run.settings, run.folder, run.data, run.parts
    if first():  # before all else: it makes the folder that of a run
        write_json(folder / "config.json", settings.as_json())
        if data.report is not None:
            write_json(folder / "data.json", data.report)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder / LAST))
        state = parts.fresh
        if run.resume and (found := checkpoints.restore_latest(state)) is not None:
            state = found[0]
        log = stack.enter_context(Log(folder, int(state.step) + 1) if first() else Silent())
        keeper = None
        if settings.select == "best":
            keeper = stack.enter_context(best.Best(folder, log.kept))
        state = fit(settings, data, parts, state, checkpoints, log, keeper)
        if keeper is not None:
            state = keeper.state(state)
        found = {name: _tested(run, state, images) for name, images in data.tests.items()}
        verified = verify(functools.partial(parts.embed, state), run.pairs)
        if not first():
            return {}
        for name, (scores, *_) in found.items():
            log.scores(settings.steps, name, scores)
    result = _result(run, {name: scores for name, (scores, *_) in found.items()}) | verified
    told = read_log(folder)
    pictures.draw(folder, told, found["test"][1], data.tests["test"], found["test"][2])
    seconds = round(time.perf_counter() - run.started, 1)
    result |= {"tested_step": int(state.step)} if keeper is not None else {}
    result |= {"seconds": seconds, "images_per_second": usual_speed(told)}
    result |= {"warnings": health.warnings(told, most_rank(settings))}
    write_json(folder / "metrics.json", result)
    return result


def _tested(run: Run, state: TrainState, searched: Images) -> Any:
    """Scores of a test on the first process, embeddings, and those of its gallery."""
    rows, gallery = _embedded(run.parts, state, searched)
    scores = score_rows(rows, searched, gallery, run.settings.ks) if first() else {}
    return scores, rows, gallery


def _embedded(parts: Parts, state: TrainState, images: Images) -> tuple[Any, Any]:
    """Embeddings of images and of the gallery that they search, None without; on all processes."""
    gallery = images.gallery
    found = None if gallery is None else parts.embed(state, gallery.images)
    return parts.embed(state, images.images), found


def _result(run: Run, found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What is told of each test, beside the same of raw pixels."""
    tests = {}
    for name, searched in run.data.tests.items():
        gallery = None if searched.gallery is None else raw_pixels(searched.gallery)
        raw = score_rows(raw_pixels(searched), searched, gallery, run.settings.ks)
        tests[name] = {"raw": raw, "test": found[name]}
    return tests.pop("test") | tests
