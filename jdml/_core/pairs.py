"""Engine 1: every anchor against every reference, by blocks of anchors.

A pair loss is a sum over anchors of a function of the anchor's own row of distances. Small
batches run in one piece with plain autodiff; larger ones in blocks, whose gradients are taken
while their distances are at hand (`stream`). Only sums leave a block or a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.devices import gather
from jdml._core.maths import measure, prepare
from jdml._core.options import (
    Array,
    AxisName,
    Distance,
    Mates,
    Miner,
    Pairs,
    Reduction,
)
from jdml._core.positives import EachPositive, each_positive
from jdml._core.reduce import Term, combine, safe_divide, total, weigh
from jdml._core.stream import join, map_blocks, split, stream

Formula = Callable[[Pairs], Sequence[Term | EachPositive]]
Statistic = Callable[[Pairs, Array], Array]


class _Anchors(NamedTuple):
    """All by rows: what is cut into blocks."""

    rows: Array  # [b, D] prepared for the distance
    labels: Array  # [b]
    exists: Array  # [b]
    weights: Array  # [b], or [b, R]
    own: Array  # [b] the anchor's own column, -1 where it is not among the references
    start: Array  # [b] with count and rank: see `Mates`
    count: Array
    rank: Array
    values: Array | None = None  # [b] the row statistic


class _References(NamedTuple):
    """What every block sees."""

    rows: Array  # [R, D]
    labels: Array  # [R]
    exists: Array  # [R]
    order: Array  # [R] sorted by class
    columns: Array  # [R] 0 .. R-1
    values: Array | None = None  # [R] the row statistic
    between: Array | None = None  # [R, R]


def over_pairs(
    formula: Formula,
    embeddings: Array,
    labels: Array,
    distance: Distance,
    *,
    statistic: Statistic | None = None,
    anchor_values: Array | None = None,
    between: bool = False,
    cube: bool = False,
    where: Array | None = None,
    weights: Array | None = None,
    reduction: Reduction = "mean",
    axis_name: AxisName | None = None,
    block_size: int | None = None,
    refs: Array | None = None,
    ref_labels: Array | None = None,
    ref_where: Array | None = None,
    miner: Miner | None = None,
) -> Array:
    """Reduces formula(pairs) over all anchors.

    Args:
      formula: from the pairs of one block to its terms, each (value, weight) with the anchors as
        first axis, or an `EachPositive`.
      embeddings: [B, D].
      labels: [B]; negative ones mark rows that do not exist.
      distance: between rows.
      statistic: (pairs, anchor rows [b, D]) -> [b], found for every row first; the formula then
        reads it as `pairs.anchor_values` and `pairs.positive_values`.
      anchor_values: a number of each row [B], which the formula reads as `pairs.anchor_values`.
      between: whether the formula reads the distances between references.
      cube: whether the formula makes arrays [b, R, R]: keeps blocks small.
      where, weights, reduction, axis_name, block_size, refs, ref_labels, ref_where, miner: the
        shared keywords.

    Returns:
      A scalar, or per-anchor sums [B] for the reduction "none".
    """
    _check(embeddings, labels, where, weights, refs, ref_labels, ref_where)
    exists = labels >= 0 if where is None else where & (labels >= 0)
    cleared = jnp.where(exists[:, None], embeddings, 0.0)
    if refs is None:
        references, own = _own_batch(cleared, labels, exists, axis_name)
    else:
        references, own = _given(refs, ref_labels, ref_where), jnp.full(labels.shape, -1, jnp.int32)
    if weights is None:
        weights = jnp.ones(labels.shape, embeddings.dtype)
    checks.pair_weights(weights, embeddings.shape[0], references.rows.shape[0])
    anchors = _anchors(prepare(distance, cleared), labels, exists, weights, own, references)
    anchors = anchors._replace(values=anchor_values)
    references = references._replace(rows=prepare(distance, references.rows))
    if statistic is not None:
        find = _Problem(formula, distance, miner, reduction, statistic)
        in_batch = refs is None
        anchors, references = _add_statistic(
            find, anchors, references, in_batch, axis_name, block_size
        )
    if between:
        rows = references.rows
        references = references._replace(between=measure(distance, rows, rows))
    problem = _Problem(formula, distance, miner, reduction, statistic)
    cube = cube or getattr(miner, "cube", False)
    size = _block_size(block_size, anchors.rows.shape[0], references.rows.shape[0], cube)
    return _evaluate(problem, anchors, references, size, reduction, axis_name)


class _Problem(NamedTuple):
    """The choices that a block needs; nothing traced."""

    formula: Formula
    distance: Distance
    miner: Miner | None
    reduction: Reduction
    statistic: Statistic | None

    def pairs(self, anchors: _Anchors, references: _References) -> Pairs:
        """The pairs of one block: measured, weighed, mined."""
        valid = anchors.exists[:, None] & references.exists[None, :]
        valid &= anchors.own[:, None] != references.columns[None, :]
        distances = measure(self.distance, anchors.rows, references.rows, valid)
        same = anchors.labels[:, None] == references.labels[None, :]
        kind = distances.dtype
        weight = anchors.weights.astype(kind) if anchors.weights.ndim == 2 else jnp.ones((), kind)
        shape = distances.shape
        apart = None
        if references.between is not None:
            apart = references.exists[:, None] & references.exists[None, :]
            apart &= references.labels[:, None] != references.labels[None, :]
            apart = apart.astype(kind)
        values = references.values
        pairs = Pairs(
            positives=distances,
            negatives=distances,
            positive_weights=jnp.where(valid & same, weight, 0.0),
            negative_weights=jnp.where(valid & ~same, weight, 0.0),
            mates=Mates(references.order, anchors.start, anchors.count, anchors.rank),
            anchor_values=anchors.values,
            positive_values=None if values is None else jnp.broadcast_to(values[None, :], shape),
            between=references.between,
            between_weights=apart,
        )
        return pairs if self.miner is None else _mine(self.miner, pairs)

    def terms(self, anchors: _Anchors, references: _References) -> list[Term]:
        """(num [b], den [b]) of every term of one block, with the importance of the anchors."""
        pairs = self.pairs(anchors, references)
        importance = anchors.exists.astype(pairs.positives.dtype)
        if anchors.weights.ndim == 1:
            importance = jnp.where(anchors.exists, anchors.weights, 0.0)
        terms = []
        for term in self.formula(pairs):
            if isinstance(term, EachPositive):
                num, den = each_positive(term, pairs, self.reduction)
            else:
                num, den = weigh(*term, self.reduction)
            # A row that is not there may still hold a per-anchor entry: its weight is 0.
            num = jnp.where(importance == 0, 0.0, importance * num)
            terms.append((num, lax.stop_gradient(importance * den)))
        return terms


def _mine(miner: Miner, pairs: Pairs) -> Pairs:
    """Applies a miner: weights know distances only as constants, distances stay differentiable."""
    stopped = pairs._replace(
        positives=lax.stop_gradient(pairs.positives), negatives=lax.stop_gradient(pairs.negatives)
    )
    told, mined = miner(stopped), miner(pairs)  # the compiler merges the two calls
    # A comparison with NaN is false, so a miner would drop a broken pair: it has to show.
    there = (pairs.positive_weights != 0) | (pairs.negative_weights != 0)
    broken = (there & jnp.isnan(stopped.positives)).any(axis=-1)
    spoil = lambda w: jnp.where(broken.reshape(-1, *[1] * (w.ndim - 1)), jnp.nan, w)
    return mined._replace(
        positive_weights=spoil(told.positive_weights), negative_weights=spoil(told.negative_weights)
    )


# ---------------------------------------------------------------- the two sides


def _check(embeddings, labels, where, weights, refs, ref_labels, ref_where) -> None:
    checks.rows("embeddings", embeddings)
    checks.class_labels("labels", labels, embeddings.shape[0], "embeddings")
    if where is not None:
        checks.vector("where", where, embeddings.shape[0], "embeddings")
    if refs is None:
        for name, value in (("ref_labels", ref_labels), ("ref_where", ref_where)):
            if value is not None:
                raise ValueError(f"{name}: got {checks.describe(value)} without refs")
        return
    checks.rows("refs", refs)
    checks.same_width("refs", refs, "embeddings", embeddings)
    if ref_labels is None:
        raise ValueError("ref_labels: got None, expected the labels of refs, one a row")
    checks.class_labels("ref_labels", ref_labels, refs.shape[0], "refs")
    if ref_where is not None:
        checks.vector("ref_where", ref_where, refs.shape[0], "refs")


def _references(rows: Array, labels: Array, exists: Array) -> _References:
    order = jnp.argsort(labels).astype(jnp.int32)
    columns = jnp.arange(labels.shape[0], dtype=jnp.int32)
    return _References(rows, labels, exists, order, columns)


def _own_batch(
    rows: Array, labels: Array, exists: Array, axis_name: AxisName | None
) -> tuple[_References, Array]:
    """The batch of all devices as references, and the column that each local row has there."""
    own = jnp.arange(labels.shape[0], dtype=jnp.int32)
    if axis_name is not None:
        own = own + lax.axis_index(axis_name).astype(jnp.int32) * labels.shape[0]
    gathered = (gather(x, axis_name) for x in (rows, labels, exists))
    return _references(*gathered), own


def _given(refs: Array, labels: Any, where: Array | None) -> _References:
    exists = labels >= 0 if where is None else where & (labels >= 0)
    return _references(jnp.where(exists[:, None], refs, 0.0), labels, exists)


def _anchors(
    rows: Array,
    labels: Array,
    exists: Array,
    weights: Array,
    own: Array,
    references: _References,
) -> _Anchors:
    """Anchors that know where their class-mates stand (dead code unless a term asks for it)."""
    by_class = references.labels[references.order]
    start, stop = (
        jnp.searchsorted(by_class, labels, side=side).astype(jnp.int32)
        for side in ("left", "right")
    )
    place = jnp.argsort(references.order).astype(jnp.int32)
    absent = own < 0
    rank = jnp.where(absent, references.labels.shape[0], place[own] - start)
    count = stop - start - jnp.where(absent, 0, 1)
    return _Anchors(rows, labels, exists, weights, own, start, count, rank)


def _add_statistic(
    problem: _Problem,
    anchors: _Anchors,
    references: _References,
    in_batch: bool,
    axis_name: AxisName | None,
    block_size: int | None,
) -> tuple[_Anchors, _References]:
    """Finds the row statistic of every anchor and reference.

    In a batch of its own a reference is some device's anchor. A reference that was given looks
    back at the anchors of all devices.
    """
    own = _statistics(problem, anchors, references, block_size)
    if in_batch:
        theirs = gather(own, axis_name)
    else:
        local = _references(anchors.rows, anchors.labels, anchors.exists)
        back = _references(*(gather(x, axis_name) for x in local[:3]))
        weights = jnp.ones(references.labels.shape, anchors.rows.dtype)
        if anchors.weights.ndim == 2:
            weights = gather(anchors.weights, axis_name).swapaxes(0, 1)
        absent = jnp.full(references.labels.shape, -1, jnp.int32)
        looking = _anchors(
            references.rows, references.labels, references.exists, weights, absent, back
        )
        theirs = _statistics(problem, looking, back, block_size)
    return anchors._replace(values=own), references._replace(values=theirs)


def _statistics(
    problem: _Problem, anchors: _Anchors, references: _References, block_size: int | None
) -> Array:
    n = anchors.labels.shape[0]
    size = _block_size(block_size, n, references.labels.shape[0], False)

    def find(block: _Anchors) -> Array:
        return problem.statistic(problem.pairs(block, references), block.rows)  # type: ignore[misc]

    if size >= n:
        return find(anchors)
    return join(map_blocks(find, split(anchors, -(-n // size), size)), n)


# ---------------------------------------------------------------- evaluation


def _block_size(asked: int | None, n: int, r: int, cube: bool) -> int:
    """Anchors alive at once. Rows of distances of one block should stay in a CPU's cache.

    On a CPU one piece is as fast up to about a thousand rows, and above it blocks of 64 to 256
    anchors win; accelerators want larger blocks.
    """
    if asked is not None:
        return min(asked, n)
    entries = 2**20 if jax.default_backend() == "cpu" else 2**24
    row = 4 * r * r if cube else r
    if n * row <= entries:
        return n
    smallest, largest = (1, n) if cube else (64, 256 if entries == 2**20 else 4096)
    return min(n, max(smallest, min(largest, entries // row)))


def _evaluate(
    problem: _Problem,
    anchors: _Anchors,
    references: _References,
    size: int,
    reduction: Reduction,
    axis_name: AxisName | None,
) -> Array:
    n = anchors.labels.shape[0]
    if size >= n:
        return combine(problem.terms(anchors, references), reduction, axis_name)
    blocks = split(anchors, -(-n // size), size)
    if reduction == "none":  # a vector's cotangent cannot be taken in advance
        terms = map_blocks(lambda block: problem.terms(block, references), blocks)
        return combine(join(terms, n), reduction, axis_name)
    n_terms = len(jax.eval_shape(problem.terms, jax.tree.map(lambda x: x[0], blocks), references))
    if reduction == "sum":
        ones = [jnp.ones((), anchors.rows.dtype)] * n_terms
        return total(_sums(problem, blocks, references, ones)[0], axis_name)
    if n_terms == 1:  # one denominator: divide afterwards
        one = [jnp.ones((), anchors.rows.dtype)]
        num, (den,) = _sums(problem, blocks, references, one)
        den = lax.stop_gradient(total(den, axis_name))
        return safe_divide(total(num, axis_name), den)
    # Several: with the denominators found first, one accumulator serves all terms.
    dens = _denominators(problem, *lax.stop_gradient((blocks, references)))
    inverse = [safe_divide(jnp.ones_like(d), total(d, axis_name)) for d in dens]
    return total(_sums(problem, blocks, references, inverse)[0], axis_name)


def _sums(
    problem: _Problem, blocks: _Anchors, references: _References, coefficients: list[Array]
) -> tuple[Array, Any]:
    """sum of coefficient * num over terms and anchors, and the denominators of the terms."""

    def block_sums(block: _Anchors, references: _References) -> tuple[Array, list[Array]]:
        terms = problem.terms(block, references)
        parts = [c * num.sum() for c, (num, _) in zip(coefficients, terms)]
        return sum(parts[1:], start=parts[0]), [den.sum() for _, den in terms]

    return stream(block_sums, blocks, references)


def _denominators(problem: _Problem, blocks: _Anchors, references: _References) -> list[Array]:
    """Only the denominators; the compiler drops the distances where labels alone decide them."""

    def block_sums(block: _Anchors, references: _References) -> tuple[Array, list[Array]]:
        dens = [den.sum() for _, den in problem.terms(block, references)]
        return sum(dens[1:], start=dens[0]), dens

    return lax.stop_gradient(stream(block_sums, blocks, references)[1])
