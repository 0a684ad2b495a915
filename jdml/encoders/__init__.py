"""Encoders: networks from images to embeddings, in Flax Linen, and the neck that they share.

A train step takes any Linen module, or any network as an `Encoder`, a pair of pure functions;
`nnx` makes one of a Flax NNX model.
"""

from jdml.encoders.adapters import nnx
from jdml.encoders.cached import cached
from jdml.encoders.convnet import ConvNet
from jdml.encoders.efficientnet import EfficientNetLite0, efficientnet_lite0
from jdml.encoders.encoder import Encoder, as_encoder, linen
from jdml.encoders.image_encoder import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageEncoder,
    standardize,
)
from jdml.encoders.iresnet import IResNet, iresnet50, iresnet100
from jdml.encoders.neck import Neck
from jdml.encoders.norm import BatchNorm, moments
from jdml.encoders.pooling import GeM, pool
from jdml.encoders.pretrained import load_timm, pretrained
from jdml.encoders.resnet import ResNet, resnet18, resnet50
from jdml.encoders.state_dict import read_torch
from jdml.encoders.vit import ViT, vit_base, vit_small
from jdml.encoders.weights import read_weights

__all__ = [
    "HALF",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "BatchNorm",
    "ConvNet",
    "EfficientNetLite0",
    "Encoder",
    "GeM",
    "IResNet",
    "ImageEncoder",
    "Neck",
    "ResNet",
    "ViT",
    "as_encoder",
    "cached",
    "efficientnet_lite0",
    "iresnet50",
    "iresnet100",
    "linen",
    "load_timm",
    "moments",
    "nnx",
    "pool",
    "pretrained",
    "read_torch",
    "read_weights",
    "resnet18",
    "resnet50",
    "standardize",
    "vit_base",
    "vit_small",
]
