"""Cross-batch memories of the goldens, replayed with a memory of the library.

The package puts a batch into its memory first and compares it with all of the memory then, without
the pairs of a row and its own copy. Here that is a push before the loss, and a weight of 0 for the
slot of each row itself. With a mask it puts the rows of the mask into its memory and compares
the others with it: a push and a loss with opposite `where`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import golden_data
import golden_map
import jax
import jax.numpy as jnp
import numpy as np
from golden_pairs import QUICK, Entry

from jdml import states


class Step(NamedTuple):
    """One batch of a sequence."""

    value: jax.Array
    gradient: jax.Array
    golden_value: float
    golden_gradient: np.ndarray
    memory: states.Memory  # after the batch


def remember_first(
    loss: Callable, memory: states.Memory, x: jax.Array, y: jax.Array, **options: Any
) -> tuple[jax.Array, states.Memory]:
    """The loss against a memory that holds the batch already; a row is not its own pair."""
    n, size = len(y), len(memory.labels)
    own = (memory.position + jnp.arange(n, dtype=jnp.int32)) % size
    memory = states.push(memory, x, y)
    weights = jnp.ones((n, size)).at[jnp.arange(n), own].set(0.0)
    return loss(x, y, weights=weights, **states.as_refs(memory), **options), memory


def remember_some(
    loss: Callable, memory: states.Memory, x: jax.Array, y: jax.Array, **options: Any
) -> tuple[jax.Array, states.Memory]:
    """The loss of the first half of a batch against a memory that holds the second half."""
    second = jnp.arange(len(y)) >= len(y) // 2
    memory = states.push(memory, x, y, where=second)
    return loss(x, y, where=~second, **states.as_refs(memory), **options), memory


@cache
def _compiled(name: str) -> Callable:
    entry = golden_data.entries("cross_batch_memory")[name]
    given = {key: value for key, value in entry.items() if value is not None}
    if "miner" in given:  # sees the distance of the loss
        given["miner"] = {**given["miner"], "distance": entry["distance"]}
    call = golden_map.BUILDERS[entry["loss"]](given)
    rule = remember_some if entry["enqueue_mask"] else remember_first
    options: Any = {**call.choices, **call.numbers(None)}  # type: ignore[arg-type]

    def step(x: jax.Array, y: jax.Array, memory: states.Memory) -> Any:
        return rule(call.loss, memory, x, y, **options)

    return jax.jit(jax.value_and_grad(step, has_aux=True), compiler_options=QUICK)


def replay(name: str, entry: Entry) -> Iterator[Step]:
    """Every batch of a sequence, the golden beside it."""
    read = lambda step, kind: golden_data.array(f"{entry['arrays']}step{step}/{kind}")
    size, width = entry["memory_size"], read(0, "embeddings").shape[1]
    memory = states.memory(size, width)
    memory = memory._replace(embeddings=memory.embeddings.astype(jnp.float64))
    for step, golden in enumerate(entry["values"]):
        x, y = (jnp.asarray(read(step, kind)) for kind in ("embeddings", "labels"))
        (value, memory), gradient = _compiled(name)(x, y, memory)
        yield Step(value, gradient, golden, read(step, "grad_emb"), memory)
