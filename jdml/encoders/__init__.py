"""Encoders: networks from images to embeddings, in Flax Linen, and the neck that they share.

A train step takes any Linen module, or any network as an `Encoder`, a pair of pure functions;
`nnx` makes one of a Flax NNX model.
"""

from jdml.encoders.adapters import nnx
from jdml.encoders.cached import cached
from jdml.encoders.convnet import ConvNet, GeM, standardize
from jdml.encoders.encoder import Encoder, as_encoder, linen
from jdml.encoders.neck import Neck
from jdml.encoders.norm import BatchNorm, moments

__all__ = [
    "BatchNorm",
    "ConvNet",
    "Encoder",
    "GeM",
    "Neck",
    "as_encoder",
    "cached",
    "linen",
    "moments",
    "nnx",
    "standardize",
]
