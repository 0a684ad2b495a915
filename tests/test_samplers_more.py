"""Samplers by groups, by weights and without duplicates: exact batches that miss nothing."""

from __future__ import annotations

import collections
import pickle
import warnings

import numpy as np
import pytest

from jdml.samplers import (
    ClassBalanced,
    Hierarchical,
    NoDuplicates,
    Sequential,
    Weighted,
    WeightedClasses,
    class_weights,
)

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat(np.arange(23), RNG.integers(2, 9, 23)))
GROUPS = np.array([0] * 9 + [3] * 5 + [4] * 5 + [7] * 4)[LABELS]
KEYS = np.stack([RNG.integers(0, 40, 120), RNG.integers(0, 50, 120)], axis=1)


def hierarchical(**given):
    given = {"groups_per_batch": 2, "classes_per_batch": 6, "per_class": 2, **given}
    return Hierarchical(LABELS, GROUPS, **given)


SAMPLERS = {
    "balanced": lambda seed: ClassBalanced(LABELS, 6, 2, seed=seed),
    "hierarchical": lambda seed: hierarchical(seed=seed),
    "no duplicates": lambda seed: NoDuplicates(KEYS[:, 0], 12, seed=seed),
    "no duplicates in two columns": lambda seed: NoDuplicates(KEYS, 12, seed=seed),
    "weighted": lambda seed: Weighted(class_weights(LABELS), 12, seed=seed),
    "weighted classes": lambda seed: WeightedClasses(LABELS, 6, 2, seed=seed),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_resume_are_shared_out_and_travel(name):
    one = SAMPLERS[name](3)
    forwards = [one(i) for i in range(3 * len(one) + 2)]
    assert {(rows.shape, rows.dtype.name) for rows in forwards} == {((12,), "int64")}
    resumed = SAMPLERS[name](3)
    for i in reversed(range(len(forwards))):  # started anywhere, in any order
        np.testing.assert_array_equal(resumed(i), forwards[i])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one))(5), forwards[5])
    assert any((SAMPLERS[name](4)(i) != forwards[i]).any() for i in range(3))
    assert (forwards[0] != forwards[1]).any()
    parts = [one.share(4, process, 3) for process in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), forwards[4])
    assert len(set(forwards[4])) == 12  # so no process loads the row of another
    with pytest.raises(ValueError, match="i: got -1, expected 0 or more"):
        one(-1)
    with pytest.raises(ValueError, match="process_count: got 5, expected a divisor of the batch"):
        one.share(0, 0, 5)


# ---------------------------------------------------------------- groups of classes


@pytest.mark.parametrize(("groups_per_batch", "classes_per_batch"), [(1, 4), (2, 6), (3, 6)])
def test_a_batch_has_g_groups_and_a_round_every_class(groups_per_batch, classes_per_batch):
    sampler = hierarchical(groups_per_batch=groups_per_batch, classes_per_batch=classes_per_batch)
    for turn in range(3):
        visits = collections.Counter()
        for i in range(turn * len(sampler), (turn + 1) * len(sampler)):
            labels = LABELS[sampler(i)].reshape(-1, 2)
            assert (labels == labels[:, :1]).all()
            classes = labels[:, 0]
            assert len(set(classes)) == classes_per_batch
            visits.update(classes.tolist())
            by_group = GROUPS[sampler(i)].reshape(groups_per_batch, -1)
            assert (by_group == by_group[:, :1]).all()
            assert len(set(by_group[:, 0])) == groups_per_batch
        assert set(visits) == set(range(23))
        assert max(visits.values()) <= 4


def test_every_row_and_every_pair_of_groups_comes_up():
    sampler = hierarchical(classes_per_batch=4)
    seen, pairs = set(), set()
    for i in range(20 * len(sampler)):
        rows = sampler(i)
        seen.update(rows.tolist())
        pairs.add(frozenset(GROUPS[rows].tolist()))
    assert seen == set(range(len(LABELS)))
    assert len(pairs) == 6


def test_a_group_larger_than_the_others_makes_a_round_longer():
    labels = np.repeat(np.arange(14), 2)
    groups = np.where(labels < 10, 0, labels)  # ten classes in one group, four alone
    with pytest.warns(UserWarning, match="4 of 5 groups have fewer than .* = 2 classes: they are"):
        sampler = Hierarchical(labels, groups, 2, 4, 2)
    assert len(sampler) == 5
    classes = [set(labels[sampler(i)]) for i in range(5)]
    assert set.union(*classes) == set(range(14))
    assert all(sum(c < 10 for c in found) == 2 for found in classes)


def test_small_groups_that_are_too_few_join_the_smallest_other():
    labels = np.repeat(np.arange(9), 2)
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])[labels]
    with pytest.warns(UserWarning, match="1 of 3 groups have fewer than"):
        sampler = Hierarchical(labels, groups, 1, 3, 2)
    seen = [set(groups[sampler(i)]) for i in range(len(sampler))]
    assert set.union(*seen) == {0, 1, 2}
    assert all(found == {0} or 0 not in found for found in seen)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"groups_per_batch": 4}, "classes_per_batch: got 6, expected a multiple of .* = 4"),
        ({"groups_per_batch": 5, "classes_per_batch": 5}, "groups_per_batch: got 5, expected 4 or"),
        ({"groups_per_batch": 0}, "groups_per_batch: got 0, expected 1 or more"),
        ({"classes_per_batch": 24, "groups_per_batch": 1}, "classes_per_batch: got 24, expected 2"),
        ({"small_classes": "skip"}, "small_classes: got 'skip', expected 'repeat' or 'drop'"),
    ],
)
def test_groups_that_cannot_be_drawn_are_refused(given, names):
    with pytest.raises(ValueError, match=names):
        hierarchical(**given)


def test_a_class_that_comes_again_in_a_round_brings_the_same_rows():
    sampler = hierarchical(classes_per_batch=8)  # four of a group of 9, 5 or 4 classes
    for turn in range(3):
        had, visits = {}, 0
        for k in range(len(sampler)):
            for rows in sampler(turn * len(sampler) + k).reshape(8, 2):
                first = had.setdefault(LABELS[rows[0]], rows)
                np.testing.assert_array_equal(rows, first)
                visits += 1
        assert visits > len(had) == 23


def test_a_class_has_one_group():
    with pytest.raises(ValueError, match="groups: class 0 is in groups 0 and 1, expected one"):
        Hierarchical(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 1, 2, 2)
    with pytest.raises(ValueError, match=r"groups: got \(3,\), expected one a label, \(4,\)"):
        Hierarchical(np.array([0, 0, 1, 1]), np.array([0, 1, 1]), 1, 2, 2)


# ---------------------------------------------------------------- no duplicates


@pytest.mark.parametrize("keys", [KEYS[:, 0], KEYS, KEYS.astype(str)], ids=["one", "two", "text"])
def test_c7_rows_with_a_common_key_never_meet_and_a_round_has_all_rows(keys):
    sampler = NoDuplicates(keys, batch_size=12)
    columns = keys.reshape(len(keys), -1)
    seen = collections.Counter()
    for i in range(len(sampler)):
        rows = sampler(i)
        seen.update(rows.tolist())
        for column in columns[rows].T:
            assert len(set(column)) == 12
    assert set(seen) == set(range(len(keys)))
    assert len(sampler) <= 13  # ten would hold all


def test_rows_that_share_nothing_come_once_a_round():
    sampler = NoDuplicates(np.arange(30) % 20, batch_size=5)
    for turn in range(3):
        rows = [sampler(i) for i in range(turn * 6, turn * 6 + 6)]
        assert sorted(np.concatenate(rows)) == list(range(30))


def test_a_frequent_key_is_in_every_batch_once_and_the_rest_is_filled_up():
    keys = np.array([9] * 10 + [0, 1, 2, 3])
    sampler = NoDuplicates(keys, batch_size=3)
    assert len(sampler) == 10
    batches = [sampler(i) for i in range(10)]
    assert all((keys[rows] == 9).sum() == 1 for rows in batches)
    assert set(np.concatenate(batches)) == set(range(14))


def test_rows_without_a_key_are_never_taken():
    keys = np.where(np.arange(40) % 4, np.arange(40), -1)
    sampler = NoDuplicates(keys, batch_size=6)
    assert set(np.concatenate([sampler(i) for i in range(5)])) == set(np.flatnonzero(keys >= 0))


def test_keys_that_are_too_few_are_refused():
    with pytest.raises(ValueError, match="batch_size: got 5, expected 4 or less, the number of di"):
        NoDuplicates(np.arange(8) % 4, batch_size=5)
    with pytest.raises(TypeError, match=r"keys: got float64\[3\], expected integers or strings"):
        NoDuplicates(np.zeros(3), batch_size=2)
    chained = NoDuplicates(np.array([[0, 0], [0, 1], [1, 1]]), batch_size=2)
    with pytest.raises(ValueError, match="batch_size: got 2, expected less: no more than 1 rows"):
        [chained(i) for i in range(len(chained))]


# ---------------------------------------------------------------- weights


def off(count, chance, draws):
    """Squared deviations from the expected counts in units of their variance, a row a degree."""
    variance = draws * chance * (1 - chance)
    return ((count - draws * chance)[variance > 0] ** 2 / variance[variance > 0]).mean()


def test_rows_come_as_often_as_their_weights_say():
    weights = RNG.gamma(1.0, size=40)
    weights[3] = 0
    sampler = Weighted(weights, batch_size=6, seed=1)
    count = np.bincount(np.concatenate([sampler(i) for i in range(2000)]), minlength=40)
    chance = 6 * weights / weights.sum()
    assert chance.max() < 1
    assert count[3] == 0
    assert off(count, chance, 2000) < 1.6


def test_a_weight_too_large_is_in_every_batch_and_the_rest_keeps_its_proportions():
    weights = np.array([50.0, 30.0, 1.0, 2.0, 3.0, 4.0])
    sampler = Weighted(weights, batch_size=3)
    count = np.bincount(np.concatenate([sampler(i) for i in range(2000)]))
    assert count[0] == count[1] == 2000
    assert off(count[2:], weights[2:] / 10, 2000) < 3
    everything = Weighted(weights, batch_size=6)
    assert set(everything(0)) == set(range(6))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_come_as_often_as_a_power_of_their_size(power):
    sampler = WeightedClasses(LABELS, classes_per_batch=4, per_class=2, power=power, seed=2)
    classes = np.concatenate([LABELS[sampler(i)].reshape(4, 2)[:, 0] for i in range(1500)])
    sizes = np.bincount(LABELS).astype(float)
    chance = 4 * sizes**power / (sizes**power).sum()
    assert off(np.bincount(classes, minlength=23), chance, 1500) < 2
    row = class_weights(LABELS, power)
    by_class = np.bincount(LABELS, row)
    np.testing.assert_allclose(by_class, chance / 4)
    assert row.sum() == pytest.approx(1)


def test_weights_of_the_user_choose_classes_and_0_leaves_one_out():
    weights = np.ones(23)
    weights[[4, 5]] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = WeightedClasses(LABELS, 4, 2, weights=weights)
    seen = set(np.concatenate([LABELS[sampler(i)] for i in range(200)]).tolist())
    assert seen == set(range(23)) - {4, 5}


@pytest.mark.parametrize(
    ("weights", "size", "chance"),
    [
        (np.full(10, 1e308), 2, np.full(10, 0.2)),
        ([5e-324] * 4 + [1.0], 2, [0.25] * 4 + [1.0]),
        ([5e-324, 5e-324, 1e308], 3, [1.0] * 3),
        ([1e308, 1e308, 0.0, 5e-324], 2, [1.0, 1.0, 0.0, 0.0]),
    ],
)
def test_weights_as_large_or_small_as_floats_go_fill_batches(weights, size, chance):
    sampler = Weighted(weights, batch_size=size)
    np.testing.assert_allclose(sampler._chances, chance)
    assert all(len(set(sampler(i))) == size for i in range(20))
    labels = np.arange(len(weights))
    classes = WeightedClasses(labels, size, 1, weights=weights)
    assert all(len(set(classes(i))) == size for i in range(20))


def test_a_class_of_weight_0_is_not_warned_of():
    labels = np.array([0, 0, 1, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WeightedClasses(labels, 2, 2, weights=[1, 1, 0])
    with pytest.warns(UserWarning, match="1 of 2 classes have fewer than per_class = 2 rows"):
        WeightedClasses(labels, 2, 2, weights=[1, 0, 1])


NUMBERS = {
    ClassBalanced: ("classes_per_batch", "per_class", "seed"),
    Hierarchical: ("groups_per_batch", "classes_per_batch", "per_class", "seed"),
    WeightedClasses: ("classes_per_batch", "per_class", "seed"),
    NoDuplicates: ("batch_size", "seed"),
    Weighted: ("batch_size", "seed"),
    Sequential: ("size", "batch_size"),
}


@pytest.mark.parametrize(("kind", "name"), [(k, name) for k in NUMBERS for name in NUMBERS[k]])
def test_numbers_that_are_no_counts_are_refused_at_once(kind, name):
    data = {
        Hierarchical: (np.arange(40) % 8, np.arange(40) % 4),
        Weighted: (np.ones(40),),
        Sequential: (),
    }.get(kind, (np.arange(40) % 8,))
    given = dict.fromkeys(NUMBERS[kind], 2)
    sampler = kind(*data, **{one: np.int64(value) for one, value in given.items()})
    sampler(np.int64(0))
    for wrong in (1.5, 2.0, "2", None):
        with pytest.raises(TypeError, match=f"{name}: got {wrong!r}, expected an integer"):
            kind(*data, **{**given, name: wrong})
    with pytest.raises(ValueError, match=rf"{name}: got -1, expected \d or more"):
        kind(*data, **{**given, name: -1})
    with pytest.raises(TypeError, match=r"i: got 1\.5, expected an integer"):
        sampler(1.5)


@pytest.mark.parametrize("power", [np.nan, np.inf, "1"])
def test_a_power_that_is_no_number_is_refused(power):
    with pytest.raises(ValueError, match=r"power: got .*, expected a finite number"):
        WeightedClasses(LABELS, 4, 2, power=power)
    with pytest.raises(ValueError, match=r"power: got .*, expected a finite number"):
        class_weights(LABELS, power)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"weights: got -1\.0, expected numbers of 0 or more"):
        Weighted(np.array([1.0, -1.0]), batch_size=1)
    with pytest.raises(ValueError, match="batch_size: got 3, expected 2 or less, the number of"):
        Weighted(np.array([1.0, 0.0, 2.0]), batch_size=3)
    with pytest.raises(ValueError, match="weights: got 22, expected 23 or more, one a label"):
        WeightedClasses(LABELS, 4, 2, weights=np.ones(22))
    with pytest.raises(ValueError, match="labels: got no class"):
        class_weights(np.array([-1, -1]))
    with pytest.warns(UserWarning, match="have fewer than per_class = 9 rows"):
        WeightedClasses(LABELS, 4, 9)
