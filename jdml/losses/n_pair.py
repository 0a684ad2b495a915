"""N-pair losses: one positive against the negatives of all other classes at once."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.maths import cosine_of_angle
from jdml._core.options import Array, Number, PairOptions, Pairs, by_positive
from jdml._core.pairs import over_pairs
from jdml._core.positives import EachPositive
from jdml._core.reduce import log_sum_exp


@loss(reduction="mean")
def n_pair(
    embeddings: Array,
    labels: Array,
    *,
    norm_weight: Number = 0.002,
    one_versus_one: bool = False,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive to its anchor against all negatives in one softmax of inner products.

    Rows are not normalised; a penalty on their squared length keeps the products from growing.
    The paper's batch, N classes with one anchor and one positive each, is the cross-modal form
    `n_pair(anchors, labels, refs=positives, ref_labels=labels)`. In a single batch every positive
    pair counts, against all rows of other classes.

        log(1 + sum_n exp(a.n - a.p)) + norm_weight (|a|^2 + |p|^2) / 2

    Args:
      embeddings: [B, D] rows, not normalised.
      labels: [B] integer classes.
      norm_weight: of the penalty on squared length; 0.002 in the paper, 0 for unit rows.
      one_versus_one: the paper's other form, sum_n log(1 + exp(a.n - a.p)): every negative is met
        on its own.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.zeros((4, 2))  # collapsed: log(1 + 2) at two negatives an anchor
      >>> loss = n_pair(rows, jnp.array([0, 0, 1, 1]))
      >>> print(f"{loss:.5f}")
      1.09861

    Note:
      The penalty is a mean over both rows of a pair. TensorFlow Addons weighs the same sum by
      0.25 x 0.002 instead.

    Reference:
      Sohn: Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NIPS 2016.
    """

    def squared_length(pairs: Pairs, rows: Array) -> Array:
        del pairs
        return (rows * rows).sum(axis=-1)

    def each(positive: Array, negatives: Array, weights: Array, length: Array) -> Array:
        gaps = jax.nn.softplus(positive - negatives)
        return jnp.where(weights == 0, 0.0, weights * gaps).sum() + norm_weight * length

    def formula(pairs: Pairs):
        length = 0.5 * (pairs.anchor_values[:, None] + pairs.positive_values)
        if one_versus_one:
            return (EachPositive(each, whole=True, positive_values=length),)
        negatives, weights = by_positive(pairs.negatives), by_positive(pairs.negative_weights)
        value = jax.nn.softplus(log_sum_exp(-negatives, weights) + pairs.positives)
        return ((value + norm_weight * length, pairs.positive_weights),)

    return over_pairs(
        formula, embeddings, labels, distances.dot, statistic=squared_length, **options
    )


@loss(reduction="mean")
def tuplet_margin(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.1,
    scale: Number = 64.0,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive to its anchor against all negatives, with slack in the angle.

    A softmax over one positive and all negatives, in which the positive's angle is taken smaller
    by a margin: easier positives are left alone, which guards against overfitting to the hardest.

        log(1 + sum_n exp(scale (cos(theta_an) - cos(theta_ap - margin))))

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      margin: slack in radians, about 0.1.
      scale: inverse temperature, 16 to 64.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = tuplet_margin(rows, jnp.array([0, 0, 1]), margin=0.0, scale=1.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Reference:
      Yu, Tao: Deep Metric Learning with Tuplet Margin Loss, ICCV 2019.
    """

    def formula(pairs: Pairs):
        negatives, weights = by_positive(pairs.negatives), by_positive(pairs.negative_weights)
        others = log_sum_exp(scale * (1.0 - negatives), weights)
        one = jnp.ones((), pairs.positives.dtype)
        turned = cosine_of_angle(1.0 - pairs.positives, one, -margin)
        return ((jax.nn.softplus(others - scale * turned), pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)
