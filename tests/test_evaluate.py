"""The evaluation command: a run, files from anywhere, wrong input, and its page in a browser."""

from __future__ import annotations

import csv
import json
import os
import re
import time

import browser
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, health, pictures, sources, train
from jdml import metrics

TINY = "--steps 3 --classes-per-batch 4 --per-class 2 --dim 4 --widths 2 2 --test-classes 15"


def clusters(classes=4, each=5, dim=6, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    rows = rng.normal(size=(classes, dim))[labels] + noise * rng.normal(size=(len(labels), dim))
    return rows.astype(np.float32), labels


@pytest.fixture
def command(tmp_path, capsys):
    """Writes an .npz file of these arrays, runs the command, returns its code and its error."""

    def run(*argv, **arrays):
        path = tmp_path / "rows.npz"
        np.savez(path, **arrays)
        code = evaluate.main([str(path), *argv])
        return code, capsys.readouterr().err

    return run


def scores(path):
    found = json.loads(path.read_text())
    return found, {name: score["value"] for name, score in found["scores"].items()}


# ---------------------------------------------------------------- files from anywhere


def test_a_file_gives_a_table_json_and_a_page(command, tmp_path, capsys):
    rows, labels = clusters()
    names = np.array(["cat", "dog", "bird", "fish"])
    assert command(embeddings=rows, labels=names[labels]) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["rows.html", "rows.json", "rows.npz"]
    found, values = scores(tmp_path / "rows.json")
    wanted = metrics.retrieval(rows, labels, ks=(1,))
    assert values["map_at_r"] == pytest.approx(wanted["map_at_r"])
    assert (found["queries"], found["classes"], found["dim"]) == (20, 4, 6)
    assert "fish" in (tmp_path / "rows.html").read_text(encoding="utf-8")
    assert evaluate.main([str(tmp_path / "rows.npz"), "--output", str(tmp_path / "new/place")]) == 0
    assert sorted(os.listdir(tmp_path / "new/place")) == ["rows.html", "rows.json"]
    assert "MAP@R" in capsys.readouterr().out


def test_a_gallery_beside_and_a_split_within_are_the_same(command, tmp_path):
    rows, labels = clusters()
    query = np.arange(20) % 3 == 0
    gallery = {"gallery_embeddings": rows[~query], "gallery_labels": labels[~query]}
    assert command(embeddings=rows[query], labels=labels[query], **gallery) == (0, "")
    beside = scores(tmp_path / "rows.json")[0]
    split = np.where(query, "query", "gallery")
    assert command(embeddings=rows, labels=labels, split=split) == (0, "")
    assert scores(tmp_path / "rows.json")[0] == beside
    wanted = metrics.retrieval(
        rows[query], labels[query], gallery=rows[~query], gallery_labels=labels[~query]
    )
    assert beside["scores"]["map_at_r"]["value"] == pytest.approx(wanted["map_at_r"])
    assert (beside["queries"], beside["gallery"]) == (7, 13)


def test_cameras_leave_out_what_the_same_one_saw(command, tmp_path):
    rows, labels = clusters()
    cameras = np.arange(20) % 2
    assert command(embeddings=rows, labels=labels, cameras=cameras) == (0, "")
    wanted = metrics.retrieval(rows, labels, cameras=cameras)
    assert scores(tmp_path / "rows.json")[1]["map_at_r"] == pytest.approx(wanted["map_at_r"])


def test_pictures_in_files_are_shown_and_missing_ones_told(command, tmp_path):
    rows, labels = clusters()
    for i in range(19):
        Image.new("RGB", (30, 20), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    paths = [f"{i}.png" for i in range(20)]
    code, error = command(embeddings=rows, labels=labels, image_paths=paths)
    assert code == 0
    assert error.count("\n") == 1
    assert "1 pictures cannot be read" in error
    assert "19.png" in error
    assert "data:image/webp" in (tmp_path / "rows.html").read_text(encoding="utf-8")


def test_a_collapse_is_warned_of(command, tmp_path, capsys):
    rows, labels = clusters()
    assert command(embeddings=rows * 1e-4 + 1, labels=labels) == (0, "")
    (first, *_) = scores(tmp_path / "rows.json")[0]["warnings"]
    assert first.startswith("collapse: pairs have a mean similarity of 1.000")
    assert first in (tmp_path / "rows.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"labels": None}, "source: .* lacks labels, expected embeddings and labels"),
        ({"label": [1]}, "source: .* holds label, expected some of embeddings, labels"),
        ({"labels": [0, 1]}, "labels: got 2, expected 20, one a row of embeddings"),
        ({"gallery_labels": [0]}, "one of gallery_embeddings and gallery_labels"),
        ({"split": ["query"] * 20}, r"split: got 20 of \['query'\], expected 20"),
        ({"class_names": ["a"]}, "class_names: got 1 for label 3"),
        ({"labels": np.arange(20)}, "labels: none of 20 queries has a relevant item"),
        ({"labels": np.arange(20.0)}, "labels: got dtype float64"),
        ({"embeddings": np.full((20, 6), np.nan)}, "embeddings: "),
        ({"embeddings": np.zeros((20, 6, 1))}, "labels: got shape"),
        ({"labels": np.array([object()] * 20)}, "source: cannot read .* as .npz"),
    ],
)
def test_a_wrong_file_is_one_line_and_writes_nothing(change, names, command, tmp_path):
    rows, labels = clusters()
    given = {"embeddings": rows, "labels": labels} | change
    given = {name: value for name, value in given.items() if value is not None}
    code, error = command(**given)
    assert code == 2
    assert error.count("\n") == 1
    assert error.startswith("python -m experiments.evaluate: ")
    assert re.search(names, error), error
    assert os.listdir(tmp_path) == ["rows.npz"]


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ("nowhere.npz", "source: got .*nowhere.npz, expected the folder of a run or an .npz"),
        ("folder", "source: got .*folder, expected the folder of a run, with config.json"),
        ("text.npz", "source: cannot read .*text.npz as .npz"),
        ("text.npz --split test", "split: got test for .*, expected it with the folder of a run"),
        ("text.npz --output text.npz/below", "output: got .*below, expected a folder"),
        ("text.npz --confidence 2", "confidence: got 2.0, expected between 0 and 1"),
        ("text.npz --distance far", "argument --distance: invalid choice: 'far'"),
        ("", "the following arguments are required: RUN_OR_NPZ"),
    ],
)
def test_a_wrong_argument_is_one_line(argv, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.npz").write_text("text")
    try:
        code = evaluate.main(argv.split())
    except SystemExit as stop:  # argparse's own
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(names, error), error
    assert sorted(os.listdir(tmp_path)) == ["folder", "text.npz"]


def test_help_lists_every_key(capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(key in out for key in (*sources.KEYS, "--output", "--split"))


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compile):
    """A short run on hangul, evaluated; its PNG files are tested elsewhere."""
    folder = tmp_path_factory.mktemp("run")
    files = ["--run-dir", str(folder), "--data-dir", str(folder / "tfds"), "--name", "short"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw", lambda *_: None)
        assert train.main([*TINY.split(), *files]) == 0
    assert evaluate.main([str(folder / "short")]) == 0
    return folder / "short"


def test_a_run_is_evaluated_as_it_was_in_training(run):
    found, values = scores(run / "evaluation.json")
    trained = json.loads((run / "metrics.json").read_text())
    for name, value in trained["test"].items():
        assert values[name] == pytest.approx(value, abs=1e-5)
    assert found["queries"] == 15 * 16
    assert not list(run.glob(".*"))


def test_diagnostics_of_training_are_logged(run):
    with (run / "log.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert all(np.isfinite(float(row[name])) for name in health.COLUMNS)
    assert 0 < float(row["active_fraction"]) <= 1
    assert 1 <= float(row["effective_rank"]) <= 4
    assert json.loads((run / "metrics.json").read_text())["warnings"] == []


def test_another_split_and_a_missing_one(run, capsys):
    source = sources.read(run, "unseen_faces")
    found = metrics.retrieval(source.queries.embeddings, source.queries.labels)
    trained = json.loads((run / "metrics.json").read_text())["unseen_faces"]["test"]
    assert found["map_at_r"] == pytest.approx(trained["map_at_r"], abs=1e-5)
    assert source.stem == "evaluation-unseen_faces"
    assert evaluate.main([str(run), "--split", "tset"]) == 2
    assert "split: got 'tset', expected one of test, train" in capsys.readouterr().err


# ---------------------------------------------------------------- its page in a browser

REASON = browser.missing()


@pytest.fixture(scope="module")
def page(request, tmp_path_factory):
    """The report of the run in headless Chromium; what it asked for is checked at the end."""
    if REASON:
        pytest.skip(REASON)
    run = request.getfixturevalue("run")
    with browser.opened(tmp_path_factory.mktemp("profile")) as driver:
        driver.get((run / "evaluation.html").as_uri())
        yield driver
        asked = browser.requests(driver)
        assert asked
        assert all(url.startswith(("file:", "data:")) for url in asked), asked
        assert driver.get_log("browser") == []


def one(driver, selector):
    return driver.find_element("css selector", selector)


def click(driver, selector):
    """In the middle of the window, where nothing lies over it."""
    code = "arguments[0].scrollIntoView({block: 'center'})"
    driver.execute_script(code, one(driver, selector))
    one(driver, selector).click()


def text(driver, selector):
    return one(driver, selector).text


def set_value(driver, selector, value, event):
    code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event(arguments[2]))"
    driver.execute_script(code, one(driver, selector), str(value), event)


def test_the_slider_tells_the_rates_at_its_threshold(page):
    from selenium.webdriver.common.keys import Keys

    pairs = page.execute_script("return data.pairs")
    one(page, "#slider").send_keys(Keys.END)
    assert text(page, "#tar") == "0.0%"
    one(page, "#slider").send_keys(Keys.HOME)
    assert (text(page, "#tar"), text(page, "#far")) == ("100.0%", "100.0%")
    for step in (300, 800):
        set_value(page, "#slider", step, "input")
        same = sum(pairs["same"][step:]) / sum(pairs["same"])
        other = sum(pairs["other"][step:]) / sum(pairs["other"])
        right, wrong = same * pairs["same_total"], other * pairs["other_total"]
        for name, share in (("tar", same), ("far", other), ("precision", right / (right + wrong))):
            assert float(text(page, f"#{name}")[:-1]) == pytest.approx(100 * share, abs=0.051)
        assert "TAR" in one(page, "#slider").get_attribute("aria-valuetext")
        line = one(page, "#histogram .limit")
        places = [
            float(line.get_attribute("x1")),
            float(one(page, "#roc circle").get_attribute("cx")),
        ]
        assert all(map(np.isfinite, places))
    click(page, "#threshold .buttons button:nth-child(2)")
    assert float(text(page, "#far")[:-1]) <= 1.0


def test_the_filter_shows_one_class_and_the_worst_come_first(page):
    values = [
        float(found.text.split()[1]) for found in page.find_elements("css selector", ".asked small")
    ]
    assert values == sorted(values)
    assert len(values) == 12
    set_value(page, "#class-filter", 3, "change")
    name = page.execute_script("return data.classes[3]")
    names = {found.text for found in page.find_elements("css selector", ".asked b")}
    assert names == {name}
    right = page.find_elements("css selector", ".found .picture.right")
    assert all(f"{name}, row" in found.get_attribute("aria-label") for found in right)
    wrong = page.find_elements("css selector", ".found .picture.wrong")
    assert wrong
    assert not any(f"{name}, row" in found.get_attribute("aria-label") for found in wrong)
    set_value(page, "#class-filter", "", "change")
    click(page, "#more")
    assert len(page.find_elements("css selector", ".query")) == 36
    click(page, "#only-wrong")
    firsts = page.find_elements("css selector", ".found li:first-child .picture")
    assert all("wrong" in found.get_attribute("class") for found in firsts)
    click(page, "#only-wrong")


def test_hovering_the_map_shows_the_picture(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    canvas = one(page, "#map canvas")
    page.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas
    )
    assert not one(page, ".tip").is_displayed()
    size = canvas.size
    for across in range(0, size["width"] // 2, 20):  # until a point is near
        ActionChains(page).move_to_element_with_offset(canvas, across, 0).perform()
        if one(page, ".tip").is_displayed():
            break
    assert one(page, ".tip").is_displayed()
    assert "row " in text(page, ".tip")
    assert one(page, ".tip .picture").value_of_css_property("background-image").startswith("url")
    told = text(page, "#map-told")
    canvas.send_keys(Keys.ARROW_LEFT)
    assert text(page, "#map-told") != told
    canvas.send_keys(Keys.ESCAPE)
    assert not one(page, ".tip").is_displayed()
    before = page.execute_script("return arguments[0].toDataURL()", canvas)
    click(page, "#as-pictures")
    assert page.execute_script("return arguments[0].toDataURL()", canvas) != before


def test_a_confused_pair_leads_to_its_queries(page):
    click(page, ".confused button")
    name = text(page, ".confused b").split(" → ")[0]
    assert {found.text for found in page.find_elements("css selector", ".asked b")} == {name}
    set_value(page, "#class-filter", "", "change")


def test_arrow_keys_read_the_recall_curve(page):
    from selenium.webdriver.common.keys import Keys

    curve = one(page, "#recall svg")
    curve.send_keys(Keys.ARROW_RIGHT)
    assert text(page, "#recall figcaption").startswith("recall@1 = ")
    curve.send_keys(Keys.ARROW_RIGHT)
    assert text(page, "#recall figcaption").startswith("recall@2 = ")


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, False), (1280, True), (390, False), (320, True)]
)
def test_it_fits_every_screen_and_follows_the_colours_of_the_system(page, width, dark):
    browser.resize(page, width, 844, dark=dark)
    time.sleep(0.1)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    ground = one(page, "body").value_of_css_property("background-color")
    light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 600
    assert light != dark
    browser.resize(page, 1280, 900)
