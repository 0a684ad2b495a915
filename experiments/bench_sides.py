"""The sides of a comparison: jdml as it chooses blocks itself, jdml without blocks, and the peers.

All sides get the same data and the same number of threads. A peer that is not installed, and what
cannot run (a lack of memory), is no side; a note says so.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench_clock import Watch, cores
from experiments.bench_machine import ResidentPeak, available_bytes
from experiments.bench_table import Peer, Row, Size

OURS, DENSE, PEER, FAISS = "jdml", "jdml without blocks", "pytorch-metric-learning", "faiss"
# What has to be there for a peer, and what to install.
_MODULES = {"torch": "torch", "pytorch_metric_learning": PEER, "faiss": "faiss-cpu"}


class Data(NamedTuple):
    """The input of a row."""

    rows: np.ndarray  # [B, D] of length 1, in loose clusters
    labels: np.ndarray  # [B]
    table: np.ndarray | None  # [C, D]


class Memory(NamedTuple):
    """Bytes of a compiled program."""

    temporaries: int
    everything: int  # with arguments and outputs


class Side(NamedTuple):
    """Something that can be timed."""

    call: Callable[[], Any]  # returns when the work is done
    value: float  # the loss, or MAP@R
    once: float = 0.0  # seconds of the call that gave the value
    compile: float = 0.0  # seconds of tracing and compiling
    compile_quiet: bool = True  # whether other processes used little CPU meanwhile
    resident: int | None = None  # bytes by which the process grew at most in the first call
    memory: Memory | None = None


def missing() -> list[str]:
    """Names of packages that peers need and that are not installed."""
    return [package for module, package in _MODULES.items() if load(module) is None]


def load(name: str) -> Any | None:
    """A module that may not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def make_data(row: Row, size: Size, seed: int = 0) -> Data:
    """Rows around the centers of their classes; a table of random directions."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((size.rows, size.dim), np.float32)
    if row.kind == "table":
        table = random.standard_normal((size.classes, size.dim), np.float32)
        labels = random.integers(0, size.classes, size.rows)
        return Data(_unit(noise), labels, table)
    labels = np.arange(size.rows) // size.per_class
    centers = random.standard_normal((int(labels.max()) + 1, size.dim), np.float32)
    return Data(_unit(noise + np.float32(0.6) * centers[labels]), labels, None)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ---------------------------------------------------------------- ours


class Program(NamedTuple):
    """A loss with its gradients, ready to compile."""

    lowered: Any
    inputs: tuple[Any, ...]
    seconds: float  # of tracing

    def compile(self) -> tuple[Any, Memory | None, float]:
        """What runs, what memory it takes, and the seconds of compiling."""
        began = time.perf_counter()
        compiled = self.lowered.compile()
        seconds = time.perf_counter() - began
        sizes = compiled.memory_analysis()
        if sizes is None:
            return compiled, None, seconds
        fixed = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
        temporaries = sizes.temp_size_in_bytes
        return compiled, Memory(temporaries, fixed + temporaries), seconds


def program(row: Row, data: Data, block_size: int | None) -> Program:
    """Traces a loss of a row; every gradient that a training step needs is asked for."""
    arrays = [data.rows] if data.table is None else [data.rows, data.table]

    def value(rows: jax.Array, labels: jax.Array, *table: jax.Array) -> jax.Array:
        return row.loss(rows, labels, *table, block_size=block_size, **row.options)

    step = jax.jit(jax.value_and_grad(value, argnums=(0, 2)[: len(arrays)]))
    first, *rest = map(jnp.asarray, arrays)
    inputs = (first, jnp.asarray(data.labels.astype(np.int32)), *rest)
    began = time.perf_counter()
    lowered = step.lower(*inputs)
    return Program(lowered, inputs, time.perf_counter() - began)


def run_first(program: Program, memory: Memory | None, compiled: Any) -> Side:
    """The first call of a compiled program, which makes it a side."""
    began = time.perf_counter()
    with ResidentPeak() as peak:
        value, _ = jax.block_until_ready(compiled(*program.inputs))
    once = time.perf_counter() - began
    call = lambda: jax.block_until_ready(compiled(*program.inputs))
    return Side(call, float(value), once, resident=peak.grown, memory=memory)


def ours(row: Row, size: Size, data: Data) -> tuple[dict[str, Side], Memory | None, list[str]]:
    """Our sides of a loss, the memory of the one without blocks, and notes.

    What was compiled before is forgotten, so that the first call is one.
    """
    jax.clear_caches()
    watch = Watch()
    own = program(row, data, None)
    compiled, memory, seconds = own.compile()
    quiet = watch.quiet()
    if memory is not None and memory.everything > available_bytes():
        return {}, None, [f"needs {memory.everything / 2**30:.1f} GiB, which is not there"]
    side = run_first(own, memory, compiled)
    sides = {OURS: side._replace(compile=own.seconds + seconds, compile_quiet=quiet)}
    whole = program(row, data, size.classes or size.rows)
    if whole.lowered.as_text() == own.lowered.as_text():
        return sides, memory, []
    compiled, memory, _ = whole.compile()
    if memory is not None and memory.everything > available_bytes() / 2:
        return sides, memory, [f"without blocks it needs {memory.everything / 2**30:.1f} GiB"]
    sides[DENSE] = run_first(whole, memory, compiled)
    return sides, memory, []


def our_retrieval(row: Row, size: Size, data: Data) -> Side:
    """Metrics, or nearest neighbours, of rows among themselves."""
    if row.kind == "retrieval":
        call = functools.partial(row.loss, data.rows, data.labels, **row.options)
    else:
        call = functools.partial(row.loss, data.rows, k=size.per_class - 1, **row.options)
    jax.clear_caches()
    watch, began = Watch(), time.perf_counter()
    with ResidentPeak() as peak:
        call()
    first, quiet = time.perf_counter() - began, watch.quiet()
    again = _side(call, _our_score)
    return again._replace(
        compile=max(0.0, first - again.once), compile_quiet=quiet, resident=peak.grown
    )


def _our_score(found: Any) -> float:
    """MAP@R, or the mean distance of the neighbours found."""
    return found["map_at_r"] if isinstance(found, dict) else float(found.distances.mean())


# ---------------------------------------------------------------- peers


def peers(row: Row, size: Size, data: Data) -> tuple[dict[str, Side], list[str]]:
    """The sides of other libraries that are installed, and notes on those that failed."""
    wanted: dict[str, Callable[[], Side]] = {}
    if data.table is not None and 5 * data.table.nbytes > available_bytes():
        return {}, [f"{PEER} needs about {5 * data.table.nbytes / 2**30:.0f} GiB"]
    torch, faiss = load("torch"), load("faiss")
    if row.peer is not None and size.peer and torch is not None and load(_MODULE) is not None:
        build = _peer_retrieval if row.kind == "retrieval" else _peer_loss
        if row.kind != "retrieval" or faiss is not None:
            wanted[PEER] = functools.partial(build, torch, row.peer, data)
    if row.kind in ("retrieval", "neighbours") and faiss is not None and size.peer:
        wanted[FAISS] = functools.partial(_faiss_search, faiss, size, data)
    sides, notes = {}, []
    for name, build in wanted.items():
        try:
            sides[name] = build()
        except (RuntimeError, MemoryError) as error:  # torch has no class of its own for memory
            notes.append(f"{name} failed: {str(error).splitlines()[0][:120]}")
    return sides, notes


_MODULE = "pytorch_metric_learning"


def _peer_loss(torch: Any, peer: Peer, data: Data) -> Side:
    """A loss of pytorch-metric-learning, forward and backward."""
    torch.set_num_threads(cores())
    options = dict(peer.options)
    if data.table is not None:
        options |= {"num_classes": data.table.shape[0], "embedding_size": data.table.shape[1]}
    loss = getattr(importlib.import_module(f"{_MODULE}.losses"), peer.loss)(**options)
    miner = None
    if peer.miner:
        miners = importlib.import_module(f"{_MODULE}.miners")
        miner = getattr(miners, peer.miner)(**peer.miner_options)
    if data.table is not None:
        _set_table(torch, loss, data.table)
    rows = torch.tensor(data.rows, requires_grad=True)
    labels = torch.tensor(data.labels)

    def call() -> Any:
        rows.grad = None
        loss.zero_grad(set_to_none=True)
        mined = () if miner is None else (miner(rows.detach(), labels),)
        value = loss(rows, labels, *mined)
        value.backward()
        return value

    return _side(call, lambda value: float(value.detach()))


def _side(call: Callable[[], Any], value: Callable[[Any], float]) -> Side:
    """A side whose first call is made here."""
    began = time.perf_counter()
    found = call()
    return Side(call, value(found), time.perf_counter() - began)


def _set_table(torch: Any, loss: Any, table: np.ndarray) -> None:
    """Our class table in the place of theirs, which is [D, C] by the name of W."""
    for name, parameter in loss.named_parameters():
        given = table.T if name == "W" else table
        if tuple(parameter.shape) == given.shape:
            parameter.data = torch.tensor(np.ascontiguousarray(given))


def _peer_retrieval(torch: Any, peer: Peer, data: Data) -> Side:
    """Its accuracy calculator, asked for the metrics of ours."""
    torch.set_num_threads(cores())
    module = importlib.import_module(f"{_MODULE}.utils.accuracy_calculator")
    include = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = getattr(module, peer.loss)(include=include, k="max_bin_count", **peer.options)
    rows, labels = torch.tensor(data.rows), torch.tensor(data.labels)
    call = lambda: calculator.get_accuracy(rows, labels)
    return _side(call, lambda found: float(found["mean_average_precision_at_r"]))


def _faiss_search(faiss: Any, size: Size, data: Data) -> Side:
    """An exact search for as many neighbours as the metrics read, and each query itself."""
    faiss.omp_set_num_threads(cores())
    index = faiss.IndexFlatIP(size.dim)
    index.add(data.rows)
    call = lambda: index.search(data.rows, size.per_class)
    return _side(call, lambda found: float(1.0 - found[0][:, 1:].mean()))
