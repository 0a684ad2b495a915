"""From a map of features to one row an image."""

from __future__ import annotations

import functools
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jdml._core.options import Array
from jdml.encoders.norm import at_least_float32

Pooling = Literal["average", "max", "average+max", "gem", "grid"]


class GeM(nn.Module):
    """Generalised mean over places, `mean(x^p)^(1/p)`: between average (p = 1) and maximum.

    Attributes:
      power: p at the start; learned, one for all features.
      epsilon: floor of the features: negative ones count as nothing, so take it on maps that a
        ReLU has left.

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


def pool(x: Array, pooling: str) -> Array:
    """A map to one row an image. Called within a module, which owns the power of "gem".

    Args:
      x: [B, H, W, F].
      pooling: "average"; "max"; "average+max", their sum, as the Proxy-Anchor paper's code has
        it; "gem", see `GeM`; or "grid", all places side by side.

    Returns:
      [B, F], of "grid" [B, H W F]; the dtype of x, of "gem" at least float32.

    Raises:
      ValueError: another pooling.

    Example:
      >>> x = jnp.array([1.0, 7.0]).reshape(1, 1, 2, 1)
      >>> [pool(x, name).tolist() for name in ("average", "max", "average+max", "grid")]
      [[[4.0]], [[7.0]], [[11.0]], [[1.0, 7.0]]]
    """
    if pooling == "gem":
        return GeM()(x)
    if pooling == "grid":
        return x.reshape(x.shape[0], -1)
    means = {"average": ("mean",), "max": ("max",), "average+max": ("mean", "max")}
    if pooling not in means:
        known = ", ".join(get_args(Pooling))
        raise ValueError(f"pooling: got {pooling!r}, expected one of {known}")
    return functools.reduce(jnp.add, (getattr(x, name)((1, 2)) for name in means[pooling]))
