"""The machine under the benchmark: what it is, its matrix products, its resident memory."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.bench_clock import Effort, Timed, Times, alternate, cores

_PACKAGES = ("jax", "jaxlib", "numpy", "torch", "pytorch-metric-learning", "faiss-cpu")
# (m, k, n, tiles) of products x [m, k] by tiles [k, n]: squares, and the tiles of a pair loss.
_PRODUCTS = ((512, 512, 512, 1), (1024, 1024, 1024, 1), (2048, 2048, 2048, 1))
_TILES = ((256, 128, 1024, 32), (512, 128, 1024, 16), (256, 512, 1024, 16))


def describe() -> dict[str, Any]:
    """Processor, memory, system and versions."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": round(_memory("MemTotal") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "backend": jax.default_backend(),
        "python": platform.python_version(),
        "packages": versions,
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    names = re.findall(r"^model name\s*:\s*(.+)$", text, re.M) or [platform.processor()]
    wide = ", AVX-512" if " avx512f" in text else ""
    return (names[0] or platform.machine()) + wide


def _memory(name: str) -> int:
    """Bytes of a line of /proc/meminfo; of all memory where there is no such file."""
    info = pathlib.Path("/proc/meminfo")
    if info.exists() and (found := re.search(rf"^{name}:\s+(\d+) kB", info.read_text(), re.M)):
        return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    return _memory("MemAvailable")


class ResidentPeak:
    """By how many bytes this process grew at most inside the `with`; None where nobody can tell."""

    grown: int | None = None

    def __enter__(self) -> ResidentPeak:
        self._start = None
        try:
            pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            self._start = _status("VmRSS")
        except OSError:
            pass
        return self

    def __exit__(self, *_: object) -> None:
        if self._start is not None and (peak := _status("VmHWM")) is not None:
            self.grown = max(0, peak - self._start)


def _status(name: str) -> int | None:
    text = pathlib.Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024 if found else None


# ---------------------------------------------------------------- matrix products


def product_rates(effort: Effort) -> dict[str, float]:
    """Floating-point operations a second of float32 products of several shapes.

    The best of them is the rate that other work is held against. Plain squares, and tiles added
    up one after the other, which stay in a core's cache as the blocks of a loss do: a product
    with a wide output is slowed down by memory and would be too low a mark.
    """
    calls, works = {}, {}
    for m, k, n, tiles in _PRODUCTS + _TILES:
        name = f"{m} x {k} x {n}" + (f", {tiles} tiles" if tiles > 1 else "")
        calls[name], works[name] = _product(m, k, n, tiles), 2.0 * m * k * n * tiles
    times = alternate({name: Timed(call) for name, call in calls.items()}, effort)
    return {name: works[name] / _best(times[name]) for name in calls}


def _best(times: Times) -> float:
    """The fastest sample: a peak is what the machine can do."""
    return min(times.samples)


def _product(m: int, k: int, n: int, tiles: int) -> Any:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((m, k), np.float32))
    ys = jnp.asarray(random.standard_normal((tiles, k, n), np.float32))

    @jax.jit
    def run(x: jax.Array, ys: jax.Array) -> jax.Array:
        times = lambda y: jnp.matmul(x, y, precision=lax.Precision.HIGHEST)
        if tiles == 1:
            return times(ys[0])
        start = jnp.zeros((m, n), jnp.float32)
        return lax.scan(lambda total, y: (total + times(y), None), start, ys)[0]

    jax.block_until_ready(run(x, ys))
    return lambda: jax.block_until_ready(run(x, ys))


# ---------------------------------------------------------------- imports


def import_seconds(repeats: int = 3) -> tuple[float, float]:
    """Seconds of importing jax, and what `jdml.losses` adds to it, each the best of a few."""
    code = (
        "import time; a = time.perf_counter(); import jax, jax.numpy; b = time.perf_counter(); "
        "import jdml.losses; print(b - a, time.perf_counter() - b)"
    )
    found = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        found.append([float(word) for word in done.stdout.split()])
    return min(pair[0] for pair in found), min(pair[1] for pair in found)
