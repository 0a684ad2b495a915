"""Examples in the docstrings of training, encoders, data and reports run as written."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import augment, datasets, encoders, report, samplers, training

GLOBALS = {"jax": jax, "jnp": jnp, "np": np}
ROOMS = (augment, datasets, encoders, report, samplers, training)
MODULES = [
    "jdml",
    "jdml.checkpoints",
    "jdml.diagnostics",
    *(room.__name__ for room in ROOMS),
    *(
        f"{room.__name__}.{module.name}"
        for room in ROOMS
        for module in pkgutil.iter_modules(list(room.__path__))
    ),
]
WITH_EXAMPLES = {
    *(f"jdml.encoders.{name}" for name in ("adapters", "cached", "encoder")),
    *("jdml.diagnostics", "jdml.report.html", "jdml.report.measure", "jdml.report.pictures"),
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    found = doctest.testmod(importlib.import_module(name), extraglobs=GLOBALS)
    assert found.failed == 0
    assert found.attempted or name not in WITH_EXAMPLES
