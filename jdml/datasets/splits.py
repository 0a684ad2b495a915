"""What every data set here gives: images by number, labels, and splits that share no class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdml.datasets.images import Images, from_array, sides


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split of a data set, read by row number.

    Attributes:
      name: such as "hangul/test".
      images: uint8 [N, H, W, C], grey (C = 1) or RGB (C = 3): an array in memory, or `Images`,
        which decodes what is asked for.
      labels: integers [N], an index into `class_names`.
      class_names: of all classes of the data set.
      groups: integers [N], what a class belongs to (a kind of product, an alphabet), where the
        data set says.

    Example:
      >>> split = Split("toy", np.zeros((3, 4, 4, 1), np.uint8), np.array([1, 0, 1]), ("a", "b"))
      >>> len(split), split.image_shape, split.fetch([2, 0]).shape
      (3, (4, 4, 1), (2, 4, 4, 1))
    """

    name: str
    images: np.ndarray | Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None

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
        if self.groups is not None and self.groups.shape != self.labels.shape:
            raise ValueError(
                f"groups: got {self.groups.shape}, expected one an image, {self.labels.shape}"
            )
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
        word = "class" if len(self.classes) == 1 else "classes"
        return f"<{self.name}: {len(self)} images of {len(self.classes)} {word}, {shape}>"

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
        return self.images[self._rows(indices)]

    def crop(self, indices: Any, boxes: Any, size: int | tuple[int, int]) -> np.ndarray:
        """A box of each of some images, cut and resized in one go.

        Args:
          indices: [n] integers from 0 to N - 1.
          boxes: [n, 4], (left, top, width, height) as fractions of the whole picture.
          size: of the result in pixels, a side or (height, width).

        Returns:
          uint8 [n, height, width, C].

        Raises:
          TypeError, IndexError: as `fetch`.
          ValueError: a box outside the picture, or no size.

        Example:
          >>> image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
          >>> split = Split("toy", image, np.array([0]), ("a",))
          >>> split.crop([0], [[0.5, 0.0, 0.5, 0.5]], 2)[0, :, :, 0].tolist()
          [[2, 3], [6, 7]]
        """
        images = self.images if isinstance(self.images, Images) else from_array(self.images)
        return images.crop(self._rows(indices), boxes, size)

    def take(self, indices: Any, name: str | None = None) -> Split:
        """Some of the rows as a split of their own; pictures that are encoded stay so.

        Args:
          indices: [n] integers from 0 to N - 1.
          name: of the new split; that of this one by default.

        Returns:
          A `Split` with the same `class_names`.

        Example:
          >>> images, labels = np.zeros((3, 1, 1, 1), np.uint8), np.array([1, 0, 1])
          >>> Split("toy", images, labels, ("a", "b")).take([2, 0], "mine")
          <mine: 2 images of 1 class, 1 x 1 x 1>
        """
        rows = self._rows(indices)
        lazy = isinstance(self.images, Images)
        return Split(
            self.name if name is None else name,
            self.images.take(rows) if lazy else self.images[rows],
            self.labels[rows],
            self.class_names,
            None if self.groups is None else self.groups[rows],
        )

    def sized(self, size: int | tuple[int, int]) -> Split:
        """The same pictures in another size; an array stays one.

        Args:
          size: in pixels, a side or (height, width).

        Returns:
          A `Split`; this one where it has that size.

        Raises:
          ValueError: no size.

        Example:
          >>> split = Split("toy", np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 0]), ("a",))
          >>> split.sized(2).image_shape
          (2, 2, 1)
        """
        size = sides(size)
        if self.image_shape[:2] == size:
            return self
        if isinstance(self.images, Images):
            return dataclasses.replace(self, images=self.images.sized(size))
        return dataclasses.replace(self, images=from_array(self.images).sized(size)[:])

    def _rows(self, indices: Any) -> np.ndarray:
        rows = np.asarray(indices)
        if rows.size and rows.dtype.kind not in "iu":
            raise TypeError(f"indices: got {rows.dtype}{list(rows.shape)}, expected integers")
        wrong = rows[(rows < 0) | (rows >= len(self))]
        if wrong.size:
            raise IndexError(f"indices: got {wrong[0]}, expected 0 to {len(self) - 1}")
        return rows.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Splits:
    """Training, validation and test splits. The classes of the three are disjoint.

    Attributes:
      train: labels 0 .. C-1, so that a class table has a row for each.
      validation: classes for choosing hyper-parameters, or None.
      test: classes that training has not seen.
      gallery: what the images of `test` are searched in, where a protocol keeps the two apart:
        the classes of `test`, other images. None where `test` is searched in itself.
    """

    train: Split
    validation: Split | None
    test: Split
    gallery: Split | None = None

    def __post_init__(self) -> None:
        seen = [split for split in (self.train, self.validation) if split is not None]
        check_class_disjoint(*seen, self.test)
        if self.gallery is not None:
            check_class_disjoint(*seen, self.gallery)

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
    images: np.ndarray | Images,
    labels: np.ndarray,
    class_names: Sequence[str],
    parts: Mapping[str, Sequence[int]],
) -> dict[str, Split]:
    """Splits of a data set by its classes.

    Args:
      name: of the data set.
      images: uint8 [N, H, W, C], an array or `Images`.
      labels: [N].
      class_names: of all classes.
      parts: the classes of each split.

    Returns:
      A `Split` for each part, named after it.
    """
    whole = Split(name, images, labels, tuple(class_names))
    return {
        part: whole.take(np.flatnonzero(np.isin(labels, np.asarray(classes))), f"{name}/{part}")
        for part, classes in parts.items()
    }
