"""Miners that draw or weigh: slow references, and the same draws on any blocks and devices."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_miners
import references
from case import LABELS, B, D, rows
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdml import distances, losses, miners
from jdml._core.options import Pairs

pytestmark = pytest.mark.usefixtures("quick_compile")
UNIT = distances.normalized(distances.euclidean)
KEY = jax.random.key(3)
HISTOGRAM = {"bins": 6, "pairs_per_bin": 3.5, "low": 0.2, "high": 1.9}
WEIGHTED = {"dim": D, "cutoff": 0.9, "nonzero_cutoff": 1.5}


def triplet(x, y=LABELS, *, miner, **options):
    options = {"distance": UNIT, "margin": 0.7, "reduction": "none", **options}
    return losses.triplet(x, y, miner=miner, **options)


def contrastive(x, y=LABELS, *, miner, **options):
    options = {"distance": UNIT, "negative_margin": 1.9, "reduction": "none", **options}
    return losses.contrastive(x, y, miner=miner, **options)


# Miners that draw, with a loss whose sum is linear in their weights.
DRAWING = [
    pytest.param(triplet, functools.partial(miners.DistanceWeighted, **WEIGHTED), id="weighted"),
    pytest.param(
        contrastive, functools.partial(miners.UniformHistogram, **HISTOGRAM), id="histogram"
    ),
]
drawing = pytest.mark.parametrize(("loss", "make"), DRAWING)


def batch() -> jax.Array:
    return jnp.asarray(rows(0), jnp.float32)


# ---------------------------------------------------------------- expectations


def sums(pair_set, values):
    """[B] sums of value * weight by anchor, over {(anchor, ...): weight} with its value."""
    out = np.zeros(len(pair_set.y))
    for indices, weight, value in values:
        out[indices[0]] += weight * value
    return out


def expected_triplet(s):
    weights = reference_miners.distance_weighted(s, **WEIGHTED)
    violation = lambda i, p, n: max(0.0, s.d[i, p] - s.d[i, n] + 0.7)
    return sums(s, ((t, w, violation(*t)) for t, w in weights.items()))


def expected_contrastive(s):
    near, far = reference_miners.uniform_histogram(s, **HISTOGRAM)
    pull = sums(s, ((pair, w, s.d[pair]) for pair, w in near.items()))
    return pull + sums(s, ((pair, w, max(0.0, 1.9 - s.d[pair])) for pair, w in far.items()))


@drawing
@pytest.mark.parametrize("with_refs", [False, True])
def test_without_a_key_pairs_weigh_their_probability(loss, make, with_refs):
    expected = {triplet: expected_triplet, contrastive: expected_contrastive}[loss]
    x, options = rows(0), {"where": np.arange(B) != 5}
    if with_refs:
        labels = np.array([0, 1, 2, 3, 4, 0, 1, 6, 2])
        options |= {"refs": rows(1, 9), "ref_labels": labels, "ref_where": np.arange(9) != 4}
    pair_set = references.PairSet(
        x, LABELS, distance=references.normalized(references.euclidean), **options
    )
    with jax.enable_x64(True):
        got = loss(x, miner=make(), **options)
        cut = loss(x, miner=make(), block_size=4, **options)
    assert np.count_nonzero(expected(pair_set)) > 5
    np.testing.assert_allclose(got, expected(pair_set), rtol=1e-9)
    np.testing.assert_allclose(cut, got, rtol=1e-9)


def test_negatives_of_the_margin_loss_weigh_as_much_as_its_positives():
    """The loss that distance-weighted draws were made for: one negative a positive pair."""
    x = rows(0)
    s = references.PairSet(x, LABELS, distance=references.normalized(references.euclidean))
    weights = reference_miners.distance_weighted(s, **WEIGHTED)
    pull = sum(max(0.0, s.d[pair] - 1.2 + 0.2) for pair in s.positive_pairs())
    push = sum(w * max(0.0, 1.2 - s.d[i, n] + 0.2) for (i, _, n), w in weights.items())
    miner = miners.DistanceWeighted(**WEIGHTED)
    with jax.enable_x64(True):
        got = losses.margin(x, LABELS, distance=UNIT, miner=miner, reduction="sum")
    np.testing.assert_allclose(got, pull + push, rtol=1e-9)


# ---------------------------------------------------------------- draws


@drawing
def test_a_mean_over_keys_is_the_expectation(loss, make):
    """And each key gives something else."""
    x, keys = batch(), jax.random.split(jax.random.key(0), 3000)
    drawn = jax.jit(jax.vmap(lambda key: loss(x, miner=make(key=key))))(keys)
    drawn, expected = np.asarray(drawn, np.float64), loss(x, miner=make())
    error = drawn.std(axis=0) / math.sqrt(len(keys))
    assert (error > 0).sum() > 5
    assert (np.abs(drawn.mean(axis=0) - expected) <= 4.5 * error + 1e-4).all()


def test_a_drawn_negative_is_one_for_each_positive():
    """Of its anchor's negatives, within the cutoff, as often as the reference says."""
    x, keys = rows(0), jax.random.split(jax.random.key(1), 4000)
    s = references.PairSet(x, LABELS, distance=references.normalized(references.euclidean))
    matrix = jnp.asarray(np.nan_to_num(s.d), jnp.float32)
    same, self = LABELS[:, None] == LABELS[None, :], np.eye(B, dtype=bool)
    weights = [jnp.asarray(w, jnp.float32) for w in (same & ~self, ~same)]
    pairs = Pairs(matrix, matrix, *weights, anchors=jnp.arange(B))

    @jax.jit
    @jax.vmap
    def draw(key):
        mined = miners.DistanceWeighted(**WEIGHTED, key=key)(pairs)
        return mined.negative_columns[..., 0], mined.negative_weights[..., 0]

    columns, there = map(np.asarray, draw(keys))
    expected = reference_miners.distance_weighted(s, **WEIGHTED)
    assert there.sum(axis=(1, 2)).tolist() == [len({t[:2] for t in expected})] * len(keys)
    for i, p in s.positive_pairs():
        drawn = columns[:, i, p]
        for n in range(B):
            probability = expected.get((i, p, n), 0.0)
            slack = 5 * math.sqrt(probability * (1 - probability) / len(keys))
            assert abs((drawn == n).mean() - probability) <= slack, (i, p, n)


@drawing
def test_draws_are_the_same_in_blocks_and_under_jit(loss, make):
    x, miner = batch(), make(key=KEY)
    plain = loss(x, miner=miner)
    for size in (1, 5):
        np.testing.assert_allclose(loss(x, miner=miner, block_size=size), plain, rtol=1e-5)
    outer = jax.jit(lambda x, key: loss(x, miner=miners.Chain(make(key=key))))
    np.testing.assert_allclose(outer(x, KEY), plain, rtol=1e-5)


@drawing
@pytest.mark.parametrize("reduction", ["mean_active", "sum"])
def test_gradients_are_the_same_in_blocks(loss, make, reduction):
    value = lambda x, size: loss(x, miner=make(key=KEY), reduction=reduction, block_size=size)
    whole, cut = (jax.value_and_grad(value)(batch(), size) for size in (None, 4))
    for a, b in zip(whole, cut):
        assert np.asarray(a).any()
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


@drawing
@pytest.mark.parametrize("keyed", [True, False])
def test_the_gradient_holds_what_is_drawn(loss, make, keyed):
    """Distances of what is kept are differentiated; the weights are not."""
    with jax.enable_x64(True):
        x, step = rows(2), np.random.default_rng(5).normal(size=(B, D))
        miner = make(key=KEY if keyed else None)
        value = lambda x: loss(x, miner=miner, reduction="sum")
        slope = (np.asarray(jax.grad(value)(jnp.asarray(x))) * step).sum()
        assert np.isfinite(slope)
        assert slope != 0
        if keyed:  # the expectation's weights move with the rows and are held
            change = value(x + 1e-6 * step) - value(x - 1e-6 * step)
            np.testing.assert_allclose(slope, float(change) / 2e-6, rtol=1e-5)


N_DEVICES = 8


@drawing
@pytest.mark.parametrize("wrap", ["pmap", "shard_map", "shard_map unchecked"])
def test_draws_are_the_same_on_any_devices(loss, make, wrap):
    x = jnp.asarray(rows(0, 2 * N_DEVICES), jnp.float32)
    y = jnp.asarray(np.array([0, 1, 2, 0, 1, 3, 0, 4, 2, 1, 5, 0, 3, 6, 6, 7]))
    where = jnp.asarray(np.arange(len(y)) % 7 != 3)

    def run(x, y, where, key, axis_name="batch"):
        one = functools.partial(loss, miner=make(key=key), where=where, axis_name=axis_name)
        return one(x, y), one(x, y, reduction="mean", block_size=1)

    expected = jax.jit(functools.partial(run, axis_name=None))(x, y, where, KEY)
    if wrap == "pmap":
        split = lambda v: v.reshape(N_DEVICES, 2, *v.shape[1:])
        step = jax.pmap(run, axis_name="batch", in_axes=(0, 0, 0, None))
        by_row, mean = step(split(x), split(y), split(where), KEY)
        by_row, mean = by_row.reshape(-1), mean[0]
    else:
        mesh = jax.make_mesh((N_DEVICES,), ("batch",), axis_types=(AxisType.Auto,))
        spec = P("batch")
        step = jax.shard_map(
            run, mesh=mesh, in_specs=(spec, spec, spec, P()), out_specs=(spec, P()),
            check_vma=wrap == "shard_map",
        )  # fmt: skip
        by_row, mean = jax.jit(step)(x, y, where, KEY)
    assert np.count_nonzero(expected[0]) > 5
    np.testing.assert_allclose(by_row, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(mean, expected[1], rtol=1e-4)


@drawing
def test_new_keys_do_not_compile_again(loss, make):
    x = batch()
    jitted = {triplet: losses.triplet, contrastive: losses.contrastive}[loss].jitted
    chain = miners.Chain(miners.PairMargin(0.1, 3.0), make(key=KEY))
    loss(x, miner=make(key=KEY)), loss(x, miner=chain)
    before = jitted._cache_size()
    for key in jax.random.split(KEY, 3):
        loss(x, miner=make(key=key))
        loss(x, miner=miners.Chain(miners.PairMargin(0.1, 3.0), make(key=key)))
    assert jitted._cache_size() == before
    loss(x, miner=miners.Chain(miners.PairMargin(0.2, 3.0), make(key=KEY)))
    assert jitted._cache_size() == before + 1


@drawing
def test_any_kind_of_key_serves(loss, make):
    x = batch()
    typed, raw = loss(x, miner=make(key=jax.random.key(7))), jax.random.PRNGKey(7)
    np.testing.assert_array_equal(loss(x, miner=make(key=raw)), typed)
    other = make(key=jax.random.key(7, impl="rbg"))
    np.testing.assert_allclose(loss(x, miner=other, block_size=4), loss(x, miner=other), rtol=1e-5)


def test_draws_among_the_hard_ones():
    """A chain of a survey and a draw: negatives are of the hardest, one a positive."""
    x, keys = batch(), jax.random.split(KEY, 20)
    chain = lambda key: miners.Chain(
        miners.HardFraction(0.4), miners.DistanceWeighted(D, 0.1, 2.0, key=key)
    )
    values = jax.vmap(lambda key: triplet(x, miner=chain(key)))(keys)
    s = references.PairSet(rows(0), LABELS, distance=references.normalized(references.euclidean))
    hard = reference_miners.hard_fraction(s, 0.4)
    for i in range(B):
        possible = [
            max(0.0, s.d[i, p] - s.d[i, n] + 0.7)
            for p in range(B) if (i, p) in hard.positives
            for n in range(B) if (i, n) in hard.negatives
        ]  # fmt: skip
        one_positive = sum((i, p) in hard.positives for p in range(B)) == 1
        for value in np.asarray(values)[:, i]:
            assert value <= sum(possible) + 1e-5
            assert not one_positive or not possible or np.isclose(possible, value, atol=1e-5).any()


def test_several_labels_and_matrices_of_pairs_are_mined_too():
    """The same pairs, told in three ways."""
    x = batch()
    one_hot = np.eye(LABELS.max() + 1, dtype=int)[LABELS]
    matrix = LABELS[:, None] == LABELS[None, :]
    for loss, miner in (
        (contrastive, miners.HardFraction(0.3)),
        (contrastive, miners.UniformHistogram(**HISTOGRAM, key=KEY)),
        (triplet, miners.DistanceWeighted(**WEIGHTED, key=KEY)),
        (triplet, miners.Angular(0.5)),
        (triplet, miners.SemiHard()),
    ):
        plain = loss(x, miner=miner)
        for labels in (one_hot, matrix):
            np.testing.assert_allclose(loss(x, labels, miner=miner), plain, rtol=1e-5, atol=1e-6)
