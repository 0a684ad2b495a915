"""Miners: ranks over the whole batch, chains, and how they are called."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_miners
import references
from case import LABELS, B, rows
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdml import distances, losses, miners
from jdml._core.options import Pairs
from jdml._core.selection import kth_largest

pytestmark = pytest.mark.usefixtures("quick_compile")
KEY = jax.random.key(3)


# ---------------------------------------------------------------- ranks


def in_blocks(values: np.ndarray, there: np.ndarray, size: int):
    """A count over blocks of rows, as the engine's."""
    blocks = [
        Pairs(*(jnp.asarray(a[i : i + size]) for a in (values, values, there * 1.0, there * 1.0)))
        for i in range(0, len(values), size)
    ]
    return lambda fn: jax.tree.map(lambda *x: sum(x[1:], start=x[0]), *map(fn, blocks))


@pytest.mark.parametrize("size", [2, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_kth_largest_is_exact(dtype, size):
    """Of floats of every size and sign, with ties, zeros of both signs and an infinity."""
    with jax.enable_x64(dtype == np.float64):
        rng = np.random.default_rng(0)
        values = (rng.normal(size=(7, 5)) * 10.0 ** rng.integers(-20, 20, (7, 5))).astype(dtype)
        values[0] = [0.0, -0.0, np.inf, values[3, 3], values[3, 3]]
        there = rng.random((7, 5)) < 0.7
        there[0] = True
        pick = lambda p: [(p.positives, p.positive_weights != 0), (-p.negatives, p.negatives < 5)]
        sets = [values[there], -values[values < 5]]
        for k in (1, 2, 11, len(sets[0]), len(sets[1])):
            ranks = lambda sizes, k=k: jnp.minimum(jnp.asarray(k, sizes.dtype), sizes)
            found = kth_largest(in_blocks(values, there, size), pick, ranks)
            expected = [np.sort(s)[::-1][min(k, len(s)) - 1] for s in sets]
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == dtype


def test_the_kth_largest_of_nothing_is_infinite():
    nothing = in_blocks(np.ones((3, 2), np.float32), np.zeros((3, 2), bool), 3)
    pick = lambda p: [(p.positives, p.positive_weights != 0)]
    assert np.isinf(kth_largest(nothing, pick, lambda sizes: sizes)).all()


@pytest.mark.parametrize(("fraction", "kept"), [(1e-4, 2), (0.5, 4), (0.6, 4), (0.7, 6), (1.0, 6)])
def test_a_fraction_of_the_pairs_is_rounded_up_and_ties_stay(fraction, kept):
    """Six positives, two at each of the distances 1, 2 and 3: both ends of a pair, or neither."""
    x, y = np.array([[0.0], [1.0], [3.0]]), np.zeros(3, int)
    miner = miners.HardFraction(fraction)
    loss = losses.contrastive(x, y, miner=miner, reduction="sum")
    assert float(loss) == {2: 6, 4: 10, 6: 12}[kept]


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-3])
def test_a_hard_fraction_does_not_split_the_ends_of_a_pair(scale):
    """In any block: rounding that differs between blocks decides nothing."""
    x = jnp.asarray(scale * np.random.default_rng(1).normal(size=(23, 9)), jnp.float32)
    y = np.arange(23) % 4
    values = [
        losses.contrastive(
            x, y, miner=miners.HardFraction(0.11), negative_margin=1e6, reduction="none",
            block_size=size,
        )
        for size in (None, 1, 5, 8)
    ]  # fmt: skip
    for value in values[1:]:
        np.testing.assert_allclose(value, values[0], rtol=1e-5)


def test_a_survey_without_an_axis_name_stays_on_its_device():
    """Each device its own batch: what the search carries differs between devices."""
    x = jnp.asarray(rows(0, 2 * B), jnp.float32)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    one = functools.partial(
        losses.contrastive, labels=LABELS, miner=miners.HardFraction(0.3), reduction="none"
    )
    step = jax.shard_map(one, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))
    expected = np.concatenate([one(x[:B]), one(x[B:])])
    np.testing.assert_allclose(jax.jit(step)(x), expected, rtol=1e-5)


# ---------------------------------------------------------------- chains


def test_a_fraction_is_of_what_the_miner_before_has_left():
    x = rows(0)
    s = references.PairSet(x, LABELS)
    s.mined = reference_miners.pair_margin(s, 1.0, 2.2)
    s.mined = reference_miners.hard_fraction(s, 0.3)
    expected = references.reduce(
        references.contrastive(x, LABELS, negative_margin=3.0, mined=s.mined), "none", B
    )
    with jax.enable_x64(True):
        chain = miners.Chain(miners.PairMargin(1.0, 2.2), miners.HardFraction(0.3))
        for miner in (
            chain,
            miners.Chain(chain),
            miners.Chain(miners.Chain(chain.miners[0]), chain),
        ):
            got = losses.contrastive(
                x, LABELS, negative_margin=3.0, miner=miner, reduction="none", block_size=5
            )
            np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert s.mined != reference_miners.hard_fraction(references.PairSet(x, LABELS), 0.3)


def test_angular_triplets_of_the_rows_that_another_miner_picked():
    x = rows(0)
    s = references.PairSet(x, LABELS)
    s.mined = reference_miners.batch_hard(s)
    wide = reference_miners.angular(s, 0.55).triplets
    expected = np.zeros(B)
    for i, p, n in wide:
        expected[i] += s.d[i, p] - s.d[i, n] + 9.0
    with jax.enable_x64(True):
        chain = miners.Chain(miners.BatchHard(), miners.Angular(0.55))
        got = losses.triplet(x, LABELS, margin=9.0, miner=chain, reduction="none")
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert 0 < len(wide) < len(s.mined.positives)


def test_semi_hard_after_a_miner_that_picks_negatives_for_each_positive():
    """All triplets first: the same choice, from an array of its own for each positive."""
    x = jnp.asarray(rows(0), jnp.float32)
    options = {"margin": 0.4, "reduction": "none"}
    chain = miners.Chain(miners.TripletMargin(0.6, "all"), miners.SemiHard())
    plain = losses.triplet(x, LABELS, miner=miners.SemiHard(0.6), **options)
    np.testing.assert_allclose(losses.triplet(x, LABELS, miner=chain, **options), plain, rtol=1e-6)
    assert np.asarray(plain).any()


@pytest.mark.parametrize("squared", [distances.squared_euclidean, distances.cosine])
def test_angular_takes_squared_distances(squared):
    x = rows(0)
    prepared = (
        x if squared is distances.squared_euclidean else x / np.linalg.norm(x, axis=1)[:, None]
    )
    s = references.PairSet(prepared, LABELS)
    wide = reference_miners.angular(s, 0.6).triplets
    with jax.enable_x64(True):
        got = losses.triplet(
            x, LABELS, margin=1e6, distance=squared, miner=miners.Angular(0.6, squared=True),
            reduction="none",
        )  # fmt: skip
    counts = np.bincount([i for i, *_ in wide], minlength=B)
    np.testing.assert_array_equal(np.round(np.asarray(got) / 1e6), counts)
    assert counts.any()


def test_a_chain_tells_what_its_miners_need():
    plain = miners.Chain(miners.BatchHard())
    assert not any(hasattr(plain, "survey") or x for x in (plain.cube, plain.between))
    every = miners.Chain(plain, miners.HardFraction(0.5), miners.Angular(0.3))
    assert all((every.cube, every.between, hasattr(miners.Chain(every), "survey")))
    drawn = miners.Chain(miners.DistanceWeighted(8, key=KEY))
    assert not drawn.cube
    assert miners.Chain(miners.DistanceWeighted(8)).cube


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: miners.Angular(40), ValueError, "angle: got 40, expected radians between 0 and"),
        (lambda: miners.Angular(0.0), ValueError, "angle: got 0.0, expected radians"),
        (lambda: miners.HardFraction(0.0), ValueError, "fraction: got 0.0, expected a number"),
        (lambda: miners.HardFraction(50), ValueError, "fraction: got 50, expected a number above"),
        (lambda: miners.HardFraction(1e-9), ValueError, "fraction: got 1e-09, expected a number"),
        (lambda: miners.DistanceWeighted(1), ValueError, "dim: got 1, expected a whole number"),
        (lambda: miners.DistanceWeighted(2.5), ValueError, "dim: got 2.5, expected a whole"),
        (
            lambda: miners.DistanceWeighted(8, cutoff=1.5),
            ValueError,
            "cutoff, nonzero_cutoff: got 1.5, 1.4, expected 0 < cutoff < nonzero_cutoff <= 2",
        ),
        (lambda: miners.DistanceWeighted(8, 0.5, 2.1), ValueError, "cutoff, nonzero_cutoff: got"),
        (lambda: miners.DistanceWeighted(8, key=7), TypeError, "key: got int 7, expected one key"),
        (
            lambda: miners.DistanceWeighted(8, key=jax.random.split(KEY, 2)),
            TypeError,
            r"key: got key<fry>\[2\], expected one key of jax.random.key",
        ),
        (lambda: miners.UniformHistogram(0, 1, 0.0, 1.0), ValueError, "bins: got 0, expected"),
        (lambda: miners.UniformHistogram(4, 0, 0.0, 1.0), ValueError, "pairs_per_bin: got 0"),
        (lambda: miners.UniformHistogram(4, 1, 1.0, 1.0), ValueError, "low, high: got 1.0, 1.0"),
        (
            lambda: miners.UniformHistogram(4, 1, 0.0, 1.0, key=jnp.zeros(2)),
            TypeError,
            r"key: got float32\[2\], expected one key",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line_that_names_them(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("miner", "message"),
    [
        (
            miners.Chain(miners.SemiHard(), miners.DistanceWeighted(8)),
            "miner: got DistanceWeighted after one that picks negatives for each positive",
        ),
        (miners.HardFraction(0.5), "pairs: got no survey of the batch; pass the miner to a loss"),
        (miners.DistanceWeighted(8, key=KEY), "pairs: got no places of the anchors"),
        (miners.Angular(0.5), "pairs: got no distances between references"),
    ],
)
def test_what_a_miner_misses_is_one_line(miner, message):
    square = jnp.ones((3, 3))
    with pytest.raises(ValueError, match=message) as caught:
        miner(Pairs(square, square, square, square))
    assert "\n" not in str(caught.value)


def test_arrays_in_a_miner_that_is_no_tree_are_named():
    class Hidden:
        __hash__ = None

        def __call__(self, pairs):
            return pairs

    with pytest.raises(TypeError, match="miner: got Hidden, expected one that can be hashed"):
        losses.triplet(rows(0), LABELS, miner=Hidden())


def test_equal_miners_are_equal_and_share_a_compilation():
    make = lambda: [
        miners.Angular(0.4),
        miners.HardFraction(0.3),
        miners.DistanceWeighted(8),
        miners.UniformHistogram(4, 2.0, 0.0, 2.0),
        miners.Chain(miners.HardFraction(0.3), miners.BatchHard()),
    ]
    assert make() == make()
    x, y = jnp.zeros((6, 2)), np.arange(6) % 3
    for miner in make():
        losses.triplet(x, y, miner=miner)
    before = losses.triplet.jitted._cache_size()
    for miner in make():
        losses.triplet(x, y, miner=miner)
    assert losses.triplet.jitted._cache_size() == before


def test_a_miner_of_ones_own_may_hold_arrays():
    """A registered tree: its numbers are traced, and may be learned or swept."""
    x = jnp.asarray(rows(0), jnp.float32)
    values = [
        losses.triplet(x, LABELS, margin=0.7, miner=Nearer(jnp.float32(limit)), reduction="sum")
        for limit in (1.0, 1.5)
    ]
    plain = [
        losses.triplet(
            x, LABELS, margin=0.7, miner=miners.PairMargin(-1.0, limit), reduction="sum"
        )
        for limit in (1.0, 1.5)
    ]  # fmt: skip
    np.testing.assert_allclose(values, plain, rtol=1e-6)
    assert values[0] != values[1]


class Nearer:
    """Negatives within a limit that is an array."""

    def __init__(self, limit):
        self.limit = limit

    def __call__(self, pairs: Pairs) -> Pairs:
        near = pairs.negatives < lax.stop_gradient(self.limit)
        return pairs._replace(negative_weights=jnp.where(near, pairs.negative_weights, 0.0))


jax.tree_util.register_pytree_node(Nearer, lambda m: ((m.limit,), None), lambda _, x: Nearer(*x))
