"""Losses on the distribution of distances in a batch, rather than on single tuples."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core import targets
from jdml._core.compile import loss
from jdml._core.histograms import blend, checked_histogram, fill, place, triplet_gaps
from jdml._core.options import Array, Distance, Number, PairOptions, Pairs, flat
from jdml._core.pairs import each_anchor, over_pairs
from jdml._core.positives import EachPositive
from jdml._core.reduce import safe_divide, total, whole

_ON_SPHERE = distances.normalized(distances.euclidean)


@loss(reduction="mean")
def intra_pair_variance(
    embeddings: Array,
    labels: Array,
    *,
    positive_slack: Number = 0.01,
    negative_slack: Number = 0.01,
    **options: Unpack[PairOptions],
) -> Array:
    """Draws the similarities of positives together, and those of negatives.

    Only pairs on the bad side of the mean of their kind are charged, so the means themselves are
    left to another loss. Made to go with `tuplet_margin`, at half its weight.

        relu((1 - positive_slack) m_p - s(a, p))^2  and  relu(s(a, n) - (1 + negative_slack) m_n)^2

    with s the cosine, m_p and m_n its means over all positive and all negative pairs.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      positive_slack: share of the mean by which positives may stay below it.
      negative_slack: share of the mean by which negatives may stay above it.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
      >>> loss = intra_pair_variance(rows, jnp.array([0, 0, 0]), positive_slack=0.0)
      >>> print(f"{loss:.5f}")  # mean (2 + 4 x 0.6) / 6; 4 of 6 pairs miss it by 0.13333
      0.01185

    Reference:
      Yu, Tao: Deep Metric Learning with Tuplet Margin Loss, ICCV 2019.
    """
    means = {**options, "reduction": "mean"}

    def mean(side: str) -> Array:
        """Of the distances of one kind; the gradient goes through it."""
        entries = lambda pairs: ((getattr(pairs, f"{side}s"), getattr(pairs, f"{side}_weights")),)
        return over_pairs(entries, embeddings, labels, distances.cosine, **means)

    low = (1.0 - positive_slack) * (1.0 - mean("positive"))
    high = (1.0 + negative_slack) * (1.0 - mean("negative"))

    def formula(pairs: Pairs):
        pull = jax.nn.relu(low - (1.0 - pairs.positives)) ** 2
        push = jax.nn.relu((1.0 - pairs.negatives) - high) ** 2
        return (pull, pairs.positive_weights), (push, pairs.negative_weights)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


@loss(reduction="mean_active")
def threshold_consistent_margin(
    embeddings: Array,
    labels: Array,
    *,
    positive_margin: Number = 0.9,
    negative_margin: Number = 0.5,
    positive_share: Number = 1.0,
    negative_share: Number = 1.0,
    **options: Unpack[PairOptions],
) -> Array:
    """Holds hard pairs to one pair of thresholds for all classes.

    A regulariser beside another loss: with it one threshold on the similarity serves classes that
    would otherwise each want their own. Only pairs beyond the thresholds are looked at.

        positive_share relu(positive_margin - s(a, p))  and
        negative_share relu(s(a, n) - negative_margin)

    with s the cosine, each averaged over the pairs beyond its threshold.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      positive_margin: cosine that positives should reach.
      negative_margin: cosine that negatives should stay below.
      positive_share: weight of the first term.
      negative_share: weight of the second.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
      >>> loss = threshold_consistent_margin(rows, jnp.array([0, 0, 1]))
      >>> print(f"{loss:.5f}")  # positives 0.9 - 0.8; of the negatives only 0.6 - 0.5
      0.20000

    Note:
      It is `contrastive` on the cosine with a weight on each term.

    Reference:
      Zhang et al.: Threshold-Consistent Margin Loss for Open-World Deep Metric Learning,
      ICLR 2024.
    """

    def formula(pairs: Pairs):
        pull = positive_share * jax.nn.relu(pairs.positives - (1.0 - positive_margin))
        push = negative_share * jax.nn.relu((1.0 - negative_margin) - pairs.negatives)
        return (pull, pairs.positive_weights), (push, pairs.negative_weights)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


@loss(reduction="mean", static=("bins",))
def histogram(
    embeddings: Array,
    labels: Array,
    *,
    bins: int = 100,
    **options: Unpack[PairOptions],
) -> Array:
    """Lowers the chance that a random negative is more similar than a random positive.

    The similarities of all positive pairs and of all negative pairs are two soft histograms; the
    loss is the overlap of one with the tail of the other. It has no margin to tune. Batches
    should be large enough to fill the bins.

        sum_r h-_r (h+_1 + ... + h+_r)

    with h+ and h- the histograms of the cosine over `bins` + 1 nodes from -1 to 1.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      bins: 2 / (distance of two nodes), 100 to 200.
      **options: the shared keywords of pair losses. The loss belongs to the batch as a whole: the
        reduction "none" gives its rows equal shares, the others the value.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Raises:
      ValueError: bins is no whole number from 1 on.

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
      >>> loss = histogram(rows, jnp.array([0, 0, 1]), bins=2)
      >>> print(loss)  # positives at 0; negatives at 0 and at 1: both at or above them
      1.0

    Reference:
      Ustinova, Lempitsky: Learning Deep Embeddings with Histogram Loss, NIPS 2016.
    """
    reduction, axis_name = options.get("reduction", "mean"), options.get("axis_name")

    def count(pairs: Pairs) -> tuple[Array, Array]:
        kinds = (pairs.positives, pairs.positive_weights), (pairs.negatives, pairs.negative_weights)
        of = lambda d, w: fill(1.0 - flat(d), flat(w), -1.0, 2.0 / bins, bins + 1)
        return of(*kinds[0]), of(*kinds[1])

    counts = each_anchor(count, embeddings, labels, distances.cosine, **options)
    positive, negative = (total(x.sum(axis=0), axis_name) for x in counts)
    share = lambda x: safe_divide(x, lax.stop_gradient(x.sum()))
    value = (share(negative) * jnp.cumsum(share(positive))).sum()
    exists = targets.exist(targets.kind_of(labels, None), labels, options.get("where"))
    return whole(value, exists, reduction, axis_name)


@loss(reduction="mean")
def dynamic_soft_margin(
    embeddings: Array,
    labels: Array,
    *,
    histogram: Array | None = None,
    rate: Number = 0.01,
    low: float = -2.0,
    distance: Distance = _ON_SPHERE,
    **options: Unpack[PairOptions],
) -> Array:
    """Weighs each triplet by the share of triplets that are easier: a margin that sets itself.

    How a triplet compares with those of the recent past takes the place of a margin. The past is
    a state: `states.margins` makes it, and `states.update_margins` gives the next one, or
    `objectives.dynamic_soft_margin` keeps it. The authors use the hardest negative of each pair
    (`miners.BatchHard` with one positive an anchor).

        F(v) v,  v = d(a, p) - d(a, n),  F the distribution function of v

    with F read at the node of the histogram below v, after this batch has been mixed into it.

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      histogram: [bins] state, without gradient; zeros at the start.
      rate: share of the batch in the histogram.
      low: the first node, as in the rule.
      distance: between rows; Euclidean between unit rows in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Raises:
      ValueError: no histogram, or one of fewer than 2 nodes.

    Example:
      >>> rows, labels = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), jnp.array([0, 0, 1])
      >>> print(dynamic_soft_margin(rows, labels, histogram=jnp.zeros(4)))  # both: F = 1, v = -2
      -2.0

    Note:
      The weights are constants for the gradient. The authors' code has 512 nodes, the last of
      them at -low; here the last one is a node below that.

    Reference:
      Zhang, Rusinkiewicz: Learning Local Descriptors with a CDF-Based Dynamic Soft Margin,
      ICCV 2019.
    """
    if histogram is None:
        raise ValueError("histogram: got None, expected a state such as states.margins(10)")
    nodes = checked_histogram(histogram).shape[0]
    width = -2.0 * low / nodes
    tally = lambda pairs: triplet_gaps(pairs, low, width, nodes)
    counts = each_anchor(tally, embeddings, labels, distance, **options)
    counts = total(counts.sum(axis=0), options.get("axis_name"))
    below = jnp.cumsum(lax.stop_gradient(blend(histogram, counts, rate)))

    def violation(positive: Array, negatives: Array) -> Array:
        gap = positive - negatives
        # The node below; past the last one every triplet is easier.
        node, share = place(lax.stop_gradient(gap), low, width, nodes)
        return below[node + (share >= 1.0).astype(node.dtype)] * gap

    return over_pairs(
        lambda pairs: (EachPositive(violation),), embeddings, labels, distance, **options
    )
