"""Whole runs on pictures that are decoded when asked for, with a gallery, of another encoder."""

import json

import numpy as np
import pytest

from experiments import pictures, run, sources, train
from experiments.settings import parse
from jdml import datasets
from jdml.datasets import Split, Splits
from jdml.datasets.images import from_array

LABELS = np.repeat(np.arange(12), 4)
NAMES = tuple("abcdefghijkl")


def shop(name, image_size=None, **_):
    """Six classes to train on, two to validate, four to test: two queries, two in the gallery."""
    noise = np.random.default_rng(0).integers(0, 256, (len(LABELS), 40, 36, 3), np.uint8)
    whole = Split(name, from_array(noise).sized(image_size), LABELS, NAMES)
    query = (np.arange(16) % 4) < 2
    parts = np.split(np.arange(len(LABELS)), [24, 32])
    parts = [*parts[:2], parts[2][query], parts[2][~query]]
    return Splits(*map(whole.take, parts))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A shallow ResNet on crops of these pictures."""
    path = tmp_path_factory.mktemp("config") / "shallow.py"
    path.write_text(
        "data, loss = 'shop', 'cosface'\n"
        "image_size, crop, crop_scale, augment = 32, 24, (0.5, 1.0), ('flip',)\n"
        "encoder, pooling, dim = 'resnet18', 'gem', 4\n"
        "encoder_options = {'depths': (1,), 'widths': (4,)}\n"
        "classes_per_batch, per_class, steps, checkpoint_every = 4, 2, 4, 2\n"
        "ks, select, frozen_norm, freeze_trunk_steps = (1, 2), 'best', True, 1\n"
    )
    return path


@pytest.fixture(autouse=True)
def shops(monkeypatch, quick_compile):
    """The data set by its name, and no pictures of the run."""
    monkeypatch.setattr(datasets, "load", shop)
    monkeypatch.setattr(pictures, "draw", lambda *_: None)


def test_a_run_of_lazy_pictures_is_scored_in_its_gallery_and_evaluated(config, tmp_path, capsys):
    argv = ["--config", str(config), "--run-dir", str(tmp_path), "--name", "r"]
    assert train.main(argv) == 0
    result = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert result["test"].keys() == {"recall_at_1", "recall_at_2", "map_at_r", "r_precision"}
    assert result["raw"].keys() == result["test"].keys()
    assert result["tested_step"] in (2, 4)
    assert "recall@2" in capsys.readouterr().out
    source = sources.read(tmp_path / "r")
    assert len(source.queries.labels) == len(source.gallery.labels) == 8
    from experiments.scores import score

    beside = (source.gallery.embeddings, source.gallery.labels)
    found = score(source.queries.embeddings, source.queries.labels, beside, (1, 2))
    assert found == result["test"]
    assert "search 8 others" in source.lead
    assert train.main([*argv, "--resume"]) == 0  # nothing is left to train
    again = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert again["test"] == result["test"]


def test_what_does_not_go_with_the_data_is_one_line_and_writes_nothing(config, tmp_path, capsys):
    for argv, names in (
        (["--ks", "9"], "ks: got 9, expected 8 or less, what a search of test can find"),
        (["--weights", "none.pth"], "weights: no file none.pth"),
        (["--crop", "33", "--image-size", "32"], "crop: got 33, expected image_size or less"),
    ):
        assert train.main(["--config", str(config), "--run-dir", str(tmp_path / "x"), *argv]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert names in error
    assert not (tmp_path / "x").exists()


def test_pretrained_weights_are_where_a_run_starts_and_not_needed_to_go_on(config, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    weights = {"conv1.weight": rng.normal(size=(4, 3, 7, 7))}
    for name in ("conv1", "conv2"):
        weights[f"layer1.0.{name}.weight"] = rng.normal(size=(4, 4, 3, 3))
    for name in ("bn1", "layer1.0.bn1", "layer1.0.bn2"):
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{name}.{part}"] = rng.uniform(0.5, 1.5, size=4)
    file = tmp_path / "weights.safetensors"
    numpy.save_file({name: x.astype(np.float32) for name, x in weights.items()}, file)
    argv = ["--config", str(config), "--run-dir", str(tmp_path), "--name", "w"]
    argv += ["--weights", str(file), "--seed", "3"]
    asked = parse(argv, prog="", about="").settings
    ready = run.prepare(asked, False, 0.0)
    params = ready.parts.fresh.params["encoder"]
    np.testing.assert_allclose(
        params["conv1"]["kernel"], weights["conv1.weight"].transpose(2, 3, 1, 0), rtol=1e-6
    )
    assert float(params["GeM_0"]["power"]) == 3.0
    run.train(ready)
    file.unlink()
    run.prepare(asked, True, 0.0)
    frozen = run.restored(asked, ready.data, tmp_path / "w")[1].params["encoder"]["bn1"]
    np.testing.assert_array_equal(frozen["scale"], weights["bn1.weight"].astype(np.float32))
