"""What all encoders of images share: the pixels before the network, pooling and neck after it."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jdml._core.maths import unit
from jdml._core.options import Array, AxisName
from jdml.encoders.neck import Neck
from jdml.encoders.norm import at_least_float32
from jdml.encoders.pooling import pool

# Of red, green and blue, in the unit 0 to 1: what most pretrained weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# From 0 to 1 to -1 to 1: faces, vision transformers of Google, networks from TensorFlow.
HALF = (0.5, 0.5, 0.5)


def standardize(
    images: Array,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Array:
    """Pixels to numbers of mean about 0 and deviation about 1.

    Args:
      images: [B, H, W, C]; integers are taken as 0 to 255, floats as 0 to 1.
      mean, std: of each channel, in the unit 0 to 1. Without them each image is standardised by
        its own mean and deviation, which takes out brightness and contrast.

    Returns:
      [B, H, W, C], at least float32.

    Example:
      >>> images = jnp.array([0, 0, 255, 255], jnp.uint8).reshape(1, 2, 2, 1)
      >>> print(standardize(images).ravel().round(3), standardize(images, (0.5,), (0.25,)).ravel())
      [-1. -1.  1.  1.] [-2. -2.  2.  2.]
    """
    if jnp.issubdtype(images.dtype, jnp.integer):
        images = images.astype(jnp.float32) / 255.0
    images = at_least_float32(images)
    if mean is not None and std is not None:
        return (images - jnp.asarray(mean, images.dtype).reshape(1, 1, 1, -1)) / jnp.asarray(
            std, images.dtype
        ).reshape(1, 1, 1, -1)
    centred = images - images.mean((1, 2, 3), keepdims=True)
    variance = (centred * centred).mean((1, 2, 3), keepdims=True)
    return centred / jnp.sqrt(variance + 1e-6)


class ImageEncoder(nn.Module):
    """Base of the encoders: pixels are standardised, a trunk makes a map, a head makes a row.

    A subclass has a `trunk`. The head is one for all: pooling, then as asked a layer norm of the
    pooled features, then the embedding neck. Grey images are taken as three equal channels where
    `mean` has three numbers.

    Attributes:
      dim: D, width of the embedding. None has no neck: the pooled features are the embedding, as
        for pretrained features as they are.
      pooling: "average", "max", "average+max", "gem" or "grid", see `encoders.pool`.
      mean, std: of each channel, see `standardize`; without them each image by its own.
      feature_norm: "layer" for a layer norm without parameters between pooling and neck, as in
        ProxyNCA++; or None.
      neck_norm, unit_rows, dropout: see `Neck`.
      dtype: of the computation, such as jnp.bfloat16; parameters, statistics and embeddings are
        float32.

    Example:
      >>> import jax
      >>> class Thin(ImageEncoder):
      ...     def trunk(self, x, **shared):
      ...         return x[:, ::2, ::2]
      >>> encoder = Thin(dim=3, pooling="max", unit_rows=True)
      >>> images = jnp.zeros((2, 4, 4, 1))
      >>> encoder.apply(encoder.init(jax.random.key(0), images), images).shape
      (2, 3)

    Reference:
      Teh, DeVries, Taylor: ProxyNCA++, ECCV 2020, on the layer norm and on pooling.
    """

    dim: int | None = 512
    pooling: str = "average"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    feature_norm: Literal["layer"] | None = None
    neck_norm: Literal["batch", "layer"] | None = None
    unit_rows: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | type = jnp.float32

    def trunk(self, x: Array, **shared: Any) -> Array:
        """The network itself.

        Args:
          x: standardised images [B, H, W, C] of `dtype`.
          **shared: `train`, `where` and `axis_name` of the call.

        Returns:
          A map [B, H, W, F], or rows [B, F] that are pooled already.
        """
        raise NotImplementedError

    @nn.compact
    def __call__(
        self,
        images: Array,
        *,
        train: bool = False,
        where: Array | None = None,
        axis_name: AxisName | None = None,
    ) -> Array:
        """Images to embeddings.

        Args:
          images: [B, H, W, C], uint8 or floats of 0 to 1.
          train: batch statistics and dropout; pass `mutable=["batch_stats"]` to `apply`.
          where: bool [B]; the row exists. Missing rows do not enter the batch statistics.
          axis_name: mapped batch axis that the batch statistics span.

        Returns:
          [B, dim], at least float32.

        Raises:
          ValueError: images that are not [B, H, W, C], or settings that do not fit each other.
        """
        shared: dict[str, Any] = {"train": train, "where": where, "axis_name": axis_name}
        x = self.trunk(self._standardized(images).astype(self.dtype), **shared)
        rows = pool(x, self.pooling) if x.ndim == 4 else x
        if self.feature_norm == "layer":
            wide = at_least_float32(rows)
            rows = nn.LayerNorm(use_bias=False, use_scale=False, dtype=wide.dtype)(wide)
        elif self.feature_norm is not None:
            raise ValueError(f"feature_norm: got {self.feature_norm!r}, expected 'layer' or None")
        if self.dim is None:
            rows = at_least_float32(rows)
            return unit(rows) if self.unit_rows else rows
        neck = Neck(self.dim, self.neck_norm, self.unit_rows, self.dropout, self.dtype)
        return neck(rows, **shared)

    def _standardized(self, images: Array) -> Array:
        if images.ndim != 4:
            raise ValueError(f"images: got shape {images.shape}, expected [B, H, W, C]")
        if self.mean is None or self.std is None:
            if self.mean is not None or self.std is not None:
                raise ValueError(
                    f"mean and std: got {self.mean} and {self.std}, expected both or neither"
                )
            return standardize(images)
        channels = images.shape[-1]
        if channels == 1 and len(self.mean) == 3:
            images, channels = jnp.repeat(images, 3, axis=-1), 3
        if not len(self.mean) == len(self.std) == channels:
            raise ValueError(
                f"mean and std: got {self.mean} and {self.std}, expected a number for each of "
                f"the {channels} channels"
            )
        return standardize(images, self.mean, self.std)
