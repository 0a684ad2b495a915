"""The house: arrows one way, light imports, documented names, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import jdml
from jdml import losses, objectives

ROOT = pathlib.Path(jdml.__file__).parent
FLOORS = {
    "_core": 0, "augment": 1, "samplers": 1, "distances": 1, "datasets": 2, "miners": 2,
    "states": 2, "encoders": 2, "regularizers": 2, "retrieval": 2, "losses": 3, "metrics": 3,
    "objectives": 4, "training": 5, "checkpoints": 6, "report": 6, "diagnostics": 2,
    "postprocess": 3,
}  # fmt: skip
LIGHT = [
    "distances", "miners", "regularizers", "states",
    *(f"miners.{m.name}" for m in pkgutil.iter_modules([str(ROOT / "miners")])),
    *(f"objectives.{m.name}" for m in pkgutil.iter_modules([str(ROOT / "objectives")])),
    *(f"losses.{m.name}" for m in pkgutil.iter_modules([str(ROOT / "losses")])),
]  # fmt: skip
GLOBALS = {"jax": jax, "jnp": jnp, "losses": losses}  # of the examples
SECTIONS = ("Args:", "Returns:", "Example:", "Reference:")


def _room(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_point_one_way(path: pathlib.Path):
    room = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "jdml" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        assert FLOORS[parts[1]] <= FLOORS.get(room, 9), f"{room} imports {name}"
        if room == parts[1] == "losses" and path.stem != "__init__":
            pytest.fail(f"one losses file imports another: {name}")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_have_no_bare_assert(path: pathlib.Path):
    text = path.read_text()
    assert text.count("\n") <= 400
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))


def test_importing_losses_is_light():
    heavy = "tensorflow_datasets tensorflow matplotlib orbax grain PIL rich flax optax sklearn"
    loaded = f"[m for m in {heavy.split()} if m in sys.modules]"
    code = f"import sys, jdml.losses, jdml.miners; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", LIGHT)
def test_examples_of_docstrings_run(name: str):
    module = importlib.import_module(f"jdml.{name}")
    room = vars(objectives) if name.startswith("objectives") else {}
    found = doctest.DocTestFinder().find(module, extraglobs=GLOBALS | room)
    runner = doctest.DocTestRunner(verbose=False)
    for test in found:
        runner.run(test)
    assert runner.failures == 0


def _public(module):
    for name, value in vars(module).items():
        home = inspect.getmodule(value)
        if not name.startswith("_") and callable(value) and home is module:
            yield name, value


@pytest.mark.parametrize("name", LIGHT)
def test_public_names_are_documented(name: str):
    module = importlib.import_module(f"jdml.{name}")
    for public, value in _public(module):
        doc = inspect.getdoc(value) or ""
        assert doc, f"{public} has no docstring"
        if name.startswith("losses."):
            missing = [section for section in SECTIONS if section not in doc]
            assert not missing, f"{public} lacks {missing}"
