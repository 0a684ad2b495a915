"""The embedding neck: from features to the rows that the losses compare."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jdml._core.maths import unit
from jdml._core.options import Array, AxisName
from jdml.encoders.norm import BatchNorm, at_least_float32


class Neck(nn.Module):
    """A dense layer to `dim`, then as asked a normalisation of features and of rows.

    Losses defined on cosine normalise rows by themselves; `unit_rows` is for those that leave the
    distance open and should see directions only, such as a triplet loss on the sphere.

    Attributes:
      dim: D, width of the embedding.
      norm: "batch", "layer" or None, over the features after the dense layer.
      unit_rows: divide each row by its Euclidean norm.
      dropout: share of the features dropped before the dense layer, 0 to 1; its random key is
        the rng "dropout".
      dtype: of the computation; parameters are float32.

    Example:
      >>> import jax
      >>> neck = Neck(dim=2, unit_rows=True)
      >>> features = jnp.ones((3, 4))
      >>> rows = neck.apply(neck.init(jax.random.key(0), features), features)
      >>> print(rows.shape, jnp.linalg.norm(rows, axis=1).round(5))
      (3, 2) [1. 1. 1.]
    """

    dim: int = 128
    norm: Literal["batch", "layer"] | None = None
    unit_rows: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Array,
        *,
        train: bool = False,
        where: Array | None = None,
        axis_name: AxisName | None = None,
    ) -> Array:
        """Features [B, F] to embeddings [B, dim], at least float32.

        Raises:
          ValueError: an unknown `norm`.
        """
        if self.norm not in ("batch", "layer", None):
            raise ValueError(f"norm: got {self.norm!r}, expected 'batch', 'layer' or None")
        if self.dropout:
            features = nn.Dropout(self.dropout, deterministic=not train)(features)
        # A bias before batch norm would get no gradient but rounding noise.
        dense = nn.Dense(self.dim, use_bias=self.norm != "batch", dtype=self.dtype)
        rows = at_least_float32(dense(features.astype(self.dtype)))
        if self.norm == "batch":
            rows = BatchNorm()(rows, train=train, where=where, axis_name=axis_name)
        elif self.norm == "layer":
            rows = nn.LayerNorm(dtype=rows.dtype)(rows)
        return unit(rows) if self.unit_rows else rows
