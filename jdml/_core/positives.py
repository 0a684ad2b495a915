"""Terms with one entry for each (anchor, positive, negative), without the cube of all of them.

The engine walks over the k-th class-mate of every anchor of the block at once. The number of
steps, the size of the largest class in the batch, is found at run time, so the work is B R P and
the memory that of one block of rows. What a row adds up depends on that row only, so its whole
Jacobian has the row's own shape: it is accumulated in the same walk and is good for any cotangent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdml._core.devices import vary, varying_axes, zeros
from jdml._core.maths import measure
from jdml._core.options import Array, Distance, Mates, Pairs, Reduction
from jdml._core.reduce import Term, weigh
from jdml._core.selection import nth_positive
from jdml._core.stream import add, hoist, is_zero, tangent_leaves


class EachPositive(NamedTuple):
    """A term with an entry for every positive and every negative of every anchor.

    Attributes:
      value: value(positive [], negatives [N]) -> [N], smooth or hinged. What the other fields ask
        for follows as further arguments, in the order of the fields.
      negatives: what stands in the place of the anchor's negatives, [b, N]; by default those.
      negative_weights: the weights that go with them.
      partner: whether value asks for the distances of the positive to the negatives, [N].
      whole: whether value asks for the weights of the negatives, [N], and gives one entry a
        positive, [].
      positive_values: a number of each positive, [b, P], which value asks for, [].
    """

    value: Callable[..., Array]
    negatives: Array | None = None
    negative_weights: Array | None = None
    partner: bool = False
    whole: bool = False
    positive_values: Array | None = None


class Partners(NamedTuple):
    """What distances between references are measured from, where a term asks for them."""

    distance: Distance
    rows: Array  # [R, D] references, prepared
    importance: Array  # [b] of the anchors


class _Rows(NamedTuple):
    """The arguments of the walk: by rows of the block, so that the Jacobian is too."""

    positives: Array  # [b, P]
    negatives: Array  # [b, N] or [b, P, N]
    positive_weights: Array
    negative_weights: Array
    consts: tuple  # what the formula closes over, a copy for every row
    others: Any = None  # [b, P] the distances again, as a row that every positive sees
    other_weights: Any = None  # [b, P]
    positive_values: Any = None  # [b, P]
    references: Any = None  # [R, D] the only one that is not by rows: with it the walk gives a sum
    importance: Any = None  # [b] factor of an anchor's sum
    columns: Any = None  # [b, P] and [b, N] or [b, P, N]: references of the two sides
    at: Any = None  # [b] where the positive stands, once picked


_DIFFERENTIABLE = _Rows._fields.index("columns")


def each_positive(
    term: EachPositive, pairs: Pairs, reduction: Reduction, partners: Partners | None = None
) -> Term:
    """(num [b], den [b]) of an `EachPositive` term.

    With partners, their sums over the block, [1] each, with the importance of the anchors in
    them: what a row adds up then depends on all references, and only the gradient of a sum is as
    small as those.
    """
    b = pairs.positives.shape[0]
    negatives = pairs.negatives if term.negatives is None else term.negatives
    weights = pairs.negative_weights if term.negative_weights is None else term.negative_weights
    one, many = pairs.positives[0, 0], negatives[(0,) * (negatives.ndim - 1)]
    wanted = (term.partner, term.whole, term.positive_values is not None)
    example = (one, many, *(x for x, asked in zip((many, many, one), wanted) if asked))
    value, consts = hoist(term.value, *example)
    consts = tuple(jnp.broadcast_to(c, (b, *jnp.shape(c))) for c in consts)
    rows = _Rows(
        pairs.positives, negatives, pairs.positive_weights, weights, consts,
        positive_values=term.positive_values,
    )  # fmt: skip
    if partners is not None:
        columns = pairs.positive_columns, pairs.negative_columns
        rows = rows._replace(
            references=partners.rows, importance=partners.importance, columns=columns
        )

    def step(picked: _Rows) -> Term:
        partner = None if partners is None else _to_negatives(partners.distance, picked)
        asked = zip((partner, picked.negative_weights, picked.positive_values), wanted)
        arguments = (picked.positives, picked.negatives, *(x for x, is_asked in asked if is_asked))
        entries = jax.vmap(lambda *args: value(args[:-1], args[-1]))(*arguments, picked.consts)
        tuple_weights = picked.positive_weights
        if not term.whole:
            tuple_weights = tuple_weights[:, None] * picked.negative_weights
        return weigh(entries, tuple_weights, reduction)

    return _walk(step if partners is None else _summed(step), rows, pairs.mates)


def _to_negatives(distance: Distance, picked: _Rows) -> Array:
    """Distances [b, N] of one positive of each anchor to the negatives of the anchor."""
    positive_columns, negative_columns = picked.columns
    own = picked.at if positive_columns is None else positive_columns
    there = picked.positive_weights != 0
    needed = None
    if negative_columns is None:
        needed = there[:, None] & (picked.negative_weights != 0)
    between = measure(distance, picked.references[own], picked.references, needed)
    if negative_columns is None:
        return between
    return jnp.take_along_axis(between, negative_columns, axis=1)


def _summed(step: Callable[[_Rows], Term]) -> Callable[[_Rows], Term]:
    """The same step summed over the block, with the importance of its anchors."""

    def sums(picked: _Rows) -> Term:
        num, den = step(picked)
        factor = picked.importance
        num = jnp.where(factor == 0, 0.0, factor * num)  # a row that is not there may be anything
        return num.sum(keepdims=True), lax.stop_gradient((factor * den).sum(keepdims=True))

    return sums


def sum_of_positives(value: Callable[..., Array], pairs: Pairs) -> Array:
    """The weighted sum over an anchor's positives of what each one is worth in its row, [b].

    Args:
      value: from the distance of one positive [], the distances and weights of all positives [P],
        [P] and of all negatives [N], [N], and the weight of all positives [], to a number []. The
        positive itself has weight 0 in both rows, so that it never meets itself.
      pairs: with negatives by anchor.
    """
    b = pairs.positives.shape[0]
    sides = pairs.positives, pairs.positive_weights, pairs.negatives, pairs.negative_weights
    one = pairs.positives[0, 0]
    example = (one, *(x[0] for x in sides), one)
    value, consts = hoist(value, *example)
    consts = tuple(jnp.broadcast_to(c, (b, *jnp.shape(c))) for c in consts)
    number = lambda x, at: jnp.arange(x.shape[1], dtype=jnp.int32)[None, :] if at is None else at
    spread = lambda x, at: jnp.broadcast_to(number(x, at), x.shape)
    rows = _Rows(
        pairs.positives, pairs.negatives, pairs.positive_weights, pairs.negative_weights, consts,
        others=pairs.positives, other_weights=pairs.positive_weights,
        columns=(
            spread(pairs.positives, pairs.positive_columns),
            spread(pairs.negatives, pairs.negative_columns),
        ),
    )  # fmt: skip

    def step(picked: _Rows) -> Term:
        mine, theirs = picked.columns
        own = jnp.take_along_axis(mine, picked.at[:, None], axis=1)
        others = jnp.where(mine == own, 0.0, picked.other_weights)
        negatives = jnp.where(theirs == own, 0.0, picked.negative_weights)
        entries = jax.vmap(lambda *args: value(args[:-1], args[-1]))(
            picked.positives, picked.others, others, picked.negatives, negatives,
            picked.other_weights.sum(axis=-1), picked.consts,
        )  # fmt: skip
        return weigh(entries, picked.positive_weights, "mean")

    return _walk(step, rows, pairs.mates)[0]


def _walk(step: Callable[[_Rows], Term], rows: _Rows, mates: Mates | None) -> Term:
    """The sum of step(k-th positive of each anchor) over k, with its derivative by the rows.

    Of a step [b] the derivative by a row is that row's own; of a sum over the block, [1], it is
    one for all.
    """
    width = rows.positives.shape[1]
    length = rows.positives.shape[0] if rows.references is None else 1
    args = (rows, mates)
    axes = sorted(varying_axes(args))
    args = vary(args, axes)
    shape = jax.ShapeDtypeStruct((length,), rows.positives.dtype)
    by_rows = rows.references is None

    @jax.custom_jvp
    def run(args: Any) -> Term:
        body = lambda k, out: add(out, step(_pick(k, *args)[1]))
        return lax.fori_loop(0, _trips(args[1], width), body, zeros((shape, shape), axes))

    def rule(primals: Any, tangents: Any) -> Any:
        (args,), ((row_tangents, _),) = primals, tangents
        rows, mates = args
        live = [i for i in range(_DIFFERENTIABLE) if not _all_zero(row_tangents[i])]

        def body(k: Any, carry: Any) -> Any:
            out, jacobian = carry
            at, picked = _pick(k, rows, mates)
            some = lambda *new: step(_put(picked, live, new))
            num, pull, den = jax.vjp(some, *(picked[i] for i in live), has_aux=True)
            steps = pull(jnp.ones_like(num))
            jacobian = [_place(j, s, at) for j, s in zip(jacobian, steps)]
            return add(out, (num, den)), jacobian

        start = zeros(((shape, shape), [rows[i] for i in live]), axes)
        out, jacobian = lax.fori_loop(0, _trips(mates, width), body, start)
        tangent = jnp.zeros_like(out[0])
        for i, j in zip(live, jacobian):
            for leaf, t in zip(jax.tree.leaves(j), tangent_leaves(row_tangents[i])):
                if not is_zero(t):
                    tangent += (leaf * t).sum(tuple(range(1, leaf.ndim)) if by_rows else None)
        return out, (tangent, jnp.zeros_like(out[1]))

    run.defjvp(rule, symbolic_zeros=True)
    return run(args)


def _trips(mates: Mates | None, width: int) -> Any:
    """Steps of the walk: the most class-mates of any anchor, or every column once gathered."""
    return width if mates is None else mates.count.max()


def _pick(k: Any, rows: _Rows, mates: Mates | None) -> tuple[Array, _Rows]:
    """The column of the k-th positive of each anchor, and the rows as that positive sees them."""
    b, width = rows.positives.shape
    row = np.arange(b)  # of numpy: a traced array would leak out of the derivative rule
    at, there = nth_positive(k, mates, b, width)
    of_positive = lambda x: x if x is None or x.ndim == 2 else x[row, at]
    own_column = lambda x: None if x is None else x[row, at]
    weights = jnp.where(there, rows.positive_weights[row, at], 0.0)
    columns = rows.columns
    if rows.references is not None:
        columns = own_column(columns[0]), of_positive(columns[1])
    return at, rows._replace(
        positives=rows.positives[row, at],
        negatives=of_positive(rows.negatives),
        positive_weights=weights,
        negative_weights=of_positive(rows.negative_weights),
        positive_values=own_column(rows.positive_values),
        columns=columns,
        at=at,
    )


def _place(jacobian: Any, step: Any, at: Array) -> Any:
    """Adds one step's Jacobian: to the positive's own column, or to the whole row."""
    one_column = isinstance(step, jax.Array) and step.ndim < jacobian.ndim
    if one_column:
        return jacobian.at[np.arange(len(at)), at].add(step)
    return add(jacobian, step)


def _put(rows: _Rows, live: list[int], new: tuple) -> _Rows:
    return rows._replace(**{_Rows._fields[i]: value for i, value in zip(live, new)})


def _all_zero(tangents: Any) -> bool:
    return all(is_zero(t) for t in tangent_leaves(tangents))


def fold_positives(step: Callable[[Any, Any], Any], start: Any, pairs: Pairs) -> Any:
    """Folds step(carry, rows) over the k-th positives of all anchors of a block, k = 0, 1, ...

    `rows.positives` and `rows.positive_weights` are [b], `rows.negatives` and
    `rows.negative_weights` [b, N]. For statistics: nothing of it has a derivative.
    """
    pairs = lax.stop_gradient(pairs)
    rows = _Rows(
        pairs.positives, pairs.negatives, pairs.positive_weights, pairs.negative_weights, ()
    )
    args = (rows, pairs.mates)
    axes = sorted(varying_axes(args))
    rows, mates = vary(args, axes)
    body = lambda k, carry: step(carry, _pick(k, rows, mates)[1])
    trips = _trips(mates, pairs.positives.shape[1])
    return lax.fori_loop(0, trips, body, vary(start, axes))
