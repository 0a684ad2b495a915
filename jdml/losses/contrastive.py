"""Contrastive losses: pairs of one class are pulled together, pairs of two are pushed apart."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.options import Array, Distance, Number, PairOptions, Pairs
from jdml._core.pairs import over_pairs


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

    return over_pairs(formula, embeddings, labels, distance, **options)


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
        values = jnp.concatenate([_flat(pull), _flat(push)], axis=-1)
        weights = (_flat(pairs.positive_weights), _flat(pairs.negative_weights))
        return ((values, jnp.concatenate(weights, axis=-1)),)

    return over_pairs(formula, embeddings, labels, distance, **options)


def _flat(x: Array) -> Array:
    """One row an anchor, also where a miner gave each positive its own negatives [b, P, N]."""
    return x.reshape(x.shape[0], -1)
