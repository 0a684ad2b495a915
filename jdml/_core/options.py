"""The keywords that losses share, typed once, and the view of a batch that a pair formula sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import jax

Array: TypeAlias = jax.Array
Number: TypeAlias = float | jax.Array
AxisName: TypeAlias = str | tuple[str, ...]
Reduction: TypeAlias = Literal["mean", "mean_active", "sum", "none"]
Distance: TypeAlias = Callable[[Array, Array], Array]


class Mates(NamedTuple):
    """Where the class-mates of an anchor stand, so that a sweep over them needs no cube."""

    order: Array  # [R] references sorted by class
    start: Array  # [b] where the anchor's class starts in that order
    count: Array  # [b] its members, the anchor itself left out
    rank: Array  # [b] the anchor's own place among them, or R where it is not among them


class Pairs(NamedTuple):
    """What a formula and a miner see of one block of b anchors against the references.

    Distances are smaller for closer rows. A weight of 0 means that the pair is not there. Fresh
    from the engine, P = N = R: every reference has a column on both sides, and the weights tell
    which side it is on. A miner multiplies weights, or gathers columns to a smaller static width
    with `take_positives` and `take_negatives`.
    """

    positives: Array  # [b, P]
    negatives: Array  # [b, N], or [b, P, N] when each positive has negatives of its own
    positive_weights: Array  # the shape of positives
    negative_weights: Array  # the shape of negatives
    # From here on, None where a loss or a miner does not ask for it.
    # The reference that each entry belongs to; None while the columns are the references, in order.
    positive_columns: Any = None  # the shape of positives
    negative_columns: Any = None  # the shape of negatives
    mates: Mates | None = None  # only while positive columns are the references
    anchor_values: Any = None  # [b] the row statistic of the anchor
    positive_values: Any = None  # [b, P] the row statistic of each positive, or label distances
    between: Any = None  # [R, R] distances between references, where a loss asks for them
    between_weights: Any = None  # [R, R] 1 where two references are of different classes
    anchors: Any = None  # [b] place of each anchor in the batch of all devices
    bounds: Any = None  # what a miner with a survey found out about all pairs of the batch


Miner: TypeAlias = Callable[[Pairs], Pairs]


class PairOptions(TypedDict, total=False):
    """Keywords that every pair loss takes."""

    where: Array | None
    weights: Array | None
    reduction: Reduction
    axis_name: AxisName | None
    block_size: int | None
    refs: Array | None
    ref_labels: Array | None
    ref_where: Array | None
    miner: Miner | None


class TableOptions(TypedDict, total=False):
    """Keywords that every class-table loss takes."""

    where: Array | None
    weights: Array | None
    reduction: Reduction
    axis_name: AxisName | None
    block_size: int | None
    proxy_labels: Array | None
    class_axis_name: str | None


STATIC_OPTIONS = ("reduction", "axis_name", "block_size", "miner", "distance", "class_axis_name")
INTEGER_OPTIONS = ("labels", "ref_labels", "proxy_labels")
BOOLEAN_OPTIONS = ("where", "ref_where")


def take(values: Any, columns: Array) -> Any:
    """Gathers `columns` on the last axis; leading axes are matched, None stays None."""
    if values is None:
        return None
    lead = columns.shape[:-1]
    if values.ndim < columns.ndim:  # [b, N] seen by columns [b, P, k]
        values = values[:, None, :]
    values = jax.numpy.broadcast_to(values, (*lead, values.shape[-1]))
    return jax.numpy.take_along_axis(values, columns, axis=-1)


def take_positives(pairs: Pairs, columns: Array) -> Pairs:
    """Keeps, of each anchor's positives, the k at `columns` [b, k], with their own negatives."""
    if pairs.negatives.ndim == 3:
        rows = lambda x: None if x is None else jax.numpy.take_along_axis(x, columns[:, :, None], 1)
        pairs = pairs._replace(
            negatives=rows(pairs.negatives),
            negative_weights=rows(pairs.negative_weights),
            negative_columns=rows(pairs.negative_columns),
        )
    return pairs._replace(
        positives=take(pairs.positives, columns),
        positive_weights=take(pairs.positive_weights, columns),
        positive_columns=_columns(pairs.positive_columns, columns),
        positive_values=take(pairs.positive_values, columns),
        mates=None,
    )


def take_negatives(pairs: Pairs, columns: Array) -> Pairs:
    """Keeps the negatives at `columns`: [b, k] for each anchor, [b, P, k] for each positive."""
    return pairs._replace(
        negatives=take(pairs.negatives, columns),
        negative_weights=take(pairs.negative_weights, columns),
        negative_columns=_columns(pairs.negative_columns, columns),
    )


def _columns(before: Array | None, columns: Array) -> Array:
    return columns if before is None else take(before, columns)


def by_anchor(pairs: Pairs, loss_name: str) -> Pairs:
    """Refuses a miner that picks negatives for each positive, where a loss sums by anchor."""
    if pairs.negatives.ndim == 3:
        raise ValueError(
            "miner: got one that picks negatives for each positive, expected one that picks them "
            f"for each anchor, as {loss_name} needs"
        )
    return pairs


def by_positive(x: Array) -> Array:
    """[b, N] or [b, P, N] as [b, 1 or P, N]: the negatives as each positive sees them."""
    return x[:, None, :] if x.ndim == 2 else x


def flat(x: Array) -> Array:
    """One row an anchor, also where a miner gave each positive its own negatives [b, P, N]."""
    return x.reshape(x.shape[0], -1)


def partner_negatives(pairs: Pairs) -> Array:
    """Distances from each positive to the negatives of its anchor, [b or 1, P, N].

    For formulas that asked the engine for the distances between references.
    """
    between, rows, columns = pairs.between, pairs.positive_columns, pairs.negative_columns
    if between is None:
        raise ValueError("pairs: got no distances between references; ask over_pairs for them")
    if rows is None and columns is None:
        return between[None]
    everything = jax.numpy.arange(between.shape[0])[None, :]
    rows = everything if rows is None else rows
    columns = everything if columns is None else columns
    if columns.ndim == 2:
        columns = columns[:, None, :]
    return between[rows[:, :, None], columns]
