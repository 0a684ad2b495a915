"""Losses whose classes are distributions: Gaussian, harmonic, von Mises-Fisher."""

from __future__ import annotations

import math
from typing import Unpack

import jax
import jax.numpy as jnp

from jdml import distances
from jdml._core import checks
from jdml._core.bessel import log_bessel
from jdml._core.compile import loss
from jdml._core.maths import inner_products, safe_sqrt, unit
from jdml._core.options import Array, Number, TableOptions
from jdml._core.table import Row, Score, over_table


def _likelihood(
    score: Score, factor: Number, embeddings: Array, labels: Array, proxies: Array, **options
) -> Array:
    """-log softmax of factor * score over the classes."""

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - factor * row.target)

    def logits(scores: Array, norm: Array) -> Array:
        del norm
        return factor * scores

    return over_table(formula, embeddings, labels, proxies, logits=logits, score=score, **options)


@loss(reduction="mean")
def hist(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    scale: Number = 32.0,
    lower_log_variance: Number = 0.0,
    upper_log_variance: Number = 6.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the Gaussian of its class, each class with variances of its own.

    A class learns which features it varies in, and differences there count less: better than one
    proxy where classes differ in spread. The distribution loss of HIST; the paper adds the
    cross-entropy of a hypergraph network over batch and classes, which is a network, not a loss
    of embeddings.

        -log softmax of -scale m_c,  m_c = sum_d (u_d - mu_cd)^2 / exp(log_variance_cd)

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, 2, D]: means, brought to unit length here, and logarithms of variances.
      scale: tau in the paper, 32, and 16 for many small classes (SOP).
      lower_log_variance: logarithms below it count as it.
      upper_log_variance: logarithms above it count as it: without a bound a class could come near
        to everything.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> means = jnp.eye(2)
      >>> proxies = jnp.stack([means, jnp.zeros((2, 2))], axis=1)
      >>> rows = jnp.array([[5.0, 0.0]])
      >>> loss = hist(rows, jnp.array([0]), proxies, scale=0.5)
      >>> print(f"{loss:.5f}")  # distances 0 and 2: log(1 + exp(-1))
      0.31326

    Note:
      Start the logarithms inside the bounds, where they have a gradient. Other code takes the
      logarithm of a probability and leaves out rows where it underflows to 0, which are the
      hardest; here they count.

    Reference:
      Lim, Yun, Park, Choi: Hypergraph-Induced Semantic Tuplet Loss for Deep Metric Learning, CVPR
      2022.
    """
    checks.expect(
        proxies.ndim == 3 and proxies.shape[1] == 2,
        "proxies",
        proxies,
        "means and logarithms of variances of each class, [C, 2, D]",
    )

    def score(rows: Array, table: Array) -> Array:
        rows, means = unit(rows), unit(table[:, 0])
        precisions = jnp.exp(-jnp.clip(table[:, 1], lower_log_variance, upper_log_variance))
        apart = inner_products(rows**2, precisions)
        apart -= 2.0 * inner_products(rows, means * precisions)
        return -apart - (means**2 * precisions).sum(axis=-1)[None, :]

    return _likelihood(score, scale, embeddings, labels, proxies, **options)


@loss(reduction="mean")
def harmonic(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    exponent: Number | None = None,
    softening: Number = 1e-4,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the point of its class, with odds that are powers of distances.

    A softmax lowers its loss for ever by longer rows and weights. Here only ratios of distances
    count, so that the loss does not change with scale and is 0 at a finite place, the center of
    the class, which can then be read and shown.

        -log(d_y^-exponent / sum_c d_c^-exponent),  d_c = |e - p_c|

    Args:
      embeddings: [B, D] rows, as they are.
      labels: [B] integer classes.
      proxies: [C, D] centers of the classes, as they are.
      exponent: n in the paper, about sqrt(D), which None takes.
      softening: added to squared distances, in their unit; bounds the gradient next to a center.
        0 is the formula above.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 0.0], [3.0, 0.0]])
      >>> loss = harmonic(rows, jnp.array([0]), proxies, exponent=2.0, softening=0.0)
      >>> print(f"{loss:.5f}")  # distances 1 and 2: log(1 + 1 / 4)
      0.22314

    Note:
      Logarithms of distances take the place of their powers. A row on a center is finite, also
      with the softening 0.

    Reference:
      Baek, Liu, Tyagi, Tegmark: Harmonic Loss Trains Interpretable AI Models, TMLR 2025.
    """
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")
    if exponent is None:
        exponent = jnp.asarray(math.sqrt(embeddings.shape[1]), embeddings.dtype)
    smallest = jnp.finfo(embeddings.dtype).tiny

    def score(rows: Array, table: Array) -> Array:
        squares = distances.squared_euclidean(rows, table)
        return -0.5 * jnp.log(jnp.maximum(squares + softening, smallest))

    return _likelihood(score, exponent, embeddings, labels, proxies, **options)


@loss(reduction="mean")
def von_mises_fisher(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    scale: Number = 16.0,
    upper_concentration: Number = math.inf,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the mean direction of its class, each class with a concentration of its own.

    Classes are von Mises-Fisher distributions on the sphere, the Gaussians of directions, and a
    row goes to the one that makes it likely. A narrow class may ask more of its rows than a wide
    one, which helps with classes of different variety or size. With one concentration for all it
    is `normalized_softmax` at the temperature 1 / kappa.

        -log(f_y / sum_c f_c),  f_c = C_D(kappa_c) exp(kappa_c cos(theta_c)),
        C_D(k) ~ k^(D/2 - 1) / I_{D/2 - 1}(k),  kappa_c = min(scale |p_c|, upper_concentration)

    Args:
      embeddings: [B, D] rows; brought to unit length here, D >= 2.
      labels: [B] integer classes.
      proxies: [C, D]: the direction is the mean direction of a class, the length its
        concentration; 0 is uniform on the sphere.
      scale: the concentration of a proxy of length 1. Rows whose mean cosine to their class is r
        have a concentration of about D r / (1 - r^2): let proxies start near that.
      upper_concentration: where concentrations end. Rows of a class that all but agree have a
        likelihood that rises without bound.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[2.0, 0.0, 0.0]]), jnp.eye(3)[:2]
      >>> loss = von_mises_fisher(rows, jnp.array([0]), proxies, scale=3.0)
      >>> print(f"{loss:.5f}")  # one concentration for all: log(1 + exp(-3))
      0.04859

    Note:
      The normaliser C_D is exact, by an expansion that holds at every dimension, and so is its
      gradient. In Hasnat et al. all classes share one concentration and C_D cancels. Conti et al.
      have this formula with concentrations that are given. Scott et al. (von Mises-Fisher Loss,
      ICCV 2021) is another loss: there the embedding is the distribution.

    Reference:
      Hasnat, Bohne, Milgram, Gentric, Chen: von Mises-Fisher Mixture Model-based Deep Learning:
      Application to Face Verification, arXiv 2017; Conti, Noiry, Despiegel, Gentric, Clemencon:
      Mitigating Gender Bias in Face Recognition Using the von Mises-Fisher Mixture Model, ICML
      2022.
    """
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")
    checks.expect(embeddings.shape[1] > 1, "embeddings", embeddings, "2 dimensions or more")
    order = embeddings.shape[1] / 2 - 1

    def score(rows: Array, table: Array) -> Array:
        lengths = safe_sqrt((table * table).sum(axis=-1))
        concentrations = jnp.minimum(scale * lengths, upper_concentration)[None, :]
        cosines = inner_products(unit(rows), unit(table))
        return concentrations * cosines - log_bessel(order, concentrations)

    return _likelihood(score, 1.0, embeddings, labels, proxies, **options)
