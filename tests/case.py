"""One loss with one set of choices, as the table of losses and the laws see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import references

from jdml import distances

B, D, C, K = 13, 5, 7, 3
LABELS = np.array([0, 1, 2, 0, 1, 3, 0, 4, 2, 1, 5, 0, 3])  # one class of four, two lone rows
REDUCTIONS = ("mean", "mean_active", "sum", "none")


@dataclass(frozen=True)
class Case:
    """One loss with one set of choices.

    Attributes:
      name: shown by pytest.
      loss: the public function.
      reference: of `references`, returning terms.
      numbers: traced keywords that can be learned, the same for both.
      arrays: other traced keywords (a random key, a state), the same for both.
      choices: static keywords of the library.
      reference_choices: what they are called in the reference.
      table: "" for pair losses, else "rows" [C, D] or "centers" [C, K, D].
      centers: K of "centers".
      held: the gradient is not the derivative, since the paper holds some weights constant.
      by_proxy: the anchors are the rows of the table.
      ordered: a row's value depends on its place in the batch (drawn margins).
      continuous: labels are numbers, not names.
      classes_only: takes one class a row only (it averages classes).
      batch_level: one value for the whole batch, of which rows have equal shares; the reference
        returns that number.
      mine: (x, y, refs, ref_labels, distance) -> Mined, where the library has a miner.
    """

    name: str
    loss: Callable[..., jax.Array]
    reference: Callable[..., Any]
    numbers: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    reference_choices: dict[str, Any] = field(default_factory=dict)
    table: str = ""
    mine: Callable[..., Any] | None = None
    held: bool = False
    by_proxy: bool = False
    ordered: bool = False
    continuous: bool = False
    classes_only: bool = False
    batch_level: bool = False
    centers: int = K

    def __str__(self) -> str:
        return self.name

    @property
    def fixed(self) -> dict[str, Any]:
        """All keywords but the numbers."""
        return {**self.arrays, **self.choices}

    def expected(self, reduction: str, x, y, *, table=None, refs=None, ref_labels=None, **options):
        """The reference's scalar, or [B] for "none"."""
        choices = {**self.numbers, **self.arrays, **self.reference_choices}
        if self.table:
            terms = self.reference(x, y, table, **choices, **options)
            return references.reduce(terms, reduction, len(table) if self.by_proxy else len(y))
        if self.mine is not None:
            distance = choices.get("distance", references.euclidean)
            there = {k: options[k] for k in ("where", "ref_where") if k in options}
            pairs = references.PairSet(x, y, refs, ref_labels, distance=distance, **there)
            options["mined"] = self.mine(pairs)
        terms = self.reference(x, y, refs, ref_labels, **choices, **options)
        if self.batch_level:
            there = (np.asarray(y) >= 0) & options.get("where", np.ones(len(y), bool))
            return terms * there / max(there.sum(), 1) if reduction == "none" else terms
        return references.reduce(terms, reduction, len(y))


def pair_case(
    loss: Callable[..., jax.Array],
    reference: Callable[..., Any],
    name: str = "",
    numbers: dict[str, float] | None = None,
    choices: dict[str, Any] | None = None,
    reference_choices: dict[str, Any] | None = None,
    **flags: Any,
) -> Case:
    """A case of a pair loss; its choices are not those of the reference."""
    choices, there = choices or {}, reference_choices or {}
    return Case(
        name or loss.__name__,
        loss,
        reference,
        numbers or {},
        choices=choices,
        reference_choices=there,
        **flags,
    )


def table_case(
    loss: Callable[..., jax.Array],
    reference: Callable[..., Any],
    table: str = "rows",
    name: str = "",
    numbers: dict[str, float] | None = None,
    choices: dict[str, Any] | None = None,
    **flags: Any,
) -> Case:
    """A case of a table loss; its choices are those of the reference."""
    name, numbers, choices = name or loss.__name__, numbers or {}, choices or {}
    given = {"choices": choices, "reference_choices": choices, "table": table}
    return Case(name, loss, reference, numbers, **given, **flags)


# The same distance here and in the references.
SQUARED = (
    {"distance": distances.squared_euclidean},
    {"distance": references.squared_euclidean},
)
COSINE = {"distance": distances.cosine}, {"distance": references.cosine}
UNIT = (
    {"distance": distances.normalized(distances.euclidean)},
    {"distance": references.normalized(references.euclidean)},
)


def rows(seed: int, n: int = B) -> np.ndarray:
    """Random rows whose distances lie around the margins of the table."""
    return 0.6 * np.random.default_rng(seed).normal(size=(n, D))


def table(case: Case, seed: int = 5, classes: int = C) -> np.ndarray | None:
    """A random class table of the case's shape, or None."""
    if not case.table:
        return None
    shape = (classes, D) if case.table == "rows" else (classes, case.centers, D)
    return np.random.default_rng(seed).normal(size=shape)
