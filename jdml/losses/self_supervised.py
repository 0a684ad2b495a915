"""Self-supervised losses without negatives: views of an item agree, dimensions say new things."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core import targets
from jdml._core.compile import loss
from jdml._core.devices import gather
from jdml._core.maths import inner_products, safe_sqrt
from jdml._core.options import Array, Number, PairOptions, Pairs
from jdml._core.pairs import each_anchor, over_pairs
from jdml._core.reduce import safe_divide, total, whole


class _Branch(NamedTuple):
    """The rows of one set of views."""

    centred: Array  # [N, D] less the mean of each dimension; 0 where a row is not there
    count: Array  # [] rows of all devices
    variance: Array  # [D] over count
    axis_name: Any  # over which the rows are spread


@loss(reduction="mean")
def vicreg(
    embeddings: Array,
    labels: Array,
    *,
    invariance_weight: Number = 25.0,
    variance_weight: Number = 25.0,
    covariance_weight: Number = 1.0,
    epsilon: Number = 1e-4,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls views of an item together, keeps every dimension spread, and dimensions uncorrelated.

    No negatives, no large batches, no second network: variance and covariance of the batch keep
    the embedding from collapsing. Give the second view as `refs`, which is the paper's pair of
    branches, or all views in one matrix with the item as label: for n views one after the other,
    `labels = jnp.tile(items, n)`.

        invariance_weight mean_pairs |z - z'|^2 / D
        + sum_branches variance_weight mean_d relu(1 - sqrt(var_d + epsilon))
                       + covariance_weight sum_{d != e} cov_de^2 / D

    Args:
      embeddings: [B, D] rows, not normalised.
      labels: [B] integer items.
      invariance_weight: lambda in the paper.
      variance_weight: mu in the paper.
      covariance_weight: nu in the paper.
      epsilon: added to variances under the root.
      **options: the shared keywords of pair losses. `weights` and a miner choose among the pairs
        of the first term; variance and covariance are those of all existing rows. With `refs`
        these are the second branch, with statistics of its own; without, the batch is both, and
        with `axis_name` refs are those of all devices (`lax.all_gather` them). The loss belongs
        to the batch as a whole: the reduction "none" gives its rows equal shares, the others the
        value.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> first, second = jnp.array([[2.0], [-2.0]]), jnp.array([[2.0], [-1.0]])
      >>> options = dict(refs=second, ref_labels=jnp.arange(2), invariance_weight=1.0)
      >>> print(vicreg(first, jnp.arange(2), **options))  # spread enough: (0 + 1) / 2
      0.5

      Three views of two items, of which views 0 and 2 agree (pairs at 1, 0, 1):

      >>> views = jnp.array([[2.0], [-2.0], [3.0], [-3.0], [2.0], [-2.0]])
      >>> loss = vicreg(views, jnp.tile(jnp.arange(2), 3), invariance_weight=1.0)
      >>> print(f"{loss:.5f}")
      0.66667

    Note:
      The first term is a mean over dimensions, as in the authors' code, where the paper's formula
      sums over them. The variance term is the paper's: the authors' code and
      pytorch-metric-learning halve it, which `variance_weight=12.5` gives. Variances are those of
      samples (over N - 1); a single row counts as collapsed.

    Reference:
      Bardes, Ponce, LeCun: VICReg: Variance-Invariance-Covariance Regularization for
      Self-Supervised Learning, ICLR 2022.
    """
    reduction, axis_name = options.get("reduction", "mean"), options.get("axis_name")
    width = embeddings.shape[1]

    def formula(pairs: Pairs):
        return ((pairs.positives / width, pairs.positive_weights),)

    agree = over_pairs(
        formula, embeddings, labels, distances.squared_euclidean, **{**options, "reduction": "mean"}
    )

    def spread(branch: _Branch) -> Array:
        freedom = jnp.maximum(branch.count - 1.0, 1.0)
        deviation = safe_sqrt(branch.variance * branch.count / freedom + epsilon)
        hinge = jax.nn.relu(1.0 - deviation).mean()
        crossed = _sum_of_products(branch.centred, branch.centred, branch.axis_name) / freedom
        off = jnp.where(jnp.eye(width, dtype=bool), 0.0, crossed)
        value = variance_weight * hinge + covariance_weight * (off**2).sum() / width
        return jnp.where(branch.count == 0, 0.0, value)

    first, second = _branches(embeddings, labels, options)
    value = invariance_weight * agree + spread(first) + spread(second)
    value = jnp.where(first.count == 0, 0.0, value)
    return whole(value, _existing(labels, options), reduction, axis_name)


@loss(reduction="mean")
def barlow_twins(
    embeddings: Array,
    labels: Array,
    *,
    redundancy_weight: Number = 5e-3,
    epsilon: Number = 1e-5,
    **options: Unpack[PairOptions],
) -> Array:
    """Makes each dimension agree between views of an item and disagree with the other dimensions.

    The cross-correlation of the two views should be the identity. No negatives; wide embeddings
    (thousands of dimensions) help. Give the second view as `refs`, or all views in one matrix
    with the item as label: for n views one after the other, `labels = jnp.tile(items, n)`.

        sum_d (1 - C_dd)^2 + redundancy_weight sum_{d != e} C_de^2,
        C = mean over positive pairs of z z'^T, dimensions standardised within each branch

    Args:
      embeddings: [B, D] rows, not normalised.
      labels: [B] integer items.
      redundancy_weight: lambda in the paper.
      epsilon: added to variances, as in batch normalisation.
      **options: the shared keywords of pair losses. `weights` and a miner choose among the pairs
        of C; rows are standardised by all existing rows. With `refs` these are the second branch,
        with statistics of its own; without, the batch is both, and C is symmetric. With
        `axis_name` refs are those of all devices (`lax.all_gather` them). The loss belongs to the
        batch as a whole: the reduction "none" gives its rows equal shares, the others the value.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> first, second = jnp.array([[1.0], [-1.0]]), jnp.array([[-5.0], [5.0]])
      >>> options = dict(refs=second, ref_labels=jnp.arange(2), epsilon=0.0)
      >>> print(barlow_twins(first, jnp.arange(2), **options))  # C = -1
      4.0

    Reference:
      Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins: Self-Supervised Learning via Redundancy
      Reduction, ICML 2021.
    """
    reduction, axis_name = options.get("reduction", "mean"), options.get("axis_name")
    first, second = _branches(embeddings, labels, options)
    scaled = lambda b: b.centred / jnp.maximum(safe_sqrt(b.variance + epsilon), _TINY)[None, :]
    mine, theirs = scaled(first), gather(scaled(second), second.axis_name)

    def partners(pairs: Pairs) -> tuple[Array, Array]:
        """The weighted sum of the partners of each anchor, and of their weights."""
        weights, columns = pairs.positive_weights, pairs.positive_columns
        if columns is None:
            return inner_products(weights, theirs.T), weights.sum(axis=-1)
        return (weights[..., None] * theirs[columns]).sum(axis=1), weights.sum(axis=-1)

    sums, weights = each_anchor(partners, embeddings, labels, distances.cosine, **options)
    weight = lax.stop_gradient(total(weights.sum(), axis_name))
    crossed = safe_divide(_sum_of_products(mine, sums, axis_name), weight)
    own = jnp.eye(embeddings.shape[1], dtype=bool)
    square = jnp.where(own, (1.0 - crossed) ** 2, redundancy_weight * crossed**2).sum()
    value = jnp.where(weight == 0, 0.0, square)
    return whole(value, _existing(labels, options), reduction, axis_name)


_TINY = 1e-12  # no dimension is divided by less


def _sum_of_products(x: Array, y: Array, axis_name: Any) -> Array:
    """x^T y [D, D], summed over the rows of all devices."""
    return total(inner_products(x.T, y.T), axis_name)


def _existing(labels: Array, options: Any) -> Array:
    return targets.exist(targets.kind_of(labels, None), labels, options.get("where"))


def _branches(embeddings: Array, labels: Array, options: Any) -> tuple[_Branch, _Branch]:
    """The batch of all devices, and the references: the batch again where there are none."""
    first = _branch(embeddings, _existing(labels, options), options.get("axis_name"))
    refs = options.get("refs")
    if refs is None:
        return first, first
    ref_labels, where = options.get("ref_labels"), options.get("ref_where")
    exists = jnp.ones(refs.shape[:1], bool) if where is None else where
    if ref_labels is not None:
        exists = targets.exist(targets.kind_of(ref_labels, None), ref_labels, where)
    return first, _branch(refs, exists, None)


def _branch(rows: Array, exists: Array, axis_name: Any) -> _Branch:
    there = exists.astype(rows.dtype)[:, None]
    rows = jnp.where(exists[:, None], rows, 0.0)
    count = total(there.sum(), axis_name)
    mean = safe_divide(total(rows.sum(axis=0, keepdims=True), axis_name), count)
    centred = jnp.where(exists[:, None], rows - mean, 0.0)
    variance = safe_divide(total((centred**2).sum(axis=0), axis_name), count)
    return _Branch(centred, count, variance, axis_name)
