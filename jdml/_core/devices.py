"""Varying-axes types under `shard_map`, and gathering over a mapped axis.

Inside `shard_map` every array is typed by the mesh axes on which it differs between devices.
Loop carries and custom derivative rules want one type throughout, so arrays are cast once at the
door. Elsewhere (jit, pmap, no mesh) all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core.options import Array, AxisName


def varying_axes(tree: Any) -> frozenset[str]:
    """The mesh axes on which any array of the tree differs between devices."""

    def axes(x: Any) -> frozenset[str]:
        kind = jax.typeof(x)  # the name moved between releases of jax
        return kind.mat.varying if hasattr(kind, "mat") else getattr(kind, "vma", frozenset())

    return frozenset().union(*map(axes, jax.tree.leaves(tree)))


def vary(tree: Any, axes: Iterable[str]) -> Any:
    """Casts every array of the tree to differ over `axes` as well."""

    def cast(x: Any) -> Any:
        missing = tuple(axis for axis in axes if axis not in varying_axes(x))
        return lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(cast, tree)


def zeros(shapes: Any, axes: Iterable[str]) -> Any:
    """Zeros of the given shapes, typed to differ over `axes`: the start of a loop carry."""
    return vary(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), axes)


def gather(x: Array, axis_name: AxisName | None) -> Array:
    """The rows of all devices, in the order of the devices."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)
