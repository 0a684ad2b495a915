"""Batch normalisation whose answer depends neither on missing rows nor on the device count."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer
from jax import lax

from jdml._core.options import Array, AxisName
from jdml._core.reduce import total


def at_least_float32(x: Array) -> Array:
    """x as float32, or as float64 where it is that already.

    Args:
      x: any floating array.

    Returns:
      The same shape.

    Example:
      >>> at_least_float32(jnp.zeros((), jnp.bfloat16)).dtype
      dtype('float32')
    """
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def moments(
    x: Array, where: Array | None = None, axis_name: AxisName | None = None
) -> tuple[Array, Array, Array]:
    """Mean and variance of each feature over the rows that exist, on all devices.

    Sums and counts are added over the devices before the division, so that devices with different
    numbers of existing rows give what one device would give on the whole batch.

    Args:
      x: [B, ..., D]; half precision is lifted to float32, in which a count of pixels fits.
      where: bool [B]; the row exists.
      axis_name: mapped batch axis.

    Returns:
      Mean [D], variance [D] (0 without a row), and the number of values behind them, at least
      float32.

    Example:
      >>> x = jnp.array([[1.0], [3.0], [jnp.nan]])
      >>> mean, variance, count = moments(x, jnp.array([True, True, False]))
      >>> print(mean, variance, count)
      [2.] [1.] 2.0
    """
    x = at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    places = x.size // max(x.shape[0] * x.shape[-1], 1)  # of one row, such as pixels
    exists = jnp.ones(x.shape[:1], bool) if where is None else where
    count = total(exists.astype(x.dtype).sum() * places, axis_name)
    divisor = jnp.maximum(count, 1)
    mask = exists.reshape(-1, *[1] * (x.ndim - 1))

    def mean_of(values: Array) -> Array:
        kept = values if where is None else jnp.where(mask, values, 0)
        return total(kept.sum(axes), axis_name) / divisor

    mean = mean_of(x)
    # Two passes: the mean of squares less the square of the mean loses its digits in float32.
    centred = x - lax.expand_dims(mean, axes)
    return mean, mean_of(centred * centred), count


class BatchNorm(nn.Module):
    """Batch normalisation over the rows that exist, of all devices.

    Flax's own layer averages the means of the devices, which is another number once their rows
    are not equally many; this one adds sums and counts. The axis name is an argument of the call,
    so that one module serves every wrapping. Statistics are at least float32.

    Attributes:
      momentum: of the running statistics, 0 to 1; higher is slower.
      epsilon: added to the variance.
      frozen: a fixed affine map: running statistics count in training too and stay as they are,
        and scale and bias get no gradient. Batches of few classes have statistics of their own,
        which is why pretrained networks are often fine-tuned so.
      scale_init: the scale at the start; zeros make a residual block begin as the identity.

    Example:
      >>> import jax
      >>> norm = BatchNorm()
      >>> x = jnp.array([[1.0], [3.0]])
      >>> variables = norm.init(jax.random.key(0), x)
      >>> y, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])
      >>> print(y.round(3).ravel())
      [-1.  1.]

    Reference:
      Ioffe, Szegedy: Batch Normalization, ICML 2015.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    frozen: bool = False
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        where: Array | None = None,
        axis_name: AxisName | None = None,
    ) -> Array:
        """Normalises x [B, ..., D] to mean 0 and variance 1 a feature, then scales and shifts.

        Args:
          x: [B, ..., D].
          train: by the batch, and move the running statistics; else by the running statistics.
          where: bool [B]; the row exists.
          axis_name: mapped batch axis.

        Returns:
          The shape and dtype of x.
        """
        features = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "var", jnp.ones, features)
        scale = self.param("scale", self.scale_init, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        if self.frozen:
            scale, bias = lax.stop_gradient((scale, bias))
        wide = at_least_float32(x)
        mean, var = running_mean.value, running_var.value
        if train and not self.frozen:
            mean, var, count = moments(wide, where, axis_name)
            if not self.is_initializing():
                for running, now in ((running_mean, mean), (running_var, var)):
                    old = running.value
                    moved = old + (1.0 - self.momentum) * (now.astype(old.dtype) - old)
                    running.value = jnp.where(count > 0, moved, old)
        slope = scale.astype(wide.dtype) * lax.rsqrt(var.astype(wide.dtype) + self.epsilon)
        shift = bias.astype(wide.dtype) - mean.astype(wide.dtype) * slope
        axes = tuple(range(x.ndim - 1))
        return (wide * lax.expand_dims(slope, axes) + lax.expand_dims(shift, axes)).astype(x.dtype)
