"""Faults of evaluation that users of other software reported, each named by its row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import metrics
from jdml.metrics import lists, retrieval, task
from jdml.retrieval import neighbours, rows, search, select
from jdml.retrieval.search import block_at, gallery_of


def test_f1_a_query_is_left_out_by_identity_not_by_rank():
    """Query 0 finds its duplicate of another class, query 2 a tie, query 1 is lone."""
    x, y = np.array([[0.0], [0.0], [5.0]]), [0, 1, 0]
    for ties, hits in (("pessimistic", 0), ("expected", 0.5), ("optimistic", 1)):
        found = retrieval(x, y, distance="euclidean", ties=ties)
        assert found["recall_at_1"] == hits / 2
        assert (found["queries"], found["lone_queries"]) == (2, 1)


def test_f4_a_separate_gallery_keeps_what_equals_the_query():
    x, gallery = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    kept = retrieval(x, ["1"], gallery=gallery, gallery_labels=["1", "2"])
    assert kept["recall_at_1"] == 1
    left_out = retrieval(x, ["2"], gallery=gallery, gallery_labels=["1", "2"], own_rows=[0])
    assert left_out["recall_at_1"] == 1


def test_f5_queries_whose_class_the_gallery_lacks():
    gallery, labels = np.eye(3), [0, 1, 7]
    with pytest.raises(ValueError, match="labels: none of 1 queries has a relevant item"):
        retrieval(np.eye(3)[:1], [5], gallery=gallery, gallery_labels=labels)
    found = retrieval(np.eye(3)[:2], [5, 1], gallery=gallery, gallery_labels=labels)
    assert (found["recall_at_1"], found["queries"], found["lone_queries"]) == (1, 1, 1)


def test_f7_recall_beyond_the_candidates():
    x, y = np.eye(3), [0, 0, 1]
    with pytest.raises(ValueError, match=r"ks: got 10, expected at most 2, .* own row left out"):
        retrieval(x, y, ks=(1, 10))
    assert retrieval(x, y, ks=(2,))["recall_at_2"] == 1


def test_f11_memory_is_bounded_by_the_block():
    """100,000 rows: 40 GB of distances, of which one block is ever there, counts included."""
    size, dim = 100_000, 8
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, dim)).astype(np.float32)
    asked = task.task_of(task.Asked(x, np.arange(size) // 10), "cosine", None, (1,))
    rows = slice(0, asked.prepared.block_size)
    block, gallery = block_at(asked.prepared, rows), gallery_of(asked.prepared)
    mates = lists.Mates(*(a[rows] for a in (asked.codes, asked.start, asked.count)))
    classes = lists.Classes(asked.gallery.padded_codes, asked.gallery.order)
    for count in (False, True):
        slots = 10 if count else 0
        lowered = lists.lists_of.lower(block, gallery, mates, classes, length=9, slots=slots)
        compiled = lowered.compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 128 << 20


def test_f14_nan_row_is_refused_by_number():
    x, y = np.ones((5, 2)), np.array([-1, 0, 0, 1, 1])
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="embeddings: row 3 holds NaN"):
        retrieval(x, y)
    with pytest.raises(ValueError, match="gallery: row 3 holds NaN"):
        retrieval(np.ones((1, 2)), [0], gallery=x, gallery_labels=y)


def test_f18_queries_without_a_relevant_item_are_counted_apart():
    found = retrieval(np.array([[0.0], [1.0], [9.0]]), [0, 0, 1], distance="euclidean")
    assert (found["recall_at_1"], found["queries"], found["lone_queries"]) == (1, 2, 1)


def test_j8_large_ids_stay_apart():
    x = np.array([[0.0], [1.0], [3.0], [5.0]])
    for base in (16777216, 2**53, 2**62):
        y = np.array([base, base + 1, base, base + 1], np.int64)
        assert retrieval(x, y, distance="euclidean")["recall_at_1"] == 0
    assert retrieval(x, y.astype(np.uint64), distance="euclidean")["recall_at_1"] == 0


def test_f4_a_separate_gallery_loses_nothing_unless_told():
    x = np.array([[1.0, 0.0]])
    y = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(neighbours(x, y, k=2).indices, [[0, 1]])
    np.testing.assert_array_equal(neighbours(x, y, k=1, own_rows=[0]).indices, [[1]])
    np.testing.assert_array_equal(neighbours(x, y, k=1, own_rows=[-1]).indices, [[0]])


def test_f7_more_neighbours_than_candidates():
    with pytest.raises(ValueError, match="k: got 10, expected at most 2"):
        neighbours(np.eye(3), k=10)


def test_f14_neighbours_refuse_a_nan_row_by_number():
    x = np.ones((9000, 2), np.float32)
    x[8500, 1] = np.nan
    with pytest.raises(ValueError, match="queries: row 8500 holds NaN, expected finite numbers"):
        neighbours(x, k=1)


@pytest.mark.parametrize(("size", "dim"), [(60_000, 128), (100_000, 8)])
def test_f11_memory_of_a_search_is_bounded_by_the_block(size, dim):
    """No [N, N] array, 14 to 40 GB here: the temporaries of a block fit a stated size."""
    columns = size // 64 * 64 + 64
    block = rows.block_rows(None, size, columns + 10 * dim, 4)
    shape = jax.ShapeDtypeStruct
    queries = select.Block(
        shape((block, dim), jnp.float32), shape((block,), jnp.int32), groups=None
    )
    gallery = select.Gallery(
        shape((columns, dim), jnp.float32), shape((64,), bool), first=None, groups=None
    )
    compiled = search._nearest.lower(
        queries, gallery, k=10, distance="cosine", by_index=False
    ).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 128 << 20
    assert memory.argument_size_in_bytes < 64 << 20


def test_f4_equal_ids_in_lists_are_kept():
    """The id of a query and an id of the gallery are names in two sets."""
    assert metrics.from_lists([["1", "2"]], [["1"]])["recall_at_1"] == 1


def test_f5_partly_missing_ids_in_every_metric():
    gallery, labels = np.eye(3), [0, 1, 7]
    given = {"gallery": gallery, "gallery_labels": labels}
    for call in (
        lambda y: metrics.knn(np.eye(3)[:2], y, k=1, **given),
        lambda y: metrics.nearest_centroid(np.eye(3)[:2], y, **given),
    ):
        assert call([5, 1])["lone_queries"] == 1
        with pytest.raises(ValueError, match="labels: none of 2 queries"):
            call([5, 6])


def test_f7_recall_of_distances_beyond_the_candidates():
    with pytest.raises(ValueError, match="ks: got 10, expected at most 2"):
        metrics.from_distances(1 - np.eye(3), [0, 0, 1], ks=(10,))


def test_f8_same_camera_and_junk_are_left_out():
    """One query; its own view is left out, and the right item is second of the two that count."""
    x, gallery = np.array([[0.0]]), np.array([[0.1], [0.5], [1.0], [0.2]])
    found = retrieval(
        x,
        ["anna"],
        cameras=[0],
        gallery=gallery,
        gallery_labels=["anna", "bert", "anna", "carl"],
        gallery_cameras=[0, 1, 1, 1],
        distance="euclidean",
        whole=True,
    )
    assert (found["recall_at_1"], found["map"]) == (0, pytest.approx(1 / 3))
    found = retrieval(
        x,
        [1],
        cameras=[0],
        gallery=gallery,
        gallery_labels=[1, 2, 1, -1],
        gallery_cameras=[0, 1, 1, 1],
        distance="euclidean",
        whole=True,
    )
    assert (found["recall_at_1"], found["map"], found["inp"]) == (0, 0.5, 0.5)
    # The whole list counts, not its top: one relevant item at rank 30.
    gallery = np.arange(30.0)[:, None]
    labels = np.where(np.arange(30) == 29, 1, 0)
    found = retrieval(
        x, [1], gallery=gallery, gallery_labels=labels, distance="euclidean", whole=True
    )
    assert found["map"] == pytest.approx(1 / 30)


def test_f8_neighbours_leave_out_a_group():
    x = np.array([[0.0], [0.1], [0.2], [5.0]])
    found = neighbours(x, k=1, distance="euclidean", groups=["a", "a", "b", ""])
    np.testing.assert_array_equal(found.indices[:, 0], [2, 2, 1, 2])
    with pytest.raises(ValueError, match=r"k: got 3, .* at most 2, .* own row and its group"):
        neighbours(x, k=3, distance="euclidean", groups=[1, 1, -1, -1])


def test_f9_an_id_returned_twice_is_refused():
    with pytest.raises(ValueError, match="ranked: query 0 returns 'A' twice"):
        metrics.from_lists([["A", "A"]], [{"A"}])
    found = metrics.from_lists([["A"]], [["A", "A"]], ks=(1,))
    assert (found["recall_at_1"], found["coverage_at_1"], found["ndcg"]) == (1, 1, 1)


def test_f13_every_fold_has_the_threshold_of_the_others():
    """Separable, but one fold at another level: its own threshold would score 1, theirs 1/2."""
    same = np.tile([True, False], 50)
    values = np.where(same, 0.8, 0.2)
    assert metrics.fold_accuracy(values, same)["accuracy"] == 1
    values[:10] = np.where(same[:10], 0.95, 0.9)
    found = metrics.fold_accuracy(values, same)
    assert found["accuracies"] == [0.5] + [1.0] * 9
    assert found["thresholds"][0] == pytest.approx(0.5)
    assert metrics.verification(values, same)["best_accuracy"] == 0.95


def test_f14_nan_in_every_metric():
    x, y = np.ones((4, 2)), [0, 0, 1, 1]
    x[2, 0] = np.nan
    calls = [
        metrics.retrieval, metrics.by_query, metrics.knn, metrics.nearest_centroid, metrics.pairs,
        metrics.clustering, metrics.gap, metrics.confusion, metrics.few_shot,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ValueError, match="embeddings: row 2 holds NaN"):
            call(x, y)


def test_f16_a_triplet_is_right_where_the_positive_is_closer():
    anchor = np.array([[0.0]])
    assert metrics.triplet_accuracy(anchor, [[1.0]], [[2.0]], distance="euclidean") == 1
    assert metrics.triplet_accuracy(anchor, [[2.0]], [[1.0]], distance="euclidean") == 0
    assert metrics.triplet_accuracy(anchor, [[1.0]], [[-1.0]], distance="euclidean") == 0.5


def test_f17_the_distance_is_an_argument_and_never_guessed():
    x, y = np.eye(4), [0, 0, 1, 1]
    for call in (metrics.retrieval, metrics.knn, metrics.pairs, metrics.gap):
        with pytest.raises(ValueError, match="distance: got 'auto', expected one of cosine"):
            call(x, y, distance="auto")
