"""Samplers: exact batches, every class visited, batch i a function of the seed and i."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from jdml.samplers import ClassBalanced, Sequential, share
from jdml.samplers.batches import visit

LABELS = np.repeat(np.arange(10), [4, 5, 6, 7, 4, 5, 6, 7, 4, 5])[
    np.random.default_rng(0).permutation(53)
]


def classes_of(sampler, i):
    return sampler.labels[sampler(i)].reshape(sampler.classes_per_batch, sampler.per_class)


def test_c2_every_batch_is_exactly_p_times_k_and_every_class_is_visited():
    sampler = ClassBalanced(LABELS, classes_per_batch=3, per_class=2)
    seen = []
    for i in range(50):
        rows, classes = sampler(i), classes_of(sampler, i)
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0])) == 3
        assert len(set(rows)) == 6  # no row twice where classes are large enough
        seen.append(classes[:, 0])
    for round_of_four in np.array(seen[:48]).reshape(12, -1):  # ten classes, three a batch
        assert set(round_of_four) == set(range(10))


def test_every_row_is_taken_sooner_or_later():
    sampler = ClassBalanced(LABELS, classes_per_batch=5, per_class=2)
    assert len(set(np.concatenate([sampler(i) for i in range(60)]))) == len(LABELS)


@pytest.mark.parametrize(("size", "count"), [(6, 2), (7, 3), (5, 3), (4, 4), (3, 5), (1, 2)])
def test_no_row_comes_twice_in_a_lap_and_what_is_left_over_is_passed_over(size, count):
    rows, visits = np.arange(10, 10 + size), max(size // count, 1)
    laps = [
        np.concatenate([visit(rows, count, lap * visits + k, seed=1, c=2) for k in range(visits)])
        for lap in range(40)
    ]
    for lap in laps:
        assert len(lap) == visits * count
        assert len(set(lap)) == min(size, visits * count)
    assert set(np.concatenate(laps)) == set(rows)
    assert len({tuple(lap) for lap in laps}) > 1 or size == 1


def test_a_class_that_fills_up_a_round_brings_the_rows_it_had_in_it():
    sampler = ClassBalanced(LABELS, classes_per_batch=3, per_class=2)  # of 10: two more fill up
    for turn in range(6):
        rows = np.concatenate([sampler(4 * turn + k) for k in range(4)]).reshape(12, 2)
        np.testing.assert_array_equal(rows[10:], rows[:2])
        assert len(set(rows[:10].ravel())) == 20


def test_a_batch_is_a_function_of_the_seed_and_its_number():
    one, same = (ClassBalanced(LABELS, classes_per_batch=4, per_class=2, seed=3) for _ in "ab")
    forwards = [one(i) for i in range(9)]
    backwards = [same(i) for i in reversed(range(9))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    other = ClassBalanced(LABELS, classes_per_batch=4, per_class=2, seed=4)
    assert any((one(i) != other(i)).any() for i in range(3))
    assert (one(0) != one(1)).any()


def test_c1_small_classes_repeat_with_one_warning_or_are_dropped():
    labels = np.array([0, 1, 1, 2, 2, 2, 2, 2])
    with pytest.warns(UserWarning, match="2 of 3 classes have fewer than per_class = 4 rows"):
        sampler = ClassBalanced(labels, classes_per_batch=3, per_class=4)
    assert sorted(labels[sampler(0)]) == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="got 1 classes after dropping 2 with fewer than 4 rows"):
        ClassBalanced(labels, classes_per_batch=2, per_class=4, small_classes="drop")
    kept = ClassBalanced(labels, classes_per_batch=2, per_class=2, small_classes="drop")
    assert {c for i in range(9) for c in labels[kept(i)]} == {1, 2}


def test_c1_one_row_a_class_works():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = ClassBalanced(np.array([0, 1, 2]), classes_per_batch=3, per_class=1)
    assert sorted(sampler(0)) == [0, 1, 2]


def test_c1_more_than_any_class_holds_is_said_and_repeats():
    with pytest.warns(UserWarning, match="10 of 10 classes have fewer than per_class = 9 rows"):
        sampler = ClassBalanced(LABELS, classes_per_batch=2, per_class=9)
    assert len(sampler(0)) == 18
    with pytest.raises(ValueError, match="got 0 classes after dropping 10"):
        ClassBalanced(LABELS, classes_per_batch=2, per_class=9, small_classes="drop")


def test_c3_a_batch_has_two_classes_or_more():
    with pytest.raises(ValueError, match="labels: got 1 classes, expected 2 or more"):
        ClassBalanced(np.zeros(100, int), classes_per_batch=2, per_class=2)
    with pytest.raises(ValueError, match="classes_per_batch: got 1, expected 2 or more"):
        ClassBalanced(LABELS, classes_per_batch=1, per_class=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        uneven = ClassBalanced(np.array([0] * 100 + [1, 1]), classes_per_batch=2, per_class=4)
    assert all(len(set(uneven.labels[uneven(i)])) == 2 for i in range(9))


def test_more_classes_than_there_are_is_refused():
    with pytest.raises(ValueError, match="classes_per_batch: got 11, expected 10 or less"):
        ClassBalanced(LABELS, classes_per_batch=11, per_class=2)


def test_b2_rows_with_a_negative_label_are_never_taken():
    labels = np.where(np.arange(53) % 5, LABELS, -1)
    sampler = ClassBalanced(labels, classes_per_batch=4, per_class=2)
    assert (labels[np.concatenate([sampler(i) for i in range(20)])] >= 0).all()


def test_c6_shares_are_disjoint_and_together_the_batch():
    sampler = ClassBalanced(LABELS, classes_per_batch=6, per_class=2)
    parts = [sampler.share(4, rank, 3) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), sampler(4))
    with pytest.raises(ValueError, match="process_count: got 5, expected a divisor of the batch"):
        sampler.share(4, 0, 5)
    with pytest.raises(ValueError, match="process_index: got 3, expected 0 to 2"):
        share(np.arange(6), 3, 3)


def test_sequential_takes_every_row_once():
    batches = Sequential(size=13, batch_size=5)
    taken = [batches(i) for i in range(len(batches))]
    assert all(rows.shape == where.shape == (5,) for rows, where in taken)
    np.testing.assert_array_equal(
        np.concatenate([rows[where] for rows, where in taken]), np.arange(13)
    )
    with pytest.raises(ValueError, match="i: got 3, expected 0 to 2"):
        batches(3)


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match=r"labels: got float64\[3\], expected integers"):
        ClassBalanced(np.zeros(3), classes_per_batch=2, per_class=2)
