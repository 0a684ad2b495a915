"""The rooms of evaluation: examples that run, documented names, light imports."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

from jdml import metrics, postprocess, retrieval

ROOMS = (metrics, postprocess, retrieval)
MODULES = [
    f"{room.__name__}.{module.name}"
    for room in ROOMS
    for module in pkgutil.iter_modules(list(room.__path__))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name: str):
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.failed == 0


def test_public_names_are_documented():
    for room in ROOMS:
        for name in room.__all__:
            value = getattr(room, name)
            if not inspect.isfunction(value):
                continue
            doc = inspect.getdoc(value) or ""
            for section in ("Args:", "Returns:"):
                assert section in doc, f"{name} lacks {section}"
            assert "Example:" in doc or name == "faiss_index", f"{name} lacks an example"


def test_importing_evaluation_is_light():
    code = (
        "import sys, jdml.metrics, jdml.postprocess; "
        "print([m for m in ('sklearn', 'faiss', 'matplotlib', 'flax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
