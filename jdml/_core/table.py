"""Engine 2: rows against a class table, by blocks and by shards of classes.

A softmax over classes needs, of each row, the cosine to its own class and the log-sum-exp of the
other classes' logits. Log-sum-exp is associative, so the same fold joins classes inside a block,
over blocks and over shards, in memory of one block. The own class is found by comparison, never
by indexing: that shards without gathering the table, and a label without a row adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jdml._core import checks
from jdml._core.devices import varying_axes, zeros
from jdml._core.maths import inner_products, unit
from jdml._core.options import Array, AxisName, Reduction
from jdml._core.reduce import combine, weigh

# Scores of so many (row, class) pairs are kept for the backward pass, which saves one product of
# four; those of more are computed again.
_MOST_KEPT = 2**24
_KEPT = "scores"


class Row(NamedTuple):
    """What a formula sees of a batch: one entry a row of embeddings."""

    target: Array  # [B] cosine (or score) to the row's own class
    others: Array  # [B] log-sum-exp of the logits of all other classes, -inf if there is none
    # (their sum, and 0 if there is none, for the fold "sum")
    norm: Array  # [B] length of the embedding


Logits = Callable[[Array, Array], Array]  # cosines [B, c], norms [B, 1] -> logits [B, c]
Pool = Callable[[Array], Array]  # cosines to sub-centers [B, c, K] -> [B, c]
Score = Callable[[Array, Array], Array]  # rows [B, D], classes [c, D] or [c, K, D] -> [B, c]
Fold = Literal["log_sum_exp", "sum"]


class _Fold(NamedTuple):
    """A partial softmax, or sum, over some of the classes."""

    top: Array  # [B] largest logit of other classes so far
    mass: Array  # [B] sum of exp(logit - top) over them, or of the logits for the fold "sum"
    target: Array  # [B] score of the own class, once it has come by
    found: Array  # [B] 1 once it has


def largest(cosines: Array) -> Array:
    """The cosine to the nearest sub-center."""
    return cosines.max(axis=-1)


def over_table(
    formula: Callable[[Row], Array],
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    logits: Logits,
    pool: Pool = largest,
    score: Score | None = None,
    fold: Fold = "log_sum_exp",
    where: Array | None = None,
    weights: Array | None = None,
    reduction: Reduction = "mean",
    axis_name: AxisName | None = None,
    block_size: int | None = None,
    proxy_labels: Array | None = None,
    class_axis_name: str | None = None,
) -> Array:
    """Reduces formula(row) over the rows whose class is in the table.

    Args:
      formula: from `Row` to a value for each row of embeddings, [B].
      embeddings: [B, D].
      labels: [B]; a row whose label has no class in the table does not count.
      proxies: [C, D], or [C, K, D] with K sub-centers a class.
      logits: (cosines [B, c], norms [B, 1]) -> [B, c], the logits of other classes.
      pool: how K cosines of a class become one.
      score: in place of the cosine: (rows as they came, a block of the table as it is) -> [B, c].
      fold: how the logits of other classes become one number.
      where, weights, reduction, axis_name, block_size, proxy_labels, class_axis_name: the shared
        keywords.

    Returns:
      A scalar, or one value a row [B] for the reduction "none".
    """
    exists, weights = check_rows(embeddings, labels, where, weights)
    check_table(embeddings, proxies, proxy_labels)
    cleared = jnp.where(exists[:, None], embeddings, 0.0)
    norm = _safe_norm(cleared)
    rows = unit(cleared) if score is None else cleared
    proxy_labels = table_labels(proxies, proxy_labels, class_axis_name)
    size = _block_size(block_size, embeddings.shape[0], proxies)

    def absorb(state: _Fold, block: tuple[Array, Array]) -> _Fold:
        table, classes = block
        if score is None:
            cosines = _cosines(rows, table, pool)
        else:
            cosines = score(rows, table.astype(rows.dtype))
        cosines = checkpoint_name(cosines, _KEPT)
        own = labels[:, None] == classes[None, :]
        # A row of padding has class -1, which is nobody's: existing labels are not negative.
        other = ~own & (classes >= 0)[None, :]
        add = _absorb if fold == "log_sum_exp" else _add_up
        return add(state, cosines, logits(cosines, norm[:, None]), own, other)

    state = _fold_blocks(absorb, labels, rows, proxies, proxy_labels, size)
    row = _join_shards(state, norm, class_axis_name, fold)
    counts = jnp.where(exists & (row[1] > 0), weights, 0.0)
    return combine([weigh(formula(row[0]), counts, reduction)], reduction, axis_name)


def over_own_class(
    formula: Callable[[Array, Array], Array],
    embeddings: Array,
    labels: Array,
    table: Array,
    *,
    where: Array | None = None,
    weights: Array | None = None,
    reduction: Reduction = "mean",
    axis_name: AxisName | None = None,
    block_size: int | None = None,
    proxy_labels: Array | None = None,
    class_axis_name: str | None = None,
) -> Array:
    """Reduces formula(embeddings [B, D], rows of their classes [B, D]) -> [B].

    For losses that read nothing but the own class: work B D instead of B C D, with nothing to cut
    into blocks.
    """
    del block_size
    exists, weights = check_rows(embeddings, labels, where, weights)
    checks.expect(table.ndim == 2, "centers", table, "a table [C, D]")
    check_table(embeddings, table, proxy_labels, "centers")
    rows, found = own_rows(labels, table, proxy_labels, class_axis_name)
    cleared = jnp.where((exists & found)[:, None], embeddings, 0.0)
    counts = jnp.where(exists & found, weights, 0.0)
    value = formula(cleared, rows.astype(cleared.dtype))
    return combine([weigh(value, counts, reduction)], reduction, axis_name)


def _cosines(rows: Array, table: Array, pool: Pool) -> Array:
    """Cosines [B, c] of unit rows to a block of classes, lifted and brought to length 1 here."""
    table = unit(table.astype(rows.dtype))
    if table.ndim == 2:
        return inner_products(rows, table)
    classes, centers, width = table.shape
    flat = inner_products(rows, table.reshape(classes * centers, width))
    return pool(flat.reshape(rows.shape[0], classes, centers))


def _absorb(state: _Fold, cosines: Array, logits: Array, own: Array, other: Array) -> _Fold:
    """The softmax so far and one more block of classes."""
    masked = jnp.where(other, logits, -jnp.inf)
    top = jnp.maximum(state.top, lax.stop_gradient(masked.max(axis=-1)))
    mass = state.mass * jnp.exp(state.top - top) + jnp.exp(masked - top[:, None]).sum(axis=-1)
    return _Fold(top, mass, *_own_class(state, cosines, own))


def _add_up(state: _Fold, cosines: Array, logits: Array, own: Array, other: Array) -> _Fold:
    """The sum so far and one more block of classes."""
    mass = state.mass + jnp.where(other, logits, 0.0).sum(axis=-1)
    return _Fold(state.top, mass, *_own_class(state, cosines, own))


def _own_class(state: _Fold, cosines: Array, own: Array) -> tuple[Array, Array]:
    """The score of the own class, and whether it was there, after one more block."""
    target = state.target + jnp.where(own, cosines, 0.0).sum(axis=-1)
    return target, state.found + own.sum(axis=-1).astype(state.found.dtype)


def _fold_blocks(
    fold: Callable[[_Fold, tuple[Array, Array]], _Fold],
    labels: Array,
    rows: Array,
    proxies: Array,
    proxy_labels: Array,
    size: int,
) -> _Fold:
    n = proxies.shape[0]
    axes = sorted(varying_axes((labels, rows, proxies, proxy_labels)))
    shape = jax.ShapeDtypeStruct(labels.shape, rows.dtype)
    start = _Fold(*zeros([shape] * 4, axes))
    # The start of `top` is finite, so that nothing minus nothing is not NaN.
    start = start._replace(top=start.top + jnp.finfo(rows.dtype).min / 2)
    if size >= n:
        return fold(start, (proxies, proxy_labels))
    n_blocks = -(-n // size)
    padding = n_blocks * size - n
    table = jnp.pad(proxies, [(0, padding)] + [(0, 0)] * (proxies.ndim - 1))
    classes = jnp.pad(proxy_labels, (0, padding), constant_values=-1)
    blocks = (table.reshape(n_blocks, size, *proxies.shape[1:]), classes.reshape(n_blocks, size))
    policy = None
    if rows.shape[0] * n <= _MOST_KEPT:
        policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    step = jax.checkpoint(lambda state, block: (fold(state, block), None), policy=policy)
    return lax.scan(step, start, blocks)[0]


def _join_shards(
    state: _Fold, norm: Array, class_axis_name: str | None, fold: Fold
) -> tuple[Row, Array]:
    """The softmax over the shards of the table: the row, and whether its class was found."""
    top, mass, target, found = state
    if class_axis_name is not None:
        if fold == "log_sum_exp":
            highest = lax.pmax(lax.stop_gradient(top), class_axis_name)
            mass = mass * jnp.exp(top - highest)
            top = highest
        mass = lax.psum(mass, class_axis_name)
        target = lax.psum(target, class_axis_name)
        found = lax.psum(found, class_axis_name)
    if fold == "sum":
        return Row(target, mass, norm), found
    empty = mass == 0
    others = jnp.where(empty, -jnp.inf, top + jnp.log(jnp.where(empty, 1.0, mass)))
    return Row(target, others, norm), found


def _safe_norm(rows: Array) -> Array:
    squares = (rows * rows).sum(axis=-1)
    empty = squares == 0
    return jnp.where(empty, 0.0, jnp.sqrt(jnp.where(empty, 1.0, squares)))


def _block_size(asked: int | None, n_rows: int, proxies: Array) -> int:
    """Classes alive at once: logits of one block should stay in a CPU's cache."""
    n = proxies.shape[0]
    if asked is not None:
        return min(asked, n)
    on_cpu = jax.default_backend() == "cpu"
    entries = 2**18 if on_cpu else 2**26
    centers = proxies.shape[1] if proxies.ndim == 3 else 1
    if n_rows * n * centers <= 4 * entries:
        return n
    largest = 2048 if on_cpu else n
    size = min(n, max(512, min(largest, entries // (n_rows * centers))))
    # Blocks that do not divide the table cost a padded copy of it, and one of its gradient.
    near = [d for d in range(size // 2 + 1, min(n, 2 * size) + 1) if n % d == 0]
    return min(near, key=lambda d: abs(d - size), default=size)


# ---------------------------------------------------------------- shared by losses with a table


def check_rows(
    embeddings: Array, labels: Array, where: Array | None, weights: Array | None
) -> tuple[Array, Array]:
    """Checked existence and importance of the rows, [B] each."""
    checks.rows("embeddings", embeddings)
    n = embeddings.shape[0]
    checks.class_labels("labels", labels, n, "embeddings")
    exists = labels >= 0
    if where is not None:
        checks.vector("where", where, n, "embeddings")
        exists &= where
    if weights is None:
        return exists, jnp.ones(labels.shape, embeddings.dtype)
    checks.vector("weights", weights, n, "embeddings")
    return exists, weights


def check_table(
    embeddings: Array, table: Array, proxy_labels: Array | None, name: str = "proxies"
) -> None:
    """A table [C, D] or [C, K, D] of the embeddings' width."""
    checks.expect(table.ndim in (2, 3), name, table, "a table [C, D] or [C, K, D]")
    checks.same_width(name, table, "embeddings", embeddings)
    if proxy_labels is not None:
        checks.class_labels("proxy_labels", proxy_labels, table.shape[0], name)


def table_labels(proxies: Array, proxy_labels: Array | None, class_axis_name: str | None) -> Array:
    """The class of each row of the table: given, or 0..C-1 counted on over the shards."""
    if proxy_labels is not None:
        return proxy_labels
    own = jnp.arange(proxies.shape[0], dtype=jnp.result_type(int))
    if class_axis_name is None:
        return own
    return own + lax.axis_index(class_axis_name).astype(own.dtype) * proxies.shape[0]


def own_cosines(
    embeddings: Array, labels: Array, proxies: Array, options: Mapping[str, Any]
) -> Array:
    """Cosine of each row to its own class, [B], before the sweep over all classes; 0 without one.

    For losses in which the logits of other classes depend on it.
    """
    exists, _ = check_rows(embeddings, labels, options.get("where"), None)
    check_table(embeddings, proxies, options.get("proxy_labels"))
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")
    own, found = own_rows(
        labels, proxies, options.get("proxy_labels"), options.get("class_axis_name")
    )
    rows = unit(jnp.where((exists & found)[:, None], embeddings, 0.0))
    return (rows * unit(own.astype(rows.dtype))).sum(axis=-1)


def own_rows(
    labels: Array, table: Array, proxy_labels: Array | None, class_axis_name: str | None
) -> tuple[Array, Array]:
    """The row of the table of each label [B, D], and whether there is one [B]."""
    classes = table_labels(table, proxy_labels, class_axis_name)
    if proxy_labels is None:
        at = labels - classes[0]
    else:
        order = jnp.argsort(classes)
        place = jnp.searchsorted(classes[order], labels)
        at = order[jnp.minimum(place, classes.shape[0] - 1)].astype(labels.dtype)
    inside = (at >= 0) & (at < table.shape[0])
    at = jnp.where(inside, at, 0)
    found = inside & (classes[at] == labels)
    rows = jnp.where(found[:, None], table[at], 0.0)
    if class_axis_name is not None:
        rows = lax.psum(rows, class_axis_name)
        found = lax.psum(found.astype(jnp.int32), class_axis_name) > 0
    return rows, found
