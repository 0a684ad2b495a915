"""The two sides of the pair engine: anchors, cut into blocks, and references, seen by every one."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jdml._core import checks, targets
from jdml._core.devices import gather
from jdml._core.maths import measure, prepare
from jdml._core.options import Array, AxisName, Distance
from jdml._core.targets import Kind


class Anchors(NamedTuple):
    """All by rows: what is cut into blocks."""

    rows: Array  # [b, D] prepared for the distance
    labels: Array  # [b], or [b, L] or [b, R]: see `targets`
    exists: Array  # [b]
    weights: Array  # [b], or [b, R]
    own: Array  # [b] the anchor's own column, -1 where it is not among the references
    index: Array  # [b] the anchor's place in the batch of all devices
    start: Array | None = None  # [b] with count and rank: see `Mates`; None without classes
    count: Array | None = None
    rank: Array | None = None
    values: Array | None = None  # [b] the row statistic


class References(NamedTuple):
    """What every block sees."""

    rows: Array  # [R, D]
    labels: Array | None  # [R] or [R, L]; None where a matrix of pairs says all
    exists: Array  # [R]
    columns: Array  # [R] 0 .. R-1
    order: Array | None = None  # [R] sorted by class; None without classes
    values: Array | None = None  # [R] the row statistic
    between: Array | None = None  # [R, R] distances
    apart: Array | None = None  # [R, R] 1 where two references are no positives
    bounds: Any = None  # what a miner found out about all pairs of the batch


class Inputs(NamedTuple):
    """What a pair loss was called with, and the kind of its labels."""

    embeddings: Array
    labels: Array
    kind: Kind
    where: Array | None = None
    weights: Array | None = None
    axis_name: AxisName | None = None
    refs: Array | None = None
    ref_labels: Array | None = None
    ref_where: Array | None = None


def both_sides(given: Inputs, distance: Distance, between: bool) -> tuple[Anchors, References]:
    """Checked anchors and references, prepared for the distance."""
    _check(given)
    exists = targets.exist(given.kind, given.labels, given.where)
    cleared = jnp.where(exists[:, None], given.embeddings, 0.0)
    n = cleared.shape[0]
    index = jnp.arange(n, dtype=jnp.int32)
    if given.axis_name is not None:
        index = index + lax.axis_index(given.axis_name).astype(jnp.int32) * n
    if given.refs is None:  # the batch of all devices, in which each row has a column of its own
        gathered = (gather(x, given.axis_name) for x in (cleared, exists))
        labels = None if given.kind == "degrees" else gather(given.labels, given.axis_name)
        references, own = make_references(given.kind, labels, *gathered), index
    else:
        references, own = _given(given), jnp.full(n, -1, jnp.int32)
    targets.check_width(given.kind, given.labels, references.rows.shape[0])
    weights = given.weights
    if weights is None:
        weights = jnp.ones(n, given.embeddings.dtype)
    checks.pair_weights(weights, n, references.rows.shape[0])
    rows = prepare(distance, cleared)
    anchors = Anchors(rows, given.labels, exists, weights, own, index)
    anchors = find_mates(given.kind, anchors, references)
    alone = given.refs is None and given.axis_name is None
    # One array for both sides, where it is one: products of a matrix with itself cost less.
    references = references._replace(rows=rows if alone else prepare(distance, references.rows))
    if between:
        rows = references.rows
        apart = _apart(given, references).astype(rows.dtype)
        references = references._replace(between=measure(distance, rows, rows), apart=apart)
    return anchors, references


def _check(given: Inputs) -> None:
    n, kind = given.embeddings.shape[0], given.kind
    checks.rows("embeddings", given.embeddings)
    targets.check(kind, "labels", given.labels, n, "embeddings")
    if given.where is not None:
        checks.vector("where", given.where, n, "embeddings")
    refs, ref_labels, ref_where = given.refs, given.ref_labels, given.ref_where
    if refs is None:
        for name, value in (("ref_labels", ref_labels), ("ref_where", ref_where)):
            if value is not None:
                raise ValueError(f"{name}: got {checks.describe(value)} without refs")
        return
    checks.rows("refs", refs)
    checks.same_width("refs", refs, "embeddings", given.embeddings)
    if kind == "degrees":
        if ref_labels is not None:
            raise ValueError(
                f"ref_labels: got {checks.describe(ref_labels)}, expected none, since labels is "
                "a matrix of the pairs"
            )
    elif ref_labels is None:
        raise ValueError("ref_labels: got None, expected the labels of refs, one a row")
    else:
        targets.check(kind, "ref_labels", ref_labels, refs.shape[0], "refs", given.labels)
    if ref_where is not None:
        checks.vector("ref_where", ref_where, refs.shape[0], "refs")


def make_references(kind: Kind, labels: Array | None, rows: Array, exists: Array) -> References:
    """References whose members of one class are found by sorting."""
    columns = jnp.arange(rows.shape[0], dtype=jnp.int32)
    order = None
    if kind == "classes" and labels is not None:
        order = jnp.argsort(labels).astype(jnp.int32)
    return References(rows, labels, exists, columns, order)


def _given(given: Inputs) -> References:
    refs: Any = given.refs
    if given.ref_labels is None:
        exists = jnp.ones(refs.shape[:1], bool) if given.ref_where is None else given.ref_where
    else:
        exists = targets.exist(given.kind, given.ref_labels, given.ref_where)
    cleared = jnp.where(exists[:, None], refs, 0.0)
    return make_references(given.kind, given.ref_labels, cleared, exists)


def find_mates(kind: Kind, anchors: Anchors, references: References) -> Anchors:
    """Anchors that know where their class-mates stand (dead code unless a term asks for it)."""
    labels, order = references.labels, references.order
    if kind != "classes" or labels is None or order is None:
        return anchors
    by_class = labels[order]
    start, stop = (
        jnp.searchsorted(by_class, anchors.labels, side=side).astype(jnp.int32)
        for side in ("left", "right")
    )
    place = jnp.argsort(order).astype(jnp.int32)
    absent = anchors.own < 0
    rank = jnp.where(absent, labels.shape[0], place[anchors.own] - start)
    count = stop - start - jnp.where(absent, 0, 1)
    return anchors._replace(start=start, count=count, rank=rank)


def _apart(given: Inputs, references: References) -> Array:
    """[R, R] which two references are no positives of each other."""
    if given.kind == "degrees":
        if given.refs is not None:
            raise ValueError(
                f"labels: got {checks.describe(given.labels)}, a matrix of the pairs of rows and "
                "refs, expected labels: this loss compares refs with each other too"
            )
        alike = gather(given.labels, given.axis_name).astype(bool)
    else:
        alike = targets.alike(given.kind, references.labels, references.labels)  # type: ignore[arg-type]
    return references.exists[:, None] & references.exists[None, :] & ~alike


def looking_back(
    given: Inputs, anchors: Anchors, references: References
) -> tuple[Anchors, References]:
    """The given references as anchors, against the anchors of all devices."""
    axis_name = given.axis_name
    rows, exists = (gather(x, axis_name) for x in (anchors.rows, anchors.exists))
    labels, theirs = gather(anchors.labels, axis_name), references.labels
    if given.kind == "degrees":
        labels, theirs = None, labels.swapaxes(0, 1)
    back = make_references(given.kind, labels, rows, exists)
    n = references.rows.shape[0]
    weights = jnp.ones(n, anchors.rows.dtype)
    if anchors.weights.ndim == 2:
        weights = gather(anchors.weights, axis_name).swapaxes(0, 1)
    absent = jnp.full(n, -1, jnp.int32)
    looking = Anchors(
        references.rows,
        theirs,  # type: ignore[arg-type]
        references.exists,
        weights,
        absent,
        references.columns,
    )
    back = back._replace(bounds=references.bounds)
    return find_mates(given.kind, looking, back), back
