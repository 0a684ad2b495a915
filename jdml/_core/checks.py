"""Errors at trace time: one line that names the argument, what came and what was expected."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdml._core.options import BOOLEAN_OPTIONS, INTEGER_OPTIONS

REDUCTIONS = ("mean", "mean_active", "sum", "none")


def describe(x: Any) -> str:
    """An array as dtype[shape], anything else by its type."""
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"{x.dtype}[{', '.join(map(str, x.shape))}]"
    return f"{type(x).__name__} {x!r}"


def expect(ok: bool, name: str, got: Any, expected: str) -> None:
    """Raises ValueError: `name` is `got`, expected `expected`."""
    if not ok:
        raise ValueError(f"{name}: got {describe(got)}, expected {expected}")


def rows(name: str, x: Any) -> None:
    """A matrix of floating rows [B, D]."""
    expect(x.ndim == 2, name, x, "a matrix [B, D], one row an item")
    floating(name, x)


def floating(name: str, x: Any) -> None:
    """A floating dtype."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: got {describe(x)}, expected a floating dtype")


def vector(name: str, x: Any, length: int, of: str) -> None:
    """One entry a row: [length]."""
    expect(x.shape == (length,), name, x, f"shape ({length},), one entry a row of {of}")


def class_labels(name: str, x: Any, length: int, of: str) -> None:
    """Integer labels [length]."""
    vector(name, x, length, of)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name}: got {describe(x)}, expected integers, one class index a row")


def same_width(name: str, x: Any, other_name: str, other: Any) -> None:
    """The last axes agree."""
    if x.shape[-1] != other.shape[-1]:
        raise ValueError(
            f"{name}: got {describe(x)}, expected rows of the {other.shape[-1]} dimensions "
            f"of {other_name}"
        )


def reduction(value: Any) -> None:
    """One of the four reductions."""
    if value not in REDUCTIONS:
        raise ValueError(f"reduction: got {value!r}, expected one of {', '.join(REDUCTIONS)}")


def block_size(value: Any) -> None:
    """A positive whole number, or None."""
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ValueError(f"block_size: got {value!r}, expected a whole number >= 1, or None")


def pair_weights(weights: Any, n: int, r: int) -> None:
    """Importance of anchors [B] or of pairs [B, R]."""
    shapes = f"shape ({n},) for anchors or ({n}, {r}) for pairs"
    expect(weights.shape in ((n,), (n, r)), "weights", weights, shapes)


# ---------------------------------------------------------------- before tracing, on the host


def as_array(name: str, value: Any) -> Any:
    """value as an array that jit takes; text, and ids that would wrap around, are refused."""
    if value is None or isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "USO":
        raise TypeError(
            f"{name}: got {describe(array)}, expected numbers; "
            "np.unique(names, return_inverse=True)[1] numbers text labels"
        )
    if name in INTEGER_OPTIONS and array.dtype.kind in "iu" and array.size:
        _fits_int32(name, array)
    return array


def _fits_int32(name: str, array: np.ndarray) -> None:
    if jax.config.read("jax_enable_x64"):
        return
    bounds = np.iinfo(np.int32)
    for edge in (array.min(), array.max()):
        if not bounds.min <= edge <= bounds.max:
            raise ValueError(
                f"{name}: got the id {edge}, expected ids within int32, since JAX would wrap them; "
                "number them with np.unique(ids, return_inverse=True)[1], or enable jax_enable_x64"
            )


def known_classes(labels: Any, n_classes: int) -> None:
    """Refuses labels beyond the class table, where values are at hand: outside jit."""
    if isinstance(labels, Tracer) or labels is None or not np.size(labels):
        return
    largest = int(np.max(np.asarray(labels)))
    if largest >= n_classes:
        raise ValueError(
            f"labels: got class {largest}, expected 0 to {n_classes - 1} for a table of "
            f"{n_classes} classes (negative labels mark rows to leave out)"
        )


def label_values(labels: Any) -> None:
    """Refuses tables of labels that are not 0 or 1, and degrees outside 0 to 1, outside jit."""
    if isinstance(labels, Tracer) or getattr(labels, "ndim", 0) != 2 or not labels.size:
        return
    values = np.asarray(labels)
    integer = values.dtype.kind in "iu"
    low, high = values.min(), values.max()
    if integer and high > 1:
        raise ValueError(
            f"labels: got {describe(labels)} with the value {high}, expected 0 or 1 in each of "
            f"{labels.shape[1]} columns, one a label"
        )
    if values.dtype.kind == "f" and not (low >= 0 and high <= 1):
        raise ValueError(
            f"labels: got {describe(labels)} with values from {low} to {high}, expected degrees "
            "of being a pair, from 0 to 1"
        )


def boolean(name: str, value: Any) -> None:
    """A mask."""
    if value.dtype != jnp.bool_:
        raise TypeError(f"{name}: got {describe(value)}, expected booleans")


def masks(options: dict[str, Any]) -> None:
    """Every mask among the options is boolean."""
    for name in BOOLEAN_OPTIONS:
        if options.get(name) is not None:
            boolean(name, options[name])


def per_row(name: str, value: Any, n: int) -> None:
    """One number, or one a row [B]."""
    expect(value.shape in ((), (n,)), name, value, f"a number, or shape ({n},) for one a row")
