"""Nearest neighbours: exact, self by identity, ties by index, the same for every block size."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml.retrieval import neighbours, prepare, search, select

DISTANCES = ("cosine", "dot", "euclidean", "squared_euclidean")
# One call a shape compiles once; the sizes differ in every way that a block can be filled.
BLOCKS = (1, 5, 16, 17, 40, 1000, None)


def brute(x, y, distance, own=None):
    """Distances [Q, N] in float64, pair by pair, infinite for a query's own row."""
    out = np.zeros((len(x), len(y)))
    for i, j in itertools.product(range(len(x)), range(len(y))):
        u, v = np.float64(x[i]), np.float64(y[j])
        norms = np.linalg.norm(u) * np.linalg.norm(v)
        out[i, j] = {
            "cosine": 1 - (u @ v / norms if norms else 0),
            "dot": -(u @ v),
            "euclidean": np.linalg.norm(u - v),
            "squared_euclidean": (u - v) @ (u - v),
        }[distance]
    if own is not None:
        out[np.arange(len(x))[own >= 0], own[own >= 0]] = np.inf
    return out


def expected(distances, k):
    """The k nearest, ties by lower index."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


def random_rows(size, dim=7, seed=0):
    return np.random.default_rng(seed).normal(size=(size, dim)).astype(np.float32)


@pytest.mark.parametrize("distance", DISTANCES)
def test_brute_force(distance):
    x = random_rows(53)
    for gallery, own in ((None, np.arange(53)), (random_rows(41, seed=1), None)):
        found = neighbours(x, gallery, k=5, distance=distance)
        table = brute(x, x if gallery is None else gallery, distance, own)
        indices, distances = expected(table, 5)
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_allclose(found.distances, distances, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("k", [1, 4, 52])
def test_whole_numbers_tie_exactly_and_go_by_index(k):
    x = np.random.default_rng(3).integers(-2, 3, size=(53, 3))
    for distance in ("dot", "euclidean", "squared_euclidean"):
        indices, distances = expected(brute(x, x, distance, np.arange(53)), k)
        found = neighbours(x, k=k, distance=distance)
        np.testing.assert_array_equal(found.indices, indices)
        np.testing.assert_allclose(found.distances, distances, rtol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_identical_rows_tie_for_every_block_size(distance):
    """Copies stand everywhere; a product that rounds by position would take them apart."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(117, 33)).astype(np.float32)
    copies = rng.choice(117, size=40, replace=False)
    x[copies] = x[copies[0]]
    x[copies[:20], 0] = x[copies[20:], 0] = 0.0
    x[copies[5], 0] = -0.0  # equal to 0.0
    runs = [neighbours(x, k=39, distance=distance, block_size=size) for size in BLOCKS]
    copies.sort()
    for row in copies:
        if distance != "dot":
            np.testing.assert_array_equal(runs[0].indices[row], copies[copies != row])
    for run in runs:
        for row in range(117):  # copies are found together, in order, at one distance
            place = np.flatnonzero(np.isin(run.indices[row], copies))
            assert (np.diff(place) == 1).all()
            assert (np.diff(run.indices[row, place]) > 0).all()
            assert len(np.unique(run.distances[row, place])) <= 1
        np.testing.assert_array_equal(run.indices, runs[0].indices)
        np.testing.assert_array_equal(run.distances, runs[0].distances)


def test_identical_rows_tie_whatever_the_product_does(monkeypatch):
    """Similarities of equal rows are read from one column, so rounding cannot tell them apart."""
    x = random_rows(40)
    x[8, 0] = 0.0
    x[[3, 17, 39]] = x[8]
    x[17, 0] = -0.0  # equal all the same
    prepared = prepare.prepare(x)
    assert prepared.index.first is not None
    np.testing.assert_array_equal(np.asarray(prepared.index.first)[[3, 8, 17, 39]], 3)

    def rounds_by_column(q, y, *_, **__):
        return jnp.matmul(q, y.T) * (1 + 1e-6 * jnp.arange(y.shape[0], dtype=jnp.float32)[None, :])

    monkeypatch.setattr(select.lax, "dot_general", rounds_by_column)
    block = select.Block(jnp.asarray(prepared.queries), jnp.full((40,), -1), None)
    scores = select.similarities(block, search.gallery_of(prepared))
    assert (scores[:, 3] == scores[:, 8]).all()
    assert (scores[:, 3] == scores[:, 39]).all()


def test_rows_apart_have_no_identical_first():
    assert prepare.prepare(random_rows(40)).index.first is None


@pytest.mark.parametrize(("size", "k"), [(1100, 3), (2500, 10), (2500, 1)])
def test_two_level_selection(size, k):
    """Larger galleries are selected from in two levels, with ties across groups and the edge."""
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 4, size=(19, 4))
    y = rng.integers(-3, 4, size=(size, 4))
    table = ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=-1)
    indices, distances = expected(table, k)
    found = neighbours(x, y, k=k, distance="squared_euclidean")
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.distances, distances)
    scores = jnp.asarray(random_rows(9, 4096))
    np.testing.assert_array_equal(select.largest(scores, k)[1], jax.lax.top_k(scores, k)[1])


def test_own_row_goes_by_identity_and_duplicates_stay():
    x = np.array([[0.0], [0.0], [5.0]])
    np.testing.assert_array_equal(
        neighbours(x, k=2, distance="euclidean").indices, [[1, 2], [0, 2], [0, 1]]
    )


def test_zero_rows_are_at_cosine_distance_one():
    x = np.array([[0.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    found = neighbours(x, k=2)
    np.testing.assert_array_equal(found.indices, [[1, 2], [0, 2], [0, 1]])
    np.testing.assert_array_equal(found.distances, [[1, 1], [1, 2], [1, 2]])


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_scale_changes_no_rank(scale):
    x = random_rows(30)
    for distance in ("cosine", "dot", "euclidean"):
        plain = neighbours(x, k=4, distance=distance)
        scaled = neighbours(x * np.float32(scale), k=4, distance=distance)
        np.testing.assert_array_equal(plain.indices, scaled.indices)
    np.testing.assert_allclose(
        neighbours(x * np.float32(scale), k=1, distance="euclidean").distances,
        neighbours(x, k=1, distance="euclidean").distances * scale,
        rtol=1e-5,
    )


def test_j6_near_duplicates_keep_their_distance():
    x = random_rows(30)
    x[1] = x[0]
    x[1, 2] += np.float32(1e-5)
    found = neighbours(x, k=1, distance="euclidean")
    assert found.indices[0, 0] == 1
    true = np.linalg.norm(np.float64(x[0]) - np.float64(x[1]))
    np.testing.assert_allclose(found.distances[0, 0], true, rtol=1e-5)


def test_a_far_common_offset_costs_no_ranks():
    x = np.random.default_rng(6).integers(-50, 50, size=(40, 5)) / 64
    near = neighbours(x, k=6, distance="euclidean")
    far = neighbours(x + 4096.0, k=6, distance="euclidean")
    np.testing.assert_array_equal(near.indices, far.indices)
    np.testing.assert_array_equal(near.distances, far.distances)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64, np.uint8])
def test_dtypes(dtype):
    x = np.arange(24).reshape(8, 3).astype(dtype)
    found = neighbours(jnp.asarray(x), k=2, distance="euclidean")
    assert found.distances.dtype == np.float32
    np.testing.assert_array_equal(found.indices[0], [1, 2])


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x = np.random.default_rng(7).normal(size=(20, 3))
        x[1] = x[0] + 1e-12
        found = neighbours(x, k=1)
        assert found.distances.dtype == np.float64
        assert found.indices[0, 0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 3}, "k: got 3, expected at most 2, .* own row left out"),
        ({"k": 0}, "k: got 0, expected a whole number"),
        ({"k": 1.0}, "k: got 1.0, expected a whole number"),
        ({"gallery": np.ones((2, 2)), "k": 3}, "k: got 3, expected at most 2"),
        ({"gallery": np.ones((2, 3)), "k": 1}, "gallery: got rows of 3 dimensions, expected 2"),
        ({"k": 1, "distance": "l2"}, "distance: got 'l2', expected one of cosine, dot"),
        ({"k": 1, "block_size": 0}, "block_size: got 0"),
        ({"queries": np.ones(3), "k": 1}, r"queries: got shape \(3,\), expected a matrix"),
        ({"k": 1, "own_rows": [0, 1, 2]}, "own_rows: got rows without a gallery"),
        ({"gallery": np.ones((2, 2)), "k": 1, "own_rows": [0, 1, 2]}, "own_rows: got 0 to 2"),
        ({"gallery": np.ones((2, 2)), "k": 1, "own_rows": [0]}, "own_rows: got shape"),
        ({"gallery": np.array([[1, 2], [np.inf, 0]]), "k": 1}, "gallery: row 1 holds infinity"),
    ],
)
def test_bad_input_names_itself(arguments, message):
    arguments = {"queries": np.ones((3, 2)), **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        neighbours(**arguments)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_numbers():
    with pytest.raises(TypeError, match="queries: got dtype"):
        neighbours(np.array([["a"], ["b"]]), k=1)
    with pytest.raises(TypeError, match="own_rows: got dtype float64, expected integers"):
        neighbours(np.ones((1, 2)), np.ones((2, 2)), k=1, own_rows=[0.0])


def test_no_queries():
    found = neighbours(np.ones((0, 2)), np.ones((3, 2)), k=2)
    assert found.indices.shape == found.distances.shape == (0, 2)
