"""Principal axes, and the same variance along each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdml.postprocess.models import unit
from jdml.retrieval.prepare import same_width
from jdml.retrieval.rows import CHUNK, finite_rows, whole


class Whitening(NamedTuple):
    """A linear map that `whiten` applies: (row - mean) @ projection."""

    mean: np.ndarray  # [D]
    projection: np.ndarray  # [D, dim]


def fit_whitening(embeddings: Any, dim: int | None = None, *, power: float = 0.5) -> Whitening:
    """Principal axes of embeddings, scaled so that no few of them decide all distances.

    Directions of large variance, often background or lighting, drown the others. Fit on training
    embeddings, apply to queries and gallery alike. Fewer dimensions make the search faster.

    Args:
      embeddings: [B, D], numpy or JAX.
      dim: axes kept, those of largest variance; None keeps all with a variance.
      power: each axis is divided by its variance to this power: 0.5 whitens fully, 0 only rotates
        (PCA), between is a compromise where the small axes are noise.

    Returns:
      `Whitening(mean, projection)`, float64 [D] and [D, dim].

    Raises:
      ValueError: a row holds NaN or infinity (named), fewer than two rows, or more axes asked for
        than have a variance.

    Example:
      >>> rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
      >>> (rows @ fit_whitening(rows).projection).round(4)
      array([[ 0.    ,  1.4142],
             [ 0.    , -1.4142],
             [ 1.4142,  0.    ],
             [-1.4142,  0.    ]])

    Reference:
      Jegou and Chum, "Negative Evidences and Co-occurrences in Image Retrieval: the Benefit of
      PCA and Whitening", ECCV 2012.
    """
    rows = finite_rows("embeddings", embeddings)
    if dim is not None:
        whole(dim, "dim")
    if not 0 <= power <= 1:
        raise ValueError(f"power: got {power}, expected a number from 0 to 1")
    if len(rows) < 2:
        raise ValueError(f"embeddings: got {len(rows)} rows, expected at least two")
    mean = rows.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((rows.shape[1],) * 2)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].astype(np.float64) - mean
        covariance += part.T @ part / len(rows)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    tolerance = variances[0] * rows.shape[1] * np.finfo(rows.dtype).eps
    rank = int((variances > max(tolerance, 0.0)).sum())
    dim = rank if dim is None else dim
    if dim > rank or not rank:
        raise ValueError(f"dim: got {dim}, expected 1 to {rank}, the axes that have a variance")
    axes = axes[:, :dim]
    # Either sign would do; the same data gives the same one everywhere.
    biggest = axes[np.abs(axes).argmax(axis=0), np.arange(dim)]
    return Whitening(mean, axes * np.where(biggest < 0, -1.0, 1.0) / variances[:dim] ** power)


def whiten(whitening: Whitening, embeddings: Any) -> np.ndarray:
    """Embeddings on the axes of a `Whitening`, at unit length.

    Args:
      whitening: from `fit_whitening`.
      embeddings: [B, D], numpy or JAX.

    Returns:
      [B, dim], float32 or, from float64, float64; unit rows.

    Raises:
      ValueError: a row holds NaN or infinity (named), or the dimensions differ.

    Example:
      >>> whiten(Whitening(np.zeros(2), np.eye(2)), [[3.0, 4.0]])
      array([[0.6, 0.8]])
    """
    rows = finite_rows("embeddings", embeddings)
    same_width(("whitening", "embeddings"), len(whitening.mean), rows.shape[1])
    out = np.empty((len(rows), whitening.projection.shape[1]), rows.dtype)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].astype(np.float64) - whitening.mean
        out[start : start + CHUNK] = unit(part @ whitening.projection)
    return out
