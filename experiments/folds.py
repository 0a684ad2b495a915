"""Cross-validation over classes: a model for each fold, their scores apart and concatenated.

python -m experiments.folds --config cub200_reality_check_contrastive
python -m experiments.folds --config cub200_reality_check_contrastive --repeats 10
python -m experiments.folds --loss triplet --steps 300 --name quick     # four folds of hangul

The training classes are cut into blocks of neighbours; each model trains on all blocks but one,
and is the state that did best on that one. The same command goes on after an interruption.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.processes import first, told
from experiments.settings import Settings, command, parser

PROG = "python -m experiments.folds"
FOLDS = 4  # where the settings ask for none


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.

    Returns:
      The exit code: 2 for a wrong setting, 1 for a run that failed.
    """
    made = parser(PROG, (__doc__ or "").partition("\n")[0])
    about = "seeds, each with all folds, for intervals (1)"
    made.add_argument("--repeats", default=1, type=int, metavar="N", help=about)
    flags = vars(made.parse_args(argv))
    repeats = flags.pop("repeats")
    from experiments.train import complain

    try:
        asked = command(flags)
        if repeats < 1:
            raise ValueError(f"repeats: got {repeats}, expected 1 or more")
        asked.processes.join()
        result = run(asked.settings, repeats)
    except ValueError as error:
        return complain(error, 2, PROG)
    except FloatingPointError as error:
        return complain(error, 1, PROG)
    except KeyboardInterrupt:
        return complain("stopped; the same command goes on", 130, PROG)
    if first():
        show(result)
        print(f"everything is in {folder_of(asked.settings)}")
    return 0


def folder_of(settings: Settings) -> pathlib.Path:
    """Where all models and their scores are written."""
    folder = settings.folder()
    return folder if settings.name else folder.with_name(f"{folder.name}-folds")


def models_of(settings: Settings, repeats: int) -> list[Settings]:
    """The settings of each model: all folds of a seed, then those of the next."""
    folder, folds = folder_of(settings), settings.folds or FOLDS
    return [
        dataclasses.replace(
            settings,
            folds=folds,
            fold=fold,
            seed=seed,
            select="best",
            run_dir=str(folder),
            name=f"seed-{seed}-fold-{fold}",
        )
        for seed in range(settings.seed, settings.seed + repeats)
        for fold in range(folds)
    ]


def run(settings: Settings, repeats: int = 1) -> dict[str, Any]:
    """Trains what is not trained yet, scores all, and writes `folds.json`.

    Args:
      settings: of the models.
      repeats: seeds, from that of the settings on.

    Returns:
      What `folds.json` holds; nothing on other processes than the first.

    Raises:
      ValueError: a wrong setting, or models of other settings in the folder.
    """
    from experiments.files import write_json

    models = models_of(settings, repeats)
    for model in models:
        _train(model)
    tests = [_tested(model) for model in models]
    if not first():
        return {}
    folds = models[0].folds
    seeds = [tests[i : i + folds] for i in range(0, len(tests), folds)]

    def of(name: str) -> dict[str, Any]:
        return _summary([[model[name] for model in models] for models in seeds], settings.ks)

    result = {
        "settings": settings.as_json() | {"folds": folds},
        "models": [model.name for model in models],
        "tests": {name: of(name) for name in tests[0]},
    }
    write_json(folder_of(settings) / "folds.json", result)
    return result


def _train(settings: Settings) -> None:
    """Trains a model, or the rest of it, or nothing where it is done."""
    from experiments import run as one
    from experiments.files import choose_folder
    from experiments.train import say

    folder, started = settings.folder(), time.perf_counter()
    begun = bool(told(lambda: "yes" * (folder / "config.json").exists()))
    if begun:
        choose_folder(settings, True)  # says which setting is another one
    if told(lambda: "yes" * (folder / "metrics.json").exists()):
        return
    say(f"{settings.name} of {folder.parent}")
    one.train(one.prepare(settings, begun, started))


def _tested(settings: Settings) -> dict[str, Any]:
    """Embeddings and labels of every test, by the best state of a model."""
    from experiments import run as one
    from experiments.data import load

    data = load(settings)
    parts, state = one.restored(settings, data, settings.folder())

    def rows(images: Any) -> Any:
        return (parts.embed(state, images.images), images.labels)

    return {
        name: (rows(images), None if images.gallery is None else rows(images.gallery))
        for name, images in data.tests.items()
    }


def _summary(seeds: list[list[Any]], ks: Sequence[int]) -> dict[str, Any]:
    """Scores of a test: separated, averaged over the models of a seed, and concatenated."""
    separated = [[_score([model], ks) for model in models] for models in seeds]
    means = [{name: float(np.mean([s[name] for s in of])) for name in of[0]} for of in separated]
    together = [_score(models, ks) for models in seeds]
    return {
        "separated": {"models": separated} | _intervals(means),
        "concatenated": {"seeds": together} | _intervals(together),
    }


def _score(models: list[Any], ks: Sequence[int]) -> dict[str, float]:
    """Scores of the concatenated embeddings of some models."""
    from experiments.scores import score
    from jdml.postprocess import concatenate

    queries = concatenate([rows for (rows, _), _ in models])
    (_, labels), gallery = models[0]
    if gallery is not None:
        gallery = (concatenate([rows for _, (rows, _) in models]), gallery[1])
    return score(queries, labels, gallery, ks)


def _intervals(seeds: list[dict[str, float]]) -> dict[str, Any]:
    """Mean of each score over the seeds, and half of its 95 % interval, none for a single seed."""
    from experiments.intervals import interval

    found = {name: interval([scores[name] for scores in seeds]) for name in seeds[0]}
    return {
        "mean": {name: one.mean for name, one in found.items()},
        "interval": {name: one.half for name, one in found.items()},
    }


def show(result: dict[str, Any]) -> None:
    """A table of the scores."""
    from rich.console import Console
    from rich.table import Table

    from experiments import train

    for test, found in result["tests"].items():
        names = list(found["separated"]["mean"])
        table = Table(test, *map(train.told, names))
        for kind in ("separated", "concatenated"):
            means, halves = found[kind]["mean"], found[kind]["interval"]
            table.add_row(kind, *(_cell(means[name], halves[name]) for name in names))
        Console().print(table)


def _cell(mean: float, half: float | None) -> str:
    return f"{mean:.4f}" + ("" if half is None else f" ± {half:.4f}")


if __name__ == "__main__":
    sys.exit(main())
