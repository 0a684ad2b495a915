"""Goldens of losses on the statistics of pairs as calls; see `golden_map`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from golden_calls import Call, numbers_of, pair_loss
from golden_data import Padded
from golden_pairs import Entry, pair_counts

from jdml import distances, losses


def threshold_consistent_margin(entry: Entry) -> Call:
    """The package averages over the pairs beyond each threshold, whatever its reducer."""
    read = {
        "positive_margin": ("margin_plus", float, 0.9),
        "negative_margin": ("margin_minus", float, 0.5),
        "positive_share": ("lambda_plus", float, 1.0),
        "negative_share": ("lambda_minus", float, 1.0),
    }
    numbers = numbers_of(entry, read)
    choices = {"reduction": "mean_active"}
    return Call(losses.threshold_consistent_margin, choices, lambda case: numbers)


def histogram(entry: Entry) -> Call:
    bins = entry.get("options", {}).get("n_bins", 100)
    return Call(losses.histogram, {"bins": bins}, lambda case: {"weights": in_triplets(case)})


def in_triplets(case: Padded) -> np.ndarray:
    """Weights [B, B]: the package takes each pair once, and only pairs that are in a triplet."""
    positive, negative = pair_counts(case)
    anchor = positive.any(axis=1) & negative.any(axis=1)
    return anchor[:, None] * np.where(anchor[None, :], 0.5, 1.0)


def dynamic_soft_margin(entry: Entry) -> Call:
    """The first call, into an empty histogram."""
    del entry
    return Call(soft_margin_through_weights, {}, lambda case: {"histogram": np.zeros(10)})


def soft_margin_through_weights(embeddings, labels, *, histogram):
    """The loss, whose weights the paper holds, with the package's gradient through them added."""
    value = losses.dynamic_soft_margin(embeddings, labels, histogram=histogram)
    way = _mean_with_free_weights(embeddings, labels)
    return value + (way - jax.lax.stop_gradient(way))


def _mean_with_free_weights(embeddings, labels):
    """The mean of F(v) v over all triplets of one batch, with F differentiated and v held."""
    d = distances.normalized(distances.euclidean)(embeddings, embeddings)
    gaps = d[:, :, None] - d[:, None, :]
    there = (labels >= 0)[:, None] & (labels >= 0)[None, :]
    same = labels[:, None] == labels[None, :]
    positive = there & same & ~jnp.eye(len(labels), dtype=bool)
    triplets = jnp.where(positive[:, :, None] & (there & ~same)[:, None, :], 1.0, 0.0)
    at = (gaps + 2.0) / 0.4
    below, share = jnp.floor(at).astype(int), at - jnp.floor(at)
    counts = jnp.zeros(10).at[below].add(triplets * (1.0 - share))
    counts = counts.at[jnp.minimum(below + 1, 9)].add(triplets * share)
    easier = jnp.cumsum(counts / counts.sum())[below]
    return (triplets * easier * jax.lax.stop_gradient(gaps)).sum() / triplets.sum()


BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "IntraPairVarianceLoss": pair_loss(
        losses.intra_pair_variance,
        positive_slack=("pos_eps", float, 0.01),
        negative_slack=("neg_eps", float, 0.01),
    ),
    "ThresholdConsistentMarginLoss": threshold_consistent_margin,
    "HistogramLoss": histogram,
    "DynamicSoftMarginLoss": dynamic_soft_margin,
}
LISTED: dict[str, str] = {}
