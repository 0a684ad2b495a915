"""Which numbers to try next: Optuna, asked so that a killed search goes on as if nothing was."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.sweep_losses import Number

_RANDOM = 3  # trials before the search looks at what they gave; the first has the defaults


def propose(
    numbers: Mapping[str, Number], done: Sequence[tuple[Mapping[str, float], float]], seed: int
) -> dict[str, float]:
    """The numbers of the next trial: a pure function of the seed and the trials before.

    The first trial has the defaults. Each other one comes from a sampler of its own seed, which
    is shown all trials before it, so that it does not matter whether one process made them.

    The trials that are drawn blindly, the second and third, take the same random numbers for every
    loss, laid out in its own ranges: all have the same chances, but their luck is not independent,
    so that a draw that is good for several losses helps them together.

    Args:
      numbers: what is searched.
      done: (numbers, value) of the trials before, in their order; larger values are better.
      seed: of the search.

    Returns:
      A value for each number, of four digits, so that it can be given by hand.

    Example:
      >>> numbers = {"margin": Number(0.2, 0.0, 0.5)}
      >>> propose(numbers, [], seed=0)
      {'margin': 0.2}
    """
    if not done:
        return {name: number.default for name, number in numbers.items()}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces: dict[str, Any] = {
        name: optuna.distributions.FloatDistribution(number.low, number.high, log=number.logarithm)
        for name, number in numbers.items()
    }
    own = int(np.random.SeedSequence([seed, len(done)]).generate_state(1)[0])
    with warnings.catch_warnings():
        # That numbers are modelled together is what Optuna calls experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM, multivariate=True, seed=own)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for params, value in done:
        study.add_trial(
            optuna.trial.create_trial(params=dict(params), distributions=spaces, value=value)
        )
    found = study.ask(spaces).params
    return {
        name: min(max(float(f"{found[name]:.4g}"), number.low), number.high)
        for name, number in numbers.items()
    }


def best(done: Sequence[tuple[Mapping[str, float], float]]) -> int:
    """Which trial was best; the first of equal ones.

    Example:
      >>> best([({}, 0.1), ({}, 0.3), ({}, 0.3)])
      1
    """
    return max(range(len(done)), key=lambda i: done[i][1])
