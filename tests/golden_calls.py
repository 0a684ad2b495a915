"""What the tables of goldens are made of: a golden as a call, and builders of calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from golden_data import Padded
from golden_pairs import Entry, distance_of, kept, measured, pair_counts, with_miner

# For each number of a loss: its name in the golden, its unit there, its default there.
Read = tuple[str, Callable[[Any], float], float]
REDUCTIONS = {"AvgNonZeroReducer": "mean_active", "MeanReducer": "mean", "SumReducer": "sum"}


class Call(NamedTuple):
    """One golden as a call: `loss(rows(embeddings), labels[, table], **choices, **numbers)`."""

    loss: Callable[..., jax.Array]
    choices: dict[str, Any]  # static, equal by value: goldens that agree share a compilation
    numbers: Callable[[Padded], dict[str, Any]]  # traced
    rows: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # (rows [B, D], features [D])
    table: str | None = None  # the input that is the table of classes


def reducers_of(entry: Entry) -> dict[str, Any]:
    """The one reducer that all terms of an entry share."""
    reducer = entry["reducer"]
    return next(iter(reducer.get("sum_of", {"": reducer}).values()))


def shares(case: Padded, per_anchor: bool) -> np.ndarray:
    """Weights [B, R] with which "sum" is a reduction that the library does not name.

    Per anchor: the mean over all anchors of the mean over an anchor's pairs. Else: the mean over
    pairs of a value times the weight of the anchor's class, not divided by the weights.
    """
    total = np.zeros((len(case.labels), 1))
    for pairs in pair_counts(case):
        if per_anchor:
            each = 1 / np.maximum(pairs.sum(1, keepdims=True), 1) / (case.labels >= 0).sum()
        else:
            each = case.data["class_loss_weights"][case.labels][:, None] / pairs.sum()
        total = total + pairs * each
    return total


def numbers_of(entry: Entry, read: dict[str, Read]) -> dict[str, Any]:
    options = entry.get("options", {})
    return {
        ours: convert(options.get(theirs, default))
        for ours, (theirs, convert, default) in read.items()
    }


def pair_loss(
    loss: Callable, *, measures: bool = False, skips: bool = False, **read: Read
) -> Callable[[Entry], Call]:
    """A loss that `measures` takes a distance; one that `skips` gives some anchors no value."""

    def build(entry: Entry) -> Call:
        numbers, choices, rows = numbers_of(entry, read), with_miner(entry), None
        if measures:
            choices["distance"], rows = distance_of(entry)
        choices["reduction"] = REDUCTIONS[reducers_of(entry)["type"]]
        if not skips or choices["reduction"] != "mean":
            return Call(loss, choices, lambda case: numbers, rows)
        # The mean of the package is over all anchors.
        share = lambda case: np.full(len(case.labels), 1.0 / (case.labels >= 0).sum())
        weighed = lambda case: {**numbers, "weights": share(case)}
        return Call(loss, {**choices, "reduction": "sum"}, weighed, rows)

    return build


def table_loss(
    loss: Callable,
    choices: dict[str, Any] | None = None,
    spread: Callable | None = None,
    **read: Read,
) -> Callable[[Entry], Call]:
    """`spread` is the loss together with the regulariser of its table."""

    def build(entry: Entry) -> Call:
        numbers = numbers_of(entry, read)
        call = Call(loss, choices or {}, lambda case: numbers, table=entry["weights"]["input"])
        if "weight_regularizer" in entry.get("extra", {}):
            numbers["spread_weight"] = entry["extra"]["weight_reg_weight"]
            return call._replace(loss=spread or loss)
        if "miner" not in entry:
            return call
        counted = lambda case: {**numbers, "weights": mined_shares(entry, case)}
        return call._replace(choices={"reduction": "sum"}, numbers=counted)

    return build


def mined_shares(entry: Entry, case: Padded) -> np.ndarray:
    """Weights [B] by how often a row is in a mined triplet, over the most frequent and B."""
    matrix = measured(*distance_of(entry["miner"]), case)
    triplets = kept(with_miner(entry)["miner"], matrix, case).triplets
    counts = np.bincount(np.array(triplets).ravel(), minlength=len(case.labels))
    return counts / counts.max() / (case.labels >= 0).sum()


# Numbers that many losses read.

DEGREES = ("margin", math.radians, 28.6)
TEMPERATURE = ("temperature", float, 0.1)
SCALE = ("scale", float, 64.0)
SOFTMAX_SCALE = ("softmax_scale", float, 1.0)
