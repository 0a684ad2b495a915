"""Vision transformers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdml._core.options import Array
from jdml.encoders.image_encoder import HALF, ImageEncoder
from jdml.encoders.norm import at_least_float32

SMALL = nn.initializers.truncated_normal(0.02)


class ViT(ImageEncoder):
    """Patches of an image as tokens, with a class token before them.

    With weights of self-supervised training (DINO) the strongest of the encoders here on products
    and birds, at a learning rate of about a tenth of a ResNet's. The first call fixes the image
    size, as each place has an embedding of its own; `load_timm` interpolates those of pretrained
    weights to it. Images are square unless `grid` says how many patches they have: their number
    alone does not tell 2 x 8 from 4 x 4. Layers have the names of timm's.

    Attributes:
      patch: side of a patch, pixels; both sides of an image are multiples of it.
      grid: rows and columns of patches, for images that are not square.
      width: features of a token.
      depth: blocks.
      heads: of the attention, a divisor of `width`.
      dim: see `ImageEncoder`.
      pooling: "token", the class token; or one of `encoders.pool`, over the tokens of patches.
      mean, std: by default 0 to 1 becomes -1 to 1, as Google's weights want; those of DINO want
        `IMAGENET_MEAN` and `IMAGENET_STD`.
      feature_norm, neck_norm, unit_rows, dropout, dtype: see `ImageEncoder`.

    Example:
      >>> encoder = ViT(dim=3, patch=2, grid=(2, 3), width=4, depth=1, heads=2)
      >>> images = jnp.zeros((2, 4, 6, 3))
      >>> jax.eval_shape(encoder.init_with_output, jax.random.key(0), images)[0].shape
      (2, 3)

    Reference:
      Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021. El-Nouby et al.: Training
      Vision Transformers for Image Retrieval, 2021.
    """

    pooling: str = "token"
    mean: tuple[float, ...] | None = HALF
    std: tuple[float, ...] | None = HALF
    patch: int = 16
    grid: tuple[int, int] | None = None
    width: int = 384
    depth: int = 12
    heads: int = 6

    def trunk(self, x: Array, **shared: Any) -> Array:
        """Images to the class token [B, F], or to the map of patches [B, H / p, W / p, F]."""
        del shared
        height, width = x.shape[1:3]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images: got {height} x {width}, expected multiples of the patch, {self.patch}"
            )
        sides = (self.patch, self.patch)
        x = nn.Conv(self.width, sides, sides, "VALID", dtype=self.dtype, name="patch_embed")(x)
        grid = x.shape
        x = x.reshape(grid[0], -1, self.width)
        token = self.param("cls_token", SMALL, (1, 1, self.width)).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (grid[0], 1, self.width)), x], axis=1)
        x = x + self._places(grid[1], grid[2]).astype(x.dtype)
        for i in range(self.depth):
            x = TransformerBlock(self.heads, self.dtype, name=f"blocks_{i}")(x)
        x = _layer_norm("norm", x)
        return x[:, 0] if self.pooling == "token" else x[:, 1:].reshape(grid)

    def _places(self, height: int, width: int) -> Array:
        """The embedding of each place, [1, 1 + H W, F]."""
        shape = (1, 1 + height * width, self.width)
        known = self.variables.get("params", {}).get("pos_embed")
        if known is not None and known.shape != shape:
            raise ValueError(
                f"images: got {height} x {width} patches of {self.patch} pixels, expected the "
                f"{known.shape[1] - 1} that the first call fixed"
            )
        if (height, width) != tuple(self.grid or (height, height)):
            expected = f"grid {tuple(self.grid)}" if self.grid else "a square image, or a `grid`"
            got = f"{height} x {width} patches of {self.patch} pixels"
            raise ValueError(f"images: got {got}, expected {expected}")
        return self.param("pos_embed", SMALL, shape)


class TransformerBlock(nn.Module):
    """Attention among the tokens, then two dense layers on each, both before a sum.

    Attributes:
      heads: a divisor of the features.
      dtype: of the computation; the softmax is at least float32.

    Example:
      >>> x = jnp.zeros((2, 5, 4))
      >>> jax.eval_shape(TransformerBlock(heads=2).init_with_output, jax.random.key(0), x)[0].shape
      (2, 5, 4)
    """

    heads: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Tokens [B, T, F] to the same shape."""
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"heads: got {self.heads}, expected a divisor of the width {width}")
        x = x + self._attend(_layer_norm("norm1", x))
        y = self._dense(4 * width, "mlp_fc1")(_layer_norm("norm2", x))
        return x + self._dense(width, "mlp_fc2")(nn.gelu(y, approximate=False))

    def _attend(self, x: Array) -> Array:
        batch, tokens, width = x.shape
        joint = self._dense(3 * width, "attn_qkv")(x)
        joint = joint.reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = (joint[:, :, i] for i in range(3))
        scores = jnp.einsum("bthd,bshd->bhts", query, key) * (width // self.heads) ** -0.5
        shares = jax.nn.softmax(at_least_float32(scores), axis=-1).astype(value.dtype)
        mixed = jnp.einsum("bhts,bshd->bthd", shares, value).reshape(x.shape)
        return self._dense(width, "attn_proj")(mixed)

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, kernel_init=SMALL, dtype=self.dtype, name=name)


def _layer_norm(name: str, x: Array) -> Array:
    wide = at_least_float32(x)
    return nn.LayerNorm(epsilon=1e-6, dtype=wide.dtype, name=name)(wide).astype(x.dtype)


def vit_small(dim: int | None = 512, **options: Any) -> ViT:
    """ViT-S/16: 22 million parameters, 384 features before the neck.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `ViT`.

    Returns:
      The encoder.

    Example:
      >>> vit_small(dim=128).heads
      6
    """
    return ViT(dim=dim, width=384, heads=6, **options)


def vit_base(dim: int | None = 512, **options: Any) -> ViT:
    """ViT-B/16: 86 million parameters, 768 features before the neck.

    Args:
      dim: D, width of the embedding; None has no neck.
      **options: any attribute of `ViT`.

    Returns:
      The encoder.

    Example:
      >>> vit_base(dim=128).heads
      12
    """
    return ViT(dim=dim, width=768, heads=12, **options)
