"""Triplet and structured losses: a positive has to be closer than a negative."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

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
)
from jdml._core.pairs import over_pairs
from jdml._core.positives import EachPositive
from jdml._core.reduce import log_sum_exp


@loss(reduction="mean_active")
def triplet(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.2,
    distance: Distance = distances.euclidean,
    swap: bool = False,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls a positive closer to the anchor than a negative, by a margin.

    Only the order of distances matters, so classes may be of different widths. All triplets of
    the batch count unless a miner chooses: FaceNet trains with `miners.SemiHard` on squared
    distances of unit rows, Hermans et al. with `miners.BatchHard`. Hardest negatives from the
    first step may collapse all rows to one point; the loss then stays at exactly `margin`.

        relu(d(a, p) - d(a, n) + margin)

    averaged over the triplets that are active.

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes; a batch needs two rows of some class and two classes.
      margin: in the unit of the distance, 0.05 to 0.3 on unit rows.
      distance: between rows; `distances.normalized(distances.squared_euclidean)` is FaceNet's.
      swap: take the negative's distance to the anchor or to the positive, whichever is smaller.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0], [0.5], [0.75]])
      >>> loss = triplet(rows, jnp.array([0, 0, 1]), margin=0.5)
      >>> print(f"{loss:.5f}")
      0.50000

      Anchor 0 gives 0.5 - 0.75 + 0.5, anchor 1 gives 0.5 - 0.25 + 0.5.

    Note:
      With explicit references the swapped distance is that between two references.

    Reference:
      Schroff, Kalenichenko, Philbin: FaceNet, CVPR 2015. Swap: Balntas et al., Learning Local
      Feature Descriptors with Triplets and Shallow Convolutional Neural Networks, BMVC 2016.
    """
    violation = lambda positive, negative: jax.nn.relu(positive - negative + margin)
    return _over_triplets(violation, embeddings, labels, distance, swap, options)


@loss(reduction="mean")
def soft_margin_triplet(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.0,
    distance: Distance = distances.euclidean,
    swap: bool = False,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls a positive closer to the anchor than a negative, without an end.

    The hinge of `triplet` replaced by its smooth bound, so that a triplet in order still pulls,
    ever more weakly. Prefer it where pulling a class together beyond the margin helps, as in
    person re-identification; the paper mines with `miners.BatchHard` and does not normalise rows.

        log(1 + exp(d(a, p) - d(a, n) + margin))

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes.
      margin: in the unit of the distance; 0 in the paper.
      distance: between rows.
      swap: take the negative's distance to the anchor or to the positive, whichever is smaller.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.zeros((3, 2))  # collapsed: every triplet at log 2
      >>> loss = soft_margin_triplet(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")
      0.69315

    Reference:
      Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """
    violation = lambda positive, negative: jax.nn.softplus(positive - negative + margin)
    return _over_triplets(violation, embeddings, labels, distance, swap, options)


def _over_triplets(violation, embeddings, labels, distance, swap, options):
    """A triplet loss from its value for one positive and one or more negatives."""

    def swapped(positive: Array, negatives: Array, partner: Array) -> Array:
        return violation(positive, jnp.minimum(negatives, partner))

    term = EachPositive(swapped, partner=True) if swap else EachPositive(violation)
    return over_pairs(lambda pairs: (term,), embeddings, labels, distance, partner=swap, **options)


@loss(reduction="mean_active")
def quadruplet(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 1.0,
    second_margin: Number = 0.5,
    distance: Distance = distances.squared_euclidean,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls a positive closer than any negative, and closer than two strangers are to each other.

    The second term compares the positive pair with pairs that do not hold the anchor, which
    shrinks classes beyond what their neighbours ask for and generalises to new identities.
    `margin` should be the larger of the two. Work grows with B R^2 for each positive: keep to
    batches of a few hundred rows.

        relu(d(a, p) - d(a, n) + margin)  and  relu(d(a, p) - d(n, m) + second_margin)

    with a, n and m of three different classes; each is averaged over its own active tuples.

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes; the second term needs three classes in the batch.
      margin: of the triplet term, in the unit of the distance.
      second_margin: of the second term, smaller than `margin`.
      distance: between rows; squared in the paper.
      **options: the shared keywords of pair losses. A miner chooses the negatives n and m of each
        anchor; it may not choose them for each positive.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0], [1.0], [2.0], [2.5]])
      >>> loss = quadruplet(rows, jnp.array([0, 0, 1, 2]))
      >>> print(f"{loss:.5f}")
      2.25000

      Triplets: only anchor 1 with negative 2 is active, 1 - 1 + 1. Pairs: 1 - 0.25 + 0.5.

    Reference:
      Chen, Chen, Zhang, Huang: Beyond Triplet Loss: a Deep Quadruplet Network for Person
      Re-Identification, CVPR 2017.
    """

    def formula(pairs: Pairs):
        first = lambda positive, negative: jax.nn.relu(positive - negative + margin)
        second = lambda positive, other: jax.nn.relu(positive - other + second_margin)
        others, weights = _stranger_pairs(pairs)
        return EachPositive(first), EachPositive(second, others, weights)

    return over_pairs(formula, embeddings, labels, distance, between=True, cube=True, **options)


def _stranger_pairs(pairs: Pairs) -> tuple[Array, Array]:
    """All pairs of an anchor's negatives that differ in class: distances and weights [b, N * N]."""
    weights = by_anchor(pairs, "quadruplet").negative_weights
    between, apart = pairs.between, pairs.between_weights
    if pairs.negative_columns is None:
        between, apart = between[None], apart[None]
    else:
        rows = pairs.negative_columns[:, :, None]
        columns = pairs.negative_columns[:, None, :]
        between, apart = between[rows, columns], apart[rows, columns]
    weights = weights[:, :, None] * weights[:, None, :] * apart
    between = jnp.broadcast_to(between, weights.shape)
    return between.reshape(len(weights), -1), weights.reshape(len(weights), -1)


@loss(reduction="mean")
def lifted_structure(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 1.0,
    distance: Distance = distances.euclidean,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive pair together against all negatives of both of its rows.

    A smooth maximum over every negative of the pair takes the place of mining, so each pair is
    held against the hardest of the whole batch. Rows are not normalised in the paper.

        J = log(sum_n exp(margin - d(a, n)) + sum_m exp(margin - d(p, m))) + d(a, p)
        relu(J)^2 / 2   for every positive pair (a, p)

    with n the negatives of a and m those of p.

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes.
      margin: in the unit of the distance; 1 in the paper.
      distance: between rows, not squared in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.zeros((3, 2))  # collapsed: J = log(2 e)
      >>> loss = lifted_structure(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")
      1.43337

    Note:
      Every pair counts from both ends, which leaves the paper's mean unchanged. With explicit
      references, the negatives of a reference p are the anchors of other classes.

    Reference:
      Song, Xiang, Jegelka, Savarese: Deep Metric Learning via Lifted Structured Feature
      Embedding, CVPR 2016.
    """

    def near_negatives(pairs: Pairs, rows: Array) -> Array:
        del rows
        weights = by_anchor(pairs, "lifted_structure").negative_weights
        return log_sum_exp(margin - pairs.negatives, weights)

    def formula(pairs: Pairs):
        own, partner = pairs.anchor_values[:, None], pairs.positive_values
        alone = (own == -jnp.inf) & (partner == -jnp.inf)
        both = jnp.logaddexp(jnp.where(alone, 0.0, own), jnp.where(alone, 0.0, partner))
        value = jnp.where(alone, 0.0, 0.5 * jax.nn.relu(both + pairs.positives) ** 2)
        return ((value, pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, distance, statistic=near_negatives, **options)


@loss(reduction="mean")
def generalized_lifted_structure(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 1.0,
    distance: Distance = distances.euclidean,
    lone: str = "skip",
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls all positives of an anchor together against all of its negatives, smoothly.

    The smooth maximum is taken over positives as well, so an anchor has one value whatever the
    size of its class. Prefer it to `lifted_structure` where classes have many rows in a batch.

        relu(log sum_p exp(d(a, p)) + log sum_n exp(margin - d(a, n)))

    Args:
      embeddings: [B, D] rows.
      labels: [B] integer classes.
      margin: in the unit of the distance.
      distance: between rows.
      lone: what becomes of an anchor without a positive or without a negative, of which the paper
        has none: "skip" leaves it out, "zero" keeps it with 0 in place of the missing sum, as
        pytorch-metric-learning does.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.zeros((3, 2))
      >>> loss = generalized_lifted_structure(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")
      1.00000

    Reference:
      Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """
    if lone not in ("skip", "zero"):
        raise ValueError(f"lone: got {lone!r}, expected 'skip' or 'zero'")

    folds = (
        Fold("positives", lambda distance: distance, log=True),
        Fold("negatives", lambda distance: margin - distance, log=True),
    )

    def combine(pull: Array, push: Array):
        both = ((pull != -jnp.inf) & (push != -jnp.inf)).astype(pull.dtype)
        value = jax.nn.relu(_or_zero(pull) + _or_zero(push))
        return ((value, both if lone == "skip" else jnp.ones_like(both)),)

    formula = Folded(folds, combine, "generalized_lifted_structure")
    return over_pairs(formula, embeddings, labels, distance, **options)


def _or_zero(x: Array) -> Array:
    return jnp.where(x == -jnp.inf, 0.0, x)
