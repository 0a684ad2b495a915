"""Similarity losses: softmaxes and soft thresholds over all pairs of an anchor."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core.compile import loss
from jdml._core.folds import Fold, Folded
from jdml._core.options import (
    Array,
    Distance,
    Number,
    PairOptions,
    Pairs,
    by_anchor,
    flat,
)
from jdml._core.pairs import over_pairs
from jdml._core.reduce import any_weight, log_sum_exp


@loss(reduction="mean")
def multi_similarity(
    embeddings: Array,
    labels: Array,
    *,
    alpha: Number = 2.0,
    beta: Number = 50.0,
    base: Number = 0.5,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls positives above a similarity and pushes negatives below it, the hardest most.

    Each pair is weighed by how it compares with the base and with the anchor's other pairs. The
    paper mines with `miners.MultiSimilarity(0.1)`, which matters. A strong choice for fine-grained
    retrieval.

        log(1 + sum_p exp(-alpha (s(a, p) - base))) / alpha
        + log(1 + sum_n exp(beta (s(a, n) - base))) / beta,   s the cosine

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      alpha: sharpness for positives, 1 to 4.
      beta: sharpness for negatives, 20 to 80.
      base: similarity that parts the two, 0.5 to 1 (lambda in the paper).
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = multi_similarity(rows, jnp.array([0, 0, 1]), alpha=1.0, beta=1.0, base=0.0)
      >>> print(f"{loss:.5f}")  # (2 (log(1 + 1 / e) + log 2) + log 3) / 3
      1.03714

    Note:
      All anchors are in the mean, those without pairs at 0, as in the paper.

    Reference:
      Wang, Han, Huang, Dong, Scott: Multi-Similarity Loss, CVPR 2019.
    """

    folds = (
        Fold("positives", lambda distance: -alpha * (1.0 - distance - base), log=True),
        Fold("negatives", lambda distance: beta * (1.0 - distance - base), log=True),
    )

    def combine(pull: Array, push: Array):
        value = jax.nn.softplus(pull) / alpha + jax.nn.softplus(push) / beta
        return ((value, jnp.ones_like(value)),)

    return over_pairs(Folded(folds, combine), embeddings, labels, distances.cosine, **options)


@loss(reduction="mean_active")
def circle(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.4,
    scale: Number = 80.0,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls positives and pushes negatives each at the pace of how far it is from its optimum.

    A pair that is already good moves little, one that is bad much, so the boundary in the plane
    of the two similarities is a circle instead of a line. The paces are constants for the
    gradient, as in the paper.

        log(1 + sum_n exp(scale [s(a, n) + m]+ (s(a, n) - m))
                sum_p exp(-scale [1 + m - s(a, p)]+ (s(a, p) - 1 + m))),   s the cosine

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      margin: m, radius of the circle; 0.4 for retrieval, 0.25 for faces.
      scale: gamma; 80 for retrieval, 256 for faces.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
      >>> loss = circle(rows, jnp.array([0, 0, 1]), margin=0.0, scale=1.0)
      >>> print(f"{loss:.5f}")  # anchors 0 and 1: log(1 + e e) and log(1 + 1 e)
      1.72009

    Note:
      One value an anchor, as in common practice; the paper sums over all pairs of the batch. The
      gradient is not the derivative of the value, since the paces are held.

    Reference:
      Sun et al.: Circle Loss, CVPR 2020.
    """

    def pulled(distance: Array) -> Array:
        positive = 1.0 - distance
        pace = lax.stop_gradient(jax.nn.relu(1.0 + margin - positive))
        return -scale * pace * (positive - 1.0 + margin)

    def pushed(distance: Array) -> Array:
        negative = 1.0 - distance
        pace = lax.stop_gradient(jax.nn.relu(negative + margin))
        return scale * pace * (negative - margin)

    folds = Fold("positives", pulled, log=True), Fold("negatives", pushed, log=True)

    def combine(pull: Array, push: Array):
        both = ((pull != -jnp.inf) & (push != -jnp.inf)).astype(pull.dtype)
        return ((jax.nn.softplus(pull + push), both),)

    formula = Folded(folds, combine, "circle")
    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


@loss(reduction="mean")
def nca(
    embeddings: Array,
    labels: Array,
    *,
    scale: Number = 1.0,
    distance: Distance = distances.squared_euclidean,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises the chance that a random neighbour is of the anchor's class.

    Neighbourhood components analysis: a soft nearest-neighbour classifier trained to be right.
    One near positive is enough for an anchor, so classes may have several modes.

        -log(sum_p exp(-scale d(a, p)) / sum_r exp(-scale d(a, r))),  r every other row

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes.
      scale: inverse temperature.
      distance: between rows; squared Euclidean in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0], [0.0], [1.0]])
      >>> loss = nca(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Note:
      Anchors without a positive do not count.

    Reference:
      Goldberger, Roweis, Hinton, Salakhutdinov: Neighbourhood Components Analysis, NIPS 2004.
    """

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "nca")
        right = log_sum_exp(-scale * pairs.positives, pairs.positive_weights)
        wrong = log_sum_exp(-scale * pairs.negatives, pairs.negative_weights)
        has = any_weight(pairs.positive_weights)
        return ((jax.nn.softplus(wrong - jnp.where(has == 0, 0.0, right)), has),)

    return over_pairs(formula, embeddings, labels, distance, **options)


@loss(reduction="mean")
def siglip(
    embeddings: Array,
    labels: Array,
    *,
    scale: Number = 10.0,
    bias: Number = -10.0,
    **options: Unpack[PairOptions],
) -> Array:
    """Says of every pair on its own whether it is a match: a sigmoid in the place of a softmax.

    No anchor normalises over the others, so it does well with small batches and is easy to split
    over devices. Made for two modalities (`refs`), scale and bias are learned.

        sum_r log(1 + exp(-z (scale s(a, r) + bias))),  z = 1 for positives, -1 for negatives

    with s the cosine.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      scale: inverse temperature; starts at 10 (learn its logarithm).
      bias: starts at -10, since almost all pairs are negatives.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> options = dict(refs=rows, ref_labels=jnp.array([0, 1]))
      >>> loss = siglip(rows, jnp.array([0, 1]), scale=1.0, bias=0.0, **options)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1)) + log 2
      1.00641

    Note:
      Summed over pairs and averaged over anchors, as in the paper.

    Reference:
      Zhai, Mustafa, Kolesnikov, Beyer: Sigmoid Loss for Language Image Pre-Training, ICCV 2023.
    """

    def formula(pairs: Pairs):
        match = scale * (1.0 - pairs.positives) + bias
        other = scale * (1.0 - flat(pairs.negatives)) + bias
        weights = pairs.positive_weights, flat(pairs.negative_weights)
        pull = jnp.where(weights[0] == 0, 0.0, weights[0] * jax.nn.softplus(-match)).sum(axis=-1)
        push = jnp.where(weights[1] == 0, 0.0, weights[1] * jax.nn.softplus(other)).sum(axis=-1)
        return ((pull + push, jnp.ones_like(pull)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)
