"""Queries and gallery rows pulled towards their neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdml.postprocess.models import unit
from jdml.retrieval.prepare import same_width
from jdml.retrieval.rows import finite_rows
from jdml.retrieval.search import neighbours

_BLOCK = 512  # queries expanded at once


def expand_queries(
    queries: Any,
    gallery: Any = None,
    *,
    k: int = 10,
    alpha: float = 3.0,
    own_rows: Any = None,
) -> np.ndarray:
    """Queries pulled towards their nearest neighbours (alpha query expansion).

    A query becomes itself plus its k nearest gallery rows, each weighed by its similarity to the
    power of alpha; what the first answers have in common finds more of the same. It helps where
    most of the k are right. For embeddings compared by cosine.

        new = unit(query + sum_i max(query . row_i, 0)**alpha * row_i)

    Args:
      queries: [Q, D], numpy or JAX; taken at unit length.
      gallery: [N, D], or None for the queries themselves, each without its own row.
      k: neighbours of each query, 1 to 50; at most its candidates.
      alpha: 0 is the plain mean, above 0 trusts near neighbours more; 3 is usual.
      own_rows: int [Q], the gallery row of each query itself, which is then not added again.

    Returns:
      float32 [Q, D], unit rows (float64 from float64).

    Raises:
      ValueError: a row holds NaN or infinity (named), k exceeds the candidates, or alpha < 0.

    Example:
      >>> rows = expand_queries([[1.0, 0.0]], [[0.0, 1.0], [0.6, 0.8]], k=1, alpha=1.0)
      >>> (rows * np.sqrt(1.36**2 + 0.48**2)).round(4)
      array([[1.36, 0.48]])

    Reference:
      Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
      TPAMI 2019.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha: got {alpha}, expected a number >= 0")
    x = unit(finite_rows("queries", queries))
    y = x if gallery is None else unit(finite_rows("gallery", gallery))
    same_width(("queries", "gallery"), x.shape[1], y.shape[1])
    other = None if gallery is None else y
    found = neighbours(x, other, k=k, own_rows=own_rows).indices
    out = np.empty_like(x)
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        rows = y[found[part]].astype(np.float64)
        similar = np.maximum(np.einsum("bd,bkd->bk", x[part].astype(np.float64), rows), 0.0)
        out[part] = x[part] + np.einsum("bk,bkd->bd", similar**alpha, rows)
    return unit(out)


def augment_database(gallery: Any, *, k: int = 10, alpha: float = 3.0) -> np.ndarray:
    """Gallery rows pulled towards their nearest neighbours (database-side augmentation).

    `expand_queries` of the gallery among itself, done once and beforehand. Queries are then
    compared with the new gallery, themselves expanded or not.

    Args:
      gallery: [N, D], numpy or JAX; taken at unit length.
      k: neighbours of each row, at most N - 1.
      alpha: as in `expand_queries`.

    Returns:
      float32 [N, D], unit rows (float64 from float64).

    Raises:
      ValueError: as in `expand_queries`.

    Example:
      >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
      >>> augment_database(rows, k=1)
      array([[1., 0.],
             [0., 1.],
             [0., 1.]])

    Reference:
      Arandjelovic and Zisserman, "Three Things Everyone Should Know to Improve Object Retrieval",
      CVPR 2012.
    """
    return expand_queries(finite_rows("gallery", gallery), k=k, alpha=alpha)
