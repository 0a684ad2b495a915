"""Losses of the goldens that are a loss of the library and something more.

They have the signature of a loss, so that `golden_map` can name them in its place.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from golden_data import Padded
from golden_pairs import pair_counts

from jdml import losses

# Pair losses.


def contrastive_with_lengths(embeddings, labels, *, length_weight, **options):
    """The contrastive loss and the mean length of the rows."""
    there = labels >= 0
    length = jnp.linalg.norm(jnp.where(there[:, None], embeddings, 1.0), axis=-1)
    mean = _mean(length, there)
    return losses.contrastive(embeddings, labels, **options) + length_weight * mean


def first_pairs(case: Padded) -> dict[str, np.ndarray]:
    """The package takes one pair of each class, its first two rows; -1 fills up."""
    y = case.labels
    firsts = [np.flatnonzero(y == c)[:2] for c in range(len(y))]
    a, p = (np.array([f[k] if len(f) == 2 else -1 for f in firsts]) for k in (0, 1))
    return {"anchors": a, "partners": p}


def n_pair_of_firsts(embeddings, labels, *, anchors, partners):
    y = jnp.where(anchors >= 0, labels[anchors], -1)
    options = {"refs": embeddings[partners], "ref_labels": y, "norm_weight": 0.0}
    return losses.n_pair(embeddings[anchors], y, **options)


def triplet_counts(case: Padded) -> np.ndarray:
    """Weights [B, R]: how many triplets a pair is in."""
    positive, negative = (pairs.astype(float) for pairs in pair_counts(case))
    return positive * negative.sum(1, keepdims=True) + negative * positive.sum(1, keepdims=True)


def margin_with_betas(
    embeddings, labels, betas, *, proxy_labels, price, triplets, weights, **options
):
    """A boundary for each class, whose price is paid once for every triplet of an anchor."""
    del proxy_labels
    beta = jnp.where(labels >= 0, betas[labels], 1.0)
    lost, mean = (
        losses.margin(embeddings, labels, beta=beta, weights=weights, reduction=r, **options)
        for r in ("sum", "mean_active")
    )
    active = jax.lax.stop_gradient(lost / mean)
    return (lost + price * (triplets * beta).sum()) / active


def smooth_ap_with_query(embeddings, labels, **options):
    """The query stands among what it retrieves: it is a reference like all others."""
    return losses.smooth_ap(embeddings, labels, refs=embeddings, ref_labels=labels, **options)


def tuplet_and_variance(embeddings, labels, *, weight, slack, **options):
    """The tuplet loss and the variance within each kind of pairs."""
    slacks = {"positive_slack": slack, "negative_slack": slack}
    variance = losses.intra_pair_variance(embeddings, labels, **slacks)
    return losses.tuplet_margin(embeddings, labels, **options) + weight * variance


# Table losses.


def cosface_with_spread(embeddings, labels, proxies, *, proxy_labels, spread_weight, **options):
    """CosFace and the mean, over classes, of the cosine to the nearest other class."""
    rows = proxies / jnp.linalg.norm(proxies, axis=-1, keepdims=True)
    there = proxy_labels >= 0
    other = there[None, :] & ~jnp.eye(len(rows), dtype=bool)
    nearest = jnp.where(other, rows @ rows.T, -jnp.inf).max(axis=-1)
    value = losses.cosface(embeddings, labels, proxies, proxy_labels=proxy_labels, **options)
    return value + spread_weight * _mean(nearest, there)


def _mean(values: jax.Array, there: jax.Array) -> jax.Array:
    """The mean over the entries that are there."""
    return jnp.where(there, values, 0.0).sum() / there.sum().astype(values.dtype)
