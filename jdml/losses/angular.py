"""Angular losses: Wang's angular loss on triplets, and the softmax losses that multiply an angle.

Two papers gave rise to the name. `angular` bounds the angle at the negative of a triplet;
`sphereface` multiplies the angle between an embedding and the weight of its class, and so does
its forerunner `large_margin_softmax`, which leaves the weights their length.
"""

from __future__ import annotations

import math
from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core.compile import loss
from jdml._core.maths import inner_products, monotone_cosine, safe_sqrt
from jdml._core.options import (
    Array,
    Number,
    PairOptions,
    TableOptions,
)
from jdml._core.pairs import over_pairs
from jdml._core.positives import EachPositive
from jdml._core.reduce import log_sum_exp
from jdml._core.table import Row, over_table, own_cosines, own_rows


@loss(reduction="mean")
def angular(
    embeddings: Array,
    labels: Array,
    *,
    angle: Number = math.pi / 4,
    hinge: bool = False,
    **options: Unpack[PairOptions],
) -> Array:
    """Pushes a negative away until it sees anchor and positive under a small angle.

    An angle does not change with the scale of a class, and all three sides of the triplet take
    part in the gradient. The smooth form puts all negatives of an anchor into one softmax, as
    the N-pair loss does; the paper uses it alone or added to N-pair.

        log(1 + sum_n exp(4 t (a + p).n - 2 (1 + t) a.p)),  t = tan(angle)^2

    for every positive pair (a, p), on unit rows.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      angle: upper bound of the angle at the negative, in radians; 36 to 55 degrees in the paper.
      hinge: the paper's first form instead, one entry a triplet:
        relu(|a - p|^2 - 4 t |n - (a + p) / 2|^2).
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = angular(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")  # log(1 + exp(0 - 4))
      0.01815

    Note:
      pytorch-metric-learning leaves the negatives at their length; here all rows are unit.

    Reference:
      Wang, Zhou, Wen, Liu, Lin: Deep Metric Learning with Angular Loss, ICCV 2017.
    """
    bound = jnp.tan(angle) ** 2

    def triplets(positive: Array, negatives: Array, partner: Array) -> Array:
        positive, sums = 1.0 - positive, 2.0 - negatives - partner  # a.p and (a + p).n
        middle = 1.5 + 0.5 * positive - sums  # |n - (a + p) / 2|^2
        return jax.nn.relu(2.0 - 2.0 * positive - 4.0 * bound * middle)

    def softmax(positive: Array, negatives: Array, partner: Array, weights: Array) -> Array:
        positive, sums = 1.0 - positive, 2.0 - negatives - partner
        logits = 4.0 * bound * sums - 2.0 * (1.0 + bound) * positive
        return jax.nn.softplus(log_sum_exp(logits, weights))

    if hinge:
        term = EachPositive(triplets, partner=True)
    else:
        term = EachPositive(softmax, partner=True, whole=True)
    return over_pairs(
        lambda pairs: (term,), embeddings, labels, distances.cosine, partner=True, **options
    )


@loss(reduction="mean", per_row=("margin",))
def sphereface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    margin: Number = 4.0,
    scale: Number = 1.0,
    annealing: Number = 0.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the weight of its class as if its angle were `margin` times as large.

    The first of the margin softmax losses (A-Softmax). Embeddings keep their length, which acts
    as the row's own scale. It is hard to train from scratch: anneal, starting with `annealing` in
    the hundreds and lowering it (`objectives.sphereface_annealing`). `cosface` and `arcface` need
    no such care.

        -log softmax of |e| cos(theta_c), with |e| psi(theta) in the place of the own class,
        psi(theta) = (-1)^k cos(margin theta) - 2 k for theta in [k pi, (k + 1) pi] / margin

    Args:
      embeddings: [B, D] rows of any length.
      labels: [B] integer classes.
      proxies: [C, D] class weights; brought to unit length here.
      margin: factor of the angle; 4 in the paper. One number, or one a row [B].
      scale: factor of the logits, on top of the row's length.
      annealing: lambda >= 0; the own logit is (lambda cos + psi) / (1 + lambda). 0 is the full
        margin.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[0.0, 2.0]]), jnp.eye(2)
      >>> loss = sphereface(rows, jnp.array([0]), proxies)
      >>> print(f"{loss:.5f}")  # psi(pi / 2) = -3: log(1 + exp(2 + 6))
      8.00034

    Reference:
      Liu, Wen, Yu, Li, Raj, Song: SphereFace, CVPR 2017.
    """

    def formula(row: Row) -> Array:
        turned = monotone_cosine(row.target, margin, jnp.zeros_like(margin))
        own = (annealing * row.target + turned) / (1.0 + annealing)
        return jax.nn.softplus(row.others - scale * row.norm * own)

    def logits(cosines: Array, norm: Array) -> Array:
        return scale * norm * cosines

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


@loss(reduction="mean", per_row=("margin",))
def large_margin_softmax(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    margin: Number = 4.0,
    scale: Number = 1.0,
    annealing: Number = 0.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the weight of its class as if its angle were `margin` times as large.

    The softmax of a linear layer without bias in which the own class has to win by an angle: rows
    and class weights both keep their length. `sphereface` followed, with weights of length 1, so
    that classes with many rows cannot win by long weights; prefer it, or `arcface`, for
    embeddings that are compared by angle.

        -log softmax of |w_c| |e| cos(theta_c), with |w_y| |e| psi(theta_y) for the own class,
        psi(theta) = (-1)^k cos(margin theta) - 2 k for theta in [k pi, (k + 1) pi] / margin

    Args:
      embeddings: [B, D] rows of any length.
      labels: [B] integer classes.
      proxies: [C, D] class weights of any length.
      margin: factor of the angle, 1 to 4. One number, or one a row [B].
      scale: factor of the logits, on top of the lengths.
      annealing: lambda >= 0; the own logit is (lambda cos + psi) / (1 + lambda). 0 is the full
        margin; the paper starts large and lowers it.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, weights = jnp.array([[0.0, 2.0]]), jnp.array([[1.5, 0.0], [0.0, 1.0]])
      >>> loss = large_margin_softmax(rows, jnp.array([0]), weights, margin=2.0)
      >>> print(f"{loss:.5f}")  # psi(pi / 2) = -1 at lengths 1.5 and 2: log(1 + exp(2 + 3))
      5.00672

    Reference:
      Liu, Wen, Yu, Yang: Large-Margin Softmax Loss for Convolutional Neural Networks, ICML 2016.
    """
    cosines = own_cosines(embeddings, labels, proxies, options)
    shards = options.get("class_axis_name")
    own, _ = own_rows(labels, proxies, options.get("proxy_labels"), shards)
    length = safe_sqrt((own.astype(cosines.dtype) ** 2).sum(axis=-1))

    def formula(row: Row) -> Array:
        turned = monotone_cosine(cosines, margin, jnp.zeros_like(margin))
        own_logit = (annealing * cosines + turned) / (1.0 + annealing)
        return jax.nn.softplus(row.others - scale * row.norm * length * own_logit)

    def logits(products: Array, norm: Array) -> Array:
        del norm
        return scale * products

    return over_table(
        formula, embeddings, labels, proxies, logits=logits, score=inner_products, **options
    )
