"""A sum over blocks whose gradient is taken inside the same sweep.

Reverse mode through a loop keeps, or computes again, what every step made. A sum of blocks needs
neither: while a block is at hand its gradient is too, and all that must leave the sweep is the
accumulated gradient, as large as what is differentiated. The derivative rule therefore returns
`sum(gradient * tangent)`, linear in the tangents: forward mode works, reverse mode is its
transpose, and second order differentiates the sweep itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import jaxpr_as_fun

from jdml._core.devices import vary, varying_axes, zeros

add = functools.partial(jax.tree.map, jnp.add)


def is_zero(tangent: Any) -> bool:
    """Whether a tangent is symbolically zero: its input is not differentiated."""
    return isinstance(tangent, SymbolicZero)


def tangent_leaves(tree: Any) -> list[Any]:
    """The tangents of a tree in the order of its leaves, symbolic zeros included."""
    return jax.tree.leaves(tree, is_leaf=is_zero)


def hoist(fn: Callable, *example: Any) -> tuple[Callable, tuple]:
    """fn with everything that it closes over made an argument: (converted(args, consts), consts).

    `jax.closure_convert` hoists only what it takes to be differentiable; integers and booleans
    of an outer trace stay behind and leak out of a custom rule.
    """
    closed, out = jax.make_jaxpr(fn, return_shape=True)(*example)
    structure = jax.tree.structure(out)

    def converted(args: tuple, consts: tuple) -> Any:
        flat = jaxpr_as_fun(closed.replace(consts=list(consts)))(*jax.tree.leaves(args))
        return jax.tree.unflatten(structure, flat)

    return converted, tuple(closed.consts)


def _replace(leaves: list, at: list[int], new: list) -> list:
    """leaves with those at the positions `at` replaced by `new`."""
    return [new[at.index(i)] if i in at else leaf for i, leaf in enumerate(leaves)]


def _inner(gradients: list, tangents: list) -> Any:
    return sum((g * t).sum() for g, t in zip(gradients, tangents))


def stream(fn: Callable, blocks: Any, shared: Any) -> tuple[jax.Array, Any]:
    """The sum over i of fn(blocks[i], shared) -> (value [], aux); only value has a derivative.

    Args:
      fn: one block's value and whatever else should be summed. What it closes over is hoisted.
      blocks: a tree of arrays whose first axis runs over the blocks.
      shared: a tree of arrays that every block sees.
    """
    first = jax.tree.map(lambda x: x[0], blocks)
    axes = sorted(varying_axes((blocks, shared)))
    blocks, shared, first = vary((blocks, shared, first), axes)
    fn, consts = hoist(fn, first, shared)
    axes = sorted(set(axes) | varying_axes(consts))
    fixed = (shared, consts)

    def call(block: Any, fixed: Any) -> Any:
        return fn((block, fixed[0]), fixed[1])

    # Shapes only: an array that the rule closed over would leak out of it.
    out_shape = jax.eval_shape(call, first, fixed)

    @jax.custom_jvp
    def run(blocks: Any, fixed: Any) -> Any:
        step = lambda carry, block: (add(carry, call(block, fixed)), None)
        return lax.scan(step, zeros(out_shape, axes), blocks)[0]

    def rule(primals: Any, tangents: Any) -> Any:
        blocks, fixed = primals
        block_leaves, block_tree = jax.tree.flatten(blocks)
        fixed_leaves, fixed_tree = jax.tree.flatten(fixed)
        block_tangents, fixed_tangents = map(tangent_leaves, tangents)
        live_block = [i for i, t in enumerate(block_tangents) if not is_zero(t)]
        live_fixed = [i for i, t in enumerate(fixed_tangents) if not is_zero(t)]

        def one(leaves: list, block_live: list, fixed_live: list) -> Any:
            block = block_tree.unflatten(_replace(leaves, live_block, block_live))
            return call(block, fixed_tree.unflatten(_replace(fixed_leaves, live_fixed, fixed_live)))

        def body(carry: Any, leaves: list) -> Any:
            out, fixed_gradient = carry
            value, pull, aux = jax.vjp(
                functools.partial(one, leaves),
                [leaves[i] for i in live_block],
                [fixed_leaves[i] for i in live_fixed],
                has_aux=True,
            )
            block_gradient, gradient = pull(jnp.ones_like(value))
            return (add(out, (value, aux)), add(fixed_gradient, gradient)), block_gradient

        start = zeros((out_shape, [fixed_leaves[i] for i in live_fixed]), axes)
        (out, fixed_gradient), block_gradient = lax.scan(body, start, block_leaves)
        tangent = _inner(
            block_gradient + fixed_gradient,
            [block_tangents[i] for i in live_block] + [fixed_tangents[i] for i in live_fixed],
        )
        return out, (jnp.asarray(tangent, out[0].dtype), jax.tree.map(jnp.zeros_like, out[1]))

    run.defjvp(rule, symbolic_zeros=True)
    return run(blocks, fixed)


def map_blocks(fn: Callable, blocks: Any) -> Any:
    """fn over blocks, each computed again in the backward pass: for results that are vectors."""
    return lax.map(jax.checkpoint(fn), blocks)


def split(tree: Any, n_blocks: int, size: int) -> Any:
    """Cuts the first axis [n] into [n_blocks, size], padded with zeros.

    The cut is strided, so that a batch sharded over devices stays where it is.
    """

    def cut(x: Any) -> Any:
        padding = [(0, n_blocks * size - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(size, n_blocks, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, tree)


def join(tree: Any, n: int) -> Any:
    """The inverse of `split` for per-row results [n_blocks, size]."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:n], tree)
