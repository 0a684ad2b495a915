"""Engine 1: every anchor against every reference, by blocks of anchors.

A pair loss is a sum over anchors of a function of the anchor's own row of distances. Small
batches run in one piece with plain autodiff; larger ones in blocks, whose gradients are taken
while their distances are at hand (`stream`). Only sums leave a block or a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import targets
from jdml._core.devices import gather
from jdml._core.folds import EachPair, Folded, mirrored
from jdml._core.maths import measure
from jdml._core.mining import mine, survey
from jdml._core.options import (
    Array,
    AxisName,
    Distance,
    Mates,
    Miner,
    Pairs,
    Reduction,
)
from jdml._core.positives import EachPositive, Partners, each_positive
from jdml._core.reduce import Term, combine, safe_divide, total, weigh
from jdml._core.sides import Anchors, Inputs, References, both_sides, looking_back
from jdml._core.stream import join, map_blocks, split, stream

Formula = Callable[[Pairs], Sequence[Term | EachPositive]]
Statistic = Callable[[Pairs, Array], Array]


def over_pairs(
    formula: Formula,
    embeddings: Array,
    labels: Array,
    distance: Distance,
    *,
    statistic: Statistic | None = None,
    anchor_values: Array | None = None,
    label_distance: targets.LabelDistance | None = None,
    between: bool = False,
    cube: bool = False,
    partner: bool = False,
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
      labels: [B], [B, L] or [B, R]: see `targets`. Negative classes mark rows that do not exist.
      distance: between rows.
      statistic: (pairs, anchor rows [b, D]) -> [b], found for every row first; the formula then
        reads it as `pairs.anchor_values` and `pairs.positive_values`.
      anchor_values: a number of each row [B], which the formula reads as `pairs.anchor_values`.
      label_distance: for labels that are numbers: every two rows are a pair, of weight 1 on both
        sides, and the formula reads the distance of their labels as `pairs.positive_values`.
      between: whether the formula reads the distances between references.
      cube: whether the formula makes arrays [b, R, R]: keeps blocks small.
      partner: whether the formula has a term that asks for the distances of a positive to the
        negatives (`EachPositive.partner`).
      where, weights, reduction, axis_name, block_size, refs, ref_labels, ref_where, miner: the
        shared keywords.

    Returns:
      A scalar, or per-anchor sums [B] for the reduction "none".
    """
    kind = targets.kind_of(labels, label_distance)
    given = Inputs(embeddings, labels, kind, where, weights, axis_name, refs, ref_labels, ref_where)
    between = between or getattr(miner, "between", False)
    anchors, references = both_sides(given, distance, between)
    anchors = anchors._replace(values=anchor_values)
    problem = _Problem(
        formula, distance, miner, reduction, kind, statistic, label_distance, partner
    )
    cube = cube or getattr(miner, "cube", False)
    size = _block_size(block_size, anchors.rows.shape[0], references.rows.shape[0], cube)
    if partner and reduction == "none":
        size = 1  # of such a term a block has only the sum
    references = survey(
        problem._replace(miner=None).pairs, miner, anchors, references, size, axis_name
    )
    if statistic is not None:
        anchors, references = _add_statistic(problem, given, anchors, references, block_size)
    elif size < anchors.rows.shape[0] and _has_mirror(problem, given):
        return _mirrored(problem, anchors, size, reduction)
    return _evaluate(problem, anchors, references, size, reduction, axis_name)


def each_anchor(
    statistic: Callable[[Pairs], Any],
    embeddings: Array,
    labels: Array,
    distance: Distance,
    *,
    where: Array | None = None,
    weights: Array | None = None,
    reduction: Reduction = "mean",
    axis_name: AxisName | None = None,
    block_size: int | None = None,
    refs: Array | None = None,
    ref_labels: Array | None = None,
    ref_where: Array | None = None,
    miner: Miner | None = None,
) -> Any:
    """A tree of numbers [B, ...] of each anchor on this device, found by blocks.

    For losses that first need to know something of all pairs: sums over the pairs, to be added up
    over anchors. An anchor's are multiplied by its importance.

    Args:
      statistic: from the pairs of one block to a tree of arrays [b, ...].
      embeddings, labels, distance: as for `over_pairs`.
      where, weights, axis_name, block_size, refs, ref_labels, ref_where, miner: the shared
        keywords.
      reduction: has no effect.

    Returns:
      The tree of the statistic, for all anchors.
    """
    kind = targets.kind_of(labels, None)
    given = Inputs(embeddings, labels, kind, where, weights, axis_name, refs, ref_labels, ref_where)
    anchors, references = both_sides(given, distance, getattr(miner, "between", False))
    problem = _Problem(None, distance, miner, reduction, kind)
    n, cube = anchors.rows.shape[0], getattr(miner, "cube", False)
    size = _block_size(block_size, n, references.rows.shape[0], cube)
    references = survey(
        problem._replace(miner=None).pairs, miner, anchors, references, size, axis_name
    )
    found = _by_blocks(lambda block: statistic(problem.pairs(block, references)), anchors, size)
    importance = anchors.weights if anchors.weights.ndim == 1 else jnp.ones_like(anchors.rows[:, 0])
    importance = jnp.where(anchors.exists, importance, 0.0)

    def times(x: Array) -> Array:
        factor = importance.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(factor == 0, 0.0, factor * x)

    return jax.tree.map(times, found)


class _Problem(NamedTuple):
    """The choices that a block needs; nothing traced."""

    formula: Formula | None
    distance: Distance
    miner: Miner | None
    reduction: Reduction
    kind: targets.Kind
    statistic: Statistic | None = None
    label_distance: targets.LabelDistance | None = None
    partner: bool = False

    def pairs(self, anchors: Anchors, references: References) -> Pairs:
        """The pairs of one block: measured, weighed, mined."""
        valid = anchors.exists[:, None] & references.exists[None, :]
        valid &= anchors.own[:, None] != references.columns[None, :]
        distances = measure(self.distance, anchors.rows, references.rows, valid)
        positive, negative = self._weights(anchors, references, valid, distances.dtype)
        values = references.values
        if values is not None:
            values = jnp.broadcast_to(values[None, :], distances.shape)
        if self.label_distance is not None:
            values = measure(
                self.label_distance,
                anchors.labels,
                references.labels,  # type: ignore[arg-type]
                valid,
            )
        mates = None
        if anchors.start is not None:
            mates = Mates(references.order, anchors.start, anchors.count, anchors.rank)  # type: ignore[arg-type]
        pairs = Pairs(
            positives=distances,
            negatives=distances,
            positive_weights=positive,
            negative_weights=negative,
            mates=mates,
            anchor_values=anchors.values,
            positive_values=values,
            between=references.between,
            between_weights=references.apart,
            anchors=anchors.index,
            bounds=references.bounds,
        )
        if self.miner is None:
            return pairs
        return mine(self.miner, pairs, self.distance, anchors.rows, references.rows)

    def _weights(
        self, anchors: Anchors, references: References, valid: Array, dtype: Any
    ) -> tuple[Array, Array]:
        """[b, R] of pairs as positives and as negatives, 0 where they are not there."""
        weight = anchors.weights.astype(dtype) if anchors.weights.ndim == 2 else jnp.ones((), dtype)
        if self.kind == "numbers":
            every = jnp.where(valid, weight, 0.0)
            return every, every
        alike = targets.alike(self.kind, anchors.labels, references.labels)  # type: ignore[arg-type]
        return targets.weigh_kinds(alike, valid, weight)

    def terms(self, anchors: Anchors, references: References) -> list[Term]:
        """(num [b], den [b]) of every term of one block, with the importance of the anchors.

        Terms that ask for the partner's distances have the block's sums, [1].
        """
        pairs = self.pairs(anchors, references)
        importance = anchors.exists.astype(pairs.positives.dtype)
        if anchors.weights.ndim == 1:
            importance = jnp.where(anchors.exists, anchors.weights, 0.0)
        terms = []
        for term in self.formula(pairs):  # type: ignore[misc]
            if isinstance(term, EachPositive) and self.partner:
                partners = Partners(self.distance, references.rows, importance)
                terms.append(each_positive(term, pairs, self.reduction, partners))
                continue
            if isinstance(term, EachPositive):
                num, den = each_positive(term, pairs, self.reduction)
            else:
                num, den = weigh(*term, self.reduction)
            # A row that is not there may still hold a per-anchor entry: its weight is 0.
            num = jnp.where(importance == 0, 0.0, importance * num)
            terms.append((num, lax.stop_gradient(importance * den)))
        return terms


def _add_statistic(
    problem: _Problem,
    given: Inputs,
    anchors: Anchors,
    references: References,
    block_size: int | None,
) -> tuple[Anchors, References]:
    """Finds the row statistic of every anchor and reference.

    In a batch of its own a reference is some device's anchor. A reference that was given looks
    back at the anchors of all devices.
    """

    def statistics(anchors: Anchors, references: References) -> Array:
        size = _block_size(block_size, anchors.rows.shape[0], references.rows.shape[0], False)
        find = lambda block: problem.statistic(problem.pairs(block, references), block.rows)  # type: ignore[misc]
        return _by_blocks(find, anchors, size)

    own = statistics(anchors, references)
    if given.refs is None:
        theirs = gather(own, given.axis_name)
    else:
        theirs = statistics(*looking_back(given, anchors, references))
    return anchors._replace(values=own), references._replace(values=theirs)


def _by_blocks(find: Callable[[Anchors], Any], anchors: Anchors, size: int) -> Any:
    """find(block), a tree of arrays [b, ...], for all anchors."""
    n = anchors.labels.shape[0]
    if size >= n:
        return find(anchors)
    return join(map_blocks(find, split(anchors, -(-n // size), size)), n)


# ---------------------------------------------------------------- evaluation


def _block_size(asked: int | None, n: int, r: int, cube: bool) -> int:
    """Anchors alive at once. Rows of distances of one block should stay in a CPU's cache.

    On a CPU one piece is as fast up to about 700 rows, and above it blocks of 128 anchors win;
    accelerators want larger blocks.
    """
    if asked is not None:
        return min(asked, n)
    on_cpu = jax.default_backend() == "cpu"
    entries = 2**19 if on_cpu else 2**24
    row = 4 * r * r if cube else r
    if n * row <= entries:
        return n
    smallest, largest = (1, n) if cube else (64, 128 if on_cpu else 4096)
    return min(n, max(smallest, min(largest, entries // row)))


def _has_mirror(problem: _Problem, given: Inputs) -> bool:
    """Whether what an anchor gives a reference is what it gets from it, tile by tile."""
    own_batch = given.refs is None and given.axis_name is None and problem.miner is None
    by_rows = given.weights is None or given.weights.ndim == 1
    return (
        isinstance(problem.formula, EachPair | Folded)
        and own_batch
        and by_rows
        and given.kind in ("classes", "label sets")
        and problem.reduction != "none"
        and getattr(problem.distance, "symmetric", False)
    )


def _mirrored(problem: _Problem, anchors: Anchors, size: int, reduction: Reduction) -> Array:
    """The loss from square tiles that hold about as much as a block of rows would."""
    n = anchors.rows.shape[0]
    tile = 2 ** math.ceil(math.log2(max(size, math.isqrt(size * n))))
    if jax.default_backend() == "cpu":
        tile = max(size, min(tile, 512))  # in a core's cache
    formula: Any = problem.formula
    terms = mirrored(formula, anchors, problem.distance, problem.kind, reduction, tile)
    importance = jnp.where(anchors.exists, anchors.weights, 0.0)
    weighed = [(jnp.where(importance == 0, 0.0, importance * num), den) for num, den in terms]
    return combine(
        [(num, lax.stop_gradient(importance * den)) for num, den in weighed], reduction, None
    )


def _evaluate(
    problem: _Problem,
    anchors: Anchors,
    references: References,
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
    problem: _Problem, blocks: Anchors, references: References, coefficients: list[Array]
) -> tuple[Array, Any]:
    """sum of coefficient * num over terms and anchors, and the denominators of the terms."""

    def block_sums(block: Anchors, references: References) -> tuple[Array, list[Array]]:
        terms = problem.terms(block, references)
        parts = [c * num.sum() for c, (num, _) in zip(coefficients, terms)]
        return sum(parts[1:], start=parts[0]), [den.sum() for _, den in terms]

    return stream(block_sums, blocks, references)


def _denominators(problem: _Problem, blocks: Anchors, references: References) -> list[Array]:
    """Only the denominators; the compiler drops the distances where labels alone decide them."""

    def block_sums(block: Anchors, references: References) -> tuple[Array, list[Array]]:
        dens = [den.sum() for _, den in problem.terms(block, references)]
        return sum(dens[1:], start=dens[0]), dens

    return lax.stop_gradient(stream(block_sums, blocks, references)[1])
