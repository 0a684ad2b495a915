"""Diagnostics of training against loops, at their edges, and when they warn."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import health
from jdml import diagnostics, losses

NAMES = ("mean_similarity", "effective_rank", "variance")


def of_loops(rows):
    """Mean similarity, effective rank and variance, pair by pair."""
    units = [row / np.linalg.norm(row) for row in rows]
    pairs = [float(a @ b) for i, a in enumerate(units) for j, b in enumerate(units) if i != j]
    values = np.linalg.svd(np.array(units), compute_uv=False)
    shares = [value / values.sum() for value in values if value > 0]
    middle = sum(rows) / len(rows)
    return {
        "mean_similarity": sum(pairs) / len(pairs),
        "effective_rank": math.exp(-sum(share * math.log(share) for share in shares)),
        "variance": sum(float((row - middle) @ (row - middle)) for row in rows) / len(rows),
    }


def measured(rows, where=None):
    found = jax.jit(diagnostics.collapse)(jnp.asarray(rows, jnp.float32), where=where)
    return {name: float(number) for name, number in found.items()}


@pytest.mark.parametrize("shape", [(9, 4), (5, 11)])
def test_collapse_is_that_of_loops(shape):
    rows = np.random.default_rng(0).normal(size=shape) + 0.5
    assert measured(rows) == pytest.approx(of_loops(rows), rel=1e-5)


def test_missing_rows_do_not_count_whatever_they_hold():
    rows = np.random.default_rng(1).normal(size=(9, 4))
    where = np.arange(9) % 3 != 1
    dirty = np.where(where[:, None], rows, np.nan)
    assert measured(dirty, where) == pytest.approx(of_loops(rows[where]), rel=1e-5)


@pytest.mark.parametrize("rows", [np.zeros((4, 3)), np.ones((4, 3)), np.ones((1, 3))])
def test_collapsed_rows_give_finite_numbers(rows):
    found = measured(rows)
    assert found["effective_rank"] == pytest.approx(1.0, abs=1e-3)
    assert found["variance"] == pytest.approx(0.0, abs=1e-6)
    assert all(map(math.isfinite, found.values()))
    if len(rows) > 1 and rows.any():
        assert found["mean_similarity"] == pytest.approx(1.0, abs=1e-6)


def test_active_fraction_and_saturation_of_triplets_are_those_of_loops():
    rng = np.random.default_rng(2)
    rows, labels = rng.normal(size=(10, 3)).astype(np.float32), np.arange(10) % 3
    rows[labels == 0] *= 0.01  # one class far inside its margin
    rows[labels == 0] += 9.0
    away = np.linalg.norm(rows[:, None].astype(float) - rows[None], axis=2)
    found = np.array(
        [
            (a, max(away[a, p] - away[a, n] + 0.5, 0.0))
            for a in range(10) for p in range(10) for n in range(10)
            if p != a and labels[p] == labels[a] != labels[n]
        ]
    )  # fmt: skip
    sums = np.array([found[found[:, 0] == a, 1].sum() for a in range(10)])
    loss = functools.partial(losses.triplet, jnp.asarray(rows), jnp.asarray(labels), margin=0.5)
    got = diagnostics.activity(loss)
    assert float(got["active_fraction"]) == pytest.approx((found[:, 1] > 0).mean(), rel=1e-5)
    assert float(got["saturation"]) == pytest.approx((sums == 0).mean())
    assert 0 < float(got["saturation"]) < 1


def test_a_loss_with_nothing_left_is_saturated():
    rows = jnp.array([[0.0], [0.0], [9.0], [9.0]])
    got = diagnostics.activity(
        functools.partial(losses.triplet, rows, jnp.array([0, 0, 1, 1]), margin=0.5)
    )
    assert (float(got["active_fraction"]), float(got["saturation"])) == (0.0, 1.0)


# ---------------------------------------------------------------- warnings

GOOD = {
    "mean_similarity": 0.1,
    "effective_rank": 30.0,
    "variance": 0.9,
    "active_fraction": 0.2,
    "saturation": 0.5,
}
BAD = {
    "mean_similarity": 0.97,
    "effective_rank": 1.2,
    "variance": 1e-8,
    "active_fraction": 1e-4,
    "saturation": 0.99,
}


def test_every_number_has_its_warning_in_one_line():
    assert diagnostics.warnings(GOOD, most_rank=64) == {}
    found = diagnostics.warnings(BAD, most_rank=64)
    assert found.keys() == BAD.keys()
    assert all("\n" not in line and ": " in line for line in found.values())
    assert "0.970" in found["mean_similarity"]
    assert "1.2, few of 64" in found["effective_rank"]


def test_a_recovering_collapse_is_not_warned_of():
    before = {"mean_similarity": 0.99, "effective_rank": 1.1, "variance": 1e-9}
    found = diagnostics.warnings(BAD, most_rank=64, before=before)
    assert found.keys() == {"active_fraction", "saturation"}
    assert diagnostics.warnings(BAD, most_rank=64, before=BAD).keys() == BAD.keys()


def test_two_dimensions_are_no_low_rank():
    assert not diagnostics.warnings({"effective_rank": 1.0}, most_rank=2)


def test_a_run_is_warned_once_of_each_kind_and_not_at_its_start():
    rows = [{"step": step, **numbers} for step, numbers in enumerate([BAD, BAD, BAD], 1)]
    watch = health.Watch(64)
    told = [watch.new(row) for row in rows]
    assert [len(lines) for lines in told] == [0, 5, 0]
    assert all(line.startswith("step 2: ") for line in told[1])
    assert health.warnings([{"step": 0, "loss": 1.0}, *rows], 64) == told[1]
    resumed = health.Watch(64, rows[:2])
    assert resumed.new(rows[2]) == []


@pytest.mark.parametrize(("steps", "times"), [(20, 1), (150, 8), (2000, 20), (10000, 20)])
def test_a_run_is_measured_about_twenty_times(steps, times):
    logged = [step for step in range(1, steps + 1) if step % 20 == 0 or step == steps]
    assert sum(health.due(step, steps) for step in logged) == times
    assert health.due(steps, steps)
