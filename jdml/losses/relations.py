"""Losses on relations other than single pairs: to centroids, to labels that are numbers, to all."""

from __future__ import annotations

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core import checks, targets
from jdml._core.centroids import Centroids, centroids_of
from jdml._core.compile import loss
from jdml._core.devices import gather
from jdml._core.options import Array, Distance, Number, PairOptions, Pairs, flat
from jdml._core.pairs import each_anchor, over_pairs
from jdml._core.reduce import safe_divide, whole

_ON_SPHERE = distances.normalized(distances.euclidean)
_SQUARED_ON_SPHERE = distances.normalized(distances.squared_euclidean)


@loss(reduction="mean")
def alignment(
    embeddings: Array,
    labels: Array,
    *,
    power: Number = 2.0,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls positives together on the sphere, and nothing else.

    One of the two halves of contrastive learning; `uniformity` is the other. Their weighted sum
    is a loss of its own, and each alone a measure of a trained encoder.

        |u - v|^power   for every positive pair (u, v) of unit rows

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes or items.
      power: alpha in the paper, 2.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> print(f"{alignment(rows, jnp.array([0, 0, 1])):.5f}")
      2.00000

    Reference:
      Wang, Isola: Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, ICML 2020.
    """

    def formula(pairs: Pairs):
        same = pairs.positives == 0  # there the power has no gradient worth the name
        value = jnp.where(same, 0.0, jnp.where(same, 1.0, pairs.positives) ** power)
        return ((value, pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, _ON_SPHERE, **options)


@loss(reduction="mean")
def uniformity(
    embeddings: Array,
    labels: Array,
    *,
    sharpness: Number = 2.0,
    **options: Unpack[PairOptions],
) -> Array:
    """Spreads all rows over the sphere, whatever their labels.

    The logarithm of the mean Gaussian potential of all pairs: lowest for the uniform
    distribution. Add it to a loss whose classes or dimensions collapse.

        log mean exp(-sharpness |u - v|^2)   over all pairs of unit rows

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes; they only tell which rows exist.
      sharpness: t in the paper, 2.
      **options: the shared keywords of pair losses. The loss belongs to the batch as a whole: the
        reduction "none" gives its rows equal shares, the others the value.

    Returns:
      A float32 scalar (or [B] for the reduction "none"), at most 0.

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
      >>> print(uniformity(rows, jnp.array([0, 1])))  # one pair, at the squared distance 4
      -8.0

    Reference:
      Wang, Isola: Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, ICML 2020.
    """

    # The closest pair is taken out of the exponents: far rows would underflow to no pairs at all.
    closest = _closest(embeddings, labels, options)

    def formula(pairs: Pairs):
        squares, weights = _every_pair(pairs)
        # Masked before: what is no pair, the row itself among it, may be closer.
        further = jnp.where(weights == 0, 0.0, squares - closest)
        return ((jnp.exp(-sharpness * further), weights),)

    mean = over_pairs(
        formula, embeddings, labels, _SQUARED_ON_SPHERE, **{**options, "reduction": "mean"}
    )
    alone = mean == 0  # no pair
    value = jnp.log(jnp.where(alone, 1.0, mean)) - sharpness * closest
    exists = targets.exist(targets.kind_of(labels, None), labels, options.get("where"))
    reduction, axis_name = options.get("reduction", "mean"), options.get("axis_name")
    return whole(jnp.where(alone, 0.0, value), exists, reduction, axis_name)


def _every_pair(pairs: Pairs) -> tuple[Array, Array]:
    """Distances and weights of an anchor's pairs of both kinds."""
    distances, weights = flat(pairs.positives), flat(pairs.positive_weights)
    if pairs.positive_columns is None and pairs.negative_columns is None:
        return distances, weights + pairs.negative_weights  # the same distances on both sides
    return (
        jnp.concatenate([distances, flat(pairs.negatives)], axis=-1),
        jnp.concatenate([weights, flat(pairs.negative_weights)], axis=-1),
    )


def _closest(embeddings: Array, labels: Array, options: Any) -> Array:
    """The smallest squared distance of any pair on the sphere, without a gradient."""
    largest = 4.0  # of two unit rows

    def nearness(pairs: Pairs) -> Array:
        squares, weights = _every_pair(pairs)
        return jnp.where(weights != 0, largest - squares, 0.0).max(axis=-1)

    if options.get("weights") is not None:  # only whether there are any
        there = (options["weights"] != 0).astype(embeddings.dtype)
        options = {**options, "weights": there}
    near = each_anchor(nearness, embeddings, labels, _SQUARED_ON_SPHERE, **options)
    near, axis_name = lax.stop_gradient(near).max(), options.get("axis_name")
    return largest - (near if axis_name is None else lax.pmax(near, axis_name))


@loss(reduction="mean", continuous=True)
def log_ratio(
    embeddings: Array,
    labels: Array,
    *,
    epsilon: Number = 1e-6,
    distance: Distance = distances.squared_euclidean,
    **options: Unpack[PairOptions],
) -> Array:
    """Makes ratios of distances between rows those of distances between their labels.

    For labels that are numbers, such as a pose, an age, a caption's embedding: no threshold turns
    them into classes. Every two rows other than the anchor are compared.

        (log d(a, i) / d(a, j) - log d_y(a, i) / d_y(a, j))^2

    averaged over the pairs (i, j) of each anchor, then over anchors; d_y is the squared Euclidean
    distance of labels.

    Args:
      embeddings: [B, D] rows.
      labels: [B] or [B, L] numbers. Rows are left out by `where` only.
      epsilon: added to both distances before the logarithm, in their unit: rows or labels that
        agree exactly are that far apart, and no pair is left out. 1e-6 in the authors' code.
      distance: between rows; squared Euclidean in the paper.
      **options: the shared keywords of pair losses; `ref_labels` are numbers too.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0], [1.0], [3.0]])
      >>> print(f"{log_ratio(rows, jnp.array([5.0, 7.0, 11.0])):.5f}")  # the labels are 5 + 2 x
      0.00000

    Note:
      Time and memory of a pair loss: the mean over pairs (i, j) is twice a variance over i. The
      authors' code takes distances that are not squared, which gives a quarter of the value, and
      compares the rows of a batch with one anchor only. `weights` [B, R] weigh i and j alike.

    Reference:
      Kim, Seo, Laptev, Cho, Kwak: Deep Metric Learning Beyond Binary Supervision, CVPR 2019.
    """
    refs, ref_labels = options.get("refs"), options.get("ref_labels")
    checks.rows("embeddings", embeddings)
    numbers = _numbers("", labels, options.get("where"), embeddings)
    if refs is not None and ref_labels is not None:
        checks.rows("refs", refs)
        targets.check("numbers", "ref_labels", ref_labels, refs.shape[0], "refs", labels)
        options["ref_labels"] = _numbers("ref_", ref_labels, options.get("ref_where"), refs)

    def formula(pairs: Pairs):
        weights = pairs.positive_weights
        # Masked before the logarithm: the anchor itself is at 0 from itself.
        log = lambda x: jnp.log(jnp.where(weights == 0, 1.0, x + epsilon))
        gap = log(pairs.positives) - log(pairs.positive_values)
        count = weights.sum(axis=-1)
        mean = safe_divide((weights * gap).sum(axis=-1), count)
        square = (weights * (gap - mean[:, None]) ** 2).sum(axis=-1)
        pairs_of_pairs = (count**2 - (weights**2).sum(axis=-1)) / 2
        enough = (weights != 0).sum(axis=-1) > 1
        value = safe_divide(count * square, jnp.where(enough, pairs_of_pairs, 0.0))
        return ((value, enough.astype(value.dtype)),)

    apart = distances.squared_euclidean
    return over_pairs(formula, embeddings, numbers, distance, label_distance=apart, **options)


def _numbers(side: str, labels: Array, where: Array | None, rows: Array) -> Array:
    """Labels as rows [N, L]; those that are not there are cleared, since they may hold NaN."""
    of = "refs" if side else "embeddings"
    checks.expect(labels.ndim in (1, 2), f"{side}labels", labels, "numbers [B] or [B, L]")
    targets.check("numbers", f"{side}labels", labels, rows.shape[0], of)
    numbers = (labels[:, None] if labels.ndim == 1 else labels).astype(rows.dtype)
    if where is None:
        return numbers
    checks.vector(f"{side}where", where, rows.shape[0], of)
    return jnp.where(where[:, None], numbers, 0.0)


@loss(reduction="mean_active")
def centroid_triplet(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.2,
    soft: bool = False,
    distance: Distance = _ON_SPHERE,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls a row to the mean of its class-mates and pushes it from the means of other classes.

    Triplets with centroids in the place of single rows: robust to outliers, and what a gallery of
    one centroid an item is searched by. Far fewer triplets than rows give.

        relu(d(a, c) - d(a, c') + margin),  or its softplus if soft

    with c the mean of the anchor's class without the anchor, c' that of any other class.

    Args:
      embeddings: [B, D] rows; the mean is taken of rows as they are.
      labels: [B] integer classes.
      margin: in the unit of the distance.
      soft: softplus in the place of the hinge.
      distance: between a row and a centroid.
      **options: the shared keywords of pair losses. `weights` are [B] and weigh anchors; `refs`
        make the centroids, of which none is left out; a miner chooses among the centroids c'.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Raises:
      ValueError: labels that are not one class a row, or weights of pairs.

    Example:
      >>> rows = jnp.array([[0.0], [1.0], [3.0], [4.0]])
      >>> options = dict(margin=2.0, distance=distances.euclidean, reduction="none")
      >>> print(centroid_triplet(rows, jnp.array([0, 0, 1, 1]), **options))  # row 1: 1 - 2.5 + 2
      [0.  0.5 0.5 0. ]

    Note:
      The authors' code compares Euclidean distances of rows that are not normalised, keeps the
      nearest negative, and takes centroids for anchors as well.

    Reference:
      Wieczorek, Rychalska, Dabrowski: On the Unreasonable Effectiveness of Centroids in Image
      Retrieval, ICONIP 2021.
    """
    checks.class_labels("labels", labels, embeddings.shape[0], "embeddings")
    weights = options.get("weights")
    if weights is not None:
        checks.vector("weights", weights, embeddings.shape[0], "embeddings")
    violation = jax.nn.softplus if soft else jax.nn.relu
    means, own, found = _centroids(embeddings, labels, options)
    between = jax.vmap(lambda row, mean: distance(row[None], mean[None])[0, 0])
    pull = between(jnp.where(found[:, None], embeddings, 0.0), own)

    def formula(pairs: Pairs):
        positive, negatives = pairs.anchor_values[:, None], flat(pairs.negatives)
        return ((violation(positive - negatives + margin), flat(pairs.negative_weights)),)

    rest = {k: v for k, v in options.items() if k not in ("where", "refs", "ref_labels")}
    given = {"where": found, "refs": means.rows, "ref_labels": means.labels}
    return over_pairs(
        formula, embeddings, labels, distance, anchor_values=pull,
        **{**rest, **given, "ref_where": means.exists},
    )  # fmt: skip


def _centroids(embeddings: Array, labels: Array, options: Any) -> tuple[Centroids, Array, Array]:
    """All centroids, the one that each anchor belongs to [B, D], and whether it has one [B]."""
    exists = targets.exist("classes", labels, options.get("where"))
    cleared = jnp.where(exists[:, None], embeddings, 0.0)
    refs, axis_name = options.get("refs"), options.get("axis_name")
    if refs is not None:
        ref_labels = options.get("ref_labels")
        if ref_labels is None:
            raise ValueError("ref_labels: got None, expected the labels of refs, one a row")
        checks.class_labels("ref_labels", ref_labels, refs.shape[0], "refs")
        there = targets.exist("classes", ref_labels, options.get("ref_where"))
        means = centroids_of(jnp.where(there[:, None], refs, 0.0), ref_labels, there)
        sums, count = means.of(labels)
    else:
        means = centroids_of(*(gather(x, axis_name) for x in (cleared, labels, exists)))
        sums, count = means.of(labels)
        sums, count = sums - cleared, count - 1.0
    own = safe_divide(sums, jnp.maximum(count, 0.0)[:, None])
    return means, own, exists & (count > 0.5)
