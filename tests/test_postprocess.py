"""Post-processing against loops from the papers, and what it must not change."""

from __future__ import annotations

import numpy as np
import pytest

from jdml import metrics, postprocess


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def clouds(size=30, dim=4, classes=5, seed=0, noise=0.6):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(classes, dim))
    y = np.arange(size) % classes
    return centers[y] + noise * rng.normal(size=(size, dim)), y


# ---------------------------------------------------------------- expansion


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("among", [True, False])
def test_expand_queries(alpha, among):
    x = unit(clouds()[0])
    y = x if among else unit(clouds(seed=1)[0])
    wanted = []
    for i, row in enumerate(x):
        similar = [-2.0 if among and i == j else row @ other for j, other in enumerate(y)]
        nearest = np.argsort(similar)[::-1][:4]
        total = row + sum(max(similar[j], 0.0) ** alpha * y[j] for j in nearest)
        wanted.append(total / np.linalg.norm(total))
    found = postprocess.expand_queries(3 * x, None if among else y, k=4, alpha=alpha)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    if among:
        np.testing.assert_array_equal(postprocess.augment_database(3 * x, k=4, alpha=alpha), found)
        own = postprocess.expand_queries(x, x, k=4, alpha=alpha, own_rows=np.arange(30))
        np.testing.assert_allclose(own, found, rtol=1e-6)


def test_expansion_helps_where_neighbours_are_right():
    x, y = clouds(200, dim=16, classes=10, noise=1.0)
    before = metrics.retrieval(x, y)["map_at_r"]
    assert metrics.retrieval(postprocess.augment_database(x, k=5), y)["map_at_r"] > before + 0.05


# ---------------------------------------------------------------- re-ranking


def rerank_reference(x, y, k1, k2, weight):
    """The paper's steps with sets, on squared distances of unit rows, for queries x."""
    rows = unit(np.concatenate([x, y]))
    size = len(rows)
    table = np.array([[((u - v) ** 2).sum() for v in rows] for u in rows])
    table /= table.max(axis=1, keepdims=True)
    ranked = []
    for i in range(size):
        others = sorted((j for j in range(size) if j != i), key=lambda j: (table[i, j], j))
        ranked.append([i, *others])
    reciprocal = lambda i, k: {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}
    encoded = np.zeros((size, size))
    for i in range(size):
        mine = reciprocal(i, k1)
        grown = set(mine)
        for j in mine:
            theirs = reciprocal(j, round(k1 / 2))
            if len(theirs & mine) > 2 / 3 * len(theirs):
                grown |= theirs
        for j in grown:
            encoded[i, j] = np.exp(-table[i, j])
        encoded[i] /= encoded[i].sum()
    encoded = np.array([encoded[ranked[i][:k2]].mean(axis=0) for i in range(size)])
    out = np.zeros((len(x), len(y)))
    for i in range(len(x)):
        for j in range(len(y)):
            small = np.minimum(encoded[i], encoded[len(x) + j]).sum()
            large = np.maximum(encoded[i], encoded[len(x) + j]).sum()
            out[i, j] = (1 - weight) * (1 - small / large) + weight * table[i, len(x) + j]
    return out


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (5, 1, 0.0), (7, 4, 0.7)])
def test_rerank(k1, k2, weight):
    x, y = clouds(11, seed=2)[0], clouds(17, seed=3)[0]
    found = postprocess.rerank(x, y, k1=k1, k2=k2, weight=weight)
    wanted = rerank_reference(x, y, k1, k2, weight)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    # Unit rows: twice the cosine distance is the squared Euclidean one.
    squared = postprocess.rerank(
        unit(x), unit(y), k1=k1, k2=k2, weight=weight, distance="squared_euclidean"
    )
    np.testing.assert_allclose(squared, wanted, rtol=1e-5, atol=1e-6)


def test_rerank_blocks_change_nothing(monkeypatch):
    x, y = clouds(11, seed=2)[0], clouds(17, seed=3)[0]
    wanted = postprocess.rerank(x, y, k1=6)
    monkeypatch.setattr(postprocess.reranking, "_BLOCK", 4)
    np.testing.assert_allclose(postprocess.rerank(x, y, k1=6), wanted, rtol=1e-6)


def test_rerank_among_the_rows_themselves():
    x, y = clouds(200, dim=16, classes=10, noise=1.0)
    found = postprocess.rerank(x, k1=15, k2=5)
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-6)
    before = metrics.retrieval(x, y, whole=True)["map"]
    assert metrics.from_distances(found, y)["map"] > before + 0.05


def test_rerank_keeps_duplicates_together():
    x, _ = clouds(20)
    x[7] = x[3]
    found = postprocess.rerank(x, k1=4, k2=1, weight=0.5)
    assert found[3, 7] == found[3].min(where=np.arange(20) != 3, initial=9)
    assert np.isfinite(postprocess.rerank(np.ones((9, 2)), k1=3, k2=2)).all()


# ---------------------------------------------------------------- whitening


def test_whitening_makes_the_covariance_the_identity():
    x = clouds(60)[0] @ np.array([[3, 1, 0, 0], [0, 2, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0.1]]) + 7
    found = postprocess.fit_whitening(x)
    rows = (x - found.mean) @ found.projection
    np.testing.assert_allclose(rows.T @ rows / 60, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(postprocess.whiten(found, x), unit(rows))
    few = postprocess.fit_whitening(x, 2)
    np.testing.assert_allclose(few.projection, found.projection[:, :2])
    assert postprocess.whiten(few, np.float32(x)).dtype == np.float32


def test_rotation_alone_keeps_distances_and_orders_variances():
    x = clouds(60)[0]
    found = postprocess.fit_whitening(x, power=0.0)
    rows = (x - found.mean) @ found.projection
    np.testing.assert_allclose(found.projection.T @ found.projection, np.eye(4), atol=1e-12)
    assert (np.diff(rows.var(axis=0)) < 0).all()
    half = postprocess.fit_whitening(x, power=0.25)
    np.testing.assert_allclose(half.projection, found.projection / rows.var(axis=0) ** 0.25)


def test_whitening_keeps_no_axis_without_variance():
    x = clouds(30)[0]
    flat = np.concatenate([x, x[:, :2]], axis=1)
    assert postprocess.fit_whitening(flat).projection.shape == (6, 4)
    with pytest.raises(ValueError, match="dim: got 5, expected 1 to 4, the axes that have a var"):
        postprocess.fit_whitening(flat, 5)
    with pytest.raises(ValueError, match="dim: got 0, expected 1 to 0"):
        postprocess.fit_whitening(np.ones((3, 2)))


# ---------------------------------------------------------------- several models


def test_the_cosine_of_a_concatenation_is_the_mean_cosine():
    a, b = clouds(9)[0], clouds(9, dim=6, seed=4)[0]
    found = postprocess.concatenate([2 * a, b], weights=[1, 3])
    mean = 0.25 * unit(a) @ unit(a).T + 0.75 * unit(b) @ unit(b).T
    np.testing.assert_allclose(found @ found.T, mean, rtol=1e-12)


def test_average_is_the_mean_direction():
    a, b = clouds(9)[0], clouds(9, seed=4)[0]
    found = postprocess.average([a, 5 * b], weights=[2, 1])
    np.testing.assert_allclose(found, unit(2 * unit(a) + unit(b)), rtol=1e-12)
    assert postprocess.average([np.float32(a), np.float32(b)]).dtype == np.float32
    np.testing.assert_array_equal(postprocess.average([a * 0, b * 0]), 0 * a)


X = np.eye(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: postprocess.expand_queries(X, k=3), "k: got 3, expected at most 2"),
        (lambda: postprocess.expand_queries(X, alpha=-1.0), "alpha: got -1.0, expected a number"),
        (lambda: postprocess.expand_queries(X, np.eye(2)), "gallery: got rows of 2 dimensions"),
        (lambda: postprocess.augment_database(X * np.nan, k=1), "gallery: row 0 holds NaN"),
        (
            lambda: postprocess.rerank(X, k1=3, k2=1),
            "k1: got 3, expected at most 2, the other items",
        ),
        (lambda: postprocess.rerank(X, k1=1, k2=3), "k2: got 3, expected at most k1"),
        (lambda: postprocess.rerank(X, k1=1, k2=1, weight=2), "weight: got 2, expected a number"),
        (lambda: postprocess.rerank(X, k1=1, k2=1, distance="dot"), "distance: got 'dot', exp"),
        (lambda: postprocess.fit_whitening(X[:1]), "embeddings: got 1 rows, expected at least two"),
        (lambda: postprocess.fit_whitening(X, power=2), "power: got 2, expected a number from"),
        (
            lambda: postprocess.whiten(postprocess.fit_whitening(X), np.eye(2)),
            "embeddings: got rows of 2 dimensions, expected 3, those of whitening",
        ),
        (lambda: postprocess.concatenate([]), "models: got none, expected at least one"),
        (lambda: postprocess.concatenate([X, X[:2]]), "models: number 1 has 2 rows, expected 3"),
        (lambda: postprocess.concatenate([X], weights=[0]), r"weights: got \[0.0\], expected 1 n"),
        (lambda: postprocess.average([X, X[:, :2]]), "models: number 1 has 2 dimensions, expected"),
        (lambda: postprocess.average([X, X * np.inf]), r"models\[1\]: row 0 holds"),
    ],
)
def test_bad_input_names_itself(call, message):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
