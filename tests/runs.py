"""One compilation a case serves many laws: every law that can goes through these functions."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import CASES, LABELS, REDUCTIONS, B, Case, rows, table


class Run(NamedTuple):
    """What a loss gives on one input."""

    values: dict[str, Any]  # by reduction
    gradient: Any  # of the default reduction, by the rows
    table_gradient: Any  # by the table, None for pair losses
    number_gradients: dict[str, Any]


@functools.cache
def _compiled(name: str, block_size: int | None, traces: list | None = None):
    case = next(case for case in CASES if case.name == name)
    choices = {**case.fixed, "block_size": block_size}

    def value(x, owned, numbers, y, where, weights, refs, reduction):
        options = {**numbers, **choices, "where": where, "weights": weights}
        if refs is not None:
            options |= {"refs": refs[0], "ref_labels": refs[1], "ref_where": refs[2]}
        if reduction is not None:
            options["reduction"] = reduction
        args = (x, y) if owned is None else (x, y, owned)
        return case.loss(*args, **options)

    @jax.jit
    def run(x, owned, numbers, y, where, weights, refs):
        rest = (y, where, weights, refs)
        wanted = REDUCTIONS if block_size is None else ("mean_active", "none")
        values = {r: value(x, owned, numbers, *rest, r) for r in wanted}
        wanted = (0, 2) if owned is None else (0, 1, 2)
        gradients = jax.grad(value, wanted)(x, owned, numbers, *rest, None)
        return values, gradients

    return run


def run(
    case: Case,
    x: Any,
    y: Any = LABELS,
    *,
    owned: Any = None,
    where: Any = None,
    weights: Any = None,
    refs: Any = None,
    block_size: int | None = None,
    numbers: dict[str, float] | None = None,
    dtype: Any = None,
) -> Run:
    """The loss of a case on x, under every reduction, with its gradients."""
    dtype = dtype or (jnp.float64 if jax.config.read("jax_enable_x64") else jnp.float32)
    lift = lambda v: None if v is None else jnp.asarray(v, dtype)
    real = jnp.float64 if dtype == jnp.float64 else jnp.float32
    owned = lift(table(case) if owned is None else owned)
    where = jnp.ones(len(y), bool) if where is None else jnp.asarray(where)
    weights = jnp.ones(len(y), real) if weights is None else jnp.asarray(weights, real)
    if refs is not None:
        refs = (lift(refs[0]), jnp.asarray(refs[1]), jnp.asarray(refs[2]))
    numbers = {k: jnp.asarray(v, real) for k, v in (numbers or case.numbers).items()}
    compiled = _compiled(case.name, block_size)
    values, gradients = compiled(lift(x), owned, numbers, jnp.asarray(y), where, weights, refs)
    if owned is None:
        return Run(values, gradients[0], None, gradients[1])
    return Run(values, *gradients)


def tolerance() -> dict[str, float]:
    """For values against float64 references."""
    exact = jax.config.read("jax_enable_x64")
    return {"rtol": 1e-9, "atol": 1e-11} if exact else {"rtol": 2e-5, "atol": 2e-6}


def check_values(case: Case, got: Run, *, owned: Any = None, **inputs: Any) -> None:
    """Every reduction equals the reference's."""
    owned = table(case) if owned is None else owned
    for reduction, value in got.values.items():
        expected = case.expected(reduction, table=owned, **inputs)
        np.testing.assert_allclose(value, expected, err_msg=f"{case} {reduction}", **tolerance())


def masks(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Existence and integer importance of the rows of a batch."""
    rng = np.random.default_rng(seed)
    where = np.ones(B, bool)
    where[[3, 8]] = False
    return where, rng.integers(1, 4, B).astype(float)


__all__ = ["LABELS", "B", "Run", "check_values", "masks", "rows", "run", "table", "tolerance"]
