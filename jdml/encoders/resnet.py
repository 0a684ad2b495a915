"""Residual networks, the usual encoder of image retrieval."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jdml._core.options import Array
from jdml.encoders.image_encoder import IMAGENET_MEAN, IMAGENET_STD, ImageEncoder
from jdml.encoders.layers import convolution, expect_stages, stages
from jdml.encoders.norm import BatchNorm


class ResNet(ImageEncoder):
    """ResNet v1.5: the 3 x 3 convolution of a bottleneck has the stride.

    The published numbers of metric learning on birds, cars and products are mostly of a ResNet-50
    pretrained on ImageNet, with `frozen_norm`, images of 224 x 224 and an embedding of 128 to
    512. Any image size goes; the map is a 32nd of it. Layers have the names of timm's and
    torchvision's, see `load_timm`.

    Attributes:
      depths: blocks of each stage.
      bottleneck: 1 x 1, 3 x 3 and 1 x 1 convolutions in a block, 4 times as wide at its end; else
        two of 3 x 3.
      widths: features of each stage.
      frozen_norm: batch norms of the trunk keep statistics, scale and bias as they are. Weight
        decay must not reach them, as that of `training.optimizer` does not.
      dim, pooling, mean, std, feature_norm, neck_norm, unit_rows, dropout, dtype: see
        `ImageEncoder`; by default ImageNet's mean and std.

    Example:
      >>> import jax
      >>> encoder = ResNet(dim=4, depths=(1,), widths=(2,), pooling="gem", frozen_norm=True)
      >>> images = jnp.zeros((2, 9, 9, 3))
      >>> jax.eval_shape(encoder.init_with_output, jax.random.key(0), images)[0].shape
      (2, 4)

    Reference:
      He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD
    depths: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    widths: tuple[int, ...] = (64, 128, 256, 512)
    frozen_norm: bool = False

    def trunk(self, x: Array, **shared: Any) -> Array:
        """Images to the last map, [B, H / 32, W / 32, F] with four stages."""
        expect_stages(self.depths, self.widths)
        x = convolution(self.widths[0], 7, 2, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(BatchNorm(frozen=self.frozen_norm, name="bn1")(x, **shared))
        # After a ReLU a border of zeros never is the only largest.
        x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))
        for stage, index in stages(self.depths):
            width, stride = self.widths[stage], 2 if stage and not index else 1
            layers = ((3, stride, width), (3, 1, width))
            if self.bottleneck:
                layers = ((1, 1, width), (3, stride, width), (1, 1, 4 * width))
            block = Residual(layers, self.frozen_norm, self.dtype, name=f"layer{stage + 1}_{index}")
            x = block(x, **shared)
        return x


class Residual(nn.Module):
    """Convolutions, each with batch norm, whose outcome is added to what came in.

    Attributes:
      layers: (kernel size, stride, width) of each convolution.
      frozen_norm: see `BatchNorm`.
      dtype: of the computation.

    Example:
      >>> import jax
      >>> block = Residual(((3, 2, 4), (3, 1, 4)))
      >>> x = jnp.zeros((1, 6, 6, 3))
      >>> jax.eval_shape(block.init_with_output, jax.random.key(0), x)[0].shape
      (1, 3, 3, 4)
    """

    layers: tuple[tuple[int, int, int], ...]
    frozen_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, **shared: Any) -> Array:
        """x [B, H, W, F] to [B, H / s, W / s, width], s the product of the strides."""
        norm = functools.partial(BatchNorm, frozen=self.frozen_norm)
        y, last = x, len(self.layers)
        for i, (size, stride, width) in enumerate(self.layers, 1):
            y = convolution(width, size, stride, dtype=self.dtype, name=f"conv{i}")(y)
            # The block begins as the identity, unless its scale could never leave zero.
            begins = i == last and not self.frozen_norm
            start = nn.initializers.zeros if begins else nn.initializers.ones
            y = norm(scale_init=start, name=f"bn{i}")(y, **shared)
            y = nn.relu(y) if i < last else y
        if x.shape != y.shape:
            stride = max(stride for _, stride, _ in self.layers)
            x = convolution(y.shape[-1], 1, stride, dtype=self.dtype, name="downsample_conv")(x)
            x = norm(name="downsample_norm")(x, **shared)
        return nn.relu(x + y)


def resnet18(dim: int | None = 512, **options: Any) -> ResNet:
    """ResNet-18: 11 million parameters, 512 features before the neck.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `ResNet`.

    Returns:
      The encoder.

    Example:
      >>> resnet18(dim=64, frozen_norm=True).depths
      (2, 2, 2, 2)
    """
    return ResNet(dim=dim, depths=(2, 2, 2, 2), bottleneck=False, **options)


def resnet50(dim: int | None = 512, **options: Any) -> ResNet:
    """ResNet-50: 24 million parameters, 2048 features before the neck.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `ResNet`.

    Returns:
      The encoder.

    Example:
      >>> resnet50(dim=64, pooling="average+max").depths
      (3, 4, 6, 3)
    """
    return ResNet(dim=dim, depths=(3, 4, 6, 3), bottleneck=True, **options)
