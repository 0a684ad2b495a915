"""The distribution of the margins by which triplets are violated."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core import checks
from jdml._core.histograms import blend, checked_histogram, triplet_gaps
from jdml._core.options import Array, AxisName, Distance, Miner, Number
from jdml._core.pairs import each_anchor
from jdml._core.reduce import total
from jdml.states.rows import plain_rows

_ON_SPHERE = distances.normalized(distances.euclidean)


def margins(bins: int = 10) -> Array:
    """An empty histogram of d(a, p) - d(a, n), for `losses.dynamic_soft_margin`.

    Args:
      bins: nodes of the histogram; the authors take 512.

    Returns:
      [bins], zeros.

    Raises:
      ValueError: fewer than 2 bins.

    Example:
      >>> margins(4)
      Array([0., 0., 0., 0.], dtype=float32)
    """
    if bins < 2:
        raise ValueError(f"bins: got {bins}, expected 2 or more")
    return jnp.zeros(bins)


def update_margins(
    histogram: Array,
    embeddings: Array,
    labels: Array,
    *,
    rate: Number = 0.01,
    low: float = -2.0,
    distance: Distance = _ON_SPHERE,
    miner: Miner | None = None,
    where: Array | None = None,
    weights: Array | None = None,
    axis_name: AxisName | None = None,
) -> Array:
    """Moves the histogram of margins a little towards that of a batch.

    Args:
      histogram: [bins], from `margins` or an earlier call.
      embeddings: [B, D] rows.
      labels: [B] integer classes, or any labels that the loss takes.
      rate: share of the batch in the new histogram; an empty one takes the batch's whole.
      low: the first node; the range is symmetric, from `low` to just below `-low`.
      distance: that of the loss.
      miner: that of the loss.
      where: bool [B]; the row exists.
      weights: [B], or [B, B] for pairs: those of the loss.
      axis_name: mapped batch axis; the histogram is that of all devices.

    Returns:
      [bins], its sum 1, or the old one where the batch has no triplet.

    Raises:
      ValueError: a histogram of fewer than 2 nodes.

    Example:
      >>> rows, labels = jnp.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), jnp.array([0, 0, 1])
      >>> update_margins(margins(4), rows, labels)  # both triplets have 0 - 2
      Array([1., 0., 0., 0.], dtype=float32)

    Reference:
      Zhang, Rusinkiewicz: Learning Local Descriptors with a CDF-Based Dynamic Soft Margin,
      ICCV 2019.
    """
    embeddings, labels = plain_rows(embeddings), jnp.asarray(checks.as_array("labels", labels))
    histogram = checked_histogram(jnp.asarray(histogram))
    options = {"miner": miner, "axis_name": axis_name}
    if where is not None:
        options["where"] = jnp.asarray(where)
        checks.boolean("where", options["where"])
    if weights is not None:
        options["weights"] = jnp.asarray(weights, embeddings.dtype)
    if not embeddings.shape[0]:
        return histogram
    nodes = histogram.shape[0]
    width = -2.0 * low / nodes
    count = lambda pairs: triplet_gaps(pairs, low, width, nodes)
    counts = each_anchor(count, embeddings, labels, distance, **options)
    counts = total(counts.sum(axis=0), axis_name).astype(histogram.dtype)
    return lax.stop_gradient(blend(histogram, counts, rate))
