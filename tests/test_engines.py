"""What the engines promise beyond a gradient: forward mode, second order, vmap, every input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, Case
from runs import LABELS, rows

from jdml import losses, miners
from jdml._core import pairs as engine

pytestmark = pytest.mark.usefixtures("quick_compile")

SAMPLE = [
    next(case for case in CASES if case.name == name)
    for name in ("contrastive", "triplet", "triplet_semi_hard", "lifted_structure", "supcon")
]
sample = pytest.mark.parametrize("case", SAMPLE, ids=str)


def loss_of(case: Case, block_size: int | None):
    y = jnp.asarray(LABELS)
    return lambda x: case.loss(x, y, **case.numbers, **case.choices, block_size=block_size)


@sample
def test_forward_mode_in_blocks(case: Case):
    x, dx = (jnp.asarray(rows(seed), jnp.float32) for seed in (0, 1))
    value, slope = jax.jvp(loss_of(case, 4), (x,), (dx,))
    expected, gradient = jax.value_and_grad(loss_of(case, None))(x)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, (gradient * dx).sum(), rtol=1e-4, atol=1e-5)


@sample
def test_second_order_in_blocks(case: Case):
    with jax.enable_x64(True):
        x, dx = jnp.asarray(rows(0)), jnp.asarray(rows(1))

        def curvature(block_size):
            gradient = jax.grad(loss_of(case, block_size))
            return jax.jvp(gradient, (x,), (dx,))[1]

        np.testing.assert_allclose(curvature(4), curvature(None), rtol=1e-8, atol=1e-10)


@sample
def test_vmap_is_a_loop(case: Case):
    stack = jnp.stack([jnp.asarray(rows(seed), jnp.float32) for seed in range(3)])
    for block_size in (None, 4):
        step = jax.value_and_grad(loss_of(case, block_size))
        together = jax.vmap(step)(stack)
        for i, x in enumerate(stack):
            for a, b in zip(together, step(x)):
                np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6)


def test_every_input_has_its_gradient_in_blocks():
    """References, pair weights and learned numbers, for a hinge over all triplets."""
    x, refs = jnp.asarray(rows(0), jnp.float32), jnp.asarray(rows(1, 9), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(2).uniform(0.5, 2.0, (13, 9)), jnp.float32)
    ref_labels = jnp.array([0, 1, 2, 3, 4, 0, 1, 5, 2])

    def loss(inputs, block_size):
        x, refs, weights, margin = inputs
        return losses.triplet(
            x, LABELS, refs=refs, ref_labels=ref_labels, weights=weights, margin=margin,
            block_size=block_size, reduction="sum",
        )  # fmt: skip

    inputs = (x, refs, weights, jnp.float32(0.4))
    cut, whole = (jax.grad(loss)(inputs, size) for size in (3, None))
    for a, b in zip(cut, whole):
        assert np.any(b)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [losses.contrastive, losses.triplet, losses.ntxent])
def test_a_large_batch_runs_in_blocks_by_itself(loss):
    """Above the size where blocks win, temporaries stay below one matrix of distances."""
    n, classes = 4096, 512
    assert engine._block_size(None, n, n, cube=False) < n
    assert engine._block_size(None, 512, 512, cube=False) == 512
    y = jnp.arange(n) % classes
    step = jax.jit(jax.grad(lambda x: loss(x, y)))
    compiled = step.lower(jax.ShapeDtypeStruct((n, 16), jnp.float32)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n * 4


def test_a_miner_of_ones_own_is_a_function_of_pairs():
    """Any function from Pairs to Pairs: here, only pairs nearer than 1 exist."""

    def near(pairs):
        keep = lambda d, w: jnp.where(d < 1.0, w, 0.0)
        return pairs._replace(
            positive_weights=keep(pairs.positives, pairs.positive_weights),
            negative_weights=keep(pairs.negatives, pairs.negative_weights),
        )

    x, y = jnp.array([[0.0], [0.5], [5.0], [0.25]]), jnp.array([0, 0, 0, 1])
    loss = losses.contrastive(x, y, miner=near, reduction="sum", negative_margin=0.0)
    np.testing.assert_allclose(loss, 1.0)  # one positive pair at 0.5, from both ends


def test_swap_after_a_miner_that_gathers():
    """The swapped distance is that of the very rows the miner has chosen."""
    x, y = jnp.array([[0.0], [1.0], [1.5], [-4.0]]), jnp.array([0, 0, 1, 2])
    options = {"margin": 2.0, "swap": True, "miner": miners.BatchHard(), "reduction": "none"}
    loss = losses.triplet(x, y, **options)
    # Anchor 0: positive 1, nearest negative 1.5, which is 0.5 from the positive: 1 - 0.5 + 2.
    # Anchor 1: positive at 0, nearest negative 1.5, 0.5 from the anchor: 1 - 0.5 + 2.
    np.testing.assert_allclose(loss, [2.5, 2.5, 0.0, 0.0], rtol=1e-6)
