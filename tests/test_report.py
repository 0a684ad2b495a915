"""Pictures: every one is written whole, without a warning, whatever the scores look like."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from jdml import report
from jdml._core.tsne import tsne
from jdml.report import drawing, select

HANGUL = ["가", "각", "간", "갇", "갈"]


@pytest.fixture(autouse=True)
def no_warnings():
    """A missing glyph is a warning, and so is a division by zero in a degenerate run."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def clusters(classes=5, each=6, dim=4, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    rows = rng.normal(size=(classes, dim))[labels] + noise * rng.normal(size=(len(labels), dim))
    images = rng.integers(0, 256, size=(len(labels), 7, 7)).astype(np.uint8)
    return rows, labels, images


def written(path):
    """The picture, which is all that its folder holds."""
    assert os.listdir(path.parent) == [path.name]
    picture = imread(path)
    assert picture.shape[1] == 8 * drawing.DOTS_PER_INCH
    assert picture[..., :3].std() > 0.01
    return picture


def colours(picture):
    """Pixels of the two colours that mean right and wrong."""
    wanted = (drawing.BLUE, drawing.VERMILION)
    rgb = [np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)]) / 255 for name in wanted]
    return [int((np.abs(picture[..., :3] - colour).max(axis=2) < 0.02).sum()) for colour in rgb]


@pytest.mark.parametrize(
    "losses",
    [[3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [np.nan, 2.0, np.inf], [1e4, 1.0, 1e-3]],
    ids=["falling", "zero", "not finite", "logarithmic"],
)
def test_training_curve(tmp_path, losses):
    path = tmp_path / "curve.png"
    report.training_curve(path, [0, 10, 20], losses, {"MAP@R": ([0, 20], [0.1, 0.9])})
    written(path)
    report.training_curve(path, [0, 10, 20], losses)
    written(path)


def test_running_mean():
    values = np.array([1.0, 3.0, np.nan, 5.0, 7.0])
    np.testing.assert_allclose(select.running_mean(values, 3), [2, 2, 4, 6, 6])
    np.testing.assert_allclose(select.running_mean(values, 1), values)


@pytest.mark.parametrize("names", [None, HANGUL, ["shirt", "bag", "ankle boot", "coat", "dress"]])
def test_retrieval_gallery_marks_right_and_wrong(tmp_path, names):
    _, labels, images = clusters()
    path = tmp_path / "gallery.png"
    own = np.arange(30)
    right = (own // 6 * 6)[:, None] + (own[:, None] + np.arange(1, 4)) % 6
    wrong = (right + 6) % 30
    report.retrieval_gallery(path, images, labels, right, names)
    assert colours(written(path))[0] > 1000
    assert colours(written(path))[1] == 0
    report.retrieval_gallery(path, images, labels, wrong, names, queries=3)
    assert colours(written(path))[0] == 0
    assert colours(written(path))[1] > 500


def test_queries_are_random_and_worst_of_different_classes():
    labels = np.repeat(np.arange(10), 5)
    hits = np.where(labels < 7, 4, 1)
    able = np.flatnonzero(labels != 9)
    queries, worst = select.choose_queries(hits, labels, able, 4, seed=0)
    assert worst == 2
    assert len(set(labels[queries])) == 4
    assert (hits[queries] == [4, 4, 1, 1]).all()
    everything, _ = select.choose_queries(hits, labels, able, 99, seed=0)
    assert sorted(everything) == list(able)


@pytest.mark.parametrize("shape", [(7, 7), (7, 5, 1), (5, 7, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_kinds_of_images(tmp_path, shape, dtype):
    rows, labels, _ = clusters(each=2)
    images = (np.random.default_rng(0).normal(size=(10, *shape)) * 50 + 100).astype(dtype)
    picture = select.as_pictures("images", images, labels)
    assert picture.min() >= 0
    assert picture.max() <= 1
    path = tmp_path / "gallery.png"
    report.retrieval_gallery(path, images, labels, np.arange(10)[:, None] ^ 1, queries=2)
    written(path)
    report.embedding_map(path, rows, labels, images)
    written(path)


@pytest.mark.parametrize("noise", [0.1, 0.0])
def test_similarity_histogram(tmp_path, noise):
    rows, labels, _ = clusters(noise=noise)
    path = tmp_path / "histogram.png"
    report.similarity_histogram(path, rows, labels)
    assert min(colours(written(path))) > 100


def test_rows_of_the_histogram_are_balanced():
    labels = np.repeat(np.arange(4), (100, 50, 10, 3))
    chosen = select.balanced(labels, 40, seed=0)
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [10, 10, 10, 3])
    assert len(select.balanced(labels, 163, seed=0)) == 163
    assert len(select.balanced(np.arange(100) // 2, 10, seed=0)) == 10


@pytest.mark.parametrize("names", [HANGUL, ["a", "b", "c", "d", "e"]])
def test_embedding_map(tmp_path, names):
    rows, labels, images = clusters()
    path = tmp_path / "map.png"
    report.embedding_map(path, rows, labels, images, names)
    written(path)
    report.embedding_map(path, rows, labels, highlighted=2, most_rows=20)
    written(path)


@pytest.mark.parametrize("rows", [np.ones((12, 3)), np.zeros((12, 3)), np.eye(12)[:, :1]])
def test_embedding_map_of_collapsed_rows(tmp_path, rows):
    path = tmp_path / "map.png"
    report.embedding_map(path, rows, np.arange(12) % 3)
    written(path)


def test_rows_of_the_map():
    labels = np.repeat(np.arange(50), 4)
    chosen, coloured = select.choose_rows(labels, 12, 60, seed=0)
    assert len(chosen) == len(set(chosen)) == 60
    assert np.isin(labels[chosen], coloured).sum() == 30
    assert len(coloured) == 12
    chosen, coloured = select.choose_rows(np.arange(9) % 2, 12, 100, seed=0)
    assert sorted(chosen) == list(range(9))
    assert list(coloured) == [0, 1]


def test_thumbnails_do_not_cover_each_other():
    places = np.random.default_rng(0).normal(size=(50, 2)) * 30
    taken = []
    for _ in range(6):
        taken.append(drawing.free_place(np.zeros(2), places, taken, 1.0))
    apart = [np.abs(a - b).max() for i, a in enumerate(taken) for b in taken[:i]]
    assert min(apart) > drawing.THUMBNAIL


def test_tsne_keeps_neighbours_together():
    rows, labels, _ = clusters(classes=4, each=12, dim=8, noise=0.1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    places = tsne(rows, perplexity=8)
    distances = np.square(places[:, None] - places[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    np.testing.assert_array_equal(places, tsne(rows, perplexity=8))


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    report.training_curve(path, [0, 1], [2.0, 1.0])
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(drawing.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        report.training_curve(path, [0, 1], [5.0, 1.0])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["curve.png"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p, x, y, i: report.training_curve(p, [0, 1], [1.0]), "losses: got"),
        (lambda p, x, y, i: report.training_curve(p, [0], [np.nan]), "losses: .* one finite"),
        (lambda p, x, y, i: report.retrieval_gallery(p, i, y, y), "neighbour_indices: got"),
        (
            lambda p, x, y, i: report.retrieval_gallery(p, i, y, y[:, None] + 30),
            "neighbour_indices: .* rows 0 to 29",
        ),
        (
            lambda p, x, y, i: report.retrieval_gallery(p, i, np.arange(30), y[:, None]),
            "labels: .* a class-mate",
        ),
        (
            lambda p, x, y, i: report.retrieval_gallery(p, i, y, y[:, None], ["a"]),
            "labels: .* below 1 names",
        ),
        (lambda p, x, y, i: report.retrieval_gallery(p, i[0], y, y[:, None]), "images: got"),
        (lambda p, x, y, i: report.similarity_histogram(p, x, y * 0), "labels: .* pairs of one"),
        (lambda p, x, y, i: report.similarity_histogram(p, x[:4], y), "labels: .* one a row"),
        (lambda p, x, y, i: report.embedding_map(p, x[:3], y[:3]), "embeddings: .* 4 rows"),
        (lambda p, x, y, i: report.embedding_map(p, x * np.nan, y), "embeddings: .* finite"),
    ],
)
def test_bad_input_names_itself_and_writes_nothing(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message) as caught:
        draw(tmp_path / "picture.png", *clusters())
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)
