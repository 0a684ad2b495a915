"""Labels beyond one class a row: several labels, the pairs themselves, degrees; for every loss."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LABELS, ONE_EACH, B, Case, rows
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdml import losses, miners

pytestmark = pytest.mark.usefixtures("quick_compile")
# Losses that need more than pairs: numbers as labels, or classes that can be averaged.
CASES = [c for c in ONE_EACH if not c.table and not c.continuous and not c.classes_only]
every = pytest.mark.parametrize("case", CASES, ids=str)
SAME = LABELS[:, None] == LABELS[None, :]
ONE_HOT = np.eye(LABELS.max() + 1, dtype=np.int32)[LABELS]
SETS = np.random.default_rng(8).integers(0, 5, (B, 6)) == 0  # rows with no, one or more labels
SHARED = (SETS[:, None, :] & SETS[None, :, :]).any(axis=-1)


@functools.cache
def compiled(name: str, block_size: int | None):
    case = next(case for case in CASES if case.name == name)

    @jax.jit
    def run(x, labels, where):
        loss = lambda x: case.loss(
            x, labels, **case.numbers, **case.fixed, where=where, block_size=block_size
        )
        return jax.value_and_grad(loss)(x)

    return run


def value_and_gradient(case: Case, labels, block_size=None):
    x, where = jnp.asarray(rows(0), jnp.float32), np.arange(B) != 3
    return compiled(case.name, block_size)(x, jnp.asarray(labels), where)


def check(got, expected) -> None:
    for a, b in zip(got, expected):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@every
def test_labels_pairs_and_degrees_say_the_same(case: Case):
    """Classes as one label a row, and as pairs; sharing a label, which is not transitive."""
    by_class = value_and_gradient(case, LABELS)
    check(value_and_gradient(case, ONE_HOT), by_class)
    check(value_and_gradient(case, SAME), by_class)
    assert not np.array_equal(SHARED, (SHARED.astype(int) @ SHARED) > 0)
    shared = value_and_gradient(case, SHARED)
    check(value_and_gradient(case, SETS.astype(np.int32)), shared)
    check(value_and_gradient(case, SHARED.astype(np.float32), block_size=4), shared)


def test_labels_are_shared_as_a_loop_says():
    x = rows(0)
    pull = push = 0.0
    for a in range(B):
        for r in range(B):
            distance = np.linalg.norm(x[a] - x[r])
            shared = any(SETS[a, label] and SETS[r, label] for label in range(SETS.shape[1]))
            if a != r and shared:
                pull += distance
            elif a != r:
                push += max(0.0, 1.5 - distance)
    value = losses.contrastive(x, SETS.astype(int), negative_margin=1.5, reduction="sum")
    np.testing.assert_allclose(value, pull + push, rtol=1e-5)


def test_a_degree_is_a_share_of_both_kinds():
    x, degrees = rows(0), np.random.default_rng(2).random((B, B)).astype(np.float32)
    terms = {"pull": [0.0, 0.0], "push": [0.0, 0.0]}
    for a in range(B):
        for r in range(B):
            if a == r:
                continue
            distance, s = np.linalg.norm(x[a] - x[r]), degrees[a, r]
            for name, value, weight in (
                ("pull", distance, s),
                ("push", max(0.0, 1.5 - distance), 1 - s),
            ):
                terms[name][0] += weight * value
                terms[name][1] += weight
    expected = sum(num / den for num, den in terms.values())
    value = losses.contrastive(x, degrees, negative_margin=1.5, reduction="mean")
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_label_sets_and_pairs_against_references():
    x, r = rows(0), rows(1, 9)
    sets = np.random.default_rng(9).integers(0, 3, (9, 6)) == 0
    shared = (SETS[:, None, :] & sets[None, :, :]).any(axis=-1)
    for loss in (losses.ntxent, losses.lifted_structure, losses.triplet):
        by_sets = loss(x, SETS.astype(int), refs=r, ref_labels=sets.astype(int))
        np.testing.assert_allclose(loss(x, shared, refs=r), by_sets, rtol=1e-6)


@pytest.mark.parametrize("kind", ["sets", "pairs"])
@pytest.mark.parametrize("loss", [losses.ntxent, losses.lifted_structure, losses.quadruplet])
def test_devices_change_nothing(loss, kind: str):
    x = jnp.asarray(rows(0, 16), jnp.float32)
    sets = np.random.default_rng(3).integers(0, 3, (16, 4)) == 0
    labels = sets.astype(np.int32)
    if kind == "pairs":
        labels = (sets[:, None, :] & sets[None, :, :]).any(axis=-1)

    def run(x, labels, axis_name=None):
        return jax.value_and_grad(lambda x: loss(x, labels, axis_name=axis_name))(x)

    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        functools.partial(run, axis_name="batch"),
        mesh=mesh,
        in_specs=(P("batch"), P("batch")),
        out_specs=(P(), P("batch")),
    )
    check(jax.jit(mapped)(x, labels), run(x, labels))


def test_a_row_with_a_negative_label_is_not_there():
    x, sets = rows(0), SETS.astype(np.int32)
    holed = sets.copy()
    holed[4] = -1
    kept = np.arange(B) != 4
    expected = losses.supcon(x[kept], sets[kept])
    np.testing.assert_allclose(losses.supcon(x, holed), expected, rtol=1e-6)


def test_miners_see_the_pairs():
    x = rows(0)
    for miner in (miners.BatchHard(), miners.SemiHard(), miners.MultiSimilarity(0.1)):
        by_class = losses.triplet(x, LABELS, miner=miner)
        np.testing.assert_allclose(losses.triplet(x, SAME, miner=miner), by_class, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "error", "text"),
    [
        (np.zeros(B), TypeError, "labels: got float32\\[13\\], expected class integers"),
        (np.zeros((B, 2, 2), int), ValueError, "labels: got int32\\[13, 2, 2\\], expected class"),
        (np.zeros((5, 2), int), ValueError, "labels: got int32\\[5, 2\\], expected 13 rows"),
        (np.zeros((B, 5), bool), ValueError, "expected 13 rows of 13 columns, one a reference"),
        (np.full((B, B), 1.5), ValueError, "from 1.5 to 1.5, expected degrees"),
        (np.full((B, 3), 7), ValueError, "with the value 7, expected 0 or 1 in each of 3 columns"),
    ],
)
def test_other_labels_are_refused(labels, error, text):
    with pytest.raises(error, match=text):
        losses.triplet(rows(0), labels)


def test_pairs_of_references_are_asked_for_where_a_loss_compares_them():
    x, r = rows(0), rows(1, 9)
    with pytest.raises(ValueError, match="this loss compares refs with each other too"):
        losses.quadruplet(x, np.ones((B, 9), bool), refs=r)
    with pytest.raises(ValueError, match="expected none, since labels is a matrix of the pairs"):
        losses.ntxent(x, np.ones((B, 9), bool), refs=r, ref_labels=np.zeros(9, int))
    with pytest.raises(
        ValueError, match="ref_labels: got int32\\[9, 3\\], expected int32\\[9, 6\\]"
    ):
        losses.ntxent(x, SETS.astype(int), refs=r, ref_labels=np.zeros((9, 3), int))
