"""Metrics that the nearest R items decide: short lists and counts, on the device, by blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jdml.metrics import long_lists, ties
from jdml.metrics import task as asked
from jdml.metrics.task import Task
from jdml.retrieval.rows import block_of, blocks, two_at_a_time
from jdml.retrieval.search import block_at, gallery_of
from jdml.retrieval.select import Block, Gallery, largest, similarities

_STRIDES = 32  # divides the padded width of a gallery


class Mates(NamedTuple):
    """Where the rows of each query's class stand."""

    codes: Any  # int32 [b] class
    start: Any  # int32 [b] where that class starts in the order
    count: Any  # int32 [b] rows of that class, the query's own included


class Classes(NamedTuple):
    """The classes of a gallery."""

    codes: jax.Array  # int32 [N'] class, -1 where it only pads
    order: jax.Array  # int32 [N] rows sorted by class


def values(task: Task, ks: tuple[int, ...], rule: ties.Ties) -> dict[str, np.ndarray]:
    """Recall@k, precision@1, R-precision and MAP@R of every scored query, [Q] each."""
    names = [f"recall_at_{k}" for k in ks] + ["precision_at_1", "r_precision", "map_at_r"]
    most = int(task.relevant.max(initial=1))
    beyond = max(ks, default=1) > max(most, asked.LONGEST_LIST)
    parts = [np.zeros((len(names), 0))]
    for groups, first, relevant in _ranked(task, most if beyond else max((most, *ks)), beyond):
        recalls = [ties.recall(first, k, rule) for k in (*ks, 1)]
        parts.append(np.stack([*recalls, *ties.r_metrics(groups, relevant, rule)]))
    return dict(zip(names, np.concatenate(parts, axis=1)))


def _ranked(
    task: Task, length: int, beyond: bool
) -> Iterator[tuple[ties.Groups, ties.First, np.ndarray]]:
    """What the metrics of each block of queries need.

    `length` ranks are listed; `beyond` where recall is asked for beyond the list.
    """

    def of(rows: slice) -> tuple[ties.Groups, ties.First, np.ndarray]:
        return _finish(task, length, rows, _rank(task, rows, length, count=beyond))

    def of_long(rows: slice) -> tuple[ties.Groups, ties.First, np.ndarray]:
        block, gallery = block_at(task.prepared, rows), gallery_of(task.prepared)
        found = long_lists.groups(block, gallery, task.codes[rows], gallery_codes, length)
        return found, ties.first_hit(found), task.relevant[rows]

    every = blocks(len(task.relevant), task.prepared.block_size)
    on_host = not beyond and task.gallery.mesh is None
    if on_host and long_lists.fits(length, task.prepared.queries.dtype):
        gallery_codes = np.asarray(task.gallery.padded_codes)
        return two_at_a_time(of_long, every, alone=False)
    return two_at_a_time(of, every, alone=task.gallery.mesh is not None)


def _rank(task: Task, rows: slice, length: int, count: bool) -> Any:
    size = task.prepared.block_size
    mates = Mates(*(block_of(a, rows, size) for a in (task.codes, task.start, task.count)))
    slots = int(task.count.max()) if count else 0
    classes = Classes(task.gallery.padded_codes, task.gallery.order)
    block, gallery = block_at(task.prepared, rows), gallery_of(task.prepared)
    return lists_of(
        block, gallery, mates, classes, length=length, slots=slots, mesh=task.gallery.mesh
    )


def _finish(
    task: Task, length: int, rows: slice, lists: Any
) -> tuple[ties.Groups, ties.First, np.ndarray]:
    """Tie groups from the lists of one block, which is searched again where a tie leaves them."""
    relevant = task.relevant[rows]
    fetch = functools.partial(jax.tree.map, lambda array: np.asarray(array)[: len(relevant)])
    values, hits, counts = fetch(lists)
    if counts is None and (values[:, -2] == values[:, -1]).any():
        values, hits, counts = fetch(_rank(task, rows, length, count=True))
    groups = ties.tie_groups(values[:, :-1], hits[:, :-1], counts and counts[0])
    return groups, counts[1] if counts else ties.first_hit(groups), relevant


def scores_of_mates(scores: jax.Array, mates: Mates, order: jax.Array, slots: int) -> jax.Array:
    """Similarities [b, slots] of each query to the rows of its class, -inf where there is none."""
    slot = jnp.arange(slots, dtype=jnp.int32)[None, :]
    places = order[jnp.clip(mates.start[:, None] + slot, 0, len(order) - 1)]
    found = jnp.take_along_axis(scores, places, axis=1)
    return jnp.where(slot < mates.count[:, None], found, -jnp.inf)


def spread(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """`function(block, gallery, mates, classes)`, a part of the block on each device of a mesh."""
    if mesh is None:
        return function
    part, everything = PartitionSpec(mesh.axis_names), PartitionSpec()
    specs = (part, everything, part, everything)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=part, check_vma=False)


Lists: TypeAlias = tuple[
    jax.Array, jax.Array, tuple[tuple[jax.Array, jax.Array], ties.First] | None
]


@functools.partial(jax.jit, static_argnames=("length", "slots", "mesh"))
def lists_of(
    queries: Block,
    gallery: Gallery,
    mates: Mates,
    classes: Classes,
    *,
    length: int,
    slots: int,
    mesh: Mesh | None = None,
) -> Lists:
    """Similarities and hits of the nearest `length` + 1, [b, length + 1], and perhaps counts.

    With `slots`, the size of the largest class, whole rows are counted: items and relevant items
    as close as the last one of the list, and the group of the nearest relevant item. Counts
    compare similarities of one product with each other; recomputed ones could round differently.
    A list may be longer than the candidates of a query: what stands there, at -inf, is beyond the
    R ranks that any metric reads.
    """
    part = functools.partial(_lists_of_part, length=length, slots=slots)
    return spread(part, mesh)(queries, gallery, mates, classes)


def _lists_of_part(
    queries: Block, gallery: Gallery, mates: Mates, classes: Classes, length: int, slots: int
) -> Lists:
    scores = similarities(queries, gallery)
    values, columns = largest(scores, length + 1)
    hits = classes.codes[columns] == mates.codes[:, None]
    if not slots:
        return values, hits, None
    found = scores_of_mates(scores, mates, classes.order, slots)
    edge, best = values[:, length - 1 : length], found.max(axis=1, keepdims=True)
    closer, as_close, at_edge = _counts(scores, best, edge)
    hits_at_edge, nearest_hits = (found == edge).sum(axis=1), (found == best).sum(axis=1)
    return values, hits, ((at_edge, hits_at_edge), ties.First(closer, as_close, nearest_hits))


def _counts(scores: jax.Array, best: jax.Array, edge: jax.Array) -> tuple[jax.Array, ...]:
    """How many of each row [b, N'] are above `best`, at `best` and at `edge`, [b] each.

    In strides over a loop, with counters as wide as a stride: a reduction of comparisons over the
    whole row would first write them all down.
    """
    strides = scores.reshape(len(scores), _STRIDES, -1)

    def add(i: jax.Array, counters: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        part = strides[:, i]
        seen = (part > best, part == best, part == edge)
        return tuple(count + new.astype(jnp.int32) for count, new in zip(counters, seen))

    nothing = jnp.zeros((len(scores), strides.shape[2]), jnp.int32)
    counters = lax.fori_loop(0, _STRIDES, add, (nothing,) * 3)
    return tuple(count.sum(axis=1) for count in counters)
