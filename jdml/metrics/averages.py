"""Means of what each query scored: over queries, over classes, and how sure they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdml.retrieval.rows import label_array, whole

_DRAWS = 16  # bootstrap samples multiplied at once: one by one the products are slow


def per_class(values: Any, labels: Any) -> dict[Any, float]:
    """The mean of each class, over its values that are not NaN.

    Args:
      values: [B], as `by_query` gives them.
      labels: [B], integers or strings; a negative label is not a class.

    Returns:
      A dict from label to mean, in the order of the labels; classes without a value are left out.

    Example:
      >>> per_class([1.0, 0.0, float("nan"), 0.5], ["b", "b", "b", "a"])
      {'a': 0.5, 'b': 0.5}
    """
    values, labels = np.asarray(values, np.float64), label_array("labels", labels)
    if values.shape != labels.shape:
        raise ValueError(f"values: got shape {values.shape}, expected {labels.shape}, one a label")
    there = ~np.isnan(values)
    if labels.dtype.kind == "i":
        there &= labels >= 0
    classes, codes = np.unique(labels[there], return_inverse=True)
    means = np.bincount(codes, values[there], len(classes)) / np.bincount(codes)
    return dict(zip(classes.tolist(), means.tolist()))


def mean_of_classes(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The mean of every class, [M, C] from values [M, Q] and class numbers [Q]."""
    _, codes = np.unique(codes, return_inverse=True)
    counts = np.bincount(codes)
    return np.stack([np.bincount(codes, row, len(counts)) / counts for row in values])


def bootstrap(
    values: Any,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    groups: Any = None,
) -> tuple[Any, Any]:
    """An interval for a mean, from means of values drawn again with repetition (percentiles).

    It says how far the mean would move with other queries of the same kind. Queries of one class
    are alike, so that the interval of queries drawn one by one is too narrow for new classes:
    give the labels as `groups`, and whole classes are drawn.

    Args:
      values: [Q], or several metrics [M, Q], without NaN.
      confidence: share of such intervals that hold the true mean, above 0 and below 1.
      samples: draws; 1000 settle the second digit of a 95% interval.
      seed: of the draws; the same seed gives the same interval.
      groups: [Q] labels drawn together, or None.

    Returns:
      (low, high): floats, or arrays [M].

    Raises:
      ValueError: no value, NaN, or a confidence out of its range.

    Example:
      >>> bootstrap([0.5, 0.5, 0.5])
      (0.5, 0.5)

    Reference:
      Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile intervals).
    """
    table = np.asarray(values, np.float64)
    whole(samples, "samples")
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence!r}, expected a number between 0 and 1")
    if table.ndim not in (1, 2) or not table.shape[-1]:
        raise ValueError(f"values: got shape {table.shape}, expected at least one, [Q] or [M, Q]")
    if np.isnan(table).any():
        raise ValueError("values: got NaN, expected those of scored queries alone")
    rows = table.reshape(-1, table.shape[-1])
    weights = np.ones(rows.shape[1])
    if groups is not None:
        groups = label_array("groups", groups)
        if len(groups) != rows.shape[1]:
            raise ValueError(f"groups: got {len(groups)} of them, expected {rows.shape[1]}")
        _, codes = np.unique(groups, return_inverse=True)
        weights = np.bincount(codes).astype(float)
        rows = np.stack([np.bincount(codes, row, len(weights)) for row in rows])
    draw, size = np.random.default_rng(seed), len(weights)
    parts = []
    for start in range(0, samples, _DRAWS):
        drawn = draw.integers(size, size=(min(_DRAWS, samples - start), size))
        times = np.stack([np.bincount(one, minlength=size) for one in drawn], axis=1)
        times = times.astype(np.float64)
        parts.append((rows @ times) / (weights @ times))
    means = np.concatenate(parts, axis=1).T
    edges = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    low, high = edges
    return (float(low[0]), float(high[0])) if table.ndim == 1 else (low, high)


def summary(
    values: dict[str, np.ndarray],
    codes: np.ndarray,
    lone: int,
    average: str,
    confidence: float | None,
) -> dict[str, Any]:
    """The dict that `retrieval` returns, from the values [Q] and class numbers [Q] of queries."""
    table = np.stack(list(values.values()))
    if average == "class":
        table = mean_of_classes(table, codes)
    scores: dict[str, Any] = dict(zip(values, table.mean(axis=1).tolist()))
    scores |= {"queries": len(codes), "lone_queries": lone}
    if confidence is not None:
        low, high = bootstrap(table, confidence=confidence)
        scores["intervals"] = dict(zip(values, zip(low.tolist(), high.tolist())))
    return scores
