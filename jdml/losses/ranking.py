"""Ranking losses: smooth forms of what retrieval is measured by, averaged over anchors."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.options import Array, Distance, Number, PairOptions, Pairs, by_anchor
from jdml._core.pairs import over_pairs
from jdml._core.ranks import (
    Step,
    mean_by_anchor,
    mean_by_rank,
    sigmoid_step,
    sum_by_rank,
    true_step,
)
from jdml._core.reduce import Term, any_weight, safe_divide

_SQUARED_ON_SPHERE = distances.normalized(distances.squared_euclidean)


def _shortfall(score: Array) -> Array:
    """1 - score, and 0 where rounding alone keeps a perfect score from 1: it is not active then."""
    missing = 1.0 - score
    return jnp.where(jnp.abs(missing) < 4 * jnp.finfo(score.dtype).eps, 0.0, missing)


def _precision_term(pairs: Pairs, among_positives: Step, among_negatives: Step) -> Term:
    """1 - average precision of each anchor that has a positive, with steps for the two kinds."""
    precision = lambda positives, negatives, count: positives / (positives + negatives)
    mean = mean_by_rank(precision, pairs, among_positives, among_negatives)
    return _shortfall(mean), any_weight(pairs.positive_weights)


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
      **options: the shared keywords of pair losses.

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
        step = sigmoid_step(temperature)
        return (_precision_term(by_anchor(pairs, "smooth_ap"), step, step),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


def _bounding_step(
    temperature: Number, slope: Number, delta: Number, offset: Number | None, start: Number
) -> Step:
    """The step of SupAP for negatives; its first piece ends at `delta`, where a line begins."""
    border = start + jax.nn.sigmoid(delta / temperature) if offset is None else offset

    def step(gaps: Array) -> Array:
        near = jax.nn.sigmoid(gaps / temperature) + jnp.where(gaps > 0, start, 0.0)
        return jnp.where(gaps > delta, border + slope * (gaps - delta), near)

    return step


@loss(reduction="mean")
def sup_ap(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.01,
    slope: Number = 100.0,
    delta: Number = 0.05,
    offset: Number | None = None,
    start: Number = 0.5,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises a lower bound of the average precision of each anchor's ranking.

    As `smooth_ap`, with two changes. Positives are counted with the true step, so that no positive
    is pushed behind another. A negative that stands before a positive counts for more than 1, and
    for more the further it is ahead, so that its gradient does not fade. One part of `roadmap`.

        1 - mean_p R+ / (R+ + R-),
        R+ = 1 + sum_{p'} [s_p' >= s_p],   R- = sum_n h(s_n - s_p),
        h(x) = sigma(x / temperature) for x <= 0, start + sigma(x / temperature) up to delta,
        offset + slope (x - delta) above

    with s the cosine to the anchor and p' the other positives.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes, of any sizes and in any order.
      temperature: width of the step, tau; 0.01 in the paper.
      slope: of the line for negatives far ahead, rho; 100 in the paper.
      delta: gap of the cosines at which the line begins; 0.05 in the paper.
      offset: height of the line at `delta`. None makes h continuous there.
      start: what a negative gains by standing before the positive. With 0.5 and negatives that tie
        with no positive the loss bounds 1 - AP from above; 0 makes h continuous at 0 instead.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
      >>> loss = sup_ap(rows, jnp.array([0, 0, 1]), slope=1.0, delta=0.5, offset=1.5)
      >>> print(f"{loss:.5f}")  # anchor 0: h(1) = 2, so 2 / 3; anchor 1: h(0) = 1 / 2, so 1 / 3
      0.50000

    Note:
      The authors' code sets `offset` to 1.44, a little below the 1.49 of the continuous h, and to 1
      with `start` 0 for iNaturalist. It also counts the anchor as its own positive, at rank 1.

    Reference:
      Ramzi, Thome, Rambour, Audebert, Bitot: Robust and Decomposable Average Precision for Image
      Retrieval, NeurIPS 2021.
    """
    bounding = _bounding_step(temperature, slope, delta, offset, start)

    def formula(pairs: Pairs):
        return (_precision_term(by_anchor(pairs, "sup_ap"), true_step, bounding),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


@loss(reduction="mean")
def roadmap(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.01,
    slope: Number = 100.0,
    delta: Number = 0.05,
    offset: Number | None = None,
    start: Number = 0.5,
    positive_margin: Number = 0.1,
    negative_margin: Number = 0.4,
    calibration_share: Number = 0.5,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises a bound of each anchor's average precision, on one scale for all anchors.

    The average precision of a batch does not see at which similarity an anchor's positives end, so
    rankings that are right batch by batch can be wrong over the whole set. A contrastive part
    calibrates them: positives of all anchors within one margin, negatives beyond another.

        (1 - calibration_share) sup_ap
        + calibration_share (mean_p relu(d(a, p) - positive_margin)
                             + mean_n relu(negative_margin - d(a, n))),   d = 1 - cosine

    each of the three averaged over the anchors that have it.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes, of any sizes and in any order.
      temperature, slope, delta, offset, start: those of `sup_ap`.
      positive_margin: distance within which a positive is left alone; 0.1 in the paper, which
        writes it as a cosine of 0.9.
      negative_margin: distance beyond which a negative is left alone; 0.4 in the paper, which
        writes it as a cosine of 0.6.
      calibration_share: lambda, 0 to 1; 0.5 in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
      >>> loss = roadmap(rows, jnp.array([0, 0, 1]), slope=1.0, delta=0.5, offset=1.5)
      >>> print(f"{loss:.5f}")  # (0.5 + 0.9 + (0.4 + 0 + 0.2) / 3) / 2
      0.80000

    Note:
      The authors' code adds both parts with weight 1, averages the calibration over all active
      pairs of the batch instead of by anchor, and has the differences named at `sup_ap`.

    Reference:
      Ramzi, Thome, Rambour, Audebert, Bitot: Robust and Decomposable Average Precision for Image
      Retrieval, NeurIPS 2021.
    """
    bounding = _bounding_step(temperature, slope, delta, offset, start)

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "roadmap")
        missing, has_positive = _precision_term(pairs, true_step, bounding)
        pull = mean_by_anchor(
            jax.nn.relu(pairs.positives - positive_margin), pairs.positive_weights
        )
        push = mean_by_anchor(
            jax.nn.relu(negative_margin - pairs.negatives), pairs.negative_weights
        )
        return (
            ((1.0 - calibration_share) * missing, has_positive),
            (calibration_share * pull, has_positive),
            (calibration_share * push, any_weight(pairs.negative_weights)),
        )

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


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
      ks: ranks, whole numbers from 1 on.
      temperature: width of the step at k, in ranks.
      rank_temperature: width of the step in the ranking, in units of the cosine.
      **options: the shared keywords of pair losses.

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
        step = sigmoid_step(rank_temperature)

        def found(before: Array, n: Array, count: Array) -> Array:
            shares = [jax.nn.sigmoid((k - before - n) / temperature) / least(count, k) for k in ks]
            return sum(shares[1:], start=shares[0]) / len(ks)

        least = lambda count, k: jnp.maximum(jnp.minimum(count, k), jnp.finfo(count.dtype).tiny)
        mean, weights = sum_by_rank(found, pairs, step, step), pairs.positive_weights
        return ((_shortfall(mean), any_weight(weights)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


@loss(reduction="mean", static=("bins",))
def fast_ap(
    embeddings: Array,
    labels: Array,
    *,
    bins: int = 10,
    upper: Number = 4.0,
    distance: Distance = _SQUARED_ON_SPHERE,
    **options: Unpack[PairOptions],
) -> Array:
    """Raises the average precision of each anchor's ranking, counted in bins of distance.

    Rows fall softly into bins of the distance; precision and recall are read off the
    histogram. Time and memory grow with the batch squared, not cubed as in `smooth_ap`.

        1 - 1 / |P| sum_l h+_l H+_l / H_l

    with h+ the positives in bin l, H+ and H the positives and all rows up to it.

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      bins: how many the range from 0 to `upper` is cut into.
      upper: the largest distance, 4 for squared distances on the unit sphere. Rows beyond it are
        counted there, and have no gradient.
      distance: between rows; squared Euclidean between unit rows in the paper.
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
    width = upper / bins

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "fast_ap")

        def fill(x: Array, weights: Array, center: Number) -> Array:
            # Squared distances of unit rows may round to just outside [0, 4].
            share = jax.nn.relu(1.0 - jnp.abs(jnp.clip(x, 0.0, upper) - center) / width)
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

    return over_pairs(formula, embeddings, labels, distance, **options)
