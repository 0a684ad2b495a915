"""Values and gradients of the library equal the golden ones, in float64, at their tolerances.

Cases are padded to one shape with rows that do not exist, so that a golden costs one or two
compilations; the largest case runs as it is. `JDML_GOLDENS` names another folder of goldens.
"""

from __future__ import annotations

import sys
from functools import cache

import golden_data
import golden_map
import golden_memory
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_pairs import QUICK, but_for_ties, kept, measured

from jdml import losses, regularizers

# Cases of each golden that passed, by this worker: one worker a file.
PASSED = {kind: {} for kind in ("losses", "miners", "distances", "regularizers", "memory")}
SECTIONS = {kind: golden_data.entries(kind) for kind in PASSED if kind != "memory"}
SECTIONS["memory"] = golden_data.entries("cross_batch_memory")
REGULARIZERS = {
    "LpRegularizer": regularizers.norm,
    "CenterInvariantRegularizer": regularizers.center_invariant,
    "RegularFaceRegularizer": regularizers.regular_face,
    "ZeroMeanRegularizer": regularizers.zero_mean,
    "SparseCentersRegularizer": regularizers.sparse_centers,
}


def each(names):
    """Ids unlike those of the table of cases, by which tests are spread over workers."""
    return pytest.mark.parametrize("name", names, ids="golden {}".format)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@cache
def compiled(loss, choices, rows):
    """Value and gradient of a call by (embeddings, refs, table); cached by its static parts."""

    def value(arrays, labels, numbers, features):
        embeddings, refs, table = arrays
        options = {**dict(choices), **numbers}
        ready = lambda x: x if rows is None else rows(x, features)
        if refs is not None:
            options |= {"refs": ready(refs), "ref_labels": labels["refs"]}
        if table is None:
            return loss(ready(embeddings), labels["embeddings"], **options)
        return loss(
            ready(embeddings), labels["embeddings"], table, proxy_labels=labels["table"], **options
        )

    return jax.jit(jax.value_and_grad(value), compiler_options=QUICK)


def as_arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


@each(golden_map.LOSSES)
def test_a_loss_equals_its_golden(name):
    call, entry = golden_map.LOSSES[name], golden_data.entries("losses")[name]
    run = compiled(call.loss, tuple(sorted(call.choices.items())), call.rows)
    symmetric = entry.get("extra", {}).get("symmetric", True)
    for case, golden in entry["cases"].items():
        batch = golden_data.padded(case, call.table, entry.get("call", ""), symmetric)
        labels = {
            "embeddings": batch.labels, "refs": batch.ref_labels, "table": batch.table_labels
        }  # fmt: skip
        arrays = as_arrays((batch.embeddings, batch.refs, batch.table))
        value, gradients = run(
            arrays, as_arrays(labels), as_arrays(call.numbers(batch)), jnp.asarray(batch.features)
        )
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, golden["value"], rtol=entry["rtol"], err_msg=case)
        check_gradients(gradients, golden, batch, entry, case)
    PASSED["losses"][name] = len(entry["cases"])


def check_gradients(gradients, golden, batch, entry, case):
    """Each gradient against the golden of its input; nothing flows to the padding."""
    by_rows, by_refs, by_table = (None if g is None else np.asarray(g) for g in gradients)
    if entry.get("call") == "selfsup" and by_refs is None:  # both views are anchors
        n = len(batch.data["embeddings"])
        by_refs, by_rows = by_rows[n : 2 * n], by_rows[:n]
    for key, found in (("grad_emb", by_rows), ("grad_ref", by_refs), ("grad_weights", by_table)):
        if key != "grad_emb" and golden.get(key) is None:
            continue
        expected = golden_data.array(golden[key])
        width = [(0, a - b) for a, b in zip(found.shape, expected.shape)]
        expected = np.pad(expected, width)
        scale = np.abs(expected).max()
        rtol = entry["rtol"]
        np.testing.assert_allclose(
            found, expected, rtol=rtol, atol=rtol * scale, err_msg=f"{case} {key}"
        )


@each(golden_map.MINERS)
def test_a_miner_keeps_what_its_golden_keeps(name):
    (miner, distance, rows), entry = golden_map.MINERS[name], golden_data.entries("miners")[name]
    for case, golden in entry["cases"].items():
        batch = golden_data.padded(case)
        matrix, between = (measured(distance, rows, batch, between=b) for b in (False, True))
        mined = kept(miner, matrix, batch, between)
        if "triplets" in golden:
            assert mined.triplets == as_tuples(golden["triplets"]), case
        else:
            sides = (as_tuples(golden[key]) for key in ("pos_pairs", "neg_pairs"))
            for found, expected, farthest in zip(mined, sides, (True, False)):
                if entry["miner"] == "HDCMiner":
                    found = but_for_ties(found, expected, matrix, farthest)
                assert found == expected, case
    PASSED["miners"][name] = len(entry["cases"])


def as_tuples(key):
    return [tuple(row) for row in golden_data.array(key).tolist()]


@each(golden_map.DISTANCES)
def test_a_distance_equals_its_golden(name):
    entry = golden_data.entries("distances")[name]
    for case, golden in entry["cases"].items():
        expected = golden_data.array(golden["matrix"])
        found = measured(*golden_map.DISTANCES[name], golden_data.padded(case))
        matrix = np.asarray(found)[: expected.shape[0], : expected.shape[1]]
        kind = entry["distance"]["type"]  # a similarity of the package is a distance here
        theirs = {"CosineSimilarity": 1 - matrix, "DotProductSimilarity": -matrix}
        np.testing.assert_allclose(theirs.get(kind, matrix), expected, atol=1e-6, err_msg=case)
    PASSED["distances"][name] = len(entry["cases"])


@each(SECTIONS["regularizers"])
def test_a_regularizer_equals_its_golden(name):
    entry = SECTIONS["regularizers"][name]
    ours, choices = REGULARIZERS[entry["regularizer"]], entry["options"]
    run = jax.jit(
        jax.value_and_grad(lambda rows, where: ours(rows, where=where, **choices)),
        compiler_options=QUICK,
    )
    of_batch = entry["input"] == "embeddings"
    for case, golden in entry["cases"].items():
        batch = golden_data.padded(case, None if of_batch else entry["input"])
        rows, labels = (
            (batch.embeddings, batch.labels) if of_batch else (batch.table, batch.table_labels)
        )
        value, gradient = run(jnp.asarray(rows), jnp.asarray(labels >= 0))
        np.testing.assert_allclose(value, golden["value"], rtol=1e-9, err_msg=case)
        expected = golden_data.array(golden["grad"])
        inside = np.asarray(gradient)[tuple(map(slice, expected.shape))]
        np.testing.assert_allclose(inside, expected, rtol=1e-9, atol=1e-12, err_msg=case)
        assert not np.asarray(gradient)[len(expected) :].any()
    PASSED["regularizers"][name] = len(entry["cases"])


@each(SECTIONS["memory"])
def test_a_memory_equals_its_golden(name):
    """Every batch of a sequence, then what the memory holds."""
    entry = SECTIONS["memory"][name]
    steps = list(golden_memory.replay(name, entry))
    assert len(steps) == entry["steps"]
    for i, step in enumerate(steps):
        np.testing.assert_allclose(step.value, step.golden_value, rtol=1e-9, err_msg=f"{i}")
        scale = np.abs(step.golden_gradient).max()
        np.testing.assert_allclose(
            step.gradient, step.golden_gradient, rtol=1e-9, atol=1e-9 * scale, err_msg=f"{i}"
        )
    memory = steps[-1].memory
    read = lambda kind: golden_data.array(f"{entry['arrays']}{kind}")
    np.testing.assert_array_equal(memory.embeddings, read("memory_after"))
    np.testing.assert_array_equal(memory.labels, read("memory_labels_after"))
    assert int(memory.position) == entry["queue_idx_after"]
    assert memory.filled.all()
    PASSED["memory"][name] = len(steps)


def test_every_golden_of_a_loss_that_exists_is_mapped_or_listed(capsys):
    for name, entry in golden_data.entries("losses").items():
        if name in golden_map.LOSSES or name in golden_map.LISTED:
            continue
        assert entry["loss"] not in golden_map.BUILDERS, f"{name}: not mapped"
        ours = golden_map.NAMES[entry["loss"]]
        assert ours not in losses.__all__, f"{name}: losses.{ours} exists, map it"
    listed = {n: why for n, why in golden_map.LISTED.items() if n in golden_data.entries("losses")}
    counts = [
        f"{len(done)} of {len(SECTIONS[kind])} {kind} ({sum(done.values())} cases)"
        for kind, done in PASSED.items()
    ]
    lines = [f"goldens passed: {', '.join(counts)}; losses listed: {len(listed)}"]
    lines += [f"  {name}: {why}" for name, why in listed.items()]
    with capsys.disabled():
        print("", *lines, sep="\n", file=sys.stderr)  # which workers share with the terminal
