"""One value and one gradient on one device, pmap, shard_map in both modes, and sharded jit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, ONE_EACH, Case, rows, table
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

N_DEVICES, PER_DEVICE, CLASSES = 8, 2, 8
LABELS = np.array([0, 1, 2, 0, 1, 3, 0, 4, 2, 1, 5, 0, 3, 6, 6, 7])
every = pytest.mark.parametrize("case", ONE_EACH, ids=str)
TABLE_CASES = [case for case in ONE_EACH if case.table]


def batch(case: Case):
    """(rows, labels, where, weights, parameters) of a batch that eight devices share."""
    x = jnp.asarray(rows(0, N_DEVICES * PER_DEVICE), jnp.float32)
    where = jnp.asarray(np.arange(len(LABELS)) % 7 != 3)
    weights = jnp.asarray(1.0 + np.arange(len(LABELS)) % 3, jnp.float32)
    parameters = {k: jnp.float32(v) for k, v in case.numbers.items()}
    if case.table:
        parameters["table"] = jnp.asarray(table(case, classes=CLASSES), jnp.float32)
    return x, jnp.asarray(LABELS), where, weights, parameters


def value(case: Case, x, y, where, weights, parameters, **options):
    """The loss, with everything that can be learned in one tree."""
    numbers = dict(parameters)
    owned = [numbers.pop("table")] if case.table else []
    return case.loss(x, y, *owned, **numbers, **case.fixed, where=where, weights=weights, **options)


def value_and_gradients(case: Case, **options):
    """(value, gradient by rows, gradient by parameters)."""

    def run(x, y, where, weights, parameters):
        loss = lambda x, parameters: value(case, x, y, where, weights, parameters, **options)
        return jax.value_and_grad(loss, (0, 1))(x, parameters)

    return run


def mapped(case: Case):
    """The same on a mapped axis. The loss is global: `pmean` what is replicated."""
    local = value_and_gradients(case, axis_name="batch")

    def run(x, y, where, weights, parameters):
        loss, (by_rows, by_parameters) = local(x, y, where, weights, parameters)
        return loss, (by_rows, jax.tree.map(lambda g: lax.pmean(g, "batch"), by_parameters))

    return run


def mesh():
    return jax.make_mesh((N_DEVICES,), ("batch",), axis_types=(AxisType.Auto,))


@functools.cache
def single(name: str):
    case = next(case for case in CASES if case.name == name)
    return jax.tree.map(np.asarray, jax.jit(value_and_gradients(case))(*batch(case)))


def check(case: Case, got) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(single(case.name))):
        np.testing.assert_allclose(np.asarray(a).reshape(b.shape), b, rtol=1e-4, atol=2e-6)


@every
def test_pmap_is_one_device(case: Case):
    x, *rest, parameters = batch(case)
    split = lambda v: v.reshape(N_DEVICES, PER_DEVICE, *v.shape[1:])
    step = jax.pmap(mapped(case), axis_name="batch", in_axes=(0, 0, 0, 0, None))
    loss, (by_rows, by_parameters) = step(split(x), *map(split, rest), parameters)
    assert len(set(np.asarray(loss).tolist())) == 1  # equal on all devices
    # Every device holds the gradient of the sum of eight equal losses by its own rows.
    by_parameters = jax.tree.map(lambda g: g[0], by_parameters)
    check(case, (loss[0], (by_rows / N_DEVICES, by_parameters)))


@every
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_is_one_device(case: Case, check_vma: bool):
    spec = P("batch")
    step = jax.shard_map(
        mapped(case),
        mesh=mesh(),
        in_specs=(spec, spec, spec, spec, P()),
        out_specs=(P(), (spec, P())),
        check_vma=check_vma,
    )
    loss, (by_rows, by_parameters) = jax.jit(step)(*batch(case))
    scale = 1 if check_vma else N_DEVICES
    check(case, (loss, (by_rows / scale, by_parameters)))


@every
def test_sharded_jit_is_one_device(case: Case):
    sharding = NamedSharding(mesh(), P("batch"))
    *arrays, parameters = batch(case)
    arrays = [jax.device_put(v, sharding) for v in arrays]
    check(case, jax.jit(value_and_gradients(case))(*arrays, parameters))


@pytest.mark.parametrize("case", TABLE_CASES, ids=str)
@pytest.mark.parametrize("check_vma", [True, False])
def test_sharded_classes_are_one_device(case: Case, check_vma: bool):
    """Rows over one axis, classes over the other."""
    both = jax.make_mesh((2, 4), ("batch", "model"), axis_types=(AxisType.Auto,) * 2)
    local = value_and_gradients(case, axis_name="batch", class_axis_name="model")

    def run(x, y, where, weights, parameters):
        loss, (by_rows, by_parameters) = local(x, y, where, weights, parameters)
        by_parameters = jax.tree.map(lambda g: lax.pmean(g, "batch"), by_parameters)
        if not check_vma:  # gradients of what the model axis shares are partial sums there
            by_rows = lax.psum(by_rows, "model")
            numbers = {k: lax.psum(g, "model") for k, g in by_parameters.items() if k != "table"}
            by_parameters = {**by_parameters, **numbers}
        return loss, (by_rows, by_parameters)

    spec = P("batch")
    parameters = {k: P("model") if k == "table" else P() for k in batch(case)[-1]}
    step = jax.shard_map(
        run,
        mesh=both,
        in_specs=(spec, spec, spec, spec, parameters),
        out_specs=(P(), (spec, parameters)),
        check_vma=check_vma,
    )
    loss, (by_rows, by_parameters) = jax.jit(step)(*batch(case))
    if not check_vma:  # the loss is counted once a device of each axis
        by_rows = by_rows / 8
        by_parameters = {k: g / 4 for k, g in by_parameters.items()}
    check(case, (loss, (by_rows, by_parameters)))


def test_one_device_is_no_device():
    """E8: a mapped axis of size one gives what no axis gives."""
    case = CASES[0]
    step = jax.pmap(
        mapped(case), axis_name="batch", in_axes=(0, 0, 0, 0, None), devices=jax.devices()[:1]
    )
    *arrays, parameters = batch(case)
    loss, (by_rows, by_parameters) = step(*(v[None] for v in arrays), parameters)
    check(case, (loss[0], (by_rows[0], jax.tree.map(lambda g: g[0], by_parameters))))
