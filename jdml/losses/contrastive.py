"""Contrastive losses: pairs of one class are pulled together, pairs of two are pushed apart."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.folds import EachPair
from jdml._core.options import Array, Distance, Number, PairOptions, Pairs, flat
from jdml._core.pairs import over_pairs

_ON_SPHERE = distances.normalized(distances.euclidean)


@loss(reduction="mean_active")
def contrastive(
    embeddings: Array,
    labels: Array,
    *,
    positive_margin: Number = 0.0,
    negative_margin: Number = 1.0,
    distance: Distance = distances.euclidean,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls pairs of one class within a margin and pushes pairs of two classes beyond another.

    The plainest pair loss: it looks at two distances on their own, never at which is smaller, so
    it asks for an absolute scale of distances. Prefer it where a fixed threshold will decide
    "same or different"; a triplet loss suits ranking better. No miner in the paper.

        relu(d(a, p) - positive_margin)  and  relu(negative_margin - d(a, n))

    each averaged over its own active pairs.

    Args:
      embeddings: [B, D] rows; bring them to unit length, or use `distances.normalized`, where
        margins should not depend on the encoder's scale.
      labels: [B] integer classes.
      positive_margin: distance below which a positive pair is left alone, 0 to 0.3.
      negative_margin: distance beyond which a negative pair is left alone, 0.3 to 1.4 on unit rows.
      distance: between rows.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0, 0.0], [0.0, 0.5], [0.0, 0.75]])
      >>> loss = contrastive(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")
      1.00000

      The positive pair is 0.5 apart; of the two negative pairs, 0.75 and 0.25 apart, both are
      inside the margin: 0.5 + (0.25 + 0.75) / 2.

    Note:
      The first power of the distance, as most libraries have it. Hadsell's squares are
      `squared_contrastive`.

    Reference:
      Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006.
    """

    def formula(pairs: Pairs):
        pull = jax.nn.relu(pairs.positives - positive_margin)
        push = jax.nn.relu(negative_margin - pairs.negatives)
        return (pull, pairs.positive_weights), (push, pairs.negative_weights)

    return over_pairs(EachPair(formula), embeddings, labels, distance, **options)


@loss(reduction="mean")
def squared_contrastive(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 1.0,
    distance: Distance = distances.euclidean,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls pairs of one class to distance 0 and pushes pairs of two classes beyond a margin.

    The loss as first published: half squares, one mean over all pairs of both kinds. Squares
    leave near pairs almost alone and pull hard at far ones; the balance of positive and negative
    pairs in the batch is the balance of the two forces.

        d(a, p)^2 / 2  and  relu(margin - d(a, n))^2 / 2

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes.
      margin: distance beyond which a negative pair is left alone, about 1 on unit rows.
      distance: between rows.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0, 0.0], [0.0, 2.0], [0.0, 2.5]])
      >>> loss = squared_contrastive(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")
      0.70833

      Pairs count once from each end: (2 x 2 + 2 x 0 + 2 x 0.125) / 6.

    Reference:
      Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006.
    """

    def formula(pairs: Pairs):
        pull = 0.5 * pairs.positives**2
        push = 0.5 * jax.nn.relu(margin - pairs.negatives) ** 2
        values = jnp.concatenate([flat(pull), flat(push)], axis=-1)
        weights = (flat(pairs.positive_weights), flat(pairs.negative_weights))
        return ((values, jnp.concatenate(weights, axis=-1)),)

    return over_pairs(formula, embeddings, labels, distance, **options)


@loss(reduction="mean_active", per_row=("beta",))
def margin(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.2,
    beta: Number = 1.2,
    distance: Distance = _ON_SPHERE,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls positives inside a boundary and pushes negatives outside it, by a margin.

    Unlike a contrastive loss it has one boundary `beta`, which may be learned, for all rows or
    for each class; unlike a triplet loss it needs no third row. The paper samples negatives by
    distance.

        relu(d(a, p) - beta + margin)  and  relu(beta - d(a, n) + margin)

    in one mean over the active pairs of both kinds.

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes.
      margin: alpha in the paper, in the unit of the distance.
      beta: the boundary; 1.2 on unit rows. One number, or one a row [B] (`betas[labels]`).
      distance: between rows; Euclidean between unit rows in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = margin(rows, jnp.array([0, 0, 1]), margin=0.5, beta=1.5)
      >>> print(f"{loss:.5f}")  # only negatives, at sqrt(2): 1.5 - 1.41421 + 0.5
      0.58579

    Reference:
      Wu, Manmatha, Smola, Krahenbuhl: Sampling Matters in Deep Embedding Learning, ICCV 2017.
    """
    boundary = jnp.broadcast_to(beta, embeddings.shape[:1])

    def formula(pairs: Pairs):
        border = pairs.anchor_values[:, None]
        pull = jax.nn.relu(pairs.positives - border + margin)
        push = jax.nn.relu(border - flat(pairs.negatives) + margin)
        weights = (pairs.positive_weights, flat(pairs.negative_weights))
        return ((jnp.concatenate([pull, push], -1), jnp.concatenate(weights, -1)),)

    return over_pairs(formula, embeddings, labels, distance, anchor_values=boundary, **options)
