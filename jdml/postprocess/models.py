"""One embedding from those of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jdml.retrieval.rows import finite_rows


def concatenate(models: Sequence[Any], weights: Sequence[float] | None = None) -> np.ndarray:
    """Embeddings of several models side by side: their cosine is the mean of the models' cosines.

    Args:
      models: [B, D1], [B, D2], ...: the same items in the same order, each taken at unit length.
      weights: of the models in the mean, above 0; equal by default.

    Returns:
      [B, D1 + D2 + ...], unit rows; float64 where one of the models is.

    Raises:
      ValueError: no model, different numbers of rows, NaN or infinity (the row named), or weights
        out of their range.

    Example:
      >>> concatenate([[[3.0]], [[0.0, 2.0]]], weights=[1.0, 3.0])
      array([[0.5      , 0.       , 0.8660254]])
    """
    rows, shares = _models(models, weights)
    return unit(np.concatenate([np.sqrt(s) * x for s, x in zip(shares, rows)], axis=1))


def average(models: Sequence[Any], weights: Sequence[float] | None = None) -> np.ndarray:
    """The mean direction of several embeddings of the same items, such as of flipped images.

    The models must share one space: copies of one, or views of one image. Others: `concatenate`.

    Args:
      models: [B, D] each, the same items in the same order, each taken at unit length.
      weights: above 0; equal by default.

    Returns:
      [B, D], unit rows; float64 where one of the models is.

    Raises:
      ValueError: as in `concatenate`, or different dimensions.

    Example:
      >>> average([[[2.0, 0.0]], [[0.0, 5.0]]])
      array([[0.70710678, 0.70710678]])
    """
    rows, shares = _models(models, weights)
    for number, x in enumerate(rows):
        if x.shape[1] != rows[0].shape[1]:
            raise ValueError(
                f"models: number {number} has {x.shape[1]} dimensions, expected "
                f"{rows[0].shape[1]}, those of number 0"
            )
    return unit(np.sum([s * x for s, x in zip(shares, rows)], axis=0))


def _models(models: Any, weights: Any) -> tuple[list[np.ndarray], list[Any]]:
    """Unit rows of each model in one dtype, and the shares of the models."""
    if not len(models):
        raise ValueError("models: got none, expected at least one")
    rows = [finite_rows(f"models[{number}]", model) for number, model in enumerate(models)]
    dtype = np.result_type(*rows)
    for number, x in enumerate(rows):
        if len(x) != len(rows[0]):
            raise ValueError(
                f"models: number {number} has {len(x)} rows, expected {len(rows[0])}, those of "
                "number 0"
            )
    weights = [1.0] * len(rows) if weights is None else [float(weight) for weight in weights]
    if len(weights) != len(rows) or not all(0 < weight < np.inf for weight in weights):
        raise ValueError(f"weights: got {weights}, expected {len(rows)} numbers above 0")
    total = sum(weights)
    return [unit(x.astype(dtype)) for x in rows], [dtype.type(w / total) for w in weights]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, of their own dtype; zero rows stay."""
    wide = rows.astype(np.float64)
    biggest = np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.where(biggest == 0, 1.0, biggest)
    norm = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(norm == 0, 1.0, norm)).astype(rows.dtype)
