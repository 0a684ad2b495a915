"""Values and gradients of the library equal the golden ones, in float64, at their tolerances.

Cases are padded to one shape with rows that do not exist, so that a golden costs one or two
compilations; the largest case runs as it is. `JDML_GOLDENS` names another folder of goldens.
"""

from __future__ import annotations

import sys
from functools import cache

import golden_data
import golden_map
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_pairs import QUICK, kept, measured

from jdml import losses

PASSED = {"losses": 0, "miners": 0, "distances": 0}  # by this worker: one worker a file


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


@pytest.mark.parametrize("name", golden_map.LOSSES)
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
        PASSED["losses"] += 1


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


@pytest.mark.parametrize("name", golden_map.MINERS)
def test_a_miner_keeps_what_its_golden_keeps(name):
    (miner, distance, rows), entry = golden_map.MINERS[name], golden_data.entries("miners")[name]
    for case, golden in entry["cases"].items():
        batch = golden_data.padded(case)
        mined = kept(miner, measured(distance, rows, batch), batch)
        if "triplets" in golden:
            assert mined.triplets == as_tuples(golden["triplets"]), case
        else:
            assert mined.positives == as_tuples(golden["pos_pairs"]), case
            assert mined.negatives == as_tuples(golden["neg_pairs"]), case
        PASSED["miners"] += 1


def as_tuples(key):
    return [tuple(row) for row in golden_data.array(key).tolist()]


@pytest.mark.parametrize("name", golden_map.DISTANCES)
def test_a_distance_equals_its_golden(name):
    entry = golden_data.entries("distances")[name]
    for case, golden in entry["cases"].items():
        expected = golden_data.array(golden["matrix"])
        found = measured(*golden_map.DISTANCES[name], golden_data.padded(case))
        matrix = np.asarray(found)[: expected.shape[0], : expected.shape[1]]
        kind = entry["distance"]["type"]  # a similarity of the package is a distance here
        theirs = {"CosineSimilarity": 1 - matrix, "DotProductSimilarity": -matrix}
        np.testing.assert_allclose(theirs.get(kind, matrix), expected, atol=1e-6, err_msg=case)
        PASSED["distances"] += 1


def test_every_golden_of_a_loss_that_exists_is_mapped_or_listed(capsys):
    for name, entry in golden_data.entries("losses").items():
        if name in golden_map.LOSSES or name in golden_map.LISTED:
            continue
        assert entry["loss"] not in golden_map.BUILDERS, f"{name}: not mapped"
        ours = golden_map.NAMES[entry["loss"]]
        assert ours not in losses.__all__, f"{name}: losses.{ours} exists, map it"
    listed = [name for name in golden_map.LISTED if name in golden_data.entries("losses")]
    line = f"goldens passed: {PASSED}; losses listed: {len(listed)} ({', '.join(listed)})"
    with capsys.disabled():
        print(f"\n{line}", file=sys.stderr)  # which workers share with the terminal
