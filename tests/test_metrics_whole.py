"""Metrics of the whole ranking: loops over all orders of ties, scikit-learn, goldens, averages."""

from __future__ import annotations

import math

import golden_data
import jax
import numpy as np
import pytest
import references_metrics as references
from jax.sharding import AxisType
from sklearn import metrics as sklearn_metrics

from jdml import metrics
from jdml.metrics import averages, counts
from jdml.retrieval import neighbours

TIES = ("expected", "optimistic", "pessimistic")


def close(found, wanted, rtol=1e-9):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=rtol, abs=1e-12), name


def places(kind, seed=0, size=7, dim=2):
    """Whole-number rows: random, tied, duplicated or all the same; and labels with lone classes."""
    rng = np.random.default_rng(seed)
    high = {"random": 50, "tied": 3, "duplicated": 2, "same": 1}[kind]
    return rng.integers(0, high, size=(size, dim)), rng.integers(0, 4, size=size)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("kind", ["random", "tied", "duplicated", "same"])
def test_all_orders_of_tied_items(kind, ties):
    for seed in range(3):
        x, y = places(kind, seed)
        distances, own = references.squared(x, x), np.eye(7, dtype=bool)
        by_query = references.retrieval_by_query(distances, y, y, own, (1, 2, 5), ties)
        wanted = references.means_of(by_query)
        options = {"ks": (1, 2, 5), "ties": ties}
        found = metrics.retrieval(x, y, distance="squared_euclidean", whole=True, **options)
        close(found, wanted)
        close(metrics.from_distances(distances, y, **options), wanted)
        short = metrics.retrieval(x, y, distance="squared_euclidean", **options)
        close(short, {name: wanted[name] for name in short})
        full = metrics.by_query(x, y, distance="squared_euclidean", whole=True, **options)
        for i, scores in enumerate(by_query):
            if scores is None:
                assert all(np.isnan(values[i]) for values in full.values())
            else:
                close({name: values[i] for name, values in full.items()}, scores)


@pytest.mark.parametrize("ties", TIES)
def test_cameras_and_junk_and_a_separate_gallery(ties):
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 3, size=(8, 2)), rng.integers(-1, 3, size=8)
    gallery, labels = rng.integers(0, 3, size=(7, 2)), np.array([0, 1, 2, 0, -1, 1, 0])
    cameras, others = rng.integers(0, 2, size=8), rng.integers(0, 2, size=7)
    own = np.array([-1, 3, -1, -1, 0, 6, -1, 5])
    barred = (labels < 0)[None] | ((y[:, None] == labels) & (cameras[:, None] == others))
    barred |= own[:, None] == np.arange(7)
    kept = y >= 0
    distances = references.squared(x, gallery)
    by_query = references.retrieval_by_query(
        distances[kept], y[kept], labels, barred[kept], (1, 2), ties
    )
    wanted = references.means_of(by_query)
    options = {"own_rows": own, "cameras": cameras, "gallery_cameras": others, "ks": (1, 2)}
    options |= {"ties": ties}
    given = {"gallery": gallery, "distance": "squared_euclidean"}
    found = metrics.retrieval(x, y, gallery_labels=labels, whole=True, **given, **options)
    close(found, wanted)
    short = metrics.retrieval(x, y, gallery_labels=labels, **given, **options)
    close(short, {name: wanted[name] for name in short})
    names = np.array(["left", "right"])
    options |= {"cameras": names[cameras], "gallery_cameras": names[others]}
    close(metrics.from_distances(distances, y, gallery_labels=labels, **options), wanted)


def test_cameras_among_the_rows_themselves():
    x, y = places("tied", 3, size=8)
    cameras = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    same_view = (y[:, None] == y) & (cameras[:, None] == cameras)  # holds the own row
    distances = references.squared(x, x)
    wanted = references.means_of(
        references.retrieval_by_query(distances, y, y, same_view, (1, 3), "expected")
    )
    found = metrics.retrieval(
        x, y, cameras=cameras, ks=(1, 3), distance="squared_euclidean", whole=True
    )
    close(found, wanted)
    close(metrics.from_distances(distances, y, cameras=cameras, ks=(1, 3)), wanted)


def without_ties(size=83, dim=5, classes=7):
    rng = np.random.default_rng(5)
    return rng.normal(size=(size, dim)).astype(np.float32), rng.integers(0, classes, size=size)


def test_scikit_learn_has_the_same_average_precision_and_ndcg():
    x, y = without_ties()
    found = metrics.by_query(x, y, distance="euclidean", whole=True, ks=(5,))
    distances = np.sqrt(references.squared(x, x))
    for i in range(0, len(x), 9):
        others = np.arange(len(x)) != i
        hits, scores = (y == y[i])[others], -distances[i, others]
        wanted = sklearn_metrics.average_precision_score(hits, scores)
        assert found["map"][i] == pytest.approx(wanted, rel=1e-9)
        wanted = sklearn_metrics.ndcg_score(hits[None].astype(float), scores[None])
        assert found["ndcg"][i] == pytest.approx(wanted, rel=1e-9)
        wanted = sklearn_metrics.ndcg_score(hits[None].astype(float), scores[None], k=5)
        assert found["ndcg_at_5"][i] == pytest.approx(wanted, rel=1e-9)


def test_block_size_changes_nothing():
    x, y = without_ties()
    x[40:60] = x[:20]
    runs = [
        metrics.retrieval(x, y, whole=True, ks=(1, 70), block_size=size) for size in (1, 16, 33, 99)
    ]
    assert all(run == runs[0] for run in runs)


def test_short_lists_agree_with_the_whole_ranking():
    x, y = without_ties()
    short = metrics.retrieval(x, y, ks=(1, 4, 80), average="class")
    found = metrics.retrieval(x, y, ks=(1, 4, 80), average="class", whole=True)
    close({name: found[name] for name in short}, short)


def test_cmc_is_recall_at_every_rank():
    x, y = without_ties()
    curve = metrics.cmc(x, y, ranks=20)
    assert curve.shape == (20,)
    assert (np.diff(curve) >= 0).all()
    assert curve[6] == metrics.retrieval(x, y, ks=(7,))["recall_at_7"]


# ---------------------------------------------------------------- averages


def test_means_over_classes_and_queries():
    x, y = without_ties()
    values = metrics.by_query(x, y, whole=True)["map"]
    by_class = metrics.per_class(values, y)
    assert list(by_class) == sorted(set(y.tolist()))
    assert by_class[3] == pytest.approx(values[y == 3].mean())
    found = metrics.retrieval(x, y, whole=True, average="class")
    assert found["map"] == pytest.approx(np.mean(list(by_class.values())))
    assert metrics.retrieval(x, y, whole=True)["map"] == pytest.approx(values.mean())
    assert metrics.per_class([1.0, np.nan, 0.5], [-1, 4, 4]) == {4: 0.5}


def test_bootstrap_against_the_normal_interval():
    values = np.random.default_rng(0).random(400)
    low, high = metrics.bootstrap(values, confidence=0.9, samples=2000)
    half = 1.645 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.003)
    assert high == pytest.approx(values.mean() + half, abs=0.003)
    several = metrics.bootstrap(np.stack([values, values]), confidence=0.9, samples=2000)
    np.testing.assert_allclose(several, [[low, low], [high, high]], rtol=1e-12)
    assert metrics.bootstrap(values, seed=1) != metrics.bootstrap(values)
    assert metrics.bootstrap(values, seed=1) == metrics.bootstrap(values, seed=1)


def test_bootstrap_of_whole_classes():
    """Values that are one number a class: 100 of each say no more than one."""
    groups = np.repeat(np.arange(4), 100)
    values = np.array([0.0, 0.2, 0.7, 1.0])[groups]
    assert metrics.bootstrap(values, groups=groups) == pytest.approx(
        metrics.bootstrap([0.0, 0.2, 0.7, 1.0])
    )
    low, high = metrics.bootstrap(values)
    assert high - low < 0.1
    assert metrics.bootstrap(np.ones(7), groups=list("aaaabbc")) == (1, 1)


def test_intervals_hold_the_means():
    x, y = without_ties()
    for average in ("query", "class"):
        found = metrics.retrieval(x, y, average=average, confidence=0.95, whole=True)
        intervals = found.pop("intervals")
        assert intervals.keys() == found.keys() - {"queries", "lone_queries"}
        assert all(low < found[name] < high for name, (low, high) in intervals.items())
    values = metrics.by_query(x, y)["map_at_r"]
    assert metrics.retrieval(x, y, confidence=0.9)["intervals"]["map_at_r"] == pytest.approx(
        averages.bootstrap(values, confidence=0.9)
    )


# ---------------------------------------------------------------- goldens

# What the package's metrics are called here.
NAMES = {
    "mean_average_precision": "map",
    "mean_average_precision_at_r": "map_at_r",
    "mean_reciprocal_rank": "mrr",
    "precision_at_1": "precision_at_1",
    "precision_at_5": "precision_at_5",
    "r_precision": "r_precision",
}


@pytest.mark.parametrize("name", sorted(golden_data.entries("accuracy")))
def test_goldens(name):
    """The whole ranking, cut rankings, averages over classes, and each class."""
    entry = golden_data.entries("accuracy")[name]
    data = {key: golden_data.array(path) for key, path in entry["arrays"].items()}
    x, y = data["query"], data["query_labels"]
    gallery, labels = data.get("reference"), data.get("reference_labels")
    own = np.arange(len(x)) if gallery is not None and entry["ref_includes_query"] else None
    options = {"gallery": gallery, "gallery_labels": labels, "own_rows": own, "ks": (5,)}
    options |= {"distance": "euclidean", "whole": True}
    by_query = metrics.by_query(x, y, **options)
    seen = 0
    for result in entry["results"]:
        wanted = result["metrics"]
        if result["k"] is None:
            average = "class" if result.get("avg_of_avgs") else "query"
            found = metrics.retrieval(x, y, average=average, **options)
            for theirs, ours in NAMES.items():
                value = found[ours]
                if result.get("return_per_class"):
                    value = list(metrics.per_class(by_query[ours], y).values())
                assert value == pytest.approx(wanted[theirs], rel=1e-9), theirs
                seen += 1
        if "NMI" in wanted:
            scores = metrics.agreement(data["cluster_labels"], y)
            assert scores["nmi"] == pytest.approx(wanted["NMI"], rel=1e-9)
            assert scores["ami"] == pytest.approx(wanted["AMI"], rel=1e-9)
            seen += 1
    assert seen == 19


@pytest.mark.parametrize("name", sorted(golden_data.entries("accuracy")))
def test_goldens_of_a_cut_ranking(name):
    """Only the nearest are listed, 7 or the largest class: what is not listed was never found."""
    entry = golden_data.entries("accuracy")[name]
    data = {key: golden_data.array(path) for key, path in entry["arrays"].items()}
    x, y = data["query"], data["query_labels"]
    gallery, labels = data.get("reference"), data.get("reference_labels", y)
    itself = gallery is None or entry["ref_includes_query"]
    own = np.arange(len(x)) if itself else np.full(len(x), -1)
    given = {"own_rows": own} if gallery is not None else {}
    relevant = [set(np.flatnonzero(labels == label)) - {i} for i, label in zip(own, y)]
    largest = int(np.unique(labels, return_counts=True)[1].max()) - itself
    complete = metrics.by_query(
        x, y, gallery=gallery, gallery_labels=data.get("reference_labels"), distance="euclidean",
        own_rows=own if itself and gallery is not None else None,
    )  # fmt: skip
    seen = 0
    for cut in (7, largest):
        nearest = neighbours(x, gallery, k=cut, distance="euclidean", **given).indices.tolist()
        whole = metrics.from_lists(nearest, relevant, ks=(1, 5))
        each = [
            metrics.from_lists([found], [wanted], ks=(1, 5)) if wanted else None
            for found, wanted in zip(nearest, relevant)
        ]
        for result in entry["results"]:
            if result["k"] != (7 if cut == 7 else "max_bin_count"):
                continue
            for theirs, value in result["metrics"].items():
                ours = NAMES[theirs]
                if ours in ("map_at_r", "r_precision"):  # read no further than a class is large
                    scores = complete[ours]
                else:
                    scores = [np.nan if found is None else found[ours] for found in each]
                classes = list(metrics.per_class(scores, y).values())
                if result.get("return_per_class"):
                    assert classes == pytest.approx(value, rel=1e-9), (cut, theirs)
                elif result.get("avg_of_avgs"):
                    assert np.mean(classes) == pytest.approx(value, rel=1e-9), (cut, theirs)
                else:
                    mean = whole.get(ours, np.nanmean(scores))
                    assert mean == pytest.approx(value, rel=1e-9), (cut, theirs)
                seen += 1
    assert seen == 30


def test_few_and_many_relevant_items_are_counted_alike(monkeypatch):
    x, y = without_ties(classes=2)
    x[40:60] = np.round(x[:20])
    options = {"ks": (1, 70), "whole": True, "distance": "dot"}
    many = metrics.retrieval(x, y, **options)
    monkeypatch.setattr(counts, "_FEW", 10**6)
    assert metrics.retrieval(x, y, **options) == many
    monkeypatch.setattr(counts, "_FEW", 0)
    assert metrics.retrieval(x, y, **options) == many


def test_collapsed_embeddings_score_chance():
    """All rows equal: the means of drawing 9 relevant among 1999 at random, worked out at once."""
    found = metrics.retrieval(np.ones((2000, 3)), np.arange(2000) % 200, ks=(10,), whole=True)
    assert found["precision_at_10"] == pytest.approx(9 / 1999)
    # The first of h random places among t is at place j with chance C(t-j, h-1) / C(t, h).
    chance = [math.comb(1999 - j, 8) / math.comb(1999, 9) for j in range(1, 1992)]
    assert found["mrr"] == pytest.approx(sum(p / (j + 1) for j, p in enumerate(chance)))
    assert found["inp"] == pytest.approx(sum(9 * p / (1999 - j) for j, p in enumerate(chance)))


@pytest.mark.parametrize("whole", [False, True])
def test_queries_spread_over_devices(whole):
    """Eight devices, ties, cameras, lone queries: the answer of one."""
    rng = np.random.default_rng(8)
    x, y = rng.integers(-2, 3, size=(150, 3)), rng.integers(0, 30, size=150)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    options = {"ks": (1, 100), "cameras": np.arange(150) % 2, "whole": whole, "distance": "dot"}
    wanted = metrics.retrieval(x, y, **options)
    assert metrics.retrieval(x, y, mesh=mesh, **options) == pytest.approx(wanted, rel=1e-12)
    assert metrics.retrieval(x, y, mesh=mesh, block_size=3, **options) == pytest.approx(wanted)
    options["gallery_cameras"] = options.pop("cameras")
    stream = metrics.stream_retrieval(x, y, mesh=mesh, **options)
    state = stream.empty()
    for part in (slice(0, 90), slice(90, 150)):
        own = np.arange(150)[part]
        state = stream.update(state, x[part], y[part], own, own % 2)
    assert stream.compute(state) == pytest.approx(wanted)


def test_a_perfect_ranking_scores_one():
    y = np.arange(140) // 7
    found = metrics.retrieval(np.eye(20)[y] + 0.001, y, ks=(1, 6), whole=True, ties="optimistic")
    assert set(found.values()) == {1.0, 140, 0}
    far_apart = np.random.default_rng(0).normal(size=(140, 3)) + 100.0 * y[:, None]
    found = metrics.retrieval(far_apart, y, ks=(1, 6), whole=True, distance="euclidean")
    assert set(found.values()) == {1.0, 140, 0}
