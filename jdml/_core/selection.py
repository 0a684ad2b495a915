"""What miners are made of: picking columns, ranks over the whole batch, draws that stay put."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdml._core.checks import describe
from jdml._core.devices import vary, varying_axes
from jdml._core.options import Array, Mates, Pairs

T = TypeVar("T")
Count = Callable[[Callable[[Pairs], Any]], Any]  # the sum of fn(pairs) over blocks and devices
Pick = Callable[[Pairs], Sequence[tuple[Array, Array]]]  # S sets: (values, which are there)

# ---------------------------------------------------------------- columns


def farthest(distances: Array, there: Array) -> Array:
    """Column of the largest distance that is there, [b, 1]; the first among equals."""
    return _first(distances, there, largest(distances, there))


def nearest(distances: Array, there: Array) -> Array:
    """Column of the smallest distance that is there, [..., 1]; the first among equals."""
    return _first(distances, there, smallest(distances, there))


def _first(distances: Array, there: Array, best: Array) -> Array:
    """First column [..., 1] that is there and holds the best value of its row; 0 without one.

    Two comparisons: XLA's CPU compiler takes an argmax element by element.
    """
    width = distances.shape[-1]
    columns = jnp.arange(width, dtype=jnp.int32)
    columns = jnp.broadcast_to(columns, distances.shape)
    found = jnp.where(there & (distances == best), columns, width)
    first = found.min(axis=-1, keepdims=True)
    return jnp.where(first == width, 0, first)


def largest(distances: Array, there: Array) -> Array:
    """The largest distance that is there, [b, 1]; -inf without one."""
    return jnp.where(there, distances, -jnp.inf).max(axis=-1, keepdims=True)


def smallest(distances: Array, there: Array) -> Array:
    """The smallest distance that is there, [b, 1]; inf without one."""
    return jnp.where(there, distances, jnp.inf).min(axis=-1, keepdims=True)


def keep(weights: Array, condition: Array) -> Array:
    """The weights where the condition holds."""
    return jnp.where(condition, weights, 0.0)


def both(pairs: Pairs) -> Pairs:
    """One positive and one negative [b, 1], or neither: an anchor without one has no triplet."""
    positive, negative = pairs.positive_weights, pairs.negative_weights
    return pairs._replace(
        positive_weights=keep(positive, negative != 0),
        negative_weights=keep(negative, positive != 0),
    )


def negatives_by_anchor(pairs: Pairs, miner: str) -> None:
    """Refuses negatives that an earlier miner of a chain has chosen for each positive."""
    if pairs.negatives.ndim == 3:
        raise ValueError(
            f"miner: got {miner} after one that picks negatives for each positive, expected it "
            "before"
        )


def negatives_by_positive(pairs: Pairs) -> Pairs:
    """The negatives as each positive sees them, [b, P, N]; gone where the positive is not there."""
    if pairs.negatives.ndim == 3:
        return pairs
    b, width = pairs.positives.shape
    shape = (b, width, pairs.negatives.shape[-1])
    spread = lambda x: jnp.broadcast_to(x[:, None, :], shape)
    return pairs._replace(
        negatives=spread(pairs.negatives),
        negative_weights=keep(
            spread(pairs.negative_weights), pairs.positive_weights[:, :, None] != 0
        ),
        negative_columns=spread(columns_of(pairs.negatives, pairs.negative_columns)),
    )


def columns_of(distances: Array, columns: Array | None) -> Array:
    """The reference of each entry, also while the columns are all of the references in order."""
    if columns is not None:
        return columns
    every = jnp.arange(distances.shape[-1], dtype=jnp.int32)
    return jnp.broadcast_to(every, distances.shape)


def one_negative(pairs: Pairs, choose: Callable[[Array, Array], Array]) -> Pairs:
    """One negative [b, P, 1] for each positive, chosen without an array [b, P, N].

    Walks over the k-th positive of all anchors at once, as `EachPositive` does: work B R times
    the largest class of the batch, which is found at run time.

    Args:
      pairs: with negatives by anchor. Their distances are constants to `choose`.
      choose: from the columns of one positive of each anchor [b], and its distances [b], to the
        column of the negative, [b].

    Returns:
      The pairs, with negatives that are there where the chosen one and the positive are.
    """
    b, width = pairs.positives.shape
    row = np.arange(b)
    distances, mates = lax.stop_gradient(pairs.positives), pairs.mates

    def step(k: Any, chosen: Array) -> Array:
        at, there = nth_positive(k, mates, b, width)
        found = choose(at, distances[row, at]).astype(chosen.dtype)
        return chosen.at[row, at].set(jnp.where(there, found, chosen[row, at]))

    start = vary(jnp.zeros((b, width), jnp.int32), sorted(varying_axes(pairs)))
    chosen = lax.fori_loop(0, width if mates is None else mates.count.max(), step, start)
    pick = lambda x: jnp.take_along_axis(x, chosen, axis=-1)
    weights = keep(pick(pairs.negative_weights), pairs.positive_weights != 0)
    numbers = columns_of(pairs.negatives, pairs.negative_columns)
    return pairs._replace(
        negatives=pick(pairs.negatives)[:, :, None],
        negative_weights=weights[:, :, None],
        negative_columns=pick(numbers)[:, :, None],
    )


def nth_positive(k: Any, mates: Mates | None, b: int, width: int) -> tuple[Array, Array]:
    """Column of the k-th positive of each anchor, or of any row without classes; if it is there."""
    if mates is None:
        return jnp.full(b, k, jnp.int32), jnp.ones(b, bool)
    skip_own = (k >= mates.rank).astype(mates.start.dtype)
    place = jnp.clip(mates.start + jnp.asarray(k, mates.start.dtype) + skip_own, 0, width - 1)
    return mates.order[place], k < mates.count


# ---------------------------------------------------------------- what a miner is made with


def check_number(name: str, value: Any, *, above: float = -math.inf) -> None:
    """A number that is not NaN, which would drop every pair, and is above a bound."""
    if isinstance(value, jax.Array):  # traced or not, it has no hash: the loss refuses the miner
        return
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: got {describe(value)}, expected a number")
    number = float(value)
    if math.isnan(number) or (above > -math.inf and number <= above):
        bound = f" above {above:g}" if above > -math.inf else ""
        raise ValueError(f"{name}: got {value!r}, expected a number{bound}")


def check_range(name: str, bounds: Any) -> None:
    """Two numbers (low, high), or None."""
    if bounds is None:
        return
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise TypeError(f"{name}: got {describe(bounds)}, expected (low, high), or None")
    for bound in bounds:
        check_number(name, bound)
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"{name}: got {bounds!r}, expected low <= high")


# ---------------------------------------------------------------- ranks

_DIGIT = 8  # bits that one pass over the distances settles


def kth_largest(count: Count, pick: Pick, rank: Callable[[Array], Array]) -> Array:
    """The k-th largest value of each of S sets that are spread over blocks and devices.

    Floats in the order of their bit patterns are integers, whose digits are found from the first
    on: among the values that agree with the digits so far, how many have each next digit. Only
    counts leave a block or a device, so the answer is exact and depends on neither.

    Args:
      count: what a miner's `survey` is given.
      pick: from the pairs of a block to the values of each set and which of them are there.
      rank: from the sizes of the sets, whole numbers [S], to k for each, from 1 to its size.

    Returns:
      [S]; inf for an empty set.
    """
    sizes, like = count(_sizes_and_dtype(pick))
    k = rank(sizes)
    word = _word(like.dtype)
    n_bits = jnp.iinfo(word).bits

    def narrow(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        found, k = carry  # the digits so far, and the rank among the values that begin with them
        shift = jnp.asarray(n_bits - _DIGIT * (i + 1), word)

        def in_block(pairs: Pairs) -> Array:
            counts = []
            for (values, there), begins in zip(pick(pairs), found):
                digits = _ordered(values) >> shift
                inside = there & (digits >> _DIGIT == begins)
                counts.append(tally(digits & (2**_DIGIT - 1), inside, 2**_DIGIT))
            return jnp.stack(counts)

        counts = count(in_block)
        reached = lax.cumsum(counts, axis=1, reverse=True)  # by values of this digit or a larger
        digit = (reached >= k[:, None]).sum(axis=1, dtype=jnp.int32)[:, None] - 1
        at = lambda x: jnp.take_along_axis(x, digit, axis=1)[:, 0]
        return (found << _DIGIT) + digit[:, 0].astype(word), k - (at(reached) - at(counts))

    start = vary(jnp.zeros(sizes.shape, word), varying_axes(k))
    found, _ = lax.fori_loop(0, n_bits // _DIGIT, narrow, (start, k))
    return jnp.where(sizes == 0, jnp.inf, _as_float(found, like.dtype))


def tally(places: Array, there: Array, n: int) -> Array:
    """How many entries that are there have each of the places 0 .. n - 1, [n].

    Numbers of 32 bits without a sign count the pairs of 65,000 rows.
    """
    return jnp.zeros(n, jnp.uint32).at[places].add(there.astype(jnp.uint32))


def _sizes_and_dtype(pick: Pick) -> Callable[[Pairs], tuple[Array, Array]]:
    def in_block(pairs: Pairs) -> tuple[Array, Array]:
        picked = pick(pairs)
        sizes = jnp.stack([there.sum(dtype=jnp.uint32) for _, there in picked])
        return sizes, jnp.zeros((), picked[0][0].dtype)

    return in_block


def _word(dtype: Any) -> Any:
    return jnp.uint64 if dtype == jnp.float64 else jnp.uint32


def _ordered(values: Array) -> Array:
    """Unsigned integers in the order of the floats; both zeros are one."""
    word = _word(values.dtype)
    bits = lax.bitcast_convert_type(jnp.where(values == 0, 0.0, values), word)
    sign = jnp.ones((), word) << (jnp.iinfo(word).bits - 1)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def _as_float(order: Array, dtype: Any) -> Array:
    """The inverse of `_ordered`."""
    sign = jnp.ones((), order.dtype) << (jnp.iinfo(order.dtype).bits - 1)
    return lax.bitcast_convert_type(jnp.where(order >= sign, order ^ sign, ~order), dtype)


# ---------------------------------------------------------------- draws


def with_key(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass with a field `key` a tree whose only leaf is the key.

    A loss then traces the key: a new one does not compile again. All other fields stay choices.
    """
    names = [f.name for f in dataclasses.fields(cls) if f.name != "key"]  # type: ignore[arg-type]

    def flatten(miner: Any) -> tuple[tuple[Any], tuple[Any, ...]]:
        return (miner.key,), tuple(getattr(miner, name) for name in names)

    def unflatten(choices: tuple[Any, ...], leaves: tuple[Any]) -> Any:
        miner = object.__new__(cls)  # leaves may be anything here, so nothing is checked again
        for name, value in zip([*names, "key"], [*choices, *leaves]):
            object.__setattr__(miner, name, value)
        return miner

    jax.tree_util.register_pytree_node(cls, flatten, unflatten)
    return cls


def check_key(key: Any) -> None:
    """One random key of jax, typed or raw, or None."""
    if key is None:
        return
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if typed and shape == ():
        return
    if not typed and dtype == jnp.uint32 and shape is not None and len(shape) == 1:
        return
    raise TypeError(f"key: got {describe(key)}, expected one key of jax.random.key, or None")


def draw(key: Array, pairs: Pairs, columns: Array, dtype: Any) -> Array:
    """A number in [0, 1) for each pair of an anchor and a column, the shape of columns [b, ...].

    It follows from the key, the anchor's place in the batch of all devices and the column, so
    blocks and devices change nothing.
    """
    if pairs.anchors is None:
        raise ValueError("pairs: got no places of the anchors; pass the miner to a loss")
    # Of any kind of key a threefry one, whose numbers are the same mapped over or one by one.
    root = jax.random.wrap_key_data(jax.random.bits(key, (2,), jnp.uint32), impl="threefry2x32")
    flat = columns.reshape(len(columns), -1).astype(jnp.uint32)
    by_anchor = jax.vmap(jax.random.fold_in, (None, 0))(root, pairs.anchors.astype(jnp.uint32))
    by_pair = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(by_anchor, flat)
    bits = jax.random.key_data(by_pair)[..., 0] >> 8  # a folded key is random bits itself
    return (bits.astype(dtype) * 2.0**-24).reshape(columns.shape)
