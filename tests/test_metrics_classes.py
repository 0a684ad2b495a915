"""Classification, identification, clustering, grades and chunks against loops and scikit-learn."""

from __future__ import annotations

import statistics
import tracemalloc

import numpy as np
import pytest
import references_metrics as references
from sklearn import metrics as sklearn_metrics
from sklearn import neighbors

from jdml import metrics
from jdml.metrics import classify


def normal(size=50, dim=3, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, size=size)
    return (rng.normal(size=(size, dim)) + 0.5 * y[:, None]).astype(np.float32), y


def whole_numbers(size=24, seed=0):
    """Rows that tie a lot, and a lone class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, size=size)
    y[3] = 9
    return rng.integers(0, 4, size=(size, 2)), y


# ---------------------------------------------------------------- k nearest neighbours


def test_knn_is_that_of_scikit_learn():
    x, y = normal()
    gallery, labels = normal(seed=1)
    for k, weights in ((1, "uniform"), (7, lambda d: np.exp(-d / 0.3))):
        model = neighbors.KNeighborsClassifier(k, weights=weights).fit(gallery, labels)
        wanted = model.score(x, y)
        found = metrics.knn(
            x, y, k=k, gallery=gallery, gallery_labels=labels, distance="euclidean",
            temperature=None if k == 1 else 0.3,
        )  # fmt: skip
        assert found["accuracy"] == pytest.approx(wanted)


@pytest.mark.parametrize("k", [1, 4, 5])
def test_knn_votes_and_ties(k):
    x, y = whole_numbers()
    distances = references.squared(x, x)
    credit, by_class = [], {}
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        voters = sorted(others, key=lambda j: (distances[i, j], j))[:k]
        votes = {label: sum(y[j] == label for j in voters) for label in set(y[voters])}
        winners = [label for label, count in votes.items() if count == max(votes.values())]
        if y[i] in y[others]:
            credit.append((y[i] in winners) / len(winners))
            by_class.setdefault(y[i], []).append(credit[-1])
    found = metrics.knn(x, y, k=k, distance="squared_euclidean")
    assert found["accuracy"] == pytest.approx(np.mean(credit))
    assert found["class_accuracy"] == pytest.approx(
        np.mean([np.mean(v) for v in by_class.values()])
    )
    assert (found["queries"], found["lone_queries"]) == (23, 1)


def test_knn_votes_that_weigh_and_differ_by_rounding():
    """Sums of equal weights in another order tie; the credit is shared by classes, not voters."""
    classes = np.array([[4, 2, 4, 2, 9, 4, 2], [9, 9, 9, 9, 9, 9, 9], [5, 4, 3, 2, 1, 0, 1]])
    votes = np.array([[0.1, 0.3, 0.2, 0.2, 0.3, 0.3, 0.1], [0.1] * 7, [1.0] * 7])
    found = [classify._credit(classes, votes, np.array([c] * 3)).tolist() for c in (4, 2, 9, 1, 7)]
    assert found == [[0.5, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_knn_memory_grows_with_the_voters_and_not_with_their_square():
    rng = np.random.default_rng(8)
    classes, votes = rng.integers(0, 50, size=(64, 300)), np.ones((64, 300))
    tracemalloc.start()
    classify._credit(classes, votes, classes[:, 0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * votes.nbytes  # every voter against every other takes 300


# ---------------------------------------------------------------- centroids


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean", "squared_euclidean"])
@pytest.mark.parametrize("alone", [True, False])
def test_nearest_centroid(distance, alone):
    x, y = whole_numbers()
    x = x + 1  # no zero row, whose cosine has its own rule
    gallery, labels = (x, y) if alone else whole_numbers(seed=1)
    unit = lambda v: v / np.linalg.norm(v) if distance == "cosine" else v
    measure = {"cosine": lambda u, v: 1 - u @ unit(v), "dot": lambda u, v: -(u @ v)}
    between = measure.get(distance, lambda u, v: ((u - v) ** 2).sum())
    credit = []
    for i in range(len(x)):
        means = {}
        for label in set(labels.tolist()):
            members = [
                j for j in range(len(labels)) if labels[j] == label and not (alone and j == i)
            ]
            if members:
                means[label] = np.mean([unit(np.float64(gallery[j])) for j in members], axis=0)
        if y[i] not in means:
            continue
        if alone:  # other classes with nothing but this row cannot be
            assert len(means) == len(set(labels.tolist()))
        apart = {label: between(unit(np.float64(x[i])), mean) for label, mean in means.items()}
        near = [label for label, d in apart.items() if d <= min(apart.values()) + 1e-9]
        credit.append((y[i] in near) / len(near))
    given = {} if alone else {"gallery": gallery, "gallery_labels": labels}
    found = metrics.nearest_centroid(x, y, distance=distance, **given)
    assert found["accuracy"] == pytest.approx(np.mean(credit))
    assert found["queries"] == len(credit)
    assert found["lone_queries"] == len(x) - len(credit)


def test_nearest_centroid_is_that_of_scikit_learn():
    (x, y), (gallery, labels) = normal(), normal(seed=1)
    model = neighbors.NearestCentroid().fit(gallery, labels)
    found = metrics.nearest_centroid(
        x, y, gallery=gallery, gallery_labels=labels, distance="euclidean"
    )
    assert found["accuracy"] == pytest.approx(model.score(x, y))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_centroids_of_chunks(distance):
    (x, y), (gallery, labels) = normal(), normal(seed=1)
    stream = metrics.stream_centroids(range(7), 3, distance=distance)
    state = stream.empty()
    for part in np.array_split(np.arange(50), 4):
        state = stream.update(state, gallery[part], labels[part])
    centroids, classes = stream.compute(state)
    np.testing.assert_array_equal(classes, np.unique(labels))
    found = metrics.nearest_centroid(
        x, y, gallery=centroids, gallery_labels=classes, distance=distance
    )
    wanted = metrics.nearest_centroid(
        x, y, gallery=gallery, gallery_labels=labels, distance=distance
    )
    assert found == wanted
    assert not stream.empty().sums.any()  # no state was changed in place


# ---------------------------------------------------------------- few shots


def test_few_shot():
    """Separable classes are always right, equal rows a draw among the ways."""
    labels = [f"class {i}" for i in np.arange(60) % 6] + ["small"]
    far = np.append(np.arange(60) % 6, 99.0)[:, None]
    options = {"ways": 3, "shots": 2, "queries": 4, "episodes": 20, "distance": "euclidean"}
    found = metrics.few_shot(far, labels, **options)
    assert (found["accuracy"], found["half_width"], found["classes"]) == (1, 0, 6)
    assert metrics.few_shot(far * 0, labels, **options)["accuracy"] == pytest.approx(1 / 3)


def test_few_shot_interval():
    x, y = normal(200, classes=4)
    options = {"ways": 3, "shots": 1, "queries": 5, "distance": "squared_euclidean"}
    found = metrics.few_shot(x, y, episodes=50, confidence=0.9, **options)
    assert found == metrics.few_shot(x, y, episodes=50, confidence=0.9, **options)
    assert found["low"] < found["accuracy"] < found["high"]
    again = [metrics.few_shot(x, y, episodes=50, seed=s, **options)["accuracy"] for s in range(30)]
    wanted = statistics.NormalDist().inv_cdf(0.95) * np.std(again, ddof=1)
    assert found["half_width"] == pytest.approx(wanted, rel=0.35)
    assert abs(found["accuracy"] - np.mean(again)) < 3 * found["half_width"]


# ---------------------------------------------------------------- identification


@pytest.mark.parametrize("rank", [1, 2])
def test_open_set(rank):
    x, y = whole_numbers(40)
    x[:8] = x[8:16]
    gallery, labels = whole_numbers(15, seed=1)
    labels = labels % 2  # classes 2 and 3 of the queries, and 9, are unknown
    distances = references.squared(x, gallery)
    ranked = [sorted(range(15), key=lambda j: (distances[i, j], j))[:rank] for i in range(40)]
    known = [i for i in range(40) if y[i] < 2]
    unknown = [i for i in range(40) if y[i] >= 2]
    levels = (0.05, 0.3, 0.9)
    found = metrics.open_set(
        x, y, gallery=gallery, gallery_labels=labels, fars=levels, rank=rank,
        distance="squared_euclidean",
    )  # fmt: skip
    for level in levels:
        best = 0.0
        for threshold in (-1, *np.unique(distances)):
            far = np.mean([distances[i, ranked[i][0]] <= threshold for i in unknown])
            hits = [
                any(labels[j] == y[i] and distances[i, j] <= threshold for j in ranked[i])
                for i in known
            ]
            if far <= level:
                best = max(best, np.mean(hits))
        assert found[f"dir_at_far_{level}"] == pytest.approx(best)
        threshold = found[f"threshold_at_far_{level}"]
        assert np.mean([distances[i, ranked[i][0]] <= threshold for i in unknown]) <= level
    assert (found["known"], found["unknown"]) == (len(known), len(unknown))


@pytest.mark.parametrize("ties", ["expected", "optimistic", "pessimistic"])
def test_global_average_precision(ties):
    rng = np.random.default_rng(4)
    for _ in range(5):
        confidences, right = rng.integers(0, 4, size=7), rng.random(7) < 0.5
        answers = max(1, int(right.sum()) + 1)
        runs = []
        for order in references.orders(-confidences, right, ties):
            precision = [sum(order[: i + 1]) / (i + 1) for i in range(7) if order[i]]
            runs.append(sum(precision) / answers)
        found = metrics.global_average_precision(confidences, right, answers=answers, ties=ties)
        assert found == pytest.approx(np.mean(runs), abs=1e-12)


def test_gap_is_average_precision_of_nearest_neighbours():
    (x, y), (gallery, labels) = normal(), normal(seed=1)
    y[:9] = 100 + np.arange(9)  # nothing answers these
    distances = np.sqrt(references.squared(x, gallery))
    right = labels[distances.argmin(axis=1)] == y
    wanted = sklearn_metrics.average_precision_score(right, -distances.min(axis=1))
    found = metrics.gap(x, y, gallery=gallery, gallery_labels=labels, distance="euclidean")
    assert found == pytest.approx(wanted * right.sum() / 41)


def test_confusion_is_that_of_scikit_learn():
    (x, y), (gallery, labels) = normal(), normal(seed=1)
    y[:3] = 77  # a class that the gallery lacks
    distances = references.squared(x, gallery)
    names = np.array(list("abcdefghij"))
    y_names = np.where(y < 10, names[y % 10], "zebra")
    found = metrics.confusion(
        x, y_names, gallery=gallery, gallery_labels=names[labels], distance="euclidean"
    )
    nearest = labels[distances.argmin(axis=1)]
    wanted = sklearn_metrics.confusion_matrix(y[3:], nearest[3:], labels=range(5))
    np.testing.assert_array_equal(found.counts, wanted)
    np.testing.assert_array_equal(found.classes, list("abcde"))


# ---------------------------------------------------------------- clusters


def test_agreement():
    rng = np.random.default_rng(5)
    for assignments, labels in (
        (rng.integers(0, 3, size=20), rng.integers(0, 4, size=20)),
        (np.arange(20), rng.integers(0, 4, size=20)),
        (rng.integers(0, 2, size=20), np.append(np.zeros(19, int), 7)),
    ):
        found = metrics.agreement(assignments, labels)
        nmi, ari = references.agreement(assignments.tolist(), labels.tolist())
        assert found["nmi"] == pytest.approx(nmi)
        assert found["ari"] == pytest.approx(ari)
        wanted = sklearn_metrics.adjusted_mutual_info_score(labels, assignments)
        assert found["ami"] == pytest.approx(wanted)


def test_agreement_ignores_rows_of_a_negative_label():
    assignments, labels = np.array([0, 0, 1, 1, 0, 1]), np.array([5, 5, 3, 3, -1, -2])
    assert metrics.agreement(assignments, labels) == {"nmi": 1, "ami": 1, "ari": 1}
    noise = metrics.agreement([-1, -1, 1, 1], labels[:4])  # a cluster may have any number
    assert noise == {"nmi": 1, "ami": 1, "ari": 1}


def test_clustering_finds_separate_classes():
    rng = np.random.default_rng(6)
    y = np.arange(40) % 4
    x = np.eye(4)[y] + 0.05 * rng.normal(size=(40, 4))
    found = metrics.clustering(x, [f"c{label}" for label in y], repeats=3)
    assert found == {"nmi": 1, "ami": 1, "ari": 1, "clusters": 4}
    scaled = x * rng.uniform(0.1, 10, size=(40, 1))  # cosine does not see length
    assert metrics.clustering(scaled, y, repeats=3)["ari"] == 1
    assert metrics.clustering(scaled, y, repeats=3, distance="euclidean")["ari"] < 1
    y = np.append(y, -1)
    assert metrics.clustering(np.append(x, [[np.nan] * 4], 0), y, repeats=3)["ari"] == 1
    assert metrics.clustering(x, y[:-1], clusters=2, repeats=3)["nmi"] < 1


# ---------------------------------------------------------------- grades


@pytest.mark.parametrize("ties", ["expected", "optimistic", "pessimistic"])
@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_ndcg_over_every_order(ties, gain):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 3, size=(6, 2))
        grades = rng.integers(0, 4, size=(6, 6))
        grades[2] = 0
        np.fill_diagonal(grades, 3)  # nobody is relevant to himself
        distances = references.squared(x, x)
        wanted = []
        for i in (0, 1, 3, 4, 5):
            others = np.arange(6) != i
            values = grades[i, others] if gain == "linear" else 2.0 ** grades[i, others] - 1
            wanted.append(references.graded(distances[i, others], values, (1, 3), ties))
        found = metrics.ndcg(
            x, grades, ks=(1, 3), gain=gain, ties=ties, distance="squared_euclidean"
        )
        assert list(found.values())[:3] == pytest.approx(np.mean(wanted, axis=0))
        assert (found["queries"], found["lone_queries"]) == (5, 1)


def test_a_grade_that_is_not_read_may_be_infinite():
    x, grades = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0, 1, 2], [1, 0, 0], [1, 2, 0]])
    wanted = metrics.ndcg(x, grades, gain="exponential")
    assert metrics.ndcg(x, grades + np.diag([np.inf] * 3), gain="exponential") == wanted


def test_ndcg_is_that_of_scikit_learn():
    rng = np.random.default_rng(7)
    x, gallery = rng.integers(0, 3, size=(11, 2)), rng.integers(0, 3, size=(30, 2))
    grades = rng.integers(0, 3, size=(11, 30)) + 0.5
    scores = -references.squared(x, gallery)
    found = metrics.ndcg(x, grades, gallery=gallery, ks=(4,), distance="squared_euclidean")
    assert found["ndcg"] == pytest.approx(sklearn_metrics.ndcg_score(grades, scores))
    assert found["ndcg_at_4"] == pytest.approx(sklearn_metrics.ndcg_score(grades, scores, k=4))


def test_binary_grades_are_the_ndcg_of_retrieval():
    x, y = whole_numbers()
    found = metrics.ndcg(x, y[:, None] == y, ks=(3,), distance="dot")
    wanted = metrics.retrieval(x, y, ks=(3,), distance="dot", whole=True)
    assert found == pytest.approx({name: wanted[name] for name in found})


# ---------------------------------------------------------------- lists and chunks


def test_lists_of_ids():
    """The ranking of each query as ids gives what distances give."""
    x, y = normal()
    distances = references.squared(x, x)
    np.fill_diagonal(distances, np.inf)
    ranked = [[f"item {j}" for j in np.argsort(row)[:-1]] for row in distances]
    relevant = [[f"item {j}" for j in np.flatnonzero(y == y[i]) if j != i] for i in range(50)]
    found = metrics.from_lists(ranked, relevant, ks=(1, 6))
    wanted = metrics.retrieval(x, y, ks=(1, 6), distance="euclidean", whole=True)
    for name in set(found) - {"coverage_at_1", "coverage_at_6"}:
        assert found[name] == pytest.approx(wanted[name]), name
    covered = [len(set(ids[:6]) & set(r)) / len(r) for ids, r in zip(ranked, relevant)]
    assert found["coverage_at_6"] == pytest.approx(np.mean(covered))


@pytest.mark.parametrize("whole", [False, True])
def test_queries_in_chunks(whole):
    (x, y), (gallery, labels) = normal(), normal(seed=1)
    y[:4] = (-1, 55, 56, 0)
    cameras, others = np.arange(50) % 3, np.arange(50) % 3
    own = np.where(np.arange(50) < 20, np.arange(50), -1)
    for average in ("query", "class"):
        options = {"ks": (1, 3), "average": average, "whole": whole, "distance": "dot"}
        stream = metrics.stream_retrieval(gallery, labels, gallery_cameras=others, **options)
        state = stream.empty()
        for part in np.array_split(np.arange(50), 4):
            state = stream.update(state, x[part], y[part], own[part], cameras[part])
        wanted = metrics.retrieval(
            x, y, gallery=gallery, gallery_labels=labels, own_rows=own, cameras=cameras,
            gallery_cameras=others, **options,
        )  # fmt: skip
        assert stream.compute(state) == pytest.approx(wanted)
        assert list(stream.compute(state)) == list(wanted)
    assert stream.empty().counts.sum() == 0


def test_states_of_two_processes_add_up():
    (x, y), (gallery, labels) = normal(), normal(seed=1)
    stream = metrics.stream_retrieval(gallery, labels)
    first = stream.update(stream.empty(), x[:20], y[:20])
    second = stream.update(stream.empty(), x[20:], y[20:])
    together = type(first)(*(a + b for a, b in zip(first, second)))
    wanted = metrics.retrieval(x, y, gallery=gallery, gallery_labels=labels)
    assert stream.compute(together) == pytest.approx(wanted)
