"""Retrieval metrics against loops over every order of tied items, goldens, and labels."""

from __future__ import annotations

import itertools
import math

import golden_data
import jax.numpy as jnp
import numpy as np
import pytest

from jdml.metrics import long_lists, retrieval, task

TIES = ("expected", "optimistic", "pessimistic")


def scores_of_order(hits, relevant, ks):
    """The metrics of one query whose neighbours, nearest first, are relevant or not."""
    at_r = hits[:relevant]
    precision = [sum(hits[: i + 1]) / (i + 1) * hits[i] for i in range(relevant)]
    scores = {f"recall_at_{k}": float(any(hits[:k])) for k in ks}
    scores["precision_at_1"] = float(hits[0])
    scores["r_precision"] = sum(at_r) / relevant
    scores["map_at_r"] = sum(precision) / relevant
    return scores


def orders(distances, relevant, ties):
    """Every order of the items that sorts their distances; one of them when ties are not random."""
    groups = [np.flatnonzero(distances == value) for value in np.unique(distances)]
    if ties == "expected":
        for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
            yield [relevant[item] for part in parts for item in part]
    else:
        first = ties == "optimistic"
        yield [hit for group in groups for hit in sorted(relevant[group], reverse=first)]


def brute(x, y, ks, ties, gallery=None, gallery_labels=None, own=None):
    """Loops over queries and over all orders of tied items, by squared Euclidean distance."""
    if gallery is None:
        gallery, gallery_labels, own = x, y, np.arange(len(x))
    per_query = []
    for i in range(len(x)):
        others = [j for j in range(len(gallery)) if own is None or j != own[i]]
        distances = np.array([((x[i] - gallery[j]) ** 2).sum() for j in others])
        hits = np.array([int(gallery_labels[j] == y[i]) for j in others])
        if not hits.sum():
            continue
        runs = [scores_of_order(order, hits.sum(), ks) for order in orders(distances, hits, ties)]
        per_query.append({name: np.mean([run[name] for run in runs]) for name in runs[0]})
    means = {name: np.mean([scores[name] for scores in per_query]) for name in per_query[0]}
    return means | {"queries": len(per_query), "lone_queries": len(x) - len(per_query)}


def close(found, wanted, rtol=1e-12):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=rtol, abs=1e-12), name


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seed", range(4))
def test_all_orders_of_tied_items(ties, seed):
    """Few places for seven items: most tie, across the edges of every list."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, size=(7, 2)) if seed else np.zeros((7, 2), int)
    y = rng.integers(0, 3, size=7)
    ks = (1, 2, 4, 6)
    close(retrieval(x, y, ks=ks, distance="squared_euclidean", ties=ties), brute(x, y, ks, ties))


@pytest.mark.parametrize("ties", TIES)
def test_all_orders_against_a_gallery_that_holds_some_queries(ties):
    rng = np.random.default_rng(8)
    x, y = rng.integers(0, 3, size=(9, 1)), rng.integers(0, 3, size=9)
    gallery, labels = rng.integers(0, 3, size=(6, 1)), rng.integers(0, 3, size=6)
    gallery[:4], labels[:4] = x[:4], y[:4]
    own = np.array([0, 1, 2, 3, -1, -1, -1, -1, -1])
    found = retrieval(
        x,
        y,
        gallery=gallery,
        gallery_labels=labels,
        own_rows=own,
        ks=(1, 3),
        distance="squared_euclidean",
        ties=ties,
    )
    wanted = brute(x, y, (1, 3), ties, gallery, labels, [j if j >= 0 else None for j in own])
    close(found, wanted)


def large(size=300, dim=4, classes=11, seed=9):
    """Rows without ties for the loops above, in classes of different size."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, dim)).astype(np.float32)
    return x, (classes * rng.random(size) ** 2).astype(int)


def test_no_ties_and_many_blocks():
    x, y = large()
    wanted = brute(np.float64(x), y, (1, 5, 70, 299), "expected")
    for block_size in (None, 17, 100):
        found = retrieval(x, y, ks=(1, 5, 70, 299), distance="euclidean", block_size=block_size)
        close(found, wanted)


@pytest.mark.parametrize("ties", TIES)
def test_block_size_changes_nothing(ties):
    rng = np.random.default_rng(10)
    x, y = rng.integers(-1, 2, size=(90, 2)), rng.integers(0, 7, size=90)
    for ks in ((1, 2), (1, 80)):  # within the list of neighbours, and counted beyond it
        runs = [
            retrieval(x, y, ks=ks, distance="dot", ties=ties, block_size=size)
            for size in (1, 16, 33, None)
        ]
        assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("ties", TIES)
def test_recall_beyond_the_list_is_recall_within_it(ties, monkeypatch):
    rng = np.random.default_rng(11)
    x, y = rng.integers(-3, 4, size=(80, 2)), rng.integers(0, 30, size=80)
    arguments = {"ks": (1, 3, 40, 79), "distance": "euclidean", "ties": ties}
    counted = retrieval(x, y, **arguments)
    monkeypatch.setattr(task, "LONGEST_LIST", 79)
    close(retrieval(x, y, **arguments), counted)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("seed", range(3))
def test_lists_sorted_on_the_host(ties, seed, monkeypatch):
    """Every list as long lists are made: the same orders of tied items, in blocks or not."""
    monkeypatch.setattr(long_lists, "LONG", 1)
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, size=(7, 2)).astype(np.float32)
    y = rng.integers(0, 3, size=7)
    for distance, block_size in (("squared_euclidean", None), ("euclidean", 1)):
        found = retrieval(x, y, ks=(1, 2, 6), distance=distance, ties=ties, block_size=block_size)
        close(found, brute(x, y, (1, 2, 6), ties))


def test_lists_sorted_on_the_host_are_those_of_the_device(monkeypatch):
    x, y = large(dim=2)
    x = np.round(8 * x)  # many tie, and lists of 130 ranks end among them
    wanted = retrieval(x, y, ks=(1, 50), distance="dot", cameras=np.arange(300) % 3)
    monkeypatch.setattr(long_lists, "LONG", 1)
    close(retrieval(x, y, ks=(1, 50), distance="dot", cameras=np.arange(300) % 3), wanted)


def test_two_level_selection_with_ties():
    """Enough rows that neighbours are selected in two levels; many share a place."""
    rng = np.random.default_rng(12)
    x = rng.integers(-6, 7, size=(1500, 2))
    y = np.arange(1500) % 250
    found = retrieval(x, y, ks=(1, 5), distance="squared_euclidean", ties="pessimistic")
    queries = np.arange(0, 1500, 83)
    distances = ((x[queries][:, None] - x[None]) ** 2).sum(axis=-1)
    some = retrieval(
        x[queries],
        y[queries],
        gallery=x,
        gallery_labels=y,
        own_rows=queries,
        ks=(1, 5),
        distance="squared_euclidean",
        ties="pessimistic",
    )
    wanted = []
    for row, query in enumerate(queries):
        others = np.flatnonzero(np.arange(1500) != query)
        hits = (y[others] == y[query]).astype(int)
        (order,) = orders(distances[row, others], hits, "pessimistic")
        wanted.append(scores_of_order(order, hits.sum(), (1, 5)))
    for name in wanted[0]:
        assert some[name] == pytest.approx(np.mean([scores[name] for scores in wanted]))
    assert found["queries"] == 1500
    assert found["lone_queries"] == 0


def test_collapsed_embeddings_score_chance():
    """All rows equal: hit chances are those of drawing at random."""
    x, y = np.ones((40, 3)), np.arange(40) % 8  # 4 relevant among 39
    found = retrieval(x, y, ks=(1, 10))
    assert found["precision_at_1"] == pytest.approx(4 / 39)
    assert found["r_precision"] == pytest.approx(4 / 39)
    assert found["recall_at_10"] == pytest.approx(1 - math.comb(35, 10) / math.comb(39, 10))
    assert retrieval(x, y, ties="pessimistic")["recall_at_1"] == 0
    assert retrieval(x, y, ties="optimistic")["map_at_r"] == 1


def test_pessimistic_expected_optimistic_are_ordered():
    rng = np.random.default_rng(13)
    x, y = rng.integers(0, 3, size=(50, 2)), rng.integers(0, 5, size=50)
    runs = [retrieval(x, y, ks=(1, 3), distance="dot", ties=ties) for ties in TIES]
    for name in ("recall_at_1", "recall_at_3", "precision_at_1", "r_precision", "map_at_r"):
        assert runs[2][name] < runs[0][name] < runs[1][name]


# ---------------------------------------------------------------- goldens


@pytest.mark.parametrize("name", sorted(golden_data.entries("accuracy")))
def test_goldens(name):
    entry = golden_data.entries("accuracy")[name]
    data = {key: golden_data.array(path) for key, path in entry["arrays"].items()}
    x, y = data["query"], data["query_labels"]
    gallery, labels = data.get("reference"), data.get("reference_labels")
    own = None
    if gallery is not None and entry["ref_includes_query"]:
        own = np.arange(len(x))
        np.testing.assert_array_equal(gallery[: len(x)], x)
    found = retrieval(
        x,
        y,
        gallery=gallery,
        gallery_labels=labels,
        own_rows=own,
        ks=(1, 2, 4, 8),
        distance="euclidean",
    )
    (wanted,) = (
        result["metrics"] for result in entry["results"] if result["k"] is None and len(result) == 2
    )
    assert found["precision_at_1"] == pytest.approx(wanted["precision_at_1"], rel=1e-12)
    assert found["r_precision"] == pytest.approx(wanted["r_precision"], rel=1e-12)
    assert found["map_at_r"] == pytest.approx(wanted["mean_average_precision_at_r"], rel=1e-12)
    for k, recall in entry["recall_at_k_numpy"].items():
        assert found[f"recall_at_{k}"] == pytest.approx(recall, rel=1e-12)


# ---------------------------------------------------------------- labels


def test_kinds_of_labels_agree():
    x, y = large(60, classes=5)
    wanted = retrieval(x, y)
    assert retrieval(jnp.asarray(x), jnp.asarray(y)) == wanted
    assert retrieval(x, [f"class {label}" for label in y]) == wanted
    assert retrieval(x, np.array([str(label) for label in y], object)) == wanted
    assert retrieval(x, 1000 - y.astype(np.uint16)) == wanted


def test_b2_rows_with_negative_labels_are_not_there():
    x, y = large(60, classes=5)
    wanted = retrieval(x[:50], y[:50], ks=(1, 3))
    y[50:] = np.arange(-10, 0)
    x[50:] = np.nan
    assert retrieval(x, y, ks=(1, 3)) == wanted
    mixed = np.random.default_rng(0).permutation(60)
    assert retrieval(x[mixed], y[mixed], ks=(1, 3)) == pytest.approx(wanted, rel=1e-12)
    kept = x[:50]
    separate = retrieval(
        kept, y[:50], gallery=x, gallery_labels=y, own_rows=np.arange(50), ks=(1, 3)
    )
    assert separate == wanted


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": [0, 0]}, ValueError, r"labels: got 2 of them for embeddings of shape \(3, 2\)"),
        ({"labels": [[0], [0], [1]]}, ValueError, r"labels: got shape \(3, 1\)"),
        ({"labels": [0.0, 0.0, 1.0]}, TypeError, "labels: got dtype float64"),
        ({"labels": [None, 0, 0]}, TypeError, "labels: got dtype object"),
        ({"labels": [0, 1, 2]}, ValueError, "labels: none of 3 queries has a relevant item"),
        ({"labels": np.full(3, 2**64 - 1)}, ValueError, "labels: got the id 18446744073709551615"),
        ({"gallery": np.ones((2, 2))}, ValueError, "gallery_labels: got None"),
        ({"gallery_labels": [0, 0]}, ValueError, "gallery: got None"),
        (
            {"gallery": np.ones((2, 2)), "gallery_labels": ["a", "b"]},
            TypeError,
            "gallery_labels: got dtype <U1, expected the kind of labels, int64",
        ),
        (
            {"gallery": np.ones((2, 3)), "gallery_labels": [0, 1]},
            ValueError,
            "gallery: got rows of 3 dimensions, expected 2, those of embeddings",
        ),
        ({"ties": "random"}, ValueError, "ties: got 'random', expected one of expected"),
        ({"ks": (1, 0)}, ValueError, "ks: got 0, expected a whole number"),
        ({"ks": ("1",)}, ValueError, "ks: got '1', expected a whole number"),
        ({"ks": 1}, TypeError, r"ks: got 1, expected several, such as \(1, 10\)"),
        ({"embeddings": np.ones(3)}, ValueError, "labels: got 3 of them for embeddings of shape"),
    ],
)
def test_bad_input_names_itself(arguments, error, message):
    arguments = {"embeddings": np.ones((3, 2)), "labels": [0, 0, 1], **arguments}
    with pytest.raises(error, match=message) as caught:
        retrieval(**arguments)
    assert "\n" not in str(caught.value)
