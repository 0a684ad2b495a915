"""A strict house: eight virtual devices, no silent promotion, warnings are errors."""

import os
import re

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


def pytest_xdist_make_scheduler(config, log):
    """One worker a case, or else a file: what is compiled for one test serves the next."""
    from cases import CASES
    from xdist.scheduler import LoadScopeScheduling

    names = {case.name for case in CASES}

    class ByCase(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, *_ = nodeid.split("::")
            found = names.intersection(re.split(r"[\[\]-]", nodeid))
            return f"{path} {found.pop()}" if found else path

    return ByCase(config, log)
