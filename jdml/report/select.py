"""What all pictures ask of arrays: checks, images as floats, and which rows are shown."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def expect(ok: bool | np.bool, name: str, got: np.ndarray, expected: str) -> None:
    """Raises the one line of a wrong array, unless ok."""
    if not ok:
        raise ValueError(f"{name}: got {got.dtype}{list(got.shape)}, expected {expected}")


class _Pictures:
    """Images that are read where they are indexed, as floats from 0 to 1."""

    def __init__(self, name: str, images: Any):
        self._name, self._images = name, images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> np.ndarray:
        return as_pictures(self._name, self._images[np.array([row])], np.zeros(1, np.int32))[0]


def as_pictures(name: str, images: Any, labels: np.ndarray) -> Any:
    """Images as floats from 0 to 1, [N, H, W] or [N, H, W, 3].

    What is neither an array nor makes one, but gives some images when it is indexed by their rows,
    is read row by row.
    """
    if hasattr(images, "shape") and not isinstance(images, (np.ndarray, np.generic, jax.Array)):
        expect(labels.shape == (len(images),), f"labels of {name}", labels, f"[{len(images)}]")
        return _Pictures(name, images)
    array = np.asarray(images)
    array = array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array
    shaped = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3)
    expect(shaped, name, array, "[N, H, W], [N, H, W, 1] or [N, H, W, 3]")
    expect(labels.shape == (len(array),), f"labels of {name}", labels, f"[{len(array)}]")
    if array.dtype.kind in "iu":
        return np.clip(array, 0, 255) / np.float32(255)
    low, high = min(0.0, float(array.min())), max(1.0, float(array.max()))
    return (array.astype(np.float32) - low) / (high - low)


def unit_rows(embeddings: Any, labels: np.ndarray) -> np.ndarray:
    """Rows [N, D] of length 1, checked against their labels; a row of zeros stays."""
    rows = np.asarray(embeddings, np.float32)
    expect(rows.ndim == 2, "embeddings", rows, "[N, D]")
    expect(labels.shape == (len(rows),), "labels", labels, f"[{len(rows)}], one a row")
    expect(np.isfinite(rows).all(), "embeddings", rows, "finite numbers")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over a centred window of what is finite there, narrower at the ends."""
    finite = np.isfinite(values)
    ones = np.ones(window)
    total = np.convolve(np.where(finite, values, 0.0), ones, "same")
    count = np.convolve(finite.astype(float), ones, "same")
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def choose_queries(
    hits: np.ndarray, labels: np.ndarray, able: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, int]:
    """Queries among `able`, random ones first, and how many of the worst ones follow."""
    shuffled = np.random.default_rng(seed).permutation(able)
    firsts = np.sort(np.unique(labels[shuffled], return_index=True)[1])  # one of each class
    shuffled = np.concatenate([shuffled[firsts], np.delete(shuffled, firsts)])
    worst = shuffled[np.argsort(hits[shuffled], kind="stable")][: count // 2]
    random = shuffled[~np.isin(shuffled, worst)][: count - len(worst)]
    return np.concatenate([random, worst]), len(worst)


def choose_rows(
    labels: np.ndarray, classes: int, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to draw and the coloured classes, whose rows are at most half where there are others."""
    rng = np.random.default_rng(seed)
    values, counts = np.unique(labels, return_counts=True)
    values = values[counts > 1] if (counts > 1).any() else values
    coloured = np.sort(rng.permutation(values)[:classes])
    shuffled = rng.permutation(len(labels))
    of_class = np.isin(labels[shuffled], coloured)
    first = shuffled[of_class][: most // 2 if not of_class.all() else most]
    return np.concatenate([first, shuffled[~of_class][: most - len(first)]]), coloured


def balanced(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """All rows, or about `most` of them: as many of each class as can be, at least 2."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    if len(labels) <= most:
        return shuffled
    _, codes = np.unique(labels[shuffled], return_inverse=True)
    order = np.argsort(codes, kind="stable")
    place = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])  # within its class
    each = max(2, most // (int(codes.max()) + 1))
    return shuffled[order[place < each]][:most]
