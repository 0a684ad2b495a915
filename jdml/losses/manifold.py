"""Similarity along the manifold of a batch: a random walk over its rows and the proxies."""

from __future__ import annotations

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.compile import loss
from jdml._core.devices import gather
from jdml._core.maths import inner_products, safe_sqrt, unit
from jdml._core.options import Array, Number, TableOptions
from jdml._core.reduce import combine, log_sum_exp, safe_divide, weigh
from jdml._core.table import check_rows, check_table, table_labels


@loss(reduction="mean")
def manifold(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    alpha: Number = 0.8,
    margin: Number = 5e-4,
    context_weight: Number = 1.0,
    temperature: Number = 0.5,
    violations_only: bool = False,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the proxy of its class as seen by a random walk over the whole batch.

    Rows and proxies are the nodes of a graph; a walk starts at a node, goes on to similar nodes
    with the chance alpha and so reaches proxies over other rows, along the manifold that the batch
    lies on. A proxy should be reached more often than others by the rows of its class (intrinsic),
    and its own walks should end where theirs do (context). For classes that are curved or in
    several pieces. The walk is solved, not simulated.

        log(1 + sum_{c != y} exp(F_ic - F_iy + margin))                                  intrinsic
        + context_weight log(1 + sum_{c != y} exp(cos(F_i, F_c) - cos(F_i, F_y) + margin)) context
        F = (1 - alpha) (I - alpha D^-1/2 S D^-1/2)^-1,  D = the row sums of S,
        S_jk = exp(max(cos(j, k), 0) / temperature) between different nodes

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D], one a class; brought to unit length here.
      alpha: chance of another step, in (0, 1).
      margin: in units of F, which are about 1 / (B + C), and of cosines.
      context_weight: lambda_C in the paper; 0 leaves the intrinsic part alone, infinity the other.
      temperature: of similarities; smaller keeps walks near.
      violations_only: whether sums leave out proxies behind the own one by more than the margin.
      **options: the shared keywords of table losses. A weight is the number of nodes that a row
        is. `block_size` changes nothing.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.eye(2)
      >>> loss = manifold(rows, jnp.array([0, 1]), proxies, temperature=1e-2, margin=0.0)
      >>> print(f"{loss:.5f}")  # to the own proxy F = 4 / 9 and cosine 40 / 41, to the other 0
      0.81530

    Note:
      The cost is that of the inverse of a (B + C) x (B + C) matrix, on every device for the rows
      of all devices: for batches and tables of some thousands. In the paper's ensemble each member
      groups the data at random: pass a row's group as its label. Its hard proxies, moved towards
      each other between steps, are a rule for the table and not in the loss. S is that of the
      common port, which always has `violations_only=True`; the value then jumps as a proxy
      becomes a violation.

    Reference:
      Aziere, Todorovic: Ensemble Deep Manifold Similarity Learning Using Hard Proxies, CVPR 2019.
    """
    axis_name, class_axis = options.get("axis_name"), options.get("class_axis_name")
    batch = _batch(embeddings, labels, proxies, options)
    walk = _walk(batch.nodes, batch.sizes, alpha, temperature)
    n_rows = batch.sizes.shape[0] - batch.own.shape[1]
    rows, targets = _at(walk, batch.place), _at(walk, jnp.arange(n_rows, batch.sizes.shape[0]))

    def part(similarities: Array) -> Array:
        """[B, C] -> [B]: the own proxy against all others."""
        own = jnp.where(batch.own, similarities, 0.0).sum(axis=-1, keepdims=True)
        gaps = similarities - own + margin
        against = batch.other
        if violations_only:
            against &= ~(gaps < 0)
        return jax.nn.softplus(log_sum_exp(gaps, against.astype(gaps.dtype)))

    reached = rows.ends[:, n_rows:] / rows.roots[:, None]
    along = inner_products(rows.ends, targets.ends)
    cosines = along / (rows.lengths[:, None] * targets.lengths[None, :])
    context_alone = jnp.isinf(context_weight)
    intrinsic = jnp.where(context_alone, 0.0, part(reached))
    value = intrinsic + jnp.where(context_alone, 1.0, context_weight) * part(cosines)
    reduction = options.get("reduction", "mean")
    value = combine([weigh(value, batch.counts, reduction)], reduction, axis_name)
    # Every shard of the table has seen all of it: the values are equal, and this says so.
    return value if class_axis is None else lax.pmean(value, class_axis)


class _Batch(NamedTuple):
    """The graph of all devices and all shards, and the rows of this device in it."""

    nodes: Array  # [N, D] rows, then proxies
    sizes: Array  # [N] how many nodes each is, 0 for what is not there
    place: Array  # [B] where the rows of this device are among the nodes
    own: Array  # [B, C]
    other: Array  # [B, C]
    counts: Array  # [B] weights of the rows of this device


def _batch(embeddings: Array, labels: Array, proxies: Array, options: TableOptions) -> _Batch:
    axis_name, class_axis = options.get("axis_name"), options.get("class_axis_name")
    exists, weights = check_rows(embeddings, labels, options.get("where"), options.get("weights"))
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")
    check_table(embeddings, proxies, options.get("proxy_labels"))
    classes = table_labels(proxies, options.get("proxy_labels"), class_axis)
    classes, table = gather(classes, class_axis), gather(proxies, class_axis)
    real = (classes >= 0)[None, :]
    own = (labels[:, None] == classes[None, :]) & real
    counts = jnp.where(exists & own.any(axis=-1), weights, 0.0)
    cleared = jnp.where((counts != 0)[:, None], embeddings, 0.0)
    rows, sizes = gather(cleared, axis_name), gather(counts, axis_name)
    place = jnp.arange(labels.shape[0])
    if axis_name is not None:
        place = place + lax.axis_index(axis_name).astype(place.dtype) * labels.shape[0]
    nodes = jnp.concatenate([rows, table.astype(rows.dtype)])
    sizes = jnp.concatenate([sizes, real[0].astype(sizes.dtype)])
    return _Batch(nodes, sizes, place, own, real & ~own, counts)


class _Walk(NamedTuple):
    """Where walks end, of nodes that each stand for `size` equal ones.

    With H the symmetric matrix of the small graph, a walk from one of the nodes that i is ends at
    one of those that j is with F_ij = H_ij / sqrt(size_i size_j), so inner products of rows of F
    over the large graph are those of rows of H divided by the roots of both sizes.
    """

    ends: Array  # [N, N] H
    roots: Array  # [N] sqrt(size), 1 for what is not there
    lengths: Array  # [N] sqrt(size) |F_i| over the large graph


def _walk(nodes: Array, sizes: Array, alpha: Number, temperature: Number) -> _Walk:
    n = nodes.shape[0]
    rows, itself = unit(nodes), jnp.eye(n, dtype=bool)
    # A factor common to all similarities cancels: the largest is 1.
    similar = jnp.exp((jax.nn.relu(inner_products(rows, rows)) - 1.0) / temperature)
    # A node that stands for several is also next to its likes, but not to itself.
    likes = jax.nn.relu(sizes - 1.0)
    neighbours = jnp.where(itself, likes[None, :], sizes[None, :])
    degrees = (similar * neighbours).sum(axis=-1)
    there = sizes != 0
    lone = ~there | (degrees == 0)
    roots = jnp.where(there, safe_sqrt(jnp.where(there, sizes, 1.0)), 0.0)
    scales = jnp.where(lone, 0.0, roots / safe_sqrt(jnp.where(lone, 1.0, degrees)))
    to_likes = safe_divide(jnp.diagonal(similar) * likes, degrees)
    step = jnp.where(itself, to_likes[None, :], similar * scales[:, None] * scales[None, :])
    ends = (1.0 - alpha) * jnp.linalg.inv(itself.astype(step.dtype) - alpha * step)
    # Of F_ii, what a node does not share with its likes: it enters no sum but that of squares.
    to_one = safe_divide(to_likes, likes)
    apart = ((1.0 - alpha) / (1.0 + alpha * to_one)) ** 2 * (sizes - 1.0)
    squares = (ends * ends).sum(axis=-1) + jnp.where(there, apart, 0.0)
    return _Walk(ends, jnp.where(there, roots, 1.0), safe_sqrt(squares))


def _at(walk: _Walk, place: Array) -> _Walk:
    return _Walk(*(x[place] for x in walk))
