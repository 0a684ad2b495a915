"""List-wise ranking losses: positives before negatives, whatever their order among themselves."""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core.compile import loss
from jdml._core.options import Array, Distance, Number, PairOptions, Pairs, by_anchor, flat
from jdml._core.pairs import over_pairs
from jdml._core.ranks import mean_by_anchor, mean_by_rank, sigmoid_step
from jdml._core.reduce import any_weight

_ON_SPHERE = distances.normalized(distances.euclidean)
_PENALTIES = ("O", "Iu", "Ib", "Ds", "Dq")


def _mean_of_active(gaps: Array, weights: Array, scale: Number, hold: bool) -> Array:
    """The mean of each anchor's gaps above 0, weighed by exp(scale * gap), [b]; 0 without any."""
    active = jnp.where(gaps <= 0, 0.0, weights)  # not `> 0`: a NaN has to show
    gaps = jnp.where(active == 0, 0.0, gaps)
    exponents = scale * gaps
    largest = lax.stop_gradient(exponents.max(axis=-1, keepdims=True))
    mass = active * jnp.exp(exponents - largest)
    mass = lax.stop_gradient(mass) if hold else mass
    return mean_by_anchor(gaps, mass)


@loss(reduction="mean")
def ranked_list(
    embeddings: Array,
    labels: Array,
    *,
    margin: Number = 0.4,
    boundary: Number | None = None,
    positive_scale: Number = 0.0,
    negative_scale: Number = 10.0,
    negative_share: Number = 0.5,
    hold_weights: bool = True,
    distance: Distance = _ON_SPHERE,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls positives into a ball around the anchor and pushes negatives out of a larger one.

    The whole ranking of an anchor is used, less what is already in order: positives inside the
    smaller ball are left as they are, which keeps the variety within a class. Among the negatives
    inside the larger ball the nearest weigh most. Needs no miner.

        (1 - negative_share) mean_p (d(a, p) - boundary + margin)
        + negative_share mean_n (boundary - d(a, n))

    over the positives and negatives for which that is above 0, in means weighed by
    exp(positive_scale (d(a, p) - boundary + margin)) and exp(negative_scale (boundary - d(a, n))).

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      margin: m, the radius of the larger ball less that of the smaller, in the unit of the
        distance; 0.2 to 0.6.
      boundary: alpha, the radius of the larger ball; 1.2 to 1.4 on unit rows. None makes it
        1 + margin / 2, as the authors' simpler form does.
      positive_scale: T_p, how much more the farther positives weigh; 0 in the paper. The paper
        calls this a temperature, but it multiplies.
      negative_scale: T_n, how much more the nearer negatives weigh; 10 in the paper.
      negative_share: lambda, 0 to 1; above 0.5 where negatives matter more.
      hold_weights: whether the weights are constants for the gradient, as in the paper. It is
        then not the derivative of the value.
      distance: between rows; Euclidean between unit rows in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[0.0], [1.0], [0.5]])
      >>> loss = ranked_list(rows, jnp.array([0, 0, 1]), distance=distances.euclidean)
      >>> print(f"{loss:.5f}")  # (0.5 (0.2 + 0.7) + 0.5 (0.2 + 0.7) + 0.5 (0 + 0.7)) / 3
      0.41667

    Note:
      All anchors are in the mean, those without such pairs at 0, as in the paper. Its first
      version adds the two parts with weight 1 each: twice this loss at `negative_share` 0.5.

    Reference:
      Wang, Hua, Kodirov, Hu, Garnier, Robertson: Ranked List Loss for Deep Metric Learning,
      CVPR 2019.
    """
    outer = 1.0 + margin / 2 if boundary is None else boundary

    def formula(pairs: Pairs):
        late, early = pairs.positives - (outer - margin), outer - flat(pairs.negatives)
        pull = _mean_of_active(late, pairs.positive_weights, positive_scale, hold_weights)
        push = _mean_of_active(early, flat(pairs.negative_weights), negative_scale, hold_weights)
        value = (1.0 - negative_share) * pull + negative_share * push
        return ((value, jnp.ones_like(value)),)

    return over_pairs(formula, embeddings, labels, distance, **options)


@loss(reduction="mean")
def pnp(
    embeddings: Array,
    labels: Array,
    *,
    variant: str = "Dq",
    alpha: Number = 4.0,
    b: Number = 2.0,
    temperature: Number = 0.01,
    **options: Unpack[PairOptions],
) -> Array:
    """Pushes the negatives that stand before an anchor's positives behind them.

    Average precision less what positives do to each other: only the number of negatives before
    each positive is penalised. The variants differ in which positives learn most. "Iu" and "Ib"
    look after those with many negatives before them, "Ds" and "Dq" after those with few, which
    leaves likely outliers alone; the authors found "Dq" best.

        mean_p f(N_p),   N_p = sum_n sigma((s_n - s_p) / temperature),   s the cosine

        "O":  N                  "Iu": (1 + N) log(1 + N)     "Ib": (b N - log(1 + b N)) / b^2
                                 "Ds": log(1 + N)             "Dq": 1 - (1 + N)^-alpha

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes, of any sizes and in any order.
      variant: f, by the paper's names.
      alpha: of "Dq", 1 or more; how fast a positive with negatives before it is given up. The
        authors train with 4 on Stanford Online Products.
      b: of "Ib", above 0; its slope stays below 1 / b.
      temperature: width of the step, 0.01 in the paper. Larger passes gradient on from further.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
      >>> loss = pnp(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")  # one negative comes first for both anchors: 1 - 2^-4
      0.93750

    Note:
      The anchor is not counted as its own positive; the authors' code counts it, in front of all
      negatives. Anchors without a positive do not count.

    Reference:
      Li et al.: Rethinking the Optimization of Average Precision: Only Penalizing Negative
      Instances before Positive Ones is Enough, AAAI 2022.
    """
    if variant not in _PENALTIES:
        raise ValueError(f"variant: got {variant!r}, expected one of {', '.join(_PENALTIES)}")

    def penalty(n: Array) -> Array:
        if variant == "Iu":
            return (1.0 + n) * jnp.log1p(n)
        if variant == "Ib":
            return (b * n - jnp.log1p(b * n)) / b**2
        if variant == "Ds":
            return jnp.log1p(n)
        return -jnp.expm1(-alpha * jnp.log1p(n)) if variant == "Dq" else n

    def formula(pairs: Pairs):
        pairs = by_anchor(pairs, "pnp")
        step = sigmoid_step(temperature)
        value = mean_by_rank(lambda before, n, count: penalty(n), pairs, step, step)
        return ((value, any_weight(pairs.positive_weights)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)
