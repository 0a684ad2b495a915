"""What makes two rows a pair: one class each, several labels each, the pairs themselves, numbers.

The kind follows from dtype and shape, so that every pair loss takes each of them as `labels`:

* integers [B]: a class a row; rows of one class are positives, negative ones mark missing rows.
* integers [B, L], 0 or 1: which of L labels a row has; rows that share one are positives.
* bools or floats [B, R]: the pairs themselves, or the degree from 0 to 1 to which they are. A pair
  of degree s is a positive of weight s and a negative of weight 1 - s.
* any numbers, where a loss brings a distance between labels: every two rows are a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from jdml._core import checks
from jdml._core.maths import inner_products
from jdml._core.options import Array

Kind = Literal["classes", "label sets", "degrees", "numbers"]
LabelDistance = Callable[[Array, Array], Array]  # [b, ...] and [R, ...] -> [b, R]

_EXPECTED = (
    "class integers [B], 0/1 integers [B, L] for several labels a row, "
    "or a bool or float matrix of pairs [B, R]"
)


def kind_of(labels: Array, label_distance: LabelDistance | None) -> Kind:
    """Which of the four kinds `labels` is."""
    if label_distance is not None:
        return "numbers"
    integer = jnp.issubdtype(labels.dtype, jnp.integer)
    if labels.ndim == 1 and not integer:
        raise TypeError(f"labels: got {checks.describe(labels)}, expected {_EXPECTED}")
    if labels.ndim not in (1, 2):
        raise ValueError(f"labels: got {checks.describe(labels)}, expected {_EXPECTED}")
    if labels.ndim == 1:
        return "classes"
    if integer and labels.shape[1] == 1:  # classes with an axis too many, not one label
        got = checks.describe(labels)
        raise ValueError(f"labels: got {got}, expected [B], a class a row: drop the last axis")
    return "label sets" if integer else "degrees"


def check(
    kind: Kind, name: str, labels: Array, n: int, of: str, partner: Array | None = None
) -> None:
    """Labels of n rows; `partner` are those that they are compared with."""
    if kind == "classes":
        checks.class_labels(name, labels, n, of)
        return
    shape = checks.describe(labels)
    if labels.ndim == 0 or labels.shape[0] != n:
        raise ValueError(f"{name}: got {shape}, expected {n} rows, one a row of {of}")
    if partner is not None and labels.shape[1:] != partner.shape[1:]:
        expected = f"{labels.dtype}[{', '.join(map(str, (n, *partner.shape[1:])))}], as labels"
        raise ValueError(f"{name}: got {shape}, expected {expected}")


def check_width(kind: Kind, labels: Array, n_references: int) -> None:
    """A matrix of pairs has a column for each reference."""
    if kind == "degrees" and labels.shape[1] != n_references:
        raise ValueError(
            f"labels: got {checks.describe(labels)}, expected {labels.shape[0]} rows of "
            f"{n_references} columns, one a reference"
        )


def exist(kind: Kind, labels: Array, where: Array | None) -> Array:
    """[B] the rows that are there."""
    if kind == "classes":
        there = labels >= 0
    elif kind == "label sets":
        there = (labels >= 0).all(axis=-1)
    else:
        there = jnp.ones(labels.shape[:1], bool)
    return there if where is None else there & where


def alike(kind: Kind, anchors: Array, references: Array) -> Array:
    """[b, R] which pairs are positives, or the degree to which they are."""
    if kind == "classes":
        return anchors[:, None] == references[None, :]
    if kind == "label sets":
        lift = lambda x: x.astype(jnp.float32)
        return inner_products(lift(anchors), lift(references)) > 0
    return anchors


def weigh_kinds(degree: Array, valid: Array, weight: Array) -> tuple[Array, Array]:
    """Weights [b, R] of pairs as positives and as negatives."""
    if degree.dtype == jnp.bool_:
        return jnp.where(valid & degree, weight, 0.0), jnp.where(valid & ~degree, weight, 0.0)
    degree = degree.astype(weight.dtype)
    return jnp.where(valid, weight * degree, 0.0), jnp.where(valid, weight * (1.0 - degree), 0.0)
