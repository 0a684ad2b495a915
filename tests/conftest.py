"""A strict house: eight virtual devices, no silent promotion, warnings are errors."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def quick_compile():
    """Compiles fast instead of well: for laws on values, where compile time is all there is."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items):
    """One worker a case, or else a file: what is compiled for one test serves the next."""
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        group = getattr(case, "name", None) or item.path.name
        item.add_marker(pytest.mark.xdist_group(f"{group}-{item.path.name}"))
