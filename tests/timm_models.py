"""The same networks in PyTorch: timm's own, and insightface's layers from their description."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # A wheel for GPUs on a machine without one has none of its operators; timm uses none either.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm
from timm.models.resnet import Bottleneck, ResNet


class FaceUnit(nn.Module):
    """The residual unit of ArcFace, section 3.2.1: norm, conv, norm, PReLU, conv, norm."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(before), conv(before, width, 3)
        self.bn2, self.prelu = nn.BatchNorm2d(width), nn.PReLU(width)
        self.conv2, self.bn3 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
        if stride > 1:
            self.downsample = nn.Sequential(conv(before, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (self.downsample(x) if hasattr(self, "downsample") else x)


class FaceNet(nn.Module):
    """Four stages, and norm, dense layer and norm on all places of the last map."""

    def __init__(self, depths, widths, places: int, dim: int):
        super().__init__()
        self.conv1, self.bn1 = conv(3, widths[0], 3), nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        before = widths[0]
        for i, (depth, width) in enumerate(zip(depths, widths), 1):
            units = [
                FaceUnit(before, width, 2),
                *(FaceUnit(width, width, 1) for _ in range(1, depth)),
            ]
            self.add_module(f"layer{i}", nn.Sequential(*units))
            before = width
        self.bn2, self.fc = nn.BatchNorm2d(before), nn.Linear(before * places, dim)
        self.features = nn.BatchNorm1d(dim)

    def forward(self, x):
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.bn2(x).flatten(1)))


def conv(before: int, width: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, size, stride, (size - 1) // 2, bias=False)


def build(name: str) -> nn.Module:
    """The network of a case, weights at random."""
    made = {
        "bottleneck": lambda: ResNet(Bottleneck, layers=[1, 1, 1, 1]),
        "vit_small": lambda: timm.create_model("vit_small_patch16_224", img_size=48, depth=2),
        "vit_small_resized": lambda: timm.create_model(
            "vit_small_patch16_224", img_size=48, depth=1
        ),
        "vit_small_oblong": lambda: timm.create_model(
            "vit_small_patch16_224", img_size=64, depth=1
        ),
        "vit_base": lambda: timm.create_model("vit_base_patch16_224", img_size=32, depth=1),
        "iresnet": lambda: FaceNet((1, 2, 1, 1), (8, 16, 24, 32), 9, 16),
        "iresnet50": lambda: FaceNet((3, 4, 14, 3), (64, 128, 256, 512), 49, 512),
    }
    return made.get(name, lambda: timm.create_model(name))().eval()


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights."""
    return {name: tuple(x.shape) for name, x in network.state_dict().items()}


def features(network: nn.Module, weights: dict, encoder, images: np.ndarray) -> np.ndarray:
    """What the network with these weights has before its classifier."""
    network.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})
    if hasattr(network, "set_input_size"):  # a ViT: interpolates its position embeddings
        network.set_input_size(img_size=images.shape[1:3])
    mean, std = (torch.tensor(x)[:, None, None] for x in (encoder.mean, encoder.std))
    x = (torch.tensor(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        if isinstance(network, FaceNet):
            return network(x).numpy()
        return network.forward_head(network.forward_features(x), pre_logits=True).numpy()
