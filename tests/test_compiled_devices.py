"""What devices send each other, read off the compiled programs."""

from __future__ import annotations

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ONE_EACH, Case, table
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_devices import LABELS, batch, mesh, value_and_gradients

from jdml import losses, objectives

pytestmark = pytest.mark.usefixtures("quick_compile")

D, CLASSES, SHARDS = 5, 96, 4  # the table is far larger than the embeddings of 16 rows
ROWS = len(LABELS)
PAIRS = (
    "contrastive", "triplet", "lifted_structure", "quadruplet", "n_pair", "ntxent", "circle",
    "smooth_ap", "histogram", "angular", "triplet_swap", "clip",
)  # fmt: skip
BY_BLOCKS = ("contrastive", "triplet", "lifted_structure", "cosface")  # of each engine and path
_RESULT = re.compile(
    r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def chosen(keep) -> list[tuple[Case, bool]]:
    """Cases, and some once more by blocks."""
    cases = [case for case in ONE_EACH if keep(case)]
    return [(case, False) for case in cases] + [(c, True) for c in cases if c.name in BY_BLOCKS]


def sent(compiled) -> dict[str, int]:
    """The most numbers that one operation of each kind delivers to a device."""
    largest: dict[str, int] = {}
    for line in compiled.as_text().splitlines():
        if found := _RESULT.search(line):
            shapes = re.findall(r"\w+\[([\d,]*)\]", found[1])
            sizes = [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]
            largest[found[2]] = max([largest.get(found[2], 0), *sizes])
    return largest


def test_the_reader_sees_what_is_sent():
    """A product of two matrices split by rows needs all of one of them."""
    rows = jax.device_put(np.ones((16, 7), np.float32), NamedSharding(mesh(), P("batch")))
    assert sent(jax.jit(lambda x: x @ x.T).lower(rows).compile())["all-gather"] == 16 * 7


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize(("case", "blocks"), chosen(lambda case: case.name in PAIRS), ids=str)
def test_a_pair_loss_gathers_nothing_larger_than_the_embeddings(case: Case, blocks: bool):
    local = value_and_gradients(case, axis_name="batch", block_size=1 if blocks else None)

    def run(*args):
        loss, (by_rows, by_parameters) = local(*args)
        return loss, (by_rows, jax.tree.map(lambda g: lax.pmean(g, "batch"), by_parameters))

    spec = P("batch")
    step = jax.shard_map(
        run, mesh=mesh(), in_specs=(*[spec] * 4, P()), out_specs=(P(), (spec, P()))
    )
    largest = sent(jax.jit(step).lower(*batch(case)).compile())
    assert largest.pop("all-gather") == ROWS * D
    assert max(largest.values()) <= ROWS * D


@pytest.mark.parametrize("name", BY_BLOCKS[:3])
def test_under_jit_a_pair_loss_gathers_nothing_larger_than_the_embeddings(name: str):
    case = next(case for case in ONE_EACH if case.name == name)
    sharding = NamedSharding(mesh(), P("batch"))
    *arrays, parameters = batch(case)
    arrays = [jax.device_put(v, sharding) for v in arrays]
    step = jax.jit(value_and_gradients(case))
    assert sent(step.lower(*arrays, parameters).compile())["all-gather"] <= ROWS * D


# ---------------------------------------------------------------- tables


def is_head(case: Case) -> bool:
    """Every loss with a table but the one over similarities between all of its rows."""
    return bool(case.table) and case.name != "manifold"


def by_class(step, params, *rest):
    """The compiled gradient of step(params, rows, labels, ...), with tables split by classes."""
    both = jax.make_mesh((2, SHARDS), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    of_params = {k: P("model") if k in ("table", "proxies") else P() for k in params}

    def run(params, *rest):
        loss, (by_params, by_rows) = jax.value_and_grad(step, (0, 1))(params, *rest)
        return loss, jax.tree.map(lambda g: lax.pmean(g, "batch"), by_params), by_rows

    mapped = jax.shard_map(
        run,
        mesh=both,
        in_specs=(of_params, *[P("batch")] * len(rest)),
        out_specs=(P(), of_params, P("batch")),
    )
    return jax.jit(mapped).lower(params, *rest).compile()


@pytest.mark.parametrize(("case", "blocks"), chosen(is_head), ids=str)
def test_a_sharded_head_never_gathers_its_table(case: Case, blocks: bool):
    """Nor is any of it sent beyond the gradient of a shard, added up over the batch axis."""
    x, y, where, weights, params = batch(case)
    params = {**params, "table": jnp.asarray(table(case, classes=CLASSES), jnp.float32)}
    axes = {"axis_name": "batch", "class_axis_name": "model", "block_size": 7 if blocks else None}

    def step(params, x, y, where, weights):
        numbers = {**params, **case.fixed, "where": where, "weights": weights, **axes}
        return case.loss(x, y, numbers.pop("table"), **numbers)

    largest = sent(by_class(step, params, x, y, where, weights))
    assert largest.pop("all-gather", 0) <= ROWS * D
    assert max(largest.values()) <= params["table"].size // SHARDS


def test_a_sampled_sharded_head_sends_no_table_either():
    objective = objectives.sampled(objectives.table(losses.arcface, CLASSES), 32, groups=SHARDS)
    params, state = objective.init(jax.random.key(0), D)

    def step(params, x, y):
        axes = {"axis_name": "batch", "class_axis_name": "model"}
        return objective.loss(params, state, x, {"labels": y}, **axes)

    rows = jnp.ones((ROWS, D))
    largest = sent(by_class(step, params, rows, jnp.asarray(LABELS)))
    assert largest.pop("all-gather") == ROWS  # the labels
    assert max(largest.values()) <= CLASSES * D // SHARDS


def test_under_jit_a_sampled_head_sends_at_most_the_sample():
    """Groups of classes that stay where they are: each shard looks up its own."""
    objective = objectives.sampled(objectives.table(losses.arcface, CLASSES), 32, groups=SHARDS)
    params, state = objective.init(jax.random.key(0), D)
    both = jax.make_mesh((2, SHARDS), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    put = lambda x, axis: jax.device_put(x, NamedSharding(both, P(axis)))
    step = jax.value_and_grad(
        lambda params, x, y: objective.loss(params, state, x, {"labels": y}), (0, 1)
    )
    arrays = put(params["proxies"], "model"), put(jnp.ones((ROWS, D)), "batch")
    labels = put(jnp.asarray(LABELS), "batch")
    largest = sent(jax.jit(step).lower({"proxies": arrays[0]}, arrays[1], labels).compile())
    assert largest.get("all-gather", 0) <= 32 * D
