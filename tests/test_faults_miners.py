"""Faults that users of other libraries report about miners, on all miners, by row."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import LABELS, B, D, rows

from jdml import distances, losses, miners

pytestmark = pytest.mark.usefixtures("quick_compile")
UNIT = distances.normalized(distances.euclidean)
KEY = jax.random.key(3)


# Set so wide that they keep everything that they can.
WIDE = [
    miners.BatchHard(),
    miners.SemiHard(),
    miners.BatchEasyHard("all", "all"),
    miners.TripletMargin(20.0, "all"),
    miners.MultiSimilarity(20.0),
    miners.PairMargin(-1.0, 20.0),
    miners.HardFraction(1.0),
    miners.UniformHistogram(3, 100.0, 0.0, 10.0),
    miners.UniformHistogram(3, 100.0, 0.0, 10.0, key=KEY),
    miners.DistanceWeighted(3, 0.1, 2.0),
    miners.DistanceWeighted(3, 0.1, 2.0, key=KEY),
    miners.Chain(miners.HardFraction(1.0), miners.BatchHard()),
]
NARROW = [
    miners.Angular(0.3),
    miners.HardFraction(0.2),
    miners.UniformHistogram(3, 1.5, 0.5, 3.0),
    miners.UniformHistogram(3, 1.5, 0.5, 3.0, key=KEY),
    miners.Chain(miners.UniformHistogram(2, 6.0, 0.0, 2.0, key=KEY), miners.Angular(0.3)),
    miners.Chain(miners.HardFraction(0.7), miners.SemiHard()),
]


def name_of(miner) -> str:
    """What pytest shows: keys have long names."""
    if isinstance(miner, miners.Chain):
        return " then ".join(map(name_of, miner.miners))
    keyed = "" if getattr(miner, "key", None) is None else " drawn"
    return type(miner).__name__ + keyed


every = pytest.mark.parametrize("miner", WIDE + NARROW, ids=name_of)
wide = pytest.mark.parametrize("miner", WIDE, ids=name_of)
COMPILED = {}


def value_and_gradient(miner):
    """One compilation serves every batch of one shape."""
    if id(miner) not in COMPILED:
        value = lambda x, y: losses.triplet(x, y, margin=9.0, miner=miner, reduction="sum")
        COMPILED[id(miner)] = jax.jit(jax.value_and_grad(value))
    return COMPILED[id(miner)]


@wide
@pytest.mark.parametrize("reverse", [False, True])
def test_d1_explicit_references_keep_their_diagonal(miner, reverse):
    x, y = np.array([[0.0], [1.0]]), np.array([0, 1])
    refs, ref_labels = (x[::-1].copy(), y[::-1].copy()) if reverse else (x, y)
    loss = losses.triplet(
        x, y, refs=refs, ref_labels=ref_labels, margin=3.0, miner=miner, reduction="none"
    )
    np.testing.assert_allclose(loss, [2.0, 2.0])  # 0 - 1 + 3: (0, 0), (1, 1), or reversed


@pytest.mark.parametrize("reverse", [False, True])
def test_d1_angular_with_explicit_references(reverse):
    """Angles at the negatives: the arc tangents of 2 / 3 and of 0.6."""
    x, y, refs = np.array([[0.0], [4.0]]), np.array([0, 1]), np.array([[2.0], [2.5]])
    step = -1 if reverse else 1
    given = {"refs": refs[::step].copy(), "ref_labels": y[::step].copy(), "reduction": "none"}
    for degrees, expected in ((30, [2.5, 2.5]), (32, [2.5, 0.0]), (35, [0.0, 0.0])):
        miner = miners.Angular(math.radians(degrees))
        loss = losses.triplet(x, y, margin=3.0, miner=miner, **given)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


@wide
def test_d2_a_duplicate_is_a_positive(miner):
    x, y = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]]), np.array([0, 0, 1])
    options = {"distance": UNIT, "margin": 2.0, "reduction": "none", "miner": miner}
    loss = losses.triplet(x, y, **options)
    np.testing.assert_allclose(loss, [2 - math.sqrt(0.8)] * 2 + [0.0], rtol=1e-5)


@every
@pytest.mark.parametrize("labels", [np.zeros(B, int), np.arange(B), np.full(B, -1)])
def test_d2_an_empty_set_is_zero(miner, labels):
    """No negatives, no positives, no rows."""
    loss, gradient = value_and_gradient(miner)(jnp.asarray(rows(0), jnp.float32), labels)
    assert float(loss) == 0
    assert not np.asarray(gradient).any()


@wide
def test_d4_positives_and_negatives_are_not_the_same_number(miner):
    x, y = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1])
    pull = losses.contrastive(x, y, negative_margin=0.0, miner=miner)
    push = losses.contrastive(x, y, negative_margin=3.0, positive_margin=99.0, miner=miner)
    assert float(pull) == 0
    np.testing.assert_allclose(push, 2.0, rtol=1e-6)


@pytest.mark.parametrize("miner", NARROW + WIDE[-6:], ids=name_of)
def test_d5_miners_jit_to_the_same_triplets(miner):
    x, y = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9) % 3
    x = jnp.asarray(x, jnp.float32)
    compiled = losses.triplet(x, y, margin=2.0, miner=miner, reduction="none")
    with jax.disable_jit():
        plain = losses.triplet(x, y, margin=2.0, miner=miner, reduction="none")
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
    assert np.asarray(compiled).any()


@every
@pytest.mark.parametrize(
    "x",
    [np.zeros((B, D)), np.ones((B, D)), 1e-20 * rows(0), 1e4 * rows(0)],
    ids=["zero", "ones", "tiny", "large"],
)
def test_degenerate_rows_stay_finite(miner, x):
    for leaf in value_and_gradient(miner)(jnp.asarray(x, jnp.float32), LABELS):
        assert np.isfinite(leaf).all()


@every
def test_a_real_nan_is_not_hidden(miner):
    x = rows(0)
    x[0, 0] = np.nan
    assert np.isnan(value_and_gradient(miner)(jnp.asarray(x, jnp.float32), LABELS)[0])
