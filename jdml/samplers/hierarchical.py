"""Batches from a few groups of classes each."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np

from jdml.samplers import batches
from jdml.samplers.batches import Batches, SmallClasses


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchical(Batches):
    """G groups of classes, P / G classes in each, K rows of each class.

    Where classes belong to groups (kinds of product, alphabets, families), classes of one group are
    the hard negatives of each other. A batch takes its classes from G groups only, drawn at random.

    A round has each class once. It has as many batches as that takes, and a group larger than all
    others together makes it longer: what the others lack then comes from classes that the round has
    had already, as does what the last classes of a group lack to P / G. Groups of fewer than
    P / G classes are taken together as one, with a warning. Rows of a class are taken as by
    `ClassBalanced`: a class that comes again in a round brings the same rows.

    Attributes:
      labels: [N] integer classes; rows with a negative label are never taken.
      groups: [N] integers, the group of each row's class.
      groups_per_batch: G, at least 1 and at most the number of groups.
      classes_per_batch: P, at least 2, a multiple of G.
      per_class: K, at least 1.
      seed: of all randomness, 0 or more.
      small_classes: "repeat" rows of classes with fewer than K, with one warning, or "drop" these
        classes.

    Raises:
      ValueError: a class in two groups, too few classes or groups, or P no multiple of G.
      TypeError: labels, groups or numbers that are not integers.

    Example:
      >>> labels = np.repeat(np.arange(8), 2)
      >>> sampler = Hierarchical(
      ...     labels, labels // 4, groups_per_batch=1, classes_per_batch=2, per_class=2)
      >>> len(sampler), [len(set(labels[sampler(i)] // 4)) for i in range(4)]
      (4, [1, 1, 1, 1])

    Reference:
      Cakir, He, Xia, Kulis, Sclaroff, "Deep Metric Learning to Rank", CVPR 2019: two kinds of
      product a batch.
    """

    labels: Any
    groups: Any
    groups_per_batch: int
    classes_per_batch: int
    per_class: int
    seed: int = 0
    small_classes: SmallClasses = "repeat"

    def __post_init__(self) -> None:
        for name in ("labels", "groups"):
            object.__setattr__(self, name, batches.integers(name, getattr(self, name)))
        if self.groups.shape != self.labels.shape:
            raise ValueError(
                f"groups: got {self.groups.shape}, expected one a label, {self.labels.shape}"
            )
        batches.check_least(self, classes_per_batch=2, per_class=1, groups_per_batch=1, seed=0)
        batches.check_small_classes(self.small_classes)
        if self.classes_per_batch % self.groups_per_batch:
            raise ValueError(
                f"classes_per_batch: got {self.classes_per_batch}, expected a multiple of "
                f"groups_per_batch = {self.groups_per_batch}"
            )
        every = batches.rows_by_class(self.labels)
        for rows in every:
            if (self.groups[rows] != self.groups[rows[0]]).any():
                first, second = np.unique(self.groups[rows])[:2]
                raise ValueError(
                    f"groups: class {self.labels[rows[0]]} is in groups {first} and {second}, "
                    "expected one"
                )
        batches.check_classes(self, every, self._rows_by_class, stacklevel=4)
        if self.groups_per_batch > len(self._members):
            raise ValueError(
                f"groups_per_batch: got {self.groups_per_batch}, expected {len(self._members)} or "
                f"less, the number of groups with {self._each} classes or more"
            )
        if self._small:
            warnings.warn(
                f"{self._small} of {len(self._classes_of_groups)} groups have fewer than "
                f"classes_per_batch / groups_per_batch = {self._each} classes: "
                "they are taken together",
                stacklevel=3,
            )

    @functools.cached_property
    def _rows_by_class(self) -> list[np.ndarray]:
        every = batches.rows_by_class(self.labels)
        return batches.large_enough(every, self.per_class, self.small_classes)

    @property
    def _each(self) -> int:
        """Classes of each group in a batch."""
        return self.classes_per_batch // self.groups_per_batch

    @functools.cached_property
    def _classes_of_groups(self) -> list[np.ndarray]:
        of_class = np.array([self.groups[rows[0]] for rows in self._rows_by_class])
        return [np.flatnonzero(of_class == group) for group in np.unique(of_class)]

    @property
    def _small(self) -> int:
        """Groups with fewer classes than a batch takes of one."""
        return sum(len(classes) < self._each for classes in self._classes_of_groups)

    @functools.cached_property
    def _members(self) -> list[np.ndarray]:
        """The classes of each group, small groups taken together."""
        large = [classes for classes in self._classes_of_groups if len(classes) >= self._each]
        small = [classes for classes in self._classes_of_groups if len(classes) < self._each]
        if not small:
            return large
        rest = np.sort(np.concatenate(small))
        if len(rest) < self._each and large:  # still too few: with the smallest of the others
            least = min(range(len(large)), key=lambda group: len(large[group]))
            rest = np.sort(np.concatenate([rest, large.pop(least)]))
        return [*large, rest] if len(rest) >= self._each else large

    @functools.cached_property
    def _portions(self) -> np.ndarray:
        """How many times P / G classes each group has, the last time filled up."""
        return np.array([-(-len(classes) // self._each) for classes in self._members])

    @property
    def batch_size(self) -> int:
        """P x K."""
        return self.classes_per_batch * self.per_class

    def __len__(self) -> int:
        """Batches of a round, in which every class comes up."""
        portions = self._portions
        return max(-(-int(portions.sum()) // self.groups_per_batch), int(portions.max()))

    def __call__(self, i: int) -> np.ndarray:
        """The rows of batch i.

        Args:
          i: from 0, without end.

        Returns:
          int64 [P * K], the classes of a group side by side, as are the K rows of a class.
        """
        batches.check_number(i)
        turn, place = divmod(i, len(self))
        chosen = self._round(turn)[place]
        rows, count = self._rows_by_class, self.per_class
        return np.concatenate(
            [batches.visit(rows[c], count, turn, self.seed, int(c)) for c in chosen]
        )

    def _plan(self, number: int) -> np.ndarray:
        """The classes [len(self), P] of each batch of a round."""
        rng = np.random.default_rng([self.seed, 2, number])
        portions = [
            np.resize(rng.permutation(classes), (count, self._each))
            for classes, count in zip(self._members, self._portions)
        ]
        left, plan = self._portions.copy(), []
        for rest in range(len(self), 0, -1):
            # Groups with a portion for each batch that is left have to come; others come as often
            # as they have portions, and those that have none are the last resort.
            luck = rng.gumbel(size=len(left)) + np.log(np.maximum(left, 1e-9))
            luck[left == rest] = np.inf
            chosen = np.argsort(-luck, kind="stable")[: self.groups_per_batch]
            left[chosen] -= 1  # below 0 a portion of this round comes again
            plan.append(np.concatenate([portions[g][left[g] % len(portions[g])] for g in chosen]))
        return np.stack(plan)
