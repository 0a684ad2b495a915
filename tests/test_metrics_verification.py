"""Verification, pairs and folds against loops and scikit-learn, on random and tied similarities."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import jax
import numpy as np
import pytest
import references_metrics as references
from sklearn import metrics as sklearn_metrics

from jdml import metrics


def similarities(kind, size=60):
    rng = np.random.default_rng(7)
    same = rng.random(size) < 0.4
    values = rng.normal(size=size) + same
    if kind == "tied":
        values = np.round(2 * values) / 2
    elif kind == "same":
        values = np.ones(size)
    elif kind == "separable":
        values = same + 0.1 * rng.random(size)
    return values, same


KINDS = ("random", "tied", "same", "separable")


@pytest.mark.parametrize("kind", KINDS)
def test_roc(kind):
    values, same = similarities(kind)
    curve = metrics.roc(values, same)
    assert (np.diff(curve.thresholds) < 0).all()
    for threshold, *rates in zip(*curve):
        assert tuple(rates) == pytest.approx(references.rates(values, same, threshold))
    far, tar, thresholds = sklearn_metrics.roc_curve(same, values, drop_intermediate=False)
    np.testing.assert_allclose((curve.far, curve.tar), (far, tar))
    np.testing.assert_array_equal(curve.thresholds, thresholds)


@pytest.mark.parametrize("kind", KINDS)
def test_verification(kind):
    values, same = similarities(kind)
    options = {"target_prior": 0.1, "miss_cost": 2.0, "false_alarm_cost": 0.5}
    found = metrics.verification(values, same, fars=(0.02, 0.25), **options)
    thresholds = [math.inf, *sorted(set(values), reverse=True)]
    points = [references.rates(values, same, threshold) for threshold in thresholds]
    assert found["eer"] == pytest.approx(references.equal_error(values, same))
    assert found["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(same, values))
    for level in (0.02, 0.25):
        wanted = max(tar for far, tar in points if far <= level)
        assert found[f"tar_at_far_{level}"] == pytest.approx(wanted)
        far, tar = references.rates(values, same, found[f"threshold_at_far_{level}"])
        assert (far <= level, tar) == (True, pytest.approx(wanted))
    costs = [0.2 * (1 - tar) + 0.45 * far for far, tar in points]
    assert found["min_dcf"] == pytest.approx(min(costs) / 0.2)
    far, tar = references.rates(values, same, found["min_dcf_threshold"])
    assert 0.2 * (1 - tar) + 0.45 * far == pytest.approx(min(costs))
    right = [np.mean((values >= t) == same) for t in thresholds]
    assert found["best_accuracy"] == pytest.approx(max(right))
    assert np.mean((values >= found["best_threshold"]) == same) == pytest.approx(max(right))
    assert (found["same_pairs"], found["other_pairs"]) == (same.sum(), (~same).sum())
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_counts_a_pair_so_many_times(kind):
    values, same = similarities(kind)
    times = np.arange(60) % 4  # 0 leaves a pair out
    found = metrics.roc(values, same, weights=times)
    wanted = metrics.roc(np.repeat(values, times), np.repeat(same, times))
    np.testing.assert_array_equal(found.thresholds, wanted.thresholds)
    np.testing.assert_allclose((found.far, found.tar), (wanted.far, wanted.tar), rtol=1e-14)
    scaled = metrics.roc(values, same, weights=times / 7)
    np.testing.assert_allclose(scaled.tar, wanted.tar, rtol=1e-14)


def test_the_threshold_of_equal_errors_is_where_the_rates_meet():
    found = metrics.verification([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert (found["eer"], found["eer_threshold"]) == (0.5, 0.8)


def test_known_values():
    """Separable pairs make no error; pairs that all tie are worth a coin."""
    found = metrics.verification(*similarities("separable"))
    assert (found["eer"], found["auc"], found["min_dcf"], found["best_accuracy"]) == (0, 1, 0, 1)
    assert found["tar_at_far_0.001"] == 1
    found = metrics.verification(*similarities("same"))
    assert (found["eer"], found["auc"], found["min_dcf"]) == (0.5, 0.5, 1.0)
    assert found["tar_at_far_0.1"] == 0


@pytest.mark.parametrize("kind", ["random", "tied", "separable"])
def test_fold_accuracy(kind):
    values, same = similarities(kind)
    folds = np.arange(60) * 5 // 60
    found = metrics.fold_accuracy(values, same, folds=5)
    assert found == metrics.fold_accuracy(values, same, folds=folds)
    assert len(found["thresholds"]) == 5
    assert found["accuracy"] == pytest.approx(np.mean(found["accuracies"]))
    error = np.std(found["accuracies"], ddof=1) / math.sqrt(5)
    assert found["standard_error"] == pytest.approx(error)
    for fold in range(5):
        inside = folds == fold
        best = metrics.verification(values[~inside], same[~inside])
        assert found["thresholds"][fold] == best["best_threshold"]
        right = (values[inside] >= best["best_threshold"]) == same[inside]
        assert found["accuracies"][fold] == right.mean()


def test_the_threshold_stands_in_the_middle_of_the_widest_gap():
    values = np.array([1.0, 2.0, 3.0, 6.0, 7.0, 7.5])
    assert metrics.verification(values, values > 4)["best_threshold"] == 4.5
    mixed = np.array([False, True, False, True, True, True])  # two thresholds judge five rightly
    assert metrics.verification(values, mixed)["best_threshold"] == 4.5


@pytest.mark.parametrize("distance", ["cosine", "dot", "euclidean", "squared_euclidean"])
def test_all_pairs(distance):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 3)), np.array([0, 0, 1, 1, 1, 2, -1, 2, 0])
    found = metrics.pairs(x, y, distance=distance)
    wanted = [(i, j) for i, j in itertools.combinations(range(9), 2) if 6 not in (i, j)]
    assert list(zip(found.first, found.second)) == wanted
    np.testing.assert_array_equal(found.same, [y[i] == y[j] for i, j in wanted])
    unit = lambda v: v / math.sqrt(sum(v * v))
    measure = {
        "cosine": lambda u, v: sum(unit(u) * unit(v)),
        "dot": lambda u, v: sum(u * v),
        "euclidean": lambda u, v: -math.sqrt(sum((u - v) ** 2)),
        "squared_euclidean": lambda u, v: -sum((u - v) ** 2),
    }[distance]
    np.testing.assert_allclose(found.similarities, [measure(x[i], x[j]) for i, j in wanted])


def test_a_sample_of_pairs():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 2)), rng.integers(0, 6, size=60)
    everything = metrics.pairs(x, y)
    same_pairs = int(everything.same.sum())
    for most, wanted in ((100, 50), (1000, same_pairs), (1700, same_pairs)):
        found = metrics.pairs(x, y, most=most)
        assert len(found.first) == most
        assert len(set(zip(found.first, found.second))) == most
        assert (found.first < found.second).all()
        np.testing.assert_array_equal(found.same, y[found.first] == y[found.second])
        assert found.same.sum() == min(wanted, same_pairs)
    draws = [metrics.pairs(x, y, most=40, seed=seed) for seed in range(200)]
    drawn = np.concatenate([d.first[d.same] * 60 + d.second[d.same] for d in draws])
    counts = np.bincount(drawn, minlength=3600)[
        (everything.first * 60 + everything.second)[everything.same]
    ]
    assert counts.sum() == 200 * 20  # each pair of one class is drawn, none much more than others
    assert counts.min() > 0
    assert counts.max() < 3 * counts.mean()


def test_a_sample_where_few_pairs_differ():
    """Nearly all rows of one class: pairs of different classes are listed rather than drawn."""
    y = np.array([0] * 40 + [1])
    found = metrics.pairs(np.arange(41.0)[:, None], y, most=60, distance="euclidean")
    assert (found.same.sum(), (~found.same).sum()) == (30, 30)
    assert len(set(zip(found.first, found.second))) == 60


def test_the_number_of_a_pair_of_two_classes_is_its_place_among_all_of_them():
    from jdml.metrics.pairing import _others

    rng = np.random.default_rng(4)
    for classes in (1, 2, 3, 9):
        codes = rng.integers(0, classes, size=17)
        pairs = itertools.combinations(range(17), 2)
        wanted = [(i, j) for i, j in pairs if codes[i] != codes[j]]
        found = _others(np.arange(len(wanted)), codes)
        assert list(zip(*found.tolist())) == wanted


@pytest.mark.parametrize("strangers", [0, 1])
def test_a_sample_lists_no_more_pairs_than_it_draws(strangers):
    y = np.zeros(3000, int)  # 4.5 million pairs
    y[:strangers] = 1
    tracemalloc.start()
    found = metrics.pairs(np.ones((3000, 1)), y, most=40, distance="dot")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.first) == 40
    assert (~found.same).sum() == 20 * strangers
    assert peak < 2e6  # bytes; a list of all pairs has 72 million


def test_numbers_of_pairs_name_their_members():
    from jdml.metrics.pairing import _members

    wanted = [(low, high) for high in range(1, 60) for low in range(high)]
    low, high = _members(np.arange(len(wanted)))
    assert list(zip(low, high)) == wanted
    low, high = _members(np.array([10**17]))  # where a float64 root is no longer exact
    assert 0 <= low[0] < high[0]
    assert high[0] * (high[0] - 1) // 2 + low[0] == 10**17


def test_histograms_of_pairs_in_chunks():
    values, same = similarities("separable")
    stream = metrics.stream_pairs(bins=64, low=-0.5, high=1.5)
    state = stream.empty()
    for part in np.array_split(np.arange(60), 7):
        state = stream.update(state, values[part], same[part])
    found = stream.compute(state)
    np.testing.assert_array_equal(found.same, np.histogram(values[same], found.edges)[0])
    np.testing.assert_array_equal(found.other, np.histogram(values[~same], found.edges)[0])
    outside = stream.compute(stream.update(stream.empty(), [-9.0, 9.0, 1.5], [True, True, False]))
    assert (outside.same[0], outside.same[-1], outside.other[-1]) == (1, 1, 1)


def test_histograms_of_two_processes_add_up_and_have_the_curve_of_all_pairs():
    values, same = similarities("random")
    stream = metrics.stream_pairs(bins=64, low=-4.0, high=4.0)
    states = [stream.update(stream.empty(), values[i::2], same[i::2]) for i in range(2)]
    found = stream.compute(jax.tree.map(np.add, *states))
    wanted = stream.compute(stream.update(stream.empty(), values, same))
    for one, other in zip(found, wanted):
        np.testing.assert_array_equal(one, other)
    at, kinds = np.tile(found.edges[:-1], 2), np.repeat([True, False], 64)
    curve = metrics.roc(at, kinds, weights=np.append(found.same, found.other))
    assert len(curve.far) > 20
    for threshold, *rates in zip(*curve):
        assert tuple(rates) == pytest.approx(references.rates(values, same, threshold))


def test_triplet_accuracy():
    rng = np.random.default_rng(3)
    a, p, n = rng.integers(-2, 3, size=(3, 50, 2))
    for distance in ("dot", "squared_euclidean"):
        measure = {
            "dot": lambda u, v: -(u @ v),
            "squared_euclidean": lambda u, v: ((u - v) ** 2).sum(),
        }[distance]
        gaps = [measure(x, z) - measure(x, y) for x, y, z in zip(a, p, n)]
        wanted = np.mean([0.5 + 0.5 * np.sign(gap) for gap in gaps])
        assert metrics.triplet_accuracy(a, p, n, distance=distance) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.roc([1.0, 2.0], [True, True]), ValueError, "same: got no pair of diff"),
        (lambda: metrics.roc([1.0, 2.0], [False, False]), ValueError, "same: got no pair of one"),
        (lambda: metrics.roc([1.0], [True, False]), ValueError, r"same: got shape \(2,\)"),
        (lambda: metrics.roc([1.0, 2.0], [1, 0]), TypeError, "same: got dtype int64, expected b"),
        (lambda: metrics.roc([1.0, np.nan], [True, False]), ValueError, "pair 1 is nan"),
        (lambda: metrics.roc(["a", "b"], [True, False]), TypeError, "similarities: got dtype"),
        (
            lambda: metrics.roc([1.0, 2.0], [True, False], weights=[1.0]),
            ValueError,
            r"weights: got shape \(1,\), expected \(2,\), one a pair",
        ),
        (
            lambda: metrics.roc([1.0, 2.0], [True, False], weights=[1.0, -1.0]),
            ValueError,
            "weights: pair 1 has -1.0, expected finite numbers >= 0",
        ),
        (
            lambda: metrics.roc([1.0, 2.0], [True, False], weights=[0.0, 1.0]),
            ValueError,
            "same: got no pair of one class",
        ),
        (
            lambda: metrics.verification([1.0, 2.0], [True, False], fars=(0,)),
            ValueError,
            "fars: got 0, expected rates above 0",
        ),
        (
            lambda: metrics.verification([1.0, 2.0], [True, False], target_prior=1.0),
            ValueError,
            "target_prior: got 1",
        ),
        (
            lambda: metrics.fold_accuracy([1.0, 2.0], [True, False], folds=1),
            ValueError,
            "folds: got 1, expected at least two",
        ),
        (
            lambda: metrics.fold_accuracy([1.0, 2.0], [True, False], folds=2),
            ValueError,
            "folds: without fold 0 there is one kind of pair",
        ),
        (
            lambda: metrics.fold_accuracy([1.0, 2.0], [True, False], folds=3),
            ValueError,
            "folds: got 3, expected at most 2, the pairs",
        ),
        (
            lambda: metrics.triplet_accuracy(*np.ones((3, 0, 2))),
            ValueError,
            "anchors: got 0 rows, expected at least one",
        ),
        (
            lambda: metrics.pairs(np.ones((2, 2)), [0, 0], distance="l2"),
            ValueError,
            "distance: got 'l2', expected one of cosine",
        ),
        (
            lambda: metrics.triplet_accuracy([[1.0]], [[1.0]], [[1.0], [2.0]]),
            ValueError,
            r"negatives: got shape \(2, 1\), expected \(1, 1\)",
        ),
    ],
)
def test_bad_input_names_itself(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
