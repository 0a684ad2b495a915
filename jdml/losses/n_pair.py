"""N-pair loss: one positive against the positives of all other classes at once."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.options import Array, Number, PairOptions, Pairs
from jdml._core.pairs import over_pairs
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
        on its own. Makes arrays [b, R, R].
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

    def formula(pairs: Pairs):
        negatives, weights = (
            x[:, None, :] if x.ndim == 2 else x for x in (pairs.negatives, pairs.negative_weights)
        )
        if one_versus_one:
            gaps = jax.nn.softplus(pairs.positives[:, :, None] - negatives)
            value = jnp.where(weights == 0, 0.0, weights * gaps).sum(axis=-1)
        else:
            value = jax.nn.softplus(log_sum_exp(-negatives, weights) + pairs.positives)
        length = 0.5 * (pairs.anchor_values[:, None] + pairs.positive_values)
        return ((value + norm_weight * length, pairs.positive_weights),)

    return over_pairs(
        formula,
        embeddings,
        labels,
        distances.dot,
        statistic=squared_length,
        cube=one_versus_one,
        **options,
    )
