"""Choices of a call, refused in one line before anything is compiled for them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from jdml._core.checks import describe


def settle(name: str, default: Any, value: Any) -> Any:
    """A choice as jit takes it; the default of the keyword tells of what kind it has to be."""
    if isinstance(value, jax.Array):
        traced = "a traced " if isinstance(value, Tracer) else ""
        raise TypeError(
            f"{name}: got {traced}{describe(value)}, expected a choice, which is plain Python and "
            "is fixed when the loss is compiled"
        )
    if name == "miner":
        return value if value is None else function(name, value, "miners.SemiHard()", "Pairs")
    if callable(default):
        function(name, value, "distances.cosine", "two matrices")
        if not _takes_two(name, value):
            called = f"{getattr(value, '__name__', type(value).__name__)}{inspect.signature(value)}"
            raise TypeError(
                f"{name}: got the function {called}, expected one of two matrices, such as "
                "distances.cosine or distances.lp(1)"
            )
    elif isinstance(default, bool) and not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: got {describe(value)}, expected True or False")
    elif name == "block_size":
        return value if value is None else whole(name, value, ", or None")
    elif isinstance(default, int) and not isinstance(default, bool):
        return whole(name, value)
    elif isinstance(default, tuple):
        return _whole_numbers(name, value)
    return value


def function(name: str, value: Any, example: str, of: str) -> Callable[..., Any]:
    """A function of what is named, not text and not a class that is still to be called."""
    if isinstance(value, type):
        raise TypeError(f"{name}: got the class {value.__name__}, expected what a call of it gives")
    if not callable(value):
        raise TypeError(
            f"{name}: got {describe(value)}, expected {example} or the like, or a function of {of}"
        )
    return value


def whole(name: str, value: Any, otherwise: str = "") -> int:
    """A whole number >= 1, of Python or NumPy."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: got {value!r}, expected a whole number >= 1{otherwise}")
    return int(value)


def _whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, tuple | list | range | np.ndarray) else ()
    if not numbers:
        raise ValueError(f"{name}: got {value!r}, expected whole numbers >= 1, such as (1, 2)")
    return tuple(whole(name, number) for number in numbers)


def _takes_two(name: str, fn: Any) -> bool:
    try:
        hash(fn)
    except TypeError:
        raise TypeError(
            f"{name}: got {type(fn).__name__}, expected one that can be hashed"
        ) from None
    return hasattr(fn, "prepared") or _binds_two(fn)


@functools.lru_cache(maxsize=256)
def _binds_two(fn: Callable[..., Any]) -> bool:
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some functions of C have no signature
        pass
    return True
