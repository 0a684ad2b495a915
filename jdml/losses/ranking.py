"""Ranking losses: smooth forms of what retrieval is measured by, averaged over anchors."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.options import Array, Number, PairOptions, Pairs, by_anchor
from jdml._core.pairs import over_pairs
from jdml._core.reduce import any_weight, safe_divide


def _ranks(pairs: Pairs, temperature: Number) -> tuple[Array, Array]:
    """Smooth rank of every positive: among the positives, and among all rows, [b, P] each.

    1 + sum_j sigmoid((s_j - s_p) / temperature): how many rows stand before it.
    """
    distance, weights = pairs.positives, pairs.positive_weights
    others = weights[:, None, :] * (1.0 - jnp.eye(distance.shape[1], dtype=distance.dtype))[None]
    before = lambda rows: jax.nn.sigmoid((distance[:, :, None] - rows[:, None, :]) / temperature)
    among_positives = 1.0 + (others * before(distance)).sum(axis=-1)
    ahead = (pairs.negative_weights[:, None, :] * before(pairs.negatives)).sum(axis=-1)
    return among_positives, among_positives + ahead


def _shortfall(score: Array) -> Array:
    """1 - score, and 0 where rounding alone keeps a perfect score from 1: it is not active then."""
    missing = 1.0 - score
    return jnp.where(jnp.abs(missing) < 4 * jnp.finfo(score.dtype).eps, 0.0, missing)


@loss(reduction="mean")
def smooth_ap(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.01,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises the average precision of each anchor's ranking.

    The step that counts rows before a positive is replaced by a sigmoid. It trains what retrieval
    is measured by and wants classes of several rows and large batches.

        1 - mean_p (1 + sum_{p'} sigma(s_p' - s_p)) / (1 + sum_r sigma(s_r - s_p))

    with sigma(x) = 1 / (1 + exp(-x / temperature)), s the cosine to the anchor, p' the other
    positives and r all other rows.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes, of any sizes and in any order.
      temperature: width of the step, 0.01 in the paper. Larger passes gradient on from further.
      **options: the shared keywords of pair losses. Makes arrays [b, R, R].

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
      >>> loss = smooth_ap(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")  # the negative comes first for both anchors: 1 - 1 / 2
      0.50000

    Note:
      The anchor is not counted as its own positive; the authors' code counts it at rank 1.

    Reference:
      Brown, Xie, Kalogeiton, Zisserman: Smooth-AP, ECCV 2020.
    """

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "smooth_ap")
        among_positives, among_all = _ranks(pairs, temperature)
        weights = pairs.positive_weights
        precision = (weights * among_positives / among_all).sum(axis=-1)
        return ((_shortfall(safe_divide(precision, weights.sum(axis=-1))), any_weight(weights)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, cube=True, **options)


@loss(reduction="mean")
def recall_at_k(
    embeddings: Array,
    labels: Array,
    *,
    ks: tuple[int, ...] = (1, 2, 4, 8, 16),
    temperature: Number = 1.0,
    rank_temperature: Number = 0.01,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises the recall of each anchor among its k nearest rows, for several k at once.

    Two steps are smoothed: the rank of a positive, and whether that rank is within k. The paper
    trains with batches of thousands of rows.

        1 - mean_k sum_p sigma((k - rank_p) / temperature) / min(k, |P|),
        rank_p = 1 + sum_{r != p} sigma((s_r - s_p) / rank_temperature)

    with s the cosine to the anchor.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      ks: a tuple of ranks.
      temperature: width of the step at k, in ranks.
      rank_temperature: width of the step in the ranking, in units of the cosine.
      **options: the shared keywords of pair losses. Makes arrays [b, R, R].

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
      >>> loss = recall_at_k(rows, jnp.array([0, 0, 1]), ks=(1,), temperature=0.01)
      >>> print(f"{loss:.5f}")  # the positive comes second for both anchors
      1.00000

    Reference:
      Patel, Tolias, Matas: Recall@k Surrogate Loss with Large Batches and Similarity Mixup,
      CVPR 2022.
    """

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "recall_at_k")
        _, ranks = _ranks(pairs, temperature=rank_temperature)
        weights = pairs.positive_weights
        count = weights.sum(axis=-1)
        recalls = []
        for k in ks:
            found = (weights * jax.nn.sigmoid((k - ranks) / temperature)).sum(axis=-1)
            recalls.append(safe_divide(found, jnp.minimum(count, k)))
        mean = sum(recalls[1:], start=recalls[0]) / len(ks)
        return ((_shortfall(mean), any_weight(weights)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, cube=True, **options)


@loss(reduction="mean", static=("bins",))
def fast_ap(
    embeddings: Array,
    labels: Array,
    *,
    bins: int = 10,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises the average precision of each anchor's ranking, counted in bins of distance.

    Rows fall softly into bins of the squared distance; precision and recall are read off the
    histogram. Time and memory grow with the batch squared, not cubed as in `smooth_ap`.

        1 - 1 / |P| sum_l h+_l H+_l / H_l

    with h+ the positives in bin l, H+ and H the positives and all rows up to it.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      bins: of the range [0, 4] of the squared distance.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
      >>> loss = fast_ap(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")  # anchor 0 meets its negative first, anchor 1 both at once
      0.50000

    Reference:
      Cakir, He, Xia, Kulis, Sclaroff: Deep Metric Learning to Rank, CVPR 2019.
    """
    if bins < 1:
        raise ValueError(f"bins: got {bins}, expected 1 or more")
    width = 4.0 / bins

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "fast_ap")

        def fill(x: Array, weights: Array, center: float) -> Array:
            # Squared distances of unit rows may round to just outside [0, 4].
            share = jax.nn.relu(1.0 - jnp.abs(jnp.clip(x, 0.0, 4.0) - center) / width)
            return (weights * share).sum(axis=-1)

        weights, count = pairs.positive_weights, pairs.positive_weights.sum(axis=-1)
        so_far = positives_so_far = jnp.zeros_like(count)
        value = jnp.zeros_like(count)
        for center in (width * i for i in range(bins + 1)):
            positives = fill(pairs.positives, weights, center)
            negatives = fill(pairs.negatives, pairs.negative_weights, center)
            positives_so_far = positives_so_far + positives
            so_far = so_far + positives + negatives
            value = value + positives * safe_divide(positives_so_far, so_far)
        return ((_shortfall(safe_divide(value, count)), any_weight(weights)),)

    unit = distances.normalized(distances.squared_euclidean)
    return over_pairs(formula, embeddings, labels, unit, **options)
