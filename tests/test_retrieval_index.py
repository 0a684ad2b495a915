"""Galleries prepared once: chunks, groups, devices, memory, and the index of faiss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from jdml import metrics, retrieval
from jdml.retrieval import approximate, neighbours, rows, search, select

DISTANCES = ("cosine", "dot", "euclidean", "squared_euclidean")


def random_rows(size, dim=7, seed=0):
    return np.random.default_rng(seed).normal(size=(size, dim)).astype(np.float32)


def equal(found, wanted):
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_array_equal(found.distances, wanted.distances)


@pytest.mark.parametrize("distance", DISTANCES)
def test_chunks_of_queries_against_one_index(distance):
    x, y = random_rows(50), random_rows(70, seed=1)
    wanted = neighbours(x, y, k=4, distance=distance)
    index = retrieval.index(y, distance=distance)
    parts = [neighbours(x[part], index, k=4) for part in np.array_split(np.arange(50), 3)]
    equal(retrieval.Neighbours(*map(np.concatenate, zip(*parts))), wanted)
    own = np.where(np.arange(50) < 9, np.arange(50), -1)
    equal(
        neighbours(x, index, k=4, own_rows=own, distance=distance),
        neighbours(x, y, k=4, own_rows=own, distance=distance),
    )


@pytest.mark.parametrize("shape", [(8,), (2, 4)])
@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_an_index_split_over_devices(distance, shape):
    """The answer of one device, ties included, with rows on eight."""
    names = ("data", "model")[: len(shape)]
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape))
    rng = np.random.default_rng(2)
    x = rng.integers(-3, 4, size=(40, 3)).astype(np.float32)
    y = rng.integers(-3, 4, size=(2500, 3)).astype(np.float32)
    y[np.arange(40) * 60] = x  # nearest to themselves, but for own rows
    for axis in (None, names[0]):  # parts of one and of two levels of selection
        index = retrieval.index(y, distance=distance, mesh=mesh, axis_name=axis)
        parts = mesh.size if axis is None else mesh.shape[axis]
        held = {shard.data.shape[0] for shard in index.rows.addressable_shards}
        assert held == {len(index.rows) // parts}
        equal(neighbours(x, index, k=6), neighbours(x, y, k=6, distance=distance))
        options = {"own_rows": np.arange(40) * 60, "groups": np.arange(40) % 5, "k": 6}
        options["gallery_groups"] = np.arange(2500) % 7
        equal(neighbours(x, index, **options), neighbours(x, y, distance=distance, **options))
    y = random_rows(2500, 3)
    y[1400:] = y[1400 + np.arange(1100) % 37]  # duplicates, all in one part or at the end
    index = retrieval.index(y, distance=distance, mesh=mesh, axis_name=names[0])
    found, wanted = neighbours(x, index, k=6), neighbours(x, y, k=6, distance=distance)
    np.testing.assert_array_equal(found.indices, wanted.indices)  # ties in some parts only
    distinct = random_rows(1300, 5)
    index = retrieval.index(distinct, distance=distance, mesh=mesh)
    wanted = neighbours(distinct[:30], distinct, k=5, distance=distance)
    found = neighbours(distinct[:30], index, k=5)
    np.testing.assert_array_equal(found.indices, wanted.indices)


@pytest.mark.parametrize("distance", ["dot", "euclidean"])
def test_groups(distance):
    """A query finds nothing of its group, itself included where it is of one."""
    x, y = random_rows(33), random_rows(29, seed=1)
    rng = np.random.default_rng(3)
    groups, others = rng.integers(-1, 5, size=33), rng.integers(-1, 5, size=29)
    barred = (groups[:, None] == others) & (groups >= 0)[:, None]
    table = neighbours(x, y, k=29, distance=distance)
    wanted = [[j for j in ranked if not barred[i, j]][:7] for i, ranked in enumerate(table.indices)]
    found = neighbours(x, y, k=7, distance=distance, groups=groups, gallery_groups=others)
    np.testing.assert_array_equal(found.indices, wanted)
    names = np.array(["a", "b", "c", "d", "e", "only here", "only there"])
    texts = names[np.where(groups < 0, 5, groups)], names[np.where(others < 0, 6, others)]
    again = neighbours(x, y, k=7, distance=distance, groups=texts[0], gallery_groups=texts[1])
    equal(again, found)
    table = neighbours(x, k=32, distance=distance).indices
    mates = (groups[:, None] == groups) & (groups >= 0)
    wanted = [[j for j in ranked if not mates[i, j]][:7] for i, ranked in enumerate(table)]
    found = neighbours(x, k=7, distance=distance, groups=groups)
    np.testing.assert_array_equal(found.indices, wanted)
    # Groups that are given anew to an index.
    own = np.arange(33)
    index = retrieval.index(x, distance=distance)
    again = neighbours(x, index, k=7, own_rows=own, groups=groups, gallery_groups=groups)
    equal(again, found)


def test_queries_of_another_scale_than_the_gallery():
    y = random_rows(40)
    index = retrieval.index(y, distance="euclidean")
    far = np.float32(1e6) * random_rows(5, seed=1)
    distances = np.linalg.norm(np.float64(far)[:, None] - np.float64(y), axis=2)
    found = neighbours(far, index, k=3)
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :3], rtol=1e-6)
    with pytest.raises(ValueError, match=r"queries: got numbers up to .* expected them less than"):
        neighbours(np.float32(1e25) * far, index, k=3)
    one = retrieval.index(y[:1], distance="squared_euclidean")
    assert neighbours(y[:1] * 1e30, retrieval.index(y[:1] * 1e30, distance="dot"), k=1).indices == 0
    far_off = retrieval.index(np.float32(1e30) * np.ones((2, 7)), distance="euclidean")
    assert neighbours(np.float32(2e30) * np.ones((1, 7)), far_off, k=1).indices == 0
    gap = ((np.float64(y[1]) - y[0]) ** 2).sum()
    assert neighbours(y[1:2], one, k=1).distances[0, 0] == pytest.approx(gap, rel=1e-6)


def test_a_million_rows_in_bounded_memory():
    """The gallery, 512 MB, and one block: its similarities and what selects from them."""
    size, dim = 1_000_000, 128
    columns = size // 64 * 64 + 64
    block = rows.block_rows(None, size, columns + 10 * dim, 4)
    shape = jax.ShapeDtypeStruct
    queries = select.Block(
        shape((block, dim), jnp.float32), shape((block,), jnp.int32), groups=None
    )
    gallery = select.Gallery(
        shape((columns, dim), jnp.float32), shape((64,), bool), first=None, groups=None
    )
    lowered = search._nearest.lower(queries, gallery, k=10, distance="cosine", by_index=False)
    memory = lowered.compile().memory_analysis()
    assert memory.temp_size_in_bytes < 256 << 20
    assert memory.argument_size_in_bytes < 520 << 20


def test_bad_input_names_itself():
    y = random_rows(9, 2)
    index = retrieval.index(y)
    calls = [
        (lambda: retrieval.index(y, distance="l2"), "distance: got 'l2', expected one of cosine"),
        (lambda: retrieval.index(y * np.nan), "gallery: row 0 holds NaN"),
        (
            lambda: neighbours(y, index, k=1, distance="dot"),
            "distance: got 'dot', expected 'cosine', that of the index",
        ),
        (lambda: neighbours(y[:, :1], index, k=1), "gallery: got rows of 2 dimensions, expected 1"),
        (lambda: neighbours(y, y, k=1, groups=range(9)), "gallery_groups: got None, expected gro"),
        (lambda: neighbours(y, k=1, groups=[1]), "groups: got 1 of them, expected 9"),
        (lambda: neighbours(y, k=1, gallery_groups=[1]), "gallery_groups: got groups without a"),
        (lambda: neighbours(y, k=8, groups=range(9)), None),
        (lambda: neighbours(y, k=1, groups=[0] * 9), "k: got 1, expected at most 0"),
        (lambda: neighbours(y, k=9, groups=[-1] * 9), "k: got 9, expected at most 8"),
        (lambda: neighbours(y, k=7, groups=[0, 0] + [-1] * 7), None),
    ]
    for call, message in calls:
        if message is None:
            call()
            continue
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- faiss


class FlatIndex:
    """An exact index with the interface of faiss that is used, where faiss is not installed."""

    def __init__(self, dim, inner):
        self.inner, self.is_trained, self.rows = inner, False, np.zeros((0, dim), np.float32)

    def train(self, rows):
        self.is_trained = bool(len(rows))

    def add(self, rows):
        if rows.dtype != np.float32 or not rows.flags.c_contiguous or not self.is_trained:
            raise TypeError
        self.rows = rows

    def search(self, queries, k):
        if self.inner:
            scores = queries @ self.rows.T
        else:
            scores = -((queries[:, None] - self.rows) ** 2).sum(axis=2)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(scores, order, axis=1)
        return (values if self.inner else -values), order.astype(np.int64)


@pytest.fixture(params=["installed", "interface"])
def faiss(request, monkeypatch):
    if request.param == "installed":
        return pytest.importorskip("faiss")

    class Module:
        METRIC_INNER_PRODUCT, METRIC_L2 = 0, 1
        index_factory = staticmethod(lambda dim, factory, metric: FlatIndex(dim, metric == 0))

    monkeypatch.setattr(approximate.importlib, "import_module", lambda name: Module)
    return Module


@pytest.mark.parametrize("distance", DISTANCES)
def test_faiss_behind_the_same_call(faiss, distance):
    x, y = random_rows(20), random_rows(60, seed=1)
    index = retrieval.faiss_index(y, distance=distance, factory="Flat")
    found, wanted = neighbours(x, index, k=5), neighbours(x, y, k=5, distance=distance)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    np.testing.assert_allclose(found.distances, wanted.distances, rtol=1e-4, atol=1e-5)
    own, groups = np.arange(20) + 3, np.arange(20) % 5 - 1
    others = np.arange(60) % 6 - 1
    options = {"own_rows": own, "groups": groups, "gallery_groups": others, "k": 5}
    found = neighbours(x, index, **options)
    wanted = neighbours(x, y, distance=distance, **options)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    assert found.indices.dtype == np.int32
    assert found.distances.dtype == np.float32
    with pytest.raises(ValueError, match="k: got 61, expected at most 60"):
        neighbours(x, index, k=61)
    with pytest.raises(ValueError, match="distance: got 'l2'"):
        retrieval.faiss_index(y, distance="l2")


def test_faiss_finds_fewer_than_asked(faiss):
    y = random_rows(6)
    index = retrieval.faiss_index(y, factory="Flat")
    found = neighbours(y, index, k=5, groups=[0] * 6, gallery_groups=[0, 0, 0, 1, 1, -1])
    np.testing.assert_array_equal(np.sort(found.indices, axis=1)[:, :2], -1)
    np.testing.assert_array_equal(np.isinf(found.distances).sum(axis=1), 2)
    assert (found.indices[:, :3] >= 3).all()


def test_faiss_that_is_not_installed(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(approximate.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="faiss_index: faiss is not installed"):
        retrieval.faiss_index(random_rows(3))


def test_metrics_of_whole_rankings_count_similarities_of_one_product():
    """Duplicates in a large gallery: closer, tied and relevant items add up to the gallery."""
    x = random_rows(1500, 6)
    x[700:1400] = x[:700]
    y = np.arange(1500) % 700
    found = metrics.retrieval(x, y, ks=(1, 2), whole=True, ties="pessimistic")
    assert found["recall_at_1"] > 0.9  # the duplicate of another place has the same label
    short = metrics.retrieval(x, y, ks=(1, 2), ties="pessimistic")
    assert {name: found[name] for name in short} == pytest.approx(short)
