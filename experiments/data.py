"""What a run trains on and what it searches among, by the name of a data set."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.lazy import Crops, Lazy
from experiments.settings import Settings
from jdml import datasets, samplers
from jdml.datasets import Split, Splits

# `hangul` trains without the typefaces that `hangul/unseen_faces` tests, so that one training
# answers both questions: new syllables, and new syllables in new typefaces.
SPLITS = {
    "hangul": {
        "train": ("hangul/unseen_faces", "train"),
        "validation": ("hangul/unseen_faces", "validation"),
        "test": ("hangul", "test"),
        "unseen_faces": ("hangul/unseen_faces", "test"),
    }
}
_POWERS = {"balanced": 0.0, "sqrt": 0.5, "frequency": 1.0}  # of the images of a class
SAMPLERS = ("class_balanced", "hierarchical", *_POWERS)
FOLDER = "folder:"
_NAMED = re.compile("^(name|data|folder): ")  # arguments that are --data here
# What may be said of a folder or a table of one's own, KEY=VALUE.
FOLDER_OPTIONS = {
    "image": str, "label": str, "split": str, "super": str, "delimiter": str, "depth": int,
    "least": int, "train": float, "validation": float, "merge": int, "cache": str,
}  # fmt: skip


class Images(NamedTuple):
    """Pictures that a model sees, in memory or decoded when they are asked for."""

    images: Any  # uint8 [N, H, W, C], an array or `Lazy`
    labels: np.ndarray  # int [N]
    names: tuple[str, ...]  # of each label
    gallery: Images | None = None  # what is searched, where that is not the images themselves


class Data(NamedTuple):
    """Training images and the sets that are searched, none of whose classes are trained on."""

    train: Images  # labels 0 .. C - 1, so that a class table has a row for each
    validation: Images | None  # to watch while training, where the data set has it
    tests: dict[str, Images]  # "test", and more where the same training answers more
    num_classes: int
    sampler: Any  # from the number of a batch to its rows
    crops: Crops | None = None  # how training images are cut
    notes: tuple[str, ...] = ()  # what a person should know of the data
    report: dict[str, Any] | None = None  # the same in full, for a file of the run

    def batch(self, number: int) -> dict[str, Any]:
        """Training batch `number`, from 0: a pure function of the seed and the number."""
        return self.share(number)

    def share(
        self, number: int, *, process: int = 0, processes: int = 1, devices: int = 1
    ) -> dict[str, Any]:
        """The rows of training batch `number` that one of several processes loads, no others.

        Where the batch does not divide by the devices it ends with rows that do not exist, which
        "where" says on every process. Whatever the number of processes, the rows of all of them
        are the batch, in its order.

        Args:
          number: of the batch, from 0.
          process: which one, from 0.
          processes: how many.
          devices: of all processes together, a multiple of these.

        Returns:
          "images" and "labels", and "where" in a batch that is filled up.
        """
        rows = self.sampler(number)
        places = np.arange(len(rows) + -len(rows) % devices)
        exists = places < len(rows)
        rows = samplers.share(np.resize(rows, len(exists)), process, processes)
        if self.crops is None:
            images = self.train.images[rows]
        else:
            images = self.crops(number, rows, samplers.share(places, process, processes))
        batch = {"images": images, "labels": self.train.labels[rows]}
        if not exists.all():
            batch["where"] = samplers.share(exists, process, processes)
        return batch


def load(settings: Settings) -> Data:
    """The data of a run, prepared on first use.

    Raises:
      ValueError: an unknown or missing data set, or batches that it cannot fill.
    """
    notes, report = (), None
    try:
        if settings.data.startswith(FOLDER):
            splits, notes, report = _own_pictures(settings)
            sets = _parts(splits)
        else:
            if settings.data_options:
                raise ValueError(f"data_options: are for {FOLDER}PATH, not for {settings.data}")
            sets = _known(settings)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        message = _NAMED.sub("", str(error))
        named = message.startswith("data_options: ")
        raise ValueError(message if named else f"data: {message}") from error
    gallery = sets.pop("gallery", None)
    train, validation = _folds(settings, sets.pop("train"), sets.pop("validation", None))
    classes, labels = np.unique(train.labels, return_inverse=True)
    seen = functools.partial(_seen, settings)
    tests = {name: seen(split, gallery) for name, split in sets.items()}
    shown = Images(
        _shown(settings, train),
        labels.astype(np.int32),
        tuple(train.class_names[c] for c in classes),
    )
    return Data(
        shown,
        None if validation is None else seen(validation),
        tests,
        len(classes),
        _sampler(settings, shown.labels, train.groups),
        _crops(settings, train),
        notes,
        report,
    )


# ---------------------------------------------------------------- splits


def _known(settings: Settings) -> dict[str, Split]:
    """The splits of a data set by name."""
    options = {"data_dir": settings.data_dir or None, "image_size": settings.image_size or None}
    read = functools.cache(functools.partial(datasets.load, **options))
    if settings.data not in SPLITS:
        return _parts(read(settings.data))
    return {
        name: getattr(read(source), split)
        for name, (source, split) in SPLITS[settings.data].items()
    }


def _parts(splits: Splits) -> dict[str, Split]:
    names = ("train", "validation", "test", "gallery")
    found = {name: getattr(splits, name) for name in names}
    return {name: split for name, split in found.items() if split is not None}


def _own_pictures(settings: Settings) -> tuple[Splits, tuple[str, ...], dict[str, Any]]:
    """The splits of a folder, with what is to be said of it."""
    from jdml.datasets import folder

    with _bar() as progress:
        return folder.read(
            settings.data.removeprefix(FOLDER),
            image_size=settings.image_size or settings.crop or None,
            progress=progress,
            **folder_options(settings.data_options),
        )


def folder_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE texts as keywords of `jdml.datasets.folder.read`.

    Example:
      >>> folder_options(("label=product", "train=0.8"))
      {'label': 'product', 'train': 0.8}

    Raises:
      ValueError: an unknown key, or a value that is no number where one is expected.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in FOLDER_OPTIONS:
            known = ", ".join(f"{name}=" for name in FOLDER_OPTIONS)
            raise ValueError(f"data_options: got {text!r}, expected some of {known}")
        try:
            found[key] = FOLDER_OPTIONS[key](value)
        except ValueError as error:
            raise ValueError(f"data_options: got {text!r}, expected a number") from error
    for key, name in (("super", "super_class"), ("cache", "cache_dir")):
        if key in found:
            found[name] = found.pop(key)
    return found


@contextlib.contextmanager
def _bar() -> Iterator[Any]:
    """A bar on the error stream while pictures are checked, where somebody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("checking pictures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _folds(
    settings: Settings, train: Split, validation: Split | None
) -> tuple[Split, Split | None]:
    """Training and validation; with folds, a block of the training classes validates."""
    if not settings.folds:
        return train, validation
    if settings.folds > len(train.classes):
        raise ValueError(
            f"folds: got {settings.folds}, expected {len(train.classes)} or less, the training "
            f"classes of {settings.data}"
        )
    held = np.isin(train.labels, np.array_split(train.classes, settings.folds)[settings.fold])
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held))


# ---------------------------------------------------------------- what a model sees


def _seen(settings: Settings, split: Split, gallery: Split | None = None) -> Images:
    """The images of the first classes of a split, all where the settings say 0."""
    classes = split.classes[: settings.test_classes or None]

    def images(part: Split) -> Images:
        if settings.test_classes:
            part = part.take(np.flatnonzero(np.isin(part.labels, classes)))
        return Images(_shown(settings, part), part.labels, tuple(part.class_names))

    found = images(split)
    return found if gallery is None else found._replace(gallery=images(gallery))


def _shown(settings: Settings, split: Split) -> Any:
    """The images of a split, their middle where training sees crops."""
    side = min(split.image_shape[:2])
    if settings.crop > side:
        raise ValueError(
            f"crop: got {settings.crop}, expected {side} or less, the side of the images of "
            f"{settings.data}: image_size says it"
        )
    lazy = isinstance(split.images, datasets.Images)
    return Lazy(split.images, settings.crop) if lazy or settings.crop else split.images


def _crops(settings: Settings, train: Split) -> Crops | None:
    if not settings.crop:
        return None
    low, high = settings.crop_scale
    return Crops(train, settings.crop, (low, high), settings.seed)


def _sampler(settings: Settings, labels: np.ndarray, groups: np.ndarray | None) -> Any:
    largest = int(np.bincount(labels).max())
    if settings.per_class > largest:
        raise ValueError(
            f"per_class: got {settings.per_class}, expected {largest} or less, "
            f"the images of the largest class of {settings.data}"
        )
    size: Any = {"classes_per_batch": settings.classes_per_batch, "per_class": settings.per_class}
    if settings.sampler in _POWERS:
        power = _POWERS[settings.sampler]
        return samplers.WeightedClasses(labels, **size, power=power, seed=settings.seed)
    if settings.sampler != "hierarchical":
        return samplers.ClassBalanced(labels, **size, seed=settings.seed)
    if groups is None:
        raise ValueError(f"sampler: got hierarchical, but {settings.data} has no super-classes")
    return samplers.Hierarchical(
        labels, groups, groups_per_batch=settings.super_classes, **size, seed=settings.seed
    )
