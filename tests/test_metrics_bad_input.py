"""Bad input to any metric is refused in one line that names the argument, got and expected."""

from __future__ import annotations

import numpy as np
import pytest

from jdml import metrics

X, Y = np.eye(4), [0, 0, 1, 1]
BAD = [
    (lambda: metrics.knn(X, Y, k=4), "k: got 4, expected at most 3"),
    (lambda: metrics.knn(X, Y, temperature=0.0), "temperature: got 0.0, expected a number above 0"),
    (lambda: metrics.knn(X, [0, 1, 2, 3], k=1), "labels: none of 4 queries has another row"),
    (lambda: metrics.nearest_centroid(X, Y, distance="l2"), "distance: got 'l2', expected one of"),
    (
        lambda: metrics.nearest_centroid(X, Y, gallery=np.eye(3), gallery_labels=[0, 1, 2]),
        "gallery: got rows of 3 dimensions, expected 4",
    ),
    (lambda: metrics.few_shot(X, Y, ways=3), "ways: got 3, expected at most 0, the classes with"),
    (lambda: metrics.few_shot(X, Y, ways=1), "ways: got 1, expected at least 2"),
    (lambda: metrics.few_shot(X, Y, confidence=95), "confidence: got 95, expected a number betw"),
    (
        lambda: metrics.open_set(X, Y, gallery=X, gallery_labels=Y),
        "labels: got no unknown query, expected known and unknown",
    ),
    (lambda: metrics.gap(X, [0, 1, 2, 3]), "labels: none of 4 queries has a relevant item"),
    (
        lambda: metrics.global_average_precision([1.0, 2.0], [True, True], answers=1),
        "answers: got 1, expected at least 2",
    ),
    (lambda: metrics.clustering(X, Y, clusters=5), "clusters: got 5, expected at most 4"),
    (lambda: metrics.clustering(X, Y, distance="dot"), "distance: got 'dot', expected cosine or"),
    (lambda: metrics.agreement([0, 1], [0]), "assignments: got 2 of them, expected 1"),
    (lambda: metrics.agreement([0, 1], [-1, -1]), "labels: got no row that is not ignored, expect"),
    (lambda: metrics.ndcg(X, np.eye(3)), r"relevance: got shape \(3, 3\) of float64, expected"),
    (lambda: metrics.ndcg(X, -np.eye(4)), "relevance: row 0 holds the grade -1.0, expected gr"),
    (lambda: metrics.ndcg(X, np.eye(4) * np.nan), "relevance: row 0 holds NaN"),
    (
        lambda: metrics.ndcg(X, [[0, 1, 0, 0]] * 2 + [[0, np.inf, 0, 0]] * 2),
        "relevance: row 2 has gains that add up to inf, expected a finite number",
    ),
    (
        lambda: metrics.ndcg(X, [[0, 3, 0, 1100]] * 4, gain="exponential"),
        "relevance: row 0 has gains that add up to inf, expected a finite number",
    ),
    (lambda: metrics.ndcg(X, np.eye(4)), "relevance: none of 4 queries has a grade above 0"),
    (lambda: metrics.ndcg(X, np.ones((4, 4)), gain="log"), "gain: got 'log', expected one of lin"),
    (lambda: metrics.ndcg(X, np.ones((4, 4)), ks=(9,)), "ks: got 9, expected at most 3"),
    (lambda: metrics.retrieval(X, Y, average="row"), "average: got 'row', expected one of query"),
    (lambda: metrics.retrieval(X, Y, confidence=2.0), "confidence: got 2.0, expected a number"),
    (lambda: metrics.retrieval(X, Y, cameras=[1, 2]), "cameras: got 2 of them, expected 4"),
    (
        lambda: metrics.retrieval(X, Y, gallery=X, gallery_labels=Y, cameras=Y),
        "gallery_cameras: got None, expected cameras and gallery_cameras together",
    ),
    (
        lambda: metrics.retrieval(X, Y, gallery_cameras=Y),
        "gallery_cameras: got cameras without a gallery",
    ),
    (lambda: metrics.from_distances(X, Y, ks=(4,)), "ks: got 4, expected at most 3"),
    (lambda: metrics.from_distances(X, [0, 1]), r"distances: got shape \(4, 4\), expected \(2, 2"),
    (lambda: metrics.from_distances(X * np.nan, Y), "distances: row 0 holds NaN"),
    (lambda: metrics.from_distances(X, [0, 1, 2, 3]), "labels: none of 4 queries has a relevant"),
    (
        lambda: metrics.from_lists([[1]], [[1], [2]]),
        "relevant: got 2 of them, expected 1, as ranked",
    ),
    (lambda: metrics.from_lists([[1]], [[]]), "relevant: none of 1 queries has a relevant id"),
    (lambda: metrics.per_class([1.0], [0, 1]), r"values: got shape \(1,\), expected \(2,\)"),
    (lambda: metrics.bootstrap([]), r"values: got shape \(0,\), expected at least one"),
    (lambda: metrics.bootstrap([1.0, np.nan]), "values: got NaN, expected those of scored"),
    (lambda: metrics.bootstrap([1.0], groups=[0, 1]), "groups: got 2 of them, expected 1"),
    (lambda: metrics.stream_pairs(low=1.0), "high: got 1.0, expected a number above low"),
    (
        lambda: metrics.stream_centroids([0], 4).update(
            metrics.stream_centroids([0], 4).empty(), X, Y
        ),
        "labels: got 1, expected one of 1 classes",
    ),
    (
        lambda: metrics.stream_retrieval(X, Y).compute(metrics.stream_retrieval(X, Y).empty()),
        "compute: got no query with a relevant item",
    ),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input_names_itself(number):
    call, message = BAD[number]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
