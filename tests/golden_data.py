"""Reads the golden values: the folder that JDML_GOLDENS names, else the copy beside this file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_FILLER = 7.0  # what padded rows hold: nothing that a leak would hide behind


@cache
def _files() -> tuple[dict[str, Any], Any]:
    folder = Path(os.environ.get("JDML_GOLDENS") or Path(__file__).parent / "goldens")
    index = json.loads((folder / "goldens.json").read_text())
    return index, np.load(folder / "goldens.npz")


def entries(section: str) -> dict[str, dict[str, Any]]:
    """The entries of `losses`, `miners` or `distances` by name."""
    return _files()[0][section]


@cache
def array(key: str) -> np.ndarray:
    return _files()[1][key]


@cache
def inputs(case: str) -> dict[str, np.ndarray]:
    """The arrays of an input case: embeddings, labels, ref_emb, class_weights and so on."""
    return {name: array(key) for name, key in _files()[0]["inputs"][case]["arrays"].items()}


def pair_inputs(case: str, call: str = "", symmetric: bool = True) -> tuple[Any, Any, Any, Any]:
    """Embeddings, labels, references and their labels, as the entry calls its loss.

    Two views of one batch are labelled by their place in it: all rows against each other where
    `symmetric`, else the first view against the second.
    """
    data = inputs(case)
    x, refs = data["embeddings"], data.get("ref_emb")
    if call != "selfsup":
        y = data.get("labels", np.arange(len(x)))
        return x, y, refs, data.get("ref_labels", y) if refs is not None else None
    places = np.arange(len(x))
    if symmetric:
        return np.concatenate([x, refs]), np.concatenate([places, places]), None, None
    return x, places, refs, places


class Padded(NamedTuple):
    """A case at the shape of the largest one, so that cases share a compilation.

    Rows of padding carry the label -1, columns of padding are 0 in every row. The largest case
    is left as it is.
    """

    embeddings: np.ndarray  # [B, D]
    labels: np.ndarray  # [B]
    refs: np.ndarray | None  # [R, D]
    ref_labels: np.ndarray | None  # [R]
    table: np.ndarray | None  # [C, D], [C, K, D], or a number of each class [C]
    table_labels: np.ndarray | None  # [C]
    features: np.ndarray  # bool [D]: the columns that are not padding
    data: dict[str, np.ndarray]  # the arrays of the case as they are


def padded(case: str, table: str | None = None, call: str = "", symmetric: bool = True) -> Padded:
    x, y, refs, ref_labels = pair_inputs(case, call, symmetric)
    rows, ref_rows, width, classes = _largest(refs is not None)
    data = inputs(case)
    weights = None if table is None else data[table]
    return Padded(
        _grown(x, rows, width),
        _grown(y, rows, fill=-1),
        None if refs is None else _grown(refs, ref_rows, width),
        None if refs is None else _grown(ref_labels, ref_rows, fill=-1),
        None if weights is None else _grown(weights, classes, width if weights.ndim > 1 else None),
        None if weights is None else _grown(np.arange(len(weights)), classes, fill=-1),
        np.arange(width) < x.shape[1],
        data,
    )


@cache
def _largest(with_refs: bool) -> tuple[int, int, int, int]:
    """Rows, references, dimensions and classes of the largest case with or without references."""
    cases: Iterable[Any] = [inputs(case) for case in _files()[0]["inputs"]]
    views = [d for d in cases if "labels" not in d]
    if with_refs:
        used = [d for d in cases if "ref_emb" in d]
    else:
        used = [d for d in cases if "ref_emb" not in d] + views
    doubled = lambda d: not with_refs and "labels" not in d
    rows = [len(d["embeddings"]) * (2 if doubled(d) else 1) for d in used]
    return (
        max(rows),
        max(len(d.get("ref_emb", ())) for d in used),
        max(d["embeddings"].shape[1] for d in used),
        max(len(d.get("class_weights", ())) for d in used),
    )


def _grown(x: np.ndarray, rows: int, width: int | None = None, fill: float = _FILLER):
    """x with rows of `fill` below, and columns of zeros to the right."""
    if width is not None:
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])
    below = [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1)
    return np.pad(x, below, constant_values=fill)
