"""Encoders to hold against timm's, and weights by a rule of name and shape, so none are stored."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jdml import encoders

# name: (our encoder, height and width of the images)
CASES = {
    "resnet18": (encoders.resnet18(None), (33, 48)),
    "bottleneck": (encoders.ResNet(None, depths=(1, 1, 1, 1)), (48, 33)),
    "vit_small": (encoders.vit_small(None, depth=2), (48, 48)),
    "vit_small_resized": (encoders.vit_small(None, depth=1), (80, 80)),  # from weights for 48
    "vit_small_oblong": (encoders.vit_small(None, depth=1, grid=(2, 8)), (32, 128)),  # from 64
    "vit_base": (encoders.vit_base(None, depth=1), (32, 32)),
    "efficientnet_lite0": (encoders.efficientnet_lite0(None), (33, 40)),
    "tf_efficientnet_lite0": (
        encoders.efficientnet_lite0(None, tensorflow=True, mean=encoders.HALF, std=encoders.HALF),
        (33, 40),
    ),
    "iresnet": (encoders.IResNet(16, depths=(1, 2, 1, 1), widths=(8, 16, 24, 32)), (48, 48)),
}
# Whole networks, for where timm is installed.
WHOLE = {
    "resnet50": (encoders.resnet50(None), (64, 48)),
    "vit_small_patch16_224": (encoders.vit_small(None), (224, 224)),
    "vit_base_patch16_224": (encoders.vit_base(None), (224, 224)),
    "iresnet50": (encoders.iresnet50(), (112, 112)),
}


def images(size: tuple[int, int]) -> np.ndarray:
    """Two pictures of bytes."""
    return np.random.RandomState(7).randint(0, 256, (2, *size, 3)).astype(np.uint8)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight that keeps activations of the order of 1, drawn by its name."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.array(1)
    if leaf == "running_var":
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    x = draw.standard_normal(shape)
    if len(shape) > 1:
        tokens = leaf in ("cls_token", "pos_embed")
        return (x * (0.5 if tokens else (2 / np.prod(shape[1:])) ** 0.5)).astype(np.float32)
    around = 0.0 if leaf != "weight" else 0.25 if "prelu" in name else 1.0
    return (around + 0.1 * x).astype(np.float32)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """All of a network, by name."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def blank(encoder, size: tuple[int, int]):
    """Variables of zeros, without the time that drawing them takes."""
    forms = jax.eval_shape(encoder.init, jax.random.key(0), images(size)[:1])
    return jax.tree.map(lambda form: jnp.zeros(form.shape, form.dtype), forms)


def embed(encoder, source, size: tuple[int, int]) -> np.ndarray:
    """What our encoder makes of the pictures with these weights."""
    variables = encoders.load_timm(source, encoder, blank(encoder, size))
    return np.asarray(jax.jit(encoder.apply)(variables, images(size)))
