"""A strict house: eight virtual devices, no silent promotion, warnings are errors."""

import importlib.metadata
import os
import re

os.environ["JAX_PLATFORMS"] = "cpu"
# Most of a test's time is compiling: one module in one piece, by the older and quicker emitters
# where jaxlib still has them. It dies of a flag that it does not know.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + (
    "--xla_cpu_parallel_codegen_split_count=1 --xla_cpu_use_fusion_emitters=false"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else "--xla_cpu_parallel_codegen_split_count=1"
)

import jax
import pytest
from cases import CASES

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

CASE_NAMES = {case.name for case in CASES}


@pytest.fixture(scope="module")
def quick_compile():
    """Compiles fast instead of well: for laws on values, where compile time is all there is."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def group_of(nodeid: str) -> str:
    """The case that a test is about, or else its file: what is compiled for one serves the next."""
    path, *_ = nodeid.split("::")
    found = CASE_NAMES.intersection(re.split(r"[\[\]-]", nodeid))
    return f"{path} {found.pop()}" if found else path


def pytest_xdist_make_scheduler(config, log):
    """One worker a group."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByGroup(config, log)


GROUPS_DONE = 0


def pytest_runtest_teardown(item, nextitem):
    """Drops what is compiled now and then between groups: a worker would hold gigabytes."""
    global GROUPS_DONE
    if nextitem is None or group_of(item.nodeid) != group_of(nextitem.nodeid):
        GROUPS_DONE += 1
        if GROUPS_DONE % 10 == 0:
            jax.clear_caches()
