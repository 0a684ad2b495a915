"""What a run trains on and what it searches among, by the name of a data set."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments.settings import Settings
from jdml import datasets, samplers
from jdml.datasets import Split
from jdml.samplers import ClassBalanced

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


class Images(NamedTuple):
    """Pictures in memory."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int [N]
    names: tuple[str, ...]  # of each label


class Data(NamedTuple):
    """Training images and the sets that are searched, none of whose classes are trained on."""

    train: Images  # labels 0 .. C - 1, so that a class table has a row for each
    validation: Images | None  # to watch while training, where the data set has it
    tests: dict[str, Images]  # "test", and more where the same training answers more
    num_classes: int
    sampler: ClassBalanced

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
        exists = np.arange(len(rows) + -len(rows) % devices) < len(rows)
        rows = samplers.share(np.resize(rows, len(exists)), process, processes)
        batch = {"images": self.train.images[rows], "labels": self.train.labels[rows]}
        if not exists.all():
            batch["where"] = samplers.share(exists, process, processes)
        return batch


def load(settings: Settings) -> Data:
    """The data of a run, prepared on first use.

    Raises:
      ValueError: an unknown or missing data set, or batches that it cannot fill.
    """
    read = functools.cache(functools.partial(datasets.load, data_dir=settings.data_dir or None))
    default = {split: (settings.data, split) for split in ("train", "validation", "test")}
    try:
        sets = {
            name: _in_memory(found)
            for name, (source, split) in SPLITS.get(settings.data, default).items()
            if (found := getattr(read(source), split)) is not None
        }
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        raise ValueError(f"data: {str(error).removeprefix('name: ')}") from error
    train, validation = sets.pop("train"), sets.pop("validation", None)
    classes, labels = np.unique(train.labels, return_inverse=True)
    train = Images(train.images, labels.astype(np.int32), tuple(train.names[c] for c in classes))
    first = functools.partial(_first_classes, settings.test_classes)
    tests = {name: first(images) for name, images in sets.items()}
    return Data(
        train,
        validation and first(validation),
        tests,
        len(classes),
        _sampler(settings, train.labels),
    )


def _in_memory(split: Split) -> Images:
    return Images(split.fetch(np.arange(len(split))), split.labels, tuple(split.class_names))


def _first_classes(count: int, images: Images) -> Images:
    """The images of the first classes; all where count is 0."""
    classes = np.unique(images.labels)
    kept = np.isin(images.labels, classes[: count or len(classes)])
    return Images(images.images[kept], images.labels[kept], images.names)


def _sampler(settings: Settings, labels: np.ndarray) -> ClassBalanced:
    largest = int(np.bincount(labels).max())
    if settings.per_class > largest:
        raise ValueError(
            f"per_class: got {settings.per_class}, expected {largest} or less, "
            f"the images of the largest class of {settings.data}"
        )
    return ClassBalanced(labels, settings.classes_per_batch, settings.per_class, seed=settings.seed)
