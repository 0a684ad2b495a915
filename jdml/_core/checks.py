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
    wrong = isinstance(value, bool) or not isinstance(value, int) or value < 1
    if value is not None and wrong:
        raise ValueError(f"block_size: got {value!r}, expected a whole number >= 1, or None")


def pair_weights(weights: Any, n: int, r: int) -> None:
    """Importance of anchors [B] or of pairs [B, R]."""
    shapes = f"shape ({n},) for anchors or ({n}, {r}) for pairs"
    expect(weights.shape in ((n,), (n, r)), "weights", weights, shapes)


# ---------------------------------------------------------------- before tracing, on the host


def as_array(name: str, value: Any) -> Any:
    """value as an array that jit takes; text, and ids that would wrap around, are refused."""
    if value is None:
        return None
    if isinstance(value, jax.Array):
        if name in INTEGER_OPTIONS:
            _fits_integers(name, value)
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # NumPy's message tells neither the argument nor what to do
        raise ValueError(f"{name}: got rows of unequal length, expected an array") from None
    if array.dtype.kind in "USO":
        numbered = name in INTEGER_OPTIONS
        hint = "; np.unique(names, return_inverse=True)[1] numbers text labels" if numbered else ""
        raise TypeError(f"{name}: got {describe(array)}, expected numbers{hint}")
    if name in INTEGER_OPTIONS:
        _fits_integers(name, array)
    return array


def given(name: str, value: Any) -> Any:
    """An argument that has no default, as an array."""
    if value is None:
        raise TypeError(f"{name}: got None, expected an array")
    return as_array(name, value)


def _fits_integers(name: str, array: Any) -> None:
    """Refuses integers that a signed one of JAX's width would wrap."""
    dtype = array.dtype
    if dtype == np.int32 or dtype.kind not in "iu" or not array.size:
        return
    bounds = np.iinfo(np.int64 if jax.config.read("jax_enable_x64") else np.int32)
    if np.iinfo(dtype).max <= bounds.max:
        return
    if isinstance(array, Tracer):
        raise TypeError(
            f"{name}: got {describe(array)} inside jit, expected signed integers, since large ids "
            f"would turn negative; ids up to {bounds.max} may be cast by .astype(int)"
        )
    values = np.asarray(array)
    for edge in (values.min(), values.max()):
        if not bounds.min <= edge <= bounds.max:
            raise ValueError(
                f"{name}: got the id {edge}, expected ids within {bounds.dtype}, since JAX would "
                "wrap them; number them with np.unique(ids, return_inverse=True)[1], or enable "
                "jax_enable_x64"
            )


def _present(values: Any, where: Any) -> Any:
    """The rows that `where` keeps, on the host; None where they are not known outside jit."""
    if values is None or isinstance(values, Tracer) or isinstance(where, Tracer):
        return None
    values = np.asarray(values)
    if where is None:
        return values
    mask = np.asarray(where)
    if mask.dtype != np.bool_ or mask.shape != values.shape[:1]:
        return None  # refused as a mask, later
    return values[mask]


def known_classes(labels: Any, n_classes: int, where: Any = None) -> None:
    """Refuses labels beyond the class table, where values are at hand: outside jit."""
    present = _present(labels, where)
    if present is None or present.dtype.kind not in "iu" or not present.size:
        return
    largest = int(present.max())
    if largest >= n_classes:
        raise ValueError(
            f"labels: got class {largest}, expected 0 to {n_classes - 1} for a table of "
            f"{n_classes} classes (negative labels mark rows to leave out)"
        )


_MOST_COMPARED = 2**16  # rows of a table: sorting them takes a few milliseconds


def distinct_classes(proxy_labels: Any) -> None:
    """Refuses a class that two rows of the table have, outside jit."""
    if proxy_labels is None or isinstance(proxy_labels, Tracer):
        return
    if proxy_labels.ndim != 1 or not 1 < proxy_labels.size <= _MOST_COMPARED:
        return
    classes, counts = np.unique(np.asarray(proxy_labels), return_counts=True)
    twice = classes[(counts > 1) & (classes >= 0)]
    if twice.size:
        raise ValueError(
            f"proxy_labels: got class {twice[0]} more than once, expected each class once "
            "(negative labels mark rows of the table to leave out)"
        )


def label_values(labels: Any, where: Any = None, columns: Any = None) -> None:
    """Refuses tables of labels that are not 0 or 1, and degrees outside 0 to 1, outside jit.

    Args:
      labels: [B], or a matrix of one of the kinds of `targets`.
      where: [B], the rows that are there.
      columns: [R], the references that are there.
    """
    if getattr(labels, "ndim", 0) != 2:
        return
    values = _present(labels, where)
    if values is not None and values.dtype.kind == "f" and columns is not None:
        values = _present(values.T, columns)
    if values is None or not values.size:
        return
    low, high = values.min(), values.max()
    # One column is refused with its shape: see `targets.kind_of`.
    if values.dtype.kind in "iu" and labels.shape[1] > 1 and high > 1:
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


def one_number(name: str, value: Any) -> None:
    """One number, not an array of them."""
    expect(value.shape == (), name, value, "one number")


def some_rows(name: str, value: Any) -> None:
    """A matrix or table with a row in it."""
    expect(value.shape[:1] != (0,), name, value, "at least one row")
