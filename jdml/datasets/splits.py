"""What every data set here gives: images by number, labels, and splits that share no class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, read by row number.

    Attributes:
      name: such as "hangul/test".
      images: uint8 [N, H, W, C], grey (C = 1) or RGB (C = 3), decoded once.
      labels: integers [N], an index into `class_names`.
      class_names: of all classes of the data set.

    Example:
      >>> split = Split("toy", np.zeros((3, 4, 4, 1), np.uint8), np.array([1, 0, 1]), ("a", "b"))
      >>> len(split), split.image_shape, split.fetch([2, 0]).shape
      (3, (4, 4, 1), (2, 4, 4, 1))
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                f"images: got {self.images.dtype}{list(self.images.shape)}, "
                "expected uint8 [N, H, W, C]"
            )
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels: got {self.labels.shape}, expected one an image, ({len(self.images)},)"
            )
        if self.labels.dtype.kind not in "iu":
            raise TypeError(f"labels: got {self.labels.dtype}, expected integers")
        names = len(self.class_names)
        if self.labels.size and not 0 <= self.labels.min() <= self.labels.max() < names:
            raise ValueError(
                f"labels: got {self.labels.min()} to {self.labels.max()}, expected 0 to "
                f"{names - 1}, one for each of class_names"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.image_shape))
        return f"<{self.name}: {len(self)} images of {len(self.classes)} classes, {shape}>"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.images.shape[1:]

    @property
    def classes(self) -> np.ndarray:
        """The labels that occur, ascending."""
        return np.unique(self.labels)

    def fetch(self, indices: Any) -> np.ndarray:
        """The images of some rows, in that order.

        Args:
          indices: [n] integers from 0 to N - 1. Negative ones are refused: they mark padding
            elsewhere, and would come back as images from the end.

        Returns:
          uint8 [n, H, W, C].

        Raises:
          TypeError: indices that are not integers.
          IndexError: one that is out of range.
        """
        rows = np.asarray(indices)
        if rows.size and rows.dtype.kind not in "iu":
            raise TypeError(f"indices: got {rows.dtype}{list(rows.shape)}, expected integers")
        wrong = rows[(rows < 0) | (rows >= len(self))]
        if wrong.size:
            raise IndexError(f"indices: got {wrong[0]}, expected 0 to {len(self) - 1}")
        return self.images[rows.astype(np.int64)]


@dataclasses.dataclass(frozen=True)
class Splits:
    """Training, validation and test splits. The classes of the three are disjoint.

    Attributes:
      train: labels 0 .. C-1, so that a class table has a row for each.
      validation: classes for choosing hyper-parameters, or None.
      test: classes that training has not seen.
    """

    train: Split
    validation: Split | None
    test: Split

    def __post_init__(self) -> None:
        check_class_disjoint(
            *(s for s in (self.train, self.validation, self.test) if s is not None)
        )

    @property
    def num_classes(self) -> int:
        """Classes of the training split."""
        return int(self.train.labels.max()) + 1


def check_class_disjoint(*splits: Split) -> None:
    """Refuses splits that share a class.

    Args:
      *splits: of one data set.

    Raises:
      ValueError: naming the two splits and the classes that they share.

    Example:
      >>> image = np.zeros((1, 1, 1, 1), np.uint8)
      >>> one = Split("one", image, np.array([0]), ("a", "b"))
      >>> check_class_disjoint(one, one)
      Traceback (most recent call last):
      ValueError: splits: one and one share 1 class: a
    """
    for i, first in enumerate(splits):
        for second in splits[i + 1 :]:
            shared = np.intersect1d(first.classes, second.classes)
            if len(shared):
                names = ", ".join(first.class_names[k] for k in shared[:5])
                more = "" if len(shared) <= 5 else ", ..."
                word = "class" if len(shared) == 1 else "classes"
                raise ValueError(
                    f"splits: {first.name} and {second.name} share {len(shared)} {word}: "
                    f"{names}{more}"
                )


def check_counts(split: Split, *, images: int, classes: int) -> None:
    """Refuses a split that is not as large as its protocol says.

    Args:
      split: to be checked.
      images: number of images expected.
      classes: number of classes expected.

    Raises:
      ValueError: naming the split, what it holds and what was expected.

    Example:
      >>> split = Split("toy", np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 1]), ("a", "b"))
      >>> check_counts(split, images=3, classes=2)
      Traceback (most recent call last):
      ValueError: toy: got 2 images of 2 classes, expected 3 images of 2 classes
    """
    if len(split) != images or len(split.classes) != classes:
        raise ValueError(
            f"{split.name}: got {len(split)} images of {len(split.classes)} classes, "
            f"expected {images} images of {classes} classes"
        )


def by_classes(
    name: str,
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    parts: Mapping[str, Sequence[int]],
) -> dict[str, Split]:
    """Splits of a data set by its classes.

    Args:
      name: of the data set.
      images: uint8 [N, H, W, C].
      labels: [N].
      class_names: of all classes.
      parts: the classes of each split.

    Returns:
      A `Split` for each part, named after it.
    """
    made = {}
    for part, classes in parts.items():
        rows = np.isin(labels, np.asarray(classes))
        made[part] = Split(f"{name}/{part}", images[rows], labels[rows], tuple(class_names))
    return made
