"""Faults seen in a peer, each with its smallest input and right value; see `test_faults`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import losses, miners, states

pytestmark = pytest.mark.usefixtures("quick_compile")
by_name = lambda loss: loss.__name__


def test_j3_swap_with_references_measures_between_references():
    """Reference order changes nothing, and the swapped distance is that between two references."""
    x, y = np.array([[0.0]]), np.array([0])
    refs, ref_labels = np.array([[1.0], [1.5], [-3.0]]), np.array([0, 1, 2])
    order = np.array([2, 0, 1])
    options = {"margin": 1.0, "swap": True, "reduction": "none"}
    plain = losses.triplet(x, y, refs=refs, ref_labels=ref_labels, **options)
    mixed = losses.triplet(x, y, refs=refs[order], ref_labels=ref_labels[order], **options)
    # Negative at 1.5 is 0.5 from the positive: 1 - 0.5 + 1; negative at -3 is 3 from the anchor.
    np.testing.assert_allclose(plain, [1.5], rtol=1e-6)
    np.testing.assert_allclose(mixed, plain, rtol=1e-6)


def test_j3_lifted_structure_does_not_depend_on_the_order_of_references():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 2)), np.array([0, 1, 0, 2])
    refs, ref_labels = rng.normal(size=(5, 2)), np.array([0, 0, 1, 2, 1])
    order = np.array([3, 1, 4, 0, 2])
    plain = losses.lifted_structure(x, y, refs=refs, ref_labels=ref_labels)
    mixed = losses.lifted_structure(x, y, refs=refs[order], ref_labels=ref_labels[order])
    np.testing.assert_allclose(mixed, plain, rtol=1e-6)


def test_j4_mined_pairs_of_a_memory_keep_their_labels():
    """From the second step on, past the end of the queue: the pairs are those of a plain loop."""
    rng, options = np.random.default_rng(5), {"negative_margin": 2.0, "reduction": "sum"}
    memory, past = states.memory(4, 2), []
    for step in range(4):
        x, y = rng.normal(size=(3, 2)).astype(np.float32), np.array([step % 2, 1, 2])
        found = losses.contrastive(
            x, y, miner=miners.PairMargin(0.5, 1.5), **states.as_refs(memory), **options
        )
        expected = 0.0
        for a, label in zip(x, y):
            for row, other in past[-4:]:
                distance = np.linalg.norm(a - row)
                if label == other and distance > 0.5:
                    expected += distance
                elif label != other and distance < 1.5:
                    expected += 2.0 - distance
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        memory = states.push(memory, x, y)
        past += list(zip(x, y))
    assert int(memory.position) == 12 % 4  # a part of the state: saved and restored with it


def test_j5_angular_does_not_depend_on_the_length_of_rows():
    x, y = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 0, 1, 1, 2, 2])
    lengths = np.array([[1.0], [9.0], [100.0], [2.0], [0.1], [50.0]])
    np.testing.assert_allclose(losses.angular(x * lengths, y), losses.angular(x, y), rtol=1e-5)


def test_j9_a_half_precision_call_leaves_the_table_as_it_was():
    table = jnp.eye(3)
    losses.cosface(jnp.ones((2, 3), jnp.float16), np.array([0, 1]), table)
    assert table.dtype == jnp.float32


@pytest.mark.parametrize(
    "loss", [losses.triplet, losses.lifted_structure, losses.n_pair], ids=by_name
)
def test_j10_memory_grows_with_the_block_and_not_with_the_cube(loss):
    """Compiled temporaries, doubled batch, fixed block: linear growth, no cube, no matrix."""

    def temporaries(n: int) -> int:
        x, y = jnp.zeros((n, 8)), jnp.zeros(n, jnp.int32)
        step = jax.jit(jax.grad(lambda x: loss(x, y, block_size=16)))
        return step.lower(x).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(512), temporaries(1024)
    assert large <= 2.6 * small
    assert large < 1024 * 1024 * 4  # less than one matrix of distances
