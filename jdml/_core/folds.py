"""Pair formulas that a batch may be asked about tile by tile, using its symmetry.

The distance of a to b is that of b to a. Where a formula is made of sums (or log-sum-exps) over an
anchor's pairs, each a function of one distance alone, a tile of the matrix serves its rows and its
columns, and only tiles on one side of the diagonal are visited. Row blocks take the same formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import targets
from jdml._core.devices import vary, varying_axes
from jdml._core.maths import measure
from jdml._core.options import Array, Distance, Pairs, Reduction, by_anchor, flat
from jdml._core.reduce import Term, counted, log_add, log_sum_exp, weigh
from jdml._core.sides import Anchors
from jdml._core.stream import hoist, join, split

Side = Literal["positives", "negatives", "all"]


class Fold(NamedTuple):
    """A weighted sum over the pairs of an anchor.

    Attributes:
      side: the pairs that it goes over.
      value: distances -> values, entry by entry.
      log: the logarithm of the weighted sum of exp(value) in place of the sum of the values; -inf
        where there is no pair.
    """

    side: Side
    value: Callable[[Array], Array]
    log: bool = False

    def __call__(self, pairs: Pairs) -> Array:
        """[b] of the anchors of a block."""
        add = log_sum_exp if self.log else _weighted_sum
        sides = (pairs.positives, pairs.positive_weights), (pairs.negatives, pairs.negative_weights)
        if self.side != "all":
            distances, weights = map(flat, sides[self.side == "negatives"])
            return add(self.value(distances), weights)
        if pairs.positive_columns is None and pairs.negative_columns is None:
            # Both sides still hold the same distances: one pass.
            return add(self.value(pairs.positives), pairs.positive_weights + pairs.negative_weights)
        positive, negative = (add(self.value(flat(d)), flat(w)) for d, w in sides)
        return log_add(positive, negative) if self.log else positive + negative

    def entries(self, pairs: Pairs) -> tuple[Array, Array]:
        """Values and weights of a tile, in which both sides hold all pairs."""
        weights = {
            "positives": pairs.positive_weights,
            "negatives": pairs.negative_weights,
            "all": pairs.positive_weights + pairs.negative_weights,
        }
        return self.value(pairs.positives), weights[self.side]


class Folded(NamedTuple):
    """A formula of folds: combine(*their results, [b] each) -> terms with an entry an anchor.

    `loss_name` is given by losses that refuse negatives which a miner chose for each positive.
    """

    folds: Sequence[Fold]
    combine: Callable[..., Sequence[Term]]
    loss_name: str = ""

    def __call__(self, pairs: Pairs) -> Sequence[Term]:
        if self.loss_name:
            by_anchor(pairs, self.loss_name)
        return self.combine(*(fold(pairs) for fold in self.folds))


class EachPair(NamedTuple):
    """A formula whose terms hold one entry a pair, which depends on that pair's distance alone."""

    formula: Callable[[Pairs], Sequence[Term]]

    def __call__(self, pairs: Pairs) -> Sequence[Term]:
        return self.formula(pairs)


class Tiles(NamedTuple):
    """A batch against itself, cut into [n_tiles, t] rows; what is differentiated is apart."""

    labels: Array  # [n_tiles, t, ...]
    exists: Array  # [n_tiles, t]
    index: Array  # [n_tiles, t]


def _weighted_sum(values: Array, weights: Array) -> Array:
    return jnp.where(weights == 0, 0.0, weights * values).sum(axis=-1)


def mirrored(
    formula: Folded | EachPair,
    anchors: Anchors,
    distance: Distance,
    kind: targets.Kind,
    reduction: Reduction,
    size: int,
) -> list[Term]:
    """Terms (num [B], den [B]) of a batch against itself, from tiles of `size` rows.

    The importance of the anchors is left to the caller.
    """
    n = anchors.rows.shape[0]
    count = math.ceil(n / size)
    size = math.ceil(n / count)
    whole = anchors.rows, Tiles(anchors.labels, anchors.exists, anchors.index)
    rows, tiles = split(whole, count, size)
    example = rows[0], jax.tree.map(lambda x: x[0], tiles)

    def entries(x: Array, y: Array, mine: Tiles, theirs: Tiles) -> list[Term]:
        pairs = _tile_pairs(distance, kind, x, y, mine, theirs)
        if isinstance(formula, Folded):
            return [fold.entries(pairs) for fold in formula.folds]
        return [(v, counted(v, w, reduction)) for v, w in formula(pairs)]

    logs = (
        tuple(fold.log for fold in formula.folds)
        if isinstance(formula, Folded)
        else (False,) * len(jax.eval_shape(entries, example[0], example[0], example[1], example[1]))
    )
    hoisted, consts = hoist(entries, example[0], example[0], example[1], example[1])
    sums = _row_sums(hoisted, logs, (rows, tiles, consts))
    values, weights = join(sums, n)
    if isinstance(formula, Folded):
        return [weigh(*term, reduction) for term in formula.combine(*values)]
    return [(num, lax.stop_gradient(den)) for num, den in zip(values, weights)]


def _tile_pairs(
    distance: Distance, kind: targets.Kind, x: Array, y: Array, mine: Tiles, theirs: Tiles
) -> Pairs:
    valid = mine.exists[:, None] & theirs.exists[None, :]
    valid &= mine.index[:, None] != theirs.index[None, :]
    distances = measure(distance, x, y, valid)
    alike = targets.alike(kind, mine.labels, theirs.labels)
    weights = targets.weigh_kinds(alike, valid, jnp.ones((), distances.dtype))
    return Pairs(distances, distances, *weights)


# ---------------------------------------------------------------- the sweep


def _row_sums(entries: Callable, logs: tuple[bool, ...], args: Any) -> tuple[list, list]:
    """For each fold its result and the sum of its weights, [n_tiles, t] each.

    The tangent of a log-sum-exp is the weighted mean of those of its values. It is therefore a
    sum as well, once its result is known: nothing of a tile has to be kept for the gradient.
    """
    axes = sorted(varying_axes(args))
    args = vary(args, axes)

    @jax.custom_jvp
    def run(args: Any) -> tuple[list, list]:
        return _sweep(entries, logs, args, axes)

    @run.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (args,) = primals
        values, weights = run(args)
        shares = lambda args: _shares(entries, logs, args, values, axes)
        _, tangent = jax.jvp(shares, primals, tangents)
        return (values, weights), (tangent, [jnp.zeros_like(w) for w in weights])

    return run(args)


def _each_tile(step: Callable, start: Any, count: int) -> Any:
    """Folds step(carry, i, j) over i <= j < count."""
    rows, columns = zip(*((i, j) for i in range(count) for j in range(i, count)))
    which = jnp.array(rows, jnp.int32), jnp.array(columns, jnp.int32)
    return lax.scan(lambda carry, ij: (step(carry, *ij), None), start, which)[0]


def _sides(entries: Callable, args: Any, i: Array, j: Array) -> list[Term]:
    rows, tiles, consts = args
    at = lambda k: jax.tree.map(lambda x: x[k], tiles)
    return entries((rows[i], rows[j], at(i), at(j)), consts)


def _add_at(state: Array, at: Array, part: Array) -> Array:
    return state.at[at].add(part)


def _sweep(entries: Callable, logs: tuple[bool, ...], args: Any, axes: list[str]) -> Any:
    """The results themselves: online, so that one sweep is enough."""
    rows = args[0]
    empty = vary(jnp.zeros(rows.shape[:2], rows.dtype), axes)
    # Finite, so that nothing minus nothing is not NaN.
    low = empty + jnp.finfo(rows.dtype).min / 2
    start = [(low, empty, empty) for _ in logs]

    def step(state: list, i: Array, j: Array) -> list:
        new = []
        for (top, mass, total), (value, weight), log in zip(
            state, _sides(entries, args, i, j), logs
        ):
            there = weight != 0
            for at, axis in ((i, 1), (j, 0)):
                # A tile on the diagonal has all pairs of its rows already.
                counts = jnp.where((axis == 1) | (i != j), 1.0, 0.0).astype(value.dtype)
                total = _add_at(total, at, counts * weight.sum(axis))
                if not log:
                    part = jnp.where(there, weight * value, 0.0).sum(axis)
                    mass = _add_at(mass, at, jnp.where(counts == 0, 0.0, part))
                    continue
                masked = jnp.where(there, value, -jnp.inf)
                highest = jnp.maximum(top[at], masked.max(axis))
                part = (weight * jnp.exp(masked - jnp.expand_dims(highest, axis))).sum(axis)
                part = jnp.where(counts == 0, 0.0, part)
                mass = mass.at[at].set(mass[at] * jnp.exp(top[at] - highest) + part)
                top = top.at[at].set(highest)
            new.append((top, mass, total))
        return new

    values, weights = [], []
    for (top, mass, total), log in zip(_each_tile(step, start, rows.shape[0]), logs):
        none = mass == 0
        logged = jnp.where(none, -jnp.inf, top + jnp.log(jnp.where(none, 1.0, mass)))
        values.append(logged if log else mass)
        weights.append(total)
    return values, weights


def _shares(
    entries: Callable, logs: tuple[bool, ...], args: Any, values: list[Array], axes: list[str]
) -> list[Array]:
    """What has the tangent of the results: plain sums, of exp(value - result) for a logarithm."""
    rows = args[0]
    empty = vary(jnp.zeros(rows.shape[:2], rows.dtype), axes)
    known = [jnp.where(value == -jnp.inf, 0.0, value) for value in values]

    def parts(args: Any, known: list[Array], i: Array, j: Array) -> list[tuple[Array, Array]]:
        found = []
        for result, (value, weight), log in zip(known, _sides(entries, args, i, j), logs):
            there, both = weight != 0, []
            for at, axis in ((i, 1), (j, 0)):
                entry = value
                if log:
                    masked = jnp.where(there, value, -jnp.inf)
                    entry = jnp.exp(masked - jnp.expand_dims(result[at], axis))
                part = jnp.where(there, lax.stop_gradient(weight) * entry, 0.0).sum(axis)
                both.append(part if axis == 1 else jnp.where(i == j, 0.0, part))
            found.append(tuple(both))
        return found

    again = jax.checkpoint(parts)

    def step(state: list[Array], i: Array, j: Array) -> list[Array]:
        found = again(args, known, i, j)
        return [
            _add_at(_add_at(s, i, of_rows), j, of_columns)
            for s, (of_rows, of_columns) in zip(state, found)
        ]

    return _each_tile(step, [empty for _ in logs], rows.shape[0])
