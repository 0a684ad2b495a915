"""How long the first call of every public loss takes: tracing, compiling, running."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench_clock import Effort, Watch
from jdml import losses, states

_CENTERS = {"subcenter_arcface": 3, "soft_triple": 3, "hist": 2}  # rows of the table a class
_TRIES = 3


class Call(NamedTuple):
    """A loss and small inputs that it takes."""

    loss: Callable[..., Any]
    inputs: tuple[jax.Array, ...]  # rows, labels, and a table where it has one
    options: dict[str, Any]


def every_loss(rows: int = 64, dim: int = 32) -> dict[str, Call]:
    """A call of each public loss, with the defaults of its numbers."""
    random = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(random.standard_normal(shape, np.float32))
    options = {
        "elasticface": {"key": jax.random.key(0)},
        "dynamic_soft_margin": {"histogram": states.margins(16)},
    }
    calls = {}
    for name in losses.__all__:
        loss = getattr(losses, name)
        inputs = [normal(rows, dim), jnp.arange(rows) // 4]
        if _has_table(loss):
            centers = (_CENTERS[name],) if name in _CENTERS else ()
            inputs.append(normal(rows // 4, *centers, dim))
        calls[name] = Call(loss, tuple(inputs), options.get(name, {}))
    return calls


def _has_table(loss: Callable[..., Any]) -> bool:
    parameters = inspect.signature(loss).parameters.values()
    return sum(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters) == 3


def first_call(call: Call, effort: Effort) -> tuple[float, bool]:
    """Seconds until value and gradients of a fresh loss are there, and whether that was quiet.

    Compiling again takes as long, so a disturbed call is repeated while there is patience.
    """
    argnums = (0, 2)[: len(call.inputs) - 1]
    best = math.inf
    for _ in range(_TRIES):
        jax.clear_caches()
        step = jax.jit(jax.value_and_grad(lambda *xs: call.loss(*xs, **call.options), argnums))
        watch, began = Watch(), time.perf_counter()
        jax.block_until_ready(step(*call.inputs))
        seconds = time.perf_counter() - began
        if watch.quiet():
            return seconds, True
        best = min(best, seconds)
        effort.patience_in_all -= seconds
        if effort.patience_in_all <= 0:
            break
    return best, False
