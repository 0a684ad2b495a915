"""The report of an evaluation: right numbers, bounded size, one file that asks for no other."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jdml import metrics, report
from jdml.report import html, sections, sprite, verification

HOSTILE = '</script><img src="https://example.com/x" onerror="alert(1)">'


def clusters(classes=5, each=6, dim=6, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    rows = rng.normal(size=(classes, dim))[labels] + noise * rng.normal(size=(len(labels), dim))
    images = rng.integers(0, 256, size=(len(labels), 7, 5)).astype(np.uint8)
    return rows, labels, images


@pytest.fixture(scope="module")
def measured():
    rows, labels, images = clusters()
    names = ["a", "b & c", HOSTILE, "d", "{{script}}"]
    return report.measure(report.Items(rows, labels, images), class_names=names)


def data_of(page):
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1]
    return json.loads(text)


# ---------------------------------------------------------------- numbers


def test_scores_are_those_of_the_metrics_with_intervals_around_them(measured):
    rows, labels, _ = clusters()
    wanted = metrics.retrieval(rows, labels, ks=(1, 5), whole=True)
    scores = {score.key: score for score in measured.scores}
    for key in ("map_at_r", "recall_at_1", "recall_at_5", "r_precision", "map", "mrr"):
        assert scores[key].value == pytest.approx(wanted[key])
    for score in measured.scores:
        assert 0 <= score.low <= score.value <= score.high <= 1
    assert measured.as_json()["scores"].keys() == scores.keys()
    assert measured.as_json()["queries"] == 30


def test_a_point_estimate_by_resampling_is_the_exact_one(measured):
    pairs = measured.pairs
    exact = metrics.verification(pairs.similarities, pairs.same, fars=verification.FARS)
    order = np.argsort(-pairs.similarities, kind="stable")
    values = pairs.similarities[order]
    last = np.append(values[1:] != values[:-1], True)
    auc, eer, *tars = verification._rates(np.ones(len(values)), pairs.same[order], last)
    assert auc == pytest.approx(exact["auc"])
    assert eer == pytest.approx(exact["eer"], abs=0.02)
    assert tars == pytest.approx([exact[f"tar_at_far_{far:g}"] for far in verification.FARS])


@pytest.mark.parametrize("most", [10_000, 200])
@pytest.mark.parametrize("sides", ["alone", "gallery"])
def test_pairs_are_right_and_distinct(sides, most):
    rows, labels, _ = clusters()
    groups = np.arange(30) % 7
    other = None if sides == "alone" else (rows[::2], labels[::2], groups[::2])
    pairs = verification.draw((rows, labels, groups), other, most=most)
    table = (labels, groups, rows) if other is None else (other[1], other[2], other[0])
    same = [
        (i, j)
        for i in range(30)
        for j in range(len(table[0]))
        if (i < j or other is not None) and groups[i] != table[1][j]
    ]
    of_class = sum(labels[i] == table[0][j] for i, j in same)
    found = list(zip(pairs.first.tolist(), pairs.second.tolist()))
    assert len(set(found)) == len(found) <= len(same)
    assert set(found) <= set(same)
    np.testing.assert_array_equal(pairs.same, labels[pairs.first] == table[0][pairs.second])
    x, y = rows[pairs.first], table[2][pairs.second]
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(pairs.similarities, cosines, rtol=1e-4, atol=1e-5)
    exact = most > 1000
    assert pairs.same_total == pytest.approx(of_class, rel=0 if exact else 0.3)
    assert pairs.other_total == pytest.approx(len(same) - of_class, rel=0 if exact else 0.3)
    assert len(found) == len(same) if exact else len(found) <= 1.2 * most


@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "dot"])
def test_other_distances_keep_their_order(distance):
    rows, labels, _ = clusters(classes=2, each=3)
    pairs = verification.draw((rows, labels, None), None, distance=distance)
    x, y = rows[pairs.first], rows[pairs.second]
    squared = ((x - y) ** 2).sum(1)
    wanted = {"dot": (x * y).sum(1), "euclidean": -np.sqrt(squared), "squared_euclidean": -squared}
    np.testing.assert_allclose(pairs.similarities, wanted[distance], rtol=1e-4)


def test_what_is_ignored_is_left_out_and_rows_keep_their_numbers():
    rows, labels, images = clusters()
    kept = np.arange(30) % 4 != 1
    marked = np.where(kept, labels, -1)
    dirty = np.where(kept[:, None], rows, np.nan)
    found = report.measure(report.Items(dirty, marked, images))
    clean = report.measure(report.Items(rows[kept], labels[kept], images[kept]))
    assert found.scores == clean.scores
    items = sections.contents(found)["items"]
    assert set(items["row"]) <= set(np.flatnonzero(kept).tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.arange(30.0)}, "labels: got dtype float64"),
        ({"labels": np.arange(29)}, "labels: got shape"),
        ({"labels": np.arange(30)}, "labels: none of 30 queries"),
        ({"embeddings": np.full((30, 6), np.nan)}, "embeddings: "),
    ],
)
def test_wrong_rows_are_one_line(change, message):
    rows, labels, _ = clusters()
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        report.measure(report.Items(rows, labels)._replace(**change))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- sections


def test_gallery_has_the_worst_of_each_class_and_its_marks_are_right(measured, monkeypatch):
    monkeypatch.setattr(sections, "MOST_QUERIES", 9)
    data = sections.contents(measured)
    classes, rows = data["items"]["class"], data["items"]["row"]
    scores = measured.by_query["map_at_r"]
    shown = [rows[query["item"]] for query in data["gallery"]]
    assert len(shown) == len(set(shown)) == 9
    for one in range(5):
        of_class = np.flatnonzero(measured.query_classes == one)
        assert of_class[scores[of_class].argmin()] in shown
    for query in data["gallery"]:
        right = [classes[item] == classes[query["item"]] for item in query["found"]]
        assert query["right"] == right
        assert query["near"] == sorted(query["near"], reverse=True)
    assert "9 of 30" in data["notes"]["gallery"]


def test_confusion_counts_every_query_once(measured):
    confusion = sections.contents(measured)["confusion"]
    table = np.array(confusion["matrix"]["counts"])
    nearest = measured.query_classes[measured.nearest.indices[:, 0]]
    wanted = np.zeros((5, 5), int)
    np.add.at(wanted, (measured.query_classes, nearest), 1)
    np.testing.assert_array_equal(table, wanted)
    assert confusion["matrix"]["others"] is None
    wrong = sum(pair["count"] for pair in confusion["pairs"])
    assert wrong == wanted.sum() - np.trace(wanted)
    for pair in confusion["pairs"]:
        assert wanted[pair["asked"], pair["found"]] == pair["count"]


def test_map_of_many_rows_takes_whole_classes(monkeypatch):
    monkeypatch.setattr(sections, "MOST_POINTS", 20)
    classes = np.repeat(np.arange(9), 8)
    rows = sections._whole_classes(classes, seed=0)
    assert len(rows) == len(set(rows)) == 20
    assert sorted(np.unique(classes[rows], return_counts=True)[1]) == [4, 8, 8]
    monkeypatch.setattr(sections, "_EACH", 3)
    assert np.bincount(classes[sections._whole_classes(classes, seed=0)]).max() == 3


def test_training_curves_skip_what_is_not_there():
    log = [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.5, "saturation": 0.5}]
    curves = sections.training([*log, {"step": 3.0, "loss": float("nan")}])
    assert [(curve["title"], curve["y"]) for curve in curves] == [("Loss", [2.0, 1.5])]
    assert sections.training([]) is None
    many = [{"step": float(i), "loss": 1.0 / (i + 1)} for i in range(5000)]
    assert len(sections.training(many)[0]["x"]) <= 400


@pytest.mark.parametrize("shape", [(7, 5), (5, 7, 1), (9, 9, 3), (200, 100, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_thumbnails_are_small_and_in_their_places(shape, dtype):
    import base64
    import io

    from PIL import Image

    images = np.zeros((6, *shape), dtype)
    images[:] = (np.arange(6) * 40).reshape(6, *[1] * len(shape)) / (
        255 if dtype != np.uint8 else 1
    )
    sheet = sprite.sprite([images, images[::-1]], [(0, 1), (1, 5), (0, 5), (1, 1), (0, 3)])
    assert (sheet["columns"], sheet["rows"]) == (3, 2)
    assert sheet["side"] == min(max(shape[:2]), 64)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["uri"].split(",")[1]))))
    cell = sheet["cell"]
    middles = picture[cell // 2 :: cell, cell // 2 :: cell].mean(axis=2).ravel()[:5]
    np.testing.assert_allclose(middles, [40, 0, 200, 160, 120], atol=12)


def test_thumbnails_are_bounded_and_need_images_of_all(monkeypatch):
    images = np.zeros((50, 40, 40), np.uint8)
    monkeypatch.setattr(sprite, "MOST_PIXELS", 5000)
    assert sprite.sprite([images], [(0, i) for i in range(50)])["side"] == 10
    assert sprite.sprite([images, None], [(0, 1), (1, 2)]) is None
    assert sprite.sprite([images], []) is None


# ---------------------------------------------------------------- the file


class Links(HTMLParser):
    """Everything in a page that could make a browser ask for something."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.found.append(value)


@pytest.fixture(scope="module")
def page(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_html(
        path,
        measured,
        title=HOSTILE,
        lead="A & B",
        about={"Settings": {HOSTILE: HOSTILE}},
        warnings=[HOSTILE],
        log=[{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0}],
    )
    assert os.listdir(path.parent) == [path.name]
    return path.read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_and_no_name_becomes_markup(page):
    links = Links()
    links.feed(page)
    assert all(link.startswith(("#", "data:")) for link in links.found)
    assert "img" not in links.tags
    assert links.tags.count("script") == 2
    assert "default-src 'none'" in page
    assert data_of(page)["classes"][2] == HOSTILE
    assert data_of(page)["classes"][4] == "{{script}}"
    outside = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S)
    assert not re.search(r"\{\{\w+\}\}", outside)
    code = page.rpartition("<script>")[2]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", code)
    assert not re.search(r"\b(fetch|XMLHttpRequest|importScripts|eval)\b", code)


def test_every_control_has_a_name(page):
    for identity in re.findall(r'<(?:select|input)[^>]*id="([\w-]+)"', page):
        label = rf'<label[^>]*(for="{identity}"|>[^<]*<(?:select|input)[^>]*id="{identity}")'
        assert re.search(label, page), identity
    for part in re.findall(r'<section[^>]*aria-labelledby="([\w-]+)"', page):
        assert f'id="{part}"' in page


def test_the_same_input_gives_the_same_file(measured, tmp_path):
    for name in ("a", "b"):
        report.write_html(tmp_path / name, measured)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file(measured, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")

    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(html.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        report.write_html(path, measured)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["report.html"]


def test_few_rows_without_images_and_one_class_have_a_page(tmp_path):
    rows = np.eye(3)
    found = report.measure(report.Items(rows, ["a", "a", "a"]))
    report.write_html(tmp_path / "report.html", found)
    data = data_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    missing = ("pairs", "map", "confusion", "training", "thumbs")
    assert [data[name] for name in missing] == [None] * 5
    assert len(data["gallery"]) == 3
