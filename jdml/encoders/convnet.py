"""A small convolutional encoder for images of 28 to 64 pixels, quick on a CPU."""

from __future__ import annotations

from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jdml._core.options import Array, AxisName
from jdml.encoders.neck import Neck
from jdml.encoders.norm import BatchNorm, at_least_float32

Pooling = Literal["average", "max", "gem", "grid"]


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


class GeM(nn.Module):
    """Generalised mean over places, `mean(x^p)^(1/p)`: between average (p = 1) and maximum.

    Attributes:
      power: p at the start; learned, one for all features.
      epsilon: floor of the features, which must not be negative.

    Example:
      >>> import jax
      >>> pool = GeM(power=2.0)
      >>> x = jnp.array([1.0, 7.0]).reshape(1, 1, 2, 1)
      >>> print(pool.apply(pool.init(jax.random.key(0), x), x).round(3))
      [[5.]]

    Reference:
      Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, PAMI 2019.
    """

    power: float = 3.0
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Feature maps [B, H, W, F] to features [B, F]."""
        wide = jnp.maximum(at_least_float32(x), self.epsilon)
        power = self.param("power", nn.initializers.constant(self.power), ()).astype(wide.dtype)
        # By the largest place, so that no power overflows; the quotient does not depend on it.
        largest = lax.stop_gradient(wide.max((1, 2), keepdims=True))
        raised = ((wide / largest) ** power).mean((1, 2))
        return largest[:, 0, 0] * raised ** (1.0 / power)


class ConvNet(nn.Module):
    """Blocks of 3 x 3 convolution, batch norm and ReLU, a pooling, and an embedding neck.

    The first block halves the image already, so that most of the work is in wide layers on small
    maps, where convolutions on a CPU are quick: 2,400 to 3,000 images of 32 x 32 a second, forward
    and backward, on two cores. Pooling to one place suits objects that may stand anywhere; "grid"
    keeps the places of the last map and suits centred subjects, where the layout tells classes
    apart, as in letters and faces. With "grid" the image size is fixed by the first call.

    Attributes:
      dim: D, width of the embedding.
      widths: features of each block.
      strides: of each block.
      pooling: "average", "max", "gem" or "grid".
      mean, std: of each channel, see `standardize`; without them each image by its own.
      neck_norm, unit_rows, dropout: see `Neck`.
      dtype: of the computation, such as jnp.bfloat16; parameters, statistics and embeddings are
        float32.

    Example:
      >>> import jax
      >>> encoder = ConvNet(dim=8, widths=(4, 4), strides=(2, 2))
      >>> images = jnp.zeros((2, 28, 28, 1), jnp.uint8)
      >>> variables = encoder.init(jax.random.key(0), images)
      >>> encoder.apply(variables, images).shape
      (2, 8)
    """

    dim: int = 128
    widths: tuple[int, ...] = (32, 64, 128, 256)
    strides: tuple[int, ...] = (2, 2, 2, 1)
    pooling: Pooling = "average"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    neck_norm: Literal["batch", "layer"] | None = None
    unit_rows: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | type = jnp.float32

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
        self._check(images)
        shared = {"train": train, "where": where, "axis_name": axis_name}
        x = standardize(images, self.mean, self.std).astype(self.dtype)
        for width, stride in zip(self.widths, self.strides):
            convolution = nn.Conv(width, (3, 3), (stride, stride), use_bias=False, dtype=self.dtype)
            x = nn.relu(BatchNorm()(convolution(x), **shared))
        neck = Neck(self.dim, self.neck_norm, self.unit_rows, self.dropout, self.dtype)
        return neck(self._pool(x), **shared)

    def _pool(self, x: Array) -> Array:
        if self.pooling == "average":
            return x.mean((1, 2))
        if self.pooling == "max":
            return x.max((1, 2))
        return GeM()(x) if self.pooling == "gem" else x.reshape(x.shape[0], -1)

    def _check(self, images: Array) -> None:
        if images.ndim != 4:
            raise ValueError(f"images: got shape {images.shape}, expected [B, H, W, C]")
        if len(self.widths) != len(self.strides) or not self.widths:
            raise ValueError(
                f"strides: got {self.strides}, expected one a block, as widths {self.widths}"
            )
        if self.pooling not in get_args(Pooling):
            known = ", ".join(get_args(Pooling))
            raise ValueError(f"pooling: got {self.pooling!r}, expected one of {known}")
        if (self.mean is None) != (self.std is None):
            raise ValueError(
                f"mean and std: got {self.mean} and {self.std}, expected both or neither"
            )
