"""Residual networks for faces, as ArcFace and its successors are trained with."""

from __future__ import annotations

import functools
from typing import Any, Literal

import flax.linen as nn

from jdml._core.options import Array
from jdml.encoders.image_encoder import HALF, ImageEncoder
from jdml.encoders.layers import PReLU, convolution, expect_stages, stages
from jdml.encoders.norm import BatchNorm


class IResNet(ImageEncoder):
    """The improved ResNet of face recognition, for aligned faces of 112 x 112.

    A block norms before its first convolution and has no ReLU after the sum, the first
    convolution keeps the size, and slopes are learned. A face is aligned, so places tell parts
    apart: the last map of 7 x 7 is not pooled but laid out ("grid"), after which come dropout, a
    dense layer and a batch norm, the neck. With "grid" the image size is fixed by the first call.

    Layers have the names of insightface's, see `load_timm`, which takes its neck too where `dim`
    is the same.

    Attributes:
      depths: blocks of each stage.
      widths: features of each stage.
      frozen_norm: batch norms of the trunk keep statistics, scale and bias as they are. Weight
        decay must not reach them, as that of `training.optimizer` does not.
      dim, pooling, mean, std, feature_norm, neck_norm, unit_rows, dropout, dtype: see
        `ImageEncoder`; by default 112 x 112 x 3 of 0 to 1 become -1 to 1.

    Example:
      >>> import jax
      >>> encoder = IResNet(dim=4, depths=(1,), widths=(2,))
      >>> images = jnp.zeros((2, 6, 6, 3))
      >>> jax.eval_shape(encoder.init_with_output, jax.random.key(0), images)[0].shape
      (2, 4)

    Note:
      insightface holds the scale of the last batch norm at 1; here it is learned.

    Reference:
      Deng, Guo, Xue, Zafeiriou: ArcFace, CVPR 2019, section 3.2.1. Duta, Liu, Zhu, Shao: Improved
      Residual Networks for Image and Video Recognition, ICPR 2020.
    """

    pooling: str = "grid"
    mean: tuple[float, ...] | None = HALF
    std: tuple[float, ...] | None = HALF
    neck_norm: Literal["batch", "layer"] | None = "batch"
    depths: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    frozen_norm: bool = False

    def trunk(self, x: Array, **shared: Any) -> Array:
        """Images to the last map, [B, H / 16, W / 16, F] with four stages."""
        expect_stages(self.depths, self.widths)
        norm = functools.partial(BatchNorm, frozen=self.frozen_norm)
        x = convolution(self.widths[0], 3, dtype=self.dtype, name="conv1")(x)
        x = PReLU(name="prelu")(norm(name="bn1")(x, **shared))
        for stage, index in stages(self.depths):
            stride, name = 1 if index else 2, f"layer{stage + 1}_{index}"
            block = FaceBlock(self.widths[stage], stride, self.frozen_norm, self.dtype, name=name)
            x = block(x, **shared)
        return norm(name="bn2")(x, **shared)


class FaceBlock(nn.Module):
    """Batch norm, convolution, batch norm, PReLU, convolution, batch norm, and the sum.

    Attributes:
      width: features.
      stride: of the second convolution; where it is not 1, what came in is convolved as well.
      frozen_norm: see `BatchNorm`.
      dtype: of the computation.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((1, 6, 6, 3))
      >>> jax.eval_shape(FaceBlock(4, stride=2).init_with_output, jax.random.key(0), x)[0].shape
      (1, 3, 3, 4)
    """

    width: int
    stride: int = 1
    frozen_norm: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, **shared: Any) -> Array:
        """x [B, H, W, F] to [B, H / stride, W / stride, width]."""
        conv = functools.partial(convolution, self.width, dtype=self.dtype)
        norm = functools.partial(BatchNorm, frozen=self.frozen_norm)
        y = conv(3, name="conv1")(norm(name="bn1")(x, **shared))
        y = PReLU(name="prelu")(norm(name="bn2")(y, **shared))
        y = norm(name="bn3")(conv(3, self.stride, name="conv2")(y), **shared)
        if x.shape != y.shape:
            x = conv(1, self.stride, name="downsample_conv")(x)
            x = norm(name="downsample_norm")(x, **shared)
        return x + y


def iresnet50(dim: int | None = 512, **options: Any) -> IResNet:
    """IResNet-50: 44 million parameters at 112 x 112.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `IResNet`.

    Returns:
      The encoder.

    Example:
      >>> iresnet50(dropout=0.4).depths
      (3, 4, 14, 3)
    """
    return IResNet(dim=dim, depths=(3, 4, 14, 3), **options)


def iresnet100(dim: int | None = 512, **options: Any) -> IResNet:
    """IResNet-100: 65 million parameters at 112 x 112.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `IResNet`.

    Returns:
      The encoder.

    Example:
      >>> iresnet100().depths
      (3, 13, 30, 3)
    """
    return IResNet(dim=dim, depths=(3, 13, 30, 3), **options)
