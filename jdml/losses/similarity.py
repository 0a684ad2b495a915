"""Similarity losses: softmaxes and soft thresholds over all pairs of an anchor."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core.compile import loss
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
from jdml._core.reduce import any_weight, log_add, log_sum_exp, safe_divide


def _column(x: Array) -> Array:
    """A number of the anchor [b], or of each of its positives [b, P], as [b, 1 or P]."""
    return x[:, None] if x.ndim == 1 else x


def _log_sum_all(pairs: Pairs, temperature: Number) -> Array:
    """log-sum-exp of -distance / temperature over all pairs of an anchor, [b]."""
    fresh = pairs.mates is not None and pairs.negative_columns is None
    if fresh:  # both sides still hold the same distances: one pass
        weights = pairs.positive_weights + pairs.negative_weights
        return log_sum_exp(-pairs.positives / temperature, weights)
    positive = log_sum_exp(-pairs.positives / temperature, pairs.positive_weights)
    return log_add(positive, log_sum_exp(-pairs.negatives / temperature, pairs.negative_weights))


@loss(reduction="mean")
def ntxent(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.1,
    denominator: str = "negatives",
    distance: Distance = distances.cosine,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive to its anchor against all negatives in a softmax: InfoNCE.

    The loss of contrastive self-supervision: label the views of one item alike. With another
    modality as `refs` it is one direction of CLIP. Small temperatures look at the hardest
    negatives only; large batches help.

        -log(exp(-d(a, p) / t) / (exp(-d(a, p) / t) + sum_n exp(-d(a, n) / t)))

    for every positive pair (a, p).

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      temperature: t, 0.05 to 0.5. Learn its logarithm and bound it, since it tends to 0.
      denominator: "negatives" compares a positive with negatives only; "all" puts the anchor's
        other positives into the sum as well, as SimCLR's code would with more than two views.
      distance: between rows; 1 - cosine in the papers.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = ntxent(rows, jnp.array([0, 0, 1]), temperature=1.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Note:
      Anchors without a positive do not count.

    Reference:
      van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018;
      Chen, Kornblith, Norouzi, Hinton: SimCLR, ICML 2020.
    """
    if denominator not in ("negatives", "all"):
        raise ValueError(f"denominator: got {denominator!r}, expected 'negatives' or 'all'")

    def formula(pairs: Pairs):
        positives = -pairs.positives / temperature
        if denominator == "all":
            every = _log_sum_all(by_anchor(pairs, "ntxent with all"), temperature)
            # An anchor without any pair has -inf here, and no weight.
            value = jnp.where(every == -jnp.inf, 0.0, every)[:, None] - positives
        else:
            others = log_sum_exp(-pairs.negatives / temperature, pairs.negative_weights)
            value = jax.nn.softplus(_column(others) - positives)
        return ((value, pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, distance, **options)


@loss(reduction="mean")
def supcon(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.1,
    inside: bool = False,
    distance: Distance = distances.cosine,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls all positives of an anchor out of the softmax over all other rows.

    Supervised contrastive learning: one value an anchor whatever the size of its class, and
    gradients that look after hard positives and hard negatives by themselves. A strong default
    with class-balanced batches.

        -1 / |P| sum_p log(exp(-d(a, p) / t) / sum_r exp(-d(a, r) / t))

    with r every other row.

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      temperature: t, 0.05 to 0.2.
      inside: the mean over positives inside the logarithm (L_in), which the authors found weaker.
      distance: between rows; 1 - cosine in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = supcon(rows, jnp.array([0, 0, 1]), temperature=1.0)
      >>> print(f"{loss:.5f}")  # two anchors with a positive: log(1 + exp(-1))
      0.31326

    Note:
      Anchors without a positive leave the mean; the authors' later code keeps them in it as 0.

    Reference:
      Khosla et al.: Supervised Contrastive Learning, NeurIPS 2020.
    """

    def formula(pairs: Pairs):
        every = _log_sum_all(by_anchor(pairs, "supcon"), temperature)
        logits, weights = -pairs.positives / temperature, pairs.positive_weights
        count = weights.sum(axis=-1)
        if inside:
            pulled = log_sum_exp(logits, weights) - jnp.log(jnp.where(count == 0, 1.0, count))
        else:
            pulled = safe_divide(jnp.where(weights == 0, 0.0, weights * logits).sum(-1), count)
        has = any_weight(weights)
        return ((jnp.where(has == 0, 0.0, every) - jnp.where(has == 0, 0.0, pulled), has),)

    return over_pairs(formula, embeddings, labels, distance, **options)


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

    def formula(pairs: Pairs):
        pull = log_sum_exp(-alpha * (1.0 - pairs.positives - base), pairs.positive_weights)
        negatives, weights = flat(pairs.negatives), flat(pairs.negative_weights)
        push = log_sum_exp(beta * (1.0 - negatives - base), weights)
        value = jax.nn.softplus(pull) / alpha + jax.nn.softplus(push) / beta
        return ((value, jnp.ones_like(value)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


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

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "circle")
        positive, negative = 1.0 - pairs.positives, 1.0 - pairs.negatives
        pace_p = lax.stop_gradient(jax.nn.relu(1.0 + margin - positive))
        pace_n = lax.stop_gradient(jax.nn.relu(negative + margin))
        pull = log_sum_exp(-scale * pace_p * (positive - 1.0 + margin), pairs.positive_weights)
        push = log_sum_exp(scale * pace_n * (negative - margin), pairs.negative_weights)
        both = any_weight(pairs.positive_weights) * any_weight(pairs.negative_weights)
        return ((jax.nn.softplus(pull + push), both),)

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
