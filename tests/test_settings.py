"""Settings: configs by name, older runs, wrong values, and what is built from them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import tree_leaves_with_path

from experiments import encoder, files, objectives, scores, settings, verify
from experiments.best import Best
from experiments.data import Images
from experiments.settings import Settings, parse
from jdml import datasets, distances, encoders, metrics, miners


def parsed(*argv):
    return parse(argv, prog="train", about="").settings


# ---------------------------------------------------------------- from files and flags


def test_settings_survive_json():
    given = parsed("--ks", "1", "10", "--augment", "--crop-scale", "0.5", "1", "--frozen-norm")
    assert (given.ks, given.augment, given.crop_scale) == ((1, 10), (), (0.5, 1.0))
    given = dataclasses.replace(given, encoder_options={"depths": (1, 2)})
    assert Settings.from_json(json.loads(json.dumps(given.as_json()))) == given


def test_distances_and_miners_are_told_apart_in_json():
    def told(**options):
        return Settings(loss="triplet", loss_options=options).as_json()["loss_options"]

    plain = told(distance=distances.euclidean, miner=miners.BatchHard())
    assert plain != told(distance=distances.squared_euclidean, miner=miners.BatchHard())
    assert plain["miner"] != told(miner=miners.SemiHard())["miner"]
    unit = told(distance=distances.normalized(distances.euclidean))
    assert unit != told(distance=distances.normalized(distances.squared_euclidean))
    assert told(distance=lambda x, y: x @ y.T) == told(distance=lambda x, y: x @ y.T)


def test_a_run_of_an_older_version_goes_on(tmp_path):
    given = dataclasses.replace(parsed(), run_dir=str(tmp_path), name="old")
    stored = given.as_json()
    for name in ("encoder", "pooling", "optimizer", "augment", "ks", "folds", "weights", "chunks"):
        del stored[name]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(stored))
    assert files.choose_folder(given, True) == tmp_path / "old"
    other = dataclasses.replace(given, optimizer="sgd")
    with pytest.raises(ValueError, match="optimizer: got sgd, expected adamw as in"):
        files.choose_folder(other, True)


def test_a_config_is_found_by_its_name_and_a_whole_one_stands_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "CONFIGS", tmp_path)
    (tmp_path / "cosface.py").write_text("per_class = 9\nloss_options = {'margin': 0.3}\n")
    (tmp_path / "whole.py").write_text("data = 'hangul'\nloss = 'cosface'\ndim = 7\n")
    (tmp_path / "part.py").write_text("loss = 'cosface'\ndim = 7\n")
    whole, part = parsed("--config", "whole"), parsed("--config", "part")
    assert (whole.dim, whole.per_class, whole.loss_options) == (7, Settings.per_class, {})
    assert (part.dim, part.per_class, part.loss_options) == (7, 9, {"margin": 0.3})
    assert parsed("--config", str(tmp_path / "whole.py")) == whole
    with pytest.raises(ValueError, match="config: cannot read nowhere"):
        parsed("--config", "nowhere")


def test_a_folder_names_its_run_and_is_no_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "CONFIGS", tmp_path)
    (tmp_path / "birds.py").write_text("dim = 7\n")
    given = parsed("--data", "folder:/pictures/birds", "--loss", "cosface")
    assert (given.dim, given.folder().name) == (Settings.dim, "folder-birds-cosface-0")
    assert parsed("--data", "folder:/pictures/birds.csv").folder().name == "folder-birds-arcface-0"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ("--encoder resnet51", "encoder: got 'resnet51', expected one of convnet, resnet18"),
        ("--optimizer adam", "optimizer: got 'adam', expected one of adamw, sgd, rmsprop"),
        ("--schedule steps", r"milestones: got \(\), expected rising steps"),
        ("--milestones 3 4", r"milestones: got \(3, 4\), expected rising steps"),
        ("--warmup 2000", "warmup: got 2000, expected -1 to 1999"),
        ("--ks 2 1", r"ks: got \(2, 1\), expected rising ranks"),
        ("--ks", r"ks: got \(\), expected rising ranks"),
        ("--augment warp twirl", "augment: got 'twirl', expected some of warp, flip"),
        ("--augment flip flip", "augment: got .*, expected each name once"),
        ("--crop 65 --image-size 64", "crop: got 65, expected image_size or less"),
        ("--crop-scale 0.5", r"crop_scale: got \(0.5,\), expected the least and the most"),
        ("--sampler every", "sampler: got 'every', expected one of class_balanced"),
        ("--sampler hierarchical --super-classes 3", "super_classes: got 3, expected a divisor"),
        ("--miner Nothing", "miner: got 'Nothing', expected one of BatchEasyHard"),
        ("--matryoshka 64 256", r"matryoshka: got \(64, 256\), expected rising widths of 1 to"),
        ("--folds 1", "folds: got 1, expected 0, or 2 or more"),
        ("--folds 3 --fold 3", "fold: got 3, expected a number below folds 3"),
        ("--select first", "select: got 'first', expected one of last, best"),
        ("--chunks 0", "chunks: got 0, expected 1 or more"),
        ("--clip-norm nan", "clip_norm: got nan, expected 0 or more"),
    ],
)
def test_a_wrong_value_is_one_line(argv, names):
    with pytest.raises(ValueError, match=names) as error:
        parsed(*argv.split())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("frozen_norm = 1", "frozen_norm: got 1, expected True or False"),
        ("dim = True", "dim: got True, expected a whole number"),
        ("ks = [1]", r"ks: got \[1\], expected a tuple of whole numbers"),
        ("miner = 'SemiHard'\nloss_options = {'miner': None}", "miner: got 'SemiHard', expected"),
    ],
)
def test_a_wrong_value_of_a_file_is_one_line(tmp_path, text, names):
    (tmp_path / "wrong.py").write_text(text + "\n")
    with pytest.raises(ValueError, match=names):
        parsed("--config", str(tmp_path / "wrong.py"))


# ---------------------------------------------------------------- what is built


def test_encoders_are_built_from_settings():
    given = Settings(encoder="resnet18", dim=6, frozen_norm=True, encoder_options={"depths": (1,)})
    module = encoder.build(given)
    assert isinstance(module, encoders.ResNet)
    assert (module.dim, module.frozen_norm, module.depths, module.pooling) == (
        6,
        True,
        (1,),
        "average",
    )
    default = encoder.build(Settings())
    assert default == encoders.ConvNet(dim=128, pooling="grid", dtype=jnp.dtype("float32"))
    with pytest.raises(ValueError, match="frozen_norm: got frozen_norm, expected what vit_small"):
        encoder.build(Settings(encoder="vit_small", frozen_norm=True))
    with pytest.raises(ValueError, match="encoder_options: got depth, expected what resnet50"):
        encoder.build(Settings(encoder="resnet50", encoder_options={"depth": 3}))


def test_weights_that_are_not_there_are_one_line(tmp_path):
    given = Settings(encoder="resnet18", weights=str(tmp_path / "none.pth"))
    state = type("State", (), {"params": {"encoder": {}}, "encoder_state": {}})()
    with pytest.raises(ValueError, match=r"^weights: no file .*none.pth"):
        encoder.pretrained(given, state)
    with pytest.raises(ValueError, match=r"^weights: .*expected one of"):
        encoder.pretrained(dataclasses.replace(given, encoder="convnet"), state)


def test_objectives_are_built_from_settings():
    given = Settings(loss="cosface", class_rows=16, sampled=8, sample_groups=4, matryoshka=(2, 4))
    made = objectives.build(given, 12)
    params, state = jax.eval_shape(lambda: made.init(jax.random.key(0), 4))
    shapes = [leaf.shape for _, leaf in tree_leaves_with_path(params)]
    assert shapes == [(16, 2), (16, 4)]
    batch = {"labels": np.arange(4)}
    rows = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    assert jax.eval_shape(made.loss, params, state, rows, batch).shape == ()
    mined, plain = (
        objectives.build(Settings(loss="triplet", miner=miner), 2) for miner in ("BatchHard", "")
    )
    rows, batch = jnp.array([[0.0], [1.0], [3.0], [9.0]]), {"labels": jnp.array([0, 0, 1, 1])}
    values = [float(one.loss({}, (), rows, batch)) for one in (mined, plain)]
    assert values[0] != values[1]


def test_a_pair_loss_may_have_mixtures():
    rows, batch = jnp.array([[0.0], [1.0], [3.0], [9.0]]), {"labels": jnp.array([0, 0, 1, 1])}
    made = objectives.build(Settings(loss="contrastive", mix=0.4), 2)
    params, state = made.init(jax.random.key(0), 1)
    plain = objectives.build(Settings(loss="contrastive"), 2)
    assert float(made.loss(params, state, rows, batch)) > float(plain.loss({}, (), rows, batch))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"loss": "triplet", "class_rows": 9}, "class_rows: got 9, expected 0, as triplet has no"),
        ({"loss": "center", "sampled": 2}, "sampled: got 2, expected 0, as center has no class"),
        ({"loss": "cosface", "class_rows": 3}, "class_rows: got 3, expected 4 or more"),
        ({"loss": "cosface", "loss_options": {"miner": 1}}, "loss_options: got miner, which cosf"),
        ({"loss": "adacos", "miner": "SemiHard"}, "loss_options: got miner, which adacos does not"),
        ({"loss": "center", "miner": "BatchHard"}, "loss_options: got miner, which center does"),
        ({"loss": "uniface", "miner": "SemiHard"}, "loss_options: got miner, which uniface does"),
        ({"loss": "adacos", "loss_options": {"sub_centers": 2}}, "got sub_centers, which adacos"),
        ({"loss": "cosface", "mix": 0.4}, "mix: got 0.4, expected 0, as cosface is no loss of pai"),
    ],
)
def test_what_does_not_go_with_a_loss_is_one_line(options, names):
    with pytest.raises(ValueError, match=names):
        objectives.build(Settings(**options), 4)


# ---------------------------------------------------------------- scores


def images(count, side=4, gallery=None):
    pictures = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return Images(pictures, np.arange(count) // 2, (), gallery)


def test_scores_are_those_of_the_metrics_with_and_without_a_gallery():
    rows = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
    labels = np.arange(10) // 2
    found = scores.score(rows, labels, ks=(1, 3))
    wanted = metrics.retrieval(rows, labels, ks=(1, 3))
    assert found == {name: round(float(wanted[name]), 5) for name in found}
    assert list(found) == ["recall_at_1", "recall_at_3", "map_at_r", "r_precision"]
    searched = images(4, gallery=images(6))
    found = scores.score_rows(rows[:4], searched, rows[4:], (1,))
    wanted = metrics.retrieval(
        rows[:4], searched.labels, gallery=rows[4:], gallery_labels=searched.gallery.labels
    )
    assert found["map_at_r"] == pytest.approx(float(wanted["map_at_r"]), abs=1e-5)


def test_ranks_that_no_search_can_find_are_refused():
    tests = {"test": images(8), "shop": images(9, gallery=images(5))}
    scores.check_ranks((1, 5), tests)
    with pytest.raises(ValueError, match="ks: got 6, expected 5 or less, what a search of shop"):
        scores.check_ranks((1, 6), tests)


def test_raw_pixels_are_small():
    few = images(3, side=8)
    np.testing.assert_array_equal(
        scores.raw_pixels(few), few.images.reshape(3, -1).astype(np.float32) / 255.0
    )
    large = np.zeros((2, 64, 64, 3), np.uint8)
    large[1, :4, :4] = 255
    found = scores.raw_pixels(Images(large, np.arange(2), ()))
    assert found.shape == (2, 16 * 16 * 3)
    assert found[1].sum() == pytest.approx(3.0)  # one place of 16 x 16
    grey = scores.raw_pixels(Images(large[..., :1], np.arange(2), ()))
    assert grey[1].sum() == pytest.approx(1.0)


def test_pairs_are_verified_fold_by_fold():
    rows = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 3.0], [0.1, 1.0]], np.float32)
    split = datasets.Split("toy", np.zeros((4, 1, 1, 1), np.uint8), np.arange(4) // 2, ("a", "b"))
    first, second = np.array([0, 0, 2, 1]), np.array([1, 2, 3, 3])
    same, fold = np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    pairs = datasets.Pairs(split, first, second, same, fold)
    assert verify.verify(lambda _: rows, pairs) == {
        "verification": {"accuracy": 1.0, "standard_error": 0.0}
    }
    assert verify.verify(lambda _: rows, None) == {}


# ---------------------------------------------------------------- the best state


def test_the_best_state_is_kept_also_over_a_stop(tmp_path):
    import optax
    from flax import linen as nn

    from jdml import losses, training
    from jdml import objectives as made

    fresh = training.create_state(
        jax.random.key(0), nn.Dense(2), made.pairs(losses.triplet), optax.sgd(0.1), jnp.ones((1, 3))
    )
    at = lambda step: fresh._replace(step=jnp.int32(step))
    with Best(tmp_path, []) as best:
        for step, score in ((1, 0.3), (2, 0.5), (3, 0.5), (4, None)):
            best.offer(score, at(step), {})
        assert int(best.state(fresh).step) == 2
    rows = [{"step": 1, "validation_map_at_r": 0.3}, {"step": 2, "validation_map_at_r": 0.5}]
    with Best(tmp_path, rows[:1]) as best:  # stopped after the best state, before its checkpoint
        best.offer(0.5, at(2), {})
        best.offer(0.4, at(3), {})
        assert int(best.state(fresh).step) == 2
        best.offer(0.6, at(4), {})
        assert int(best.state(fresh).step) == 4
    with Best(tmp_path / "none", []) as best, pytest.raises(ValueError, match="select: no state"):
        best.state(fresh)
