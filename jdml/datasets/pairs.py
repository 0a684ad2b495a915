"""Verification sets: pairs of pictures, of one class or of two, in folds."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdml.datasets.splits import Split


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pictures and the pairs of them that a protocol asks about.

    Embed the pictures once, take the similarity of each pair, and judge them fold by fold with
    `jdml.metrics.fold_accuracy(similarities, pairs.same, folds=pairs.fold)`.

    Attributes:
      split: the pictures; their labels are not needed to verify.
      first: int [P], rows of `split`.
      second: int [P], rows of `split`.
      same: bool [P], whether a pair shows one class.
      fold: int [P], from 0.

    Example:
      >>> images, labels = np.zeros((3, 1, 1, 1), np.uint8), np.array([0, 0, 1])
      >>> split, folds = Split("toy", images, labels, ("a", "b")), np.array([0, 1])
      >>> Pairs(split, np.array([0, 0]), np.array([1, 2]), np.array([True, False]), folds)
      <toy: 2 pairs in 2 folds, 3 images of 2 classes>
    """

    split: Split
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    fold: np.ndarray

    def __post_init__(self) -> None:
        shape, rows = self.same.shape, len(self.split)
        for name in ("first", "second", "fold"):
            values = getattr(self, name)
            if values.shape != shape or len(shape) != 1:
                raise ValueError(f"{name}: got {values.shape}, expected one a pair, {shape}")
            if name != "fold" and len(values) and not 0 <= values.min() <= values.max() < rows:
                raise ValueError(
                    f"{name}: got {values.min()} to {values.max()}, expected rows of the "
                    f"pictures, 0 to {rows - 1}"
                )
        agree = self.split.labels[self.first] == self.split.labels[self.second]
        wrong = np.flatnonzero(agree != self.same)
        if len(wrong):
            raise ValueError(
                f"same: got {self.same[wrong[0]]} for pair {wrong[0]}, which the labels deny"
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.same)

    def __repr__(self) -> str:
        folds, classes = len(np.unique(self.fold)), len(self.split.classes)
        return (
            f"<{self.split.name}: {len(self)} pairs in {folds} folds, "
            f"{len(self.split)} images of {classes} classes>"
        )
