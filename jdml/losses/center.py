"""Center loss: each row is pulled to the center of its class."""

from __future__ import annotations

from typing import Unpack

from jdml._core.compile import loss
from jdml._core.options import Array, TableOptions
from jdml._core.table import over_own_class


@loss(reduction="mean")
def center(
    embeddings: Array,
    labels: Array,
    centers: Array,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls each row to the center of its class; nothing pushes apart.

    Meant as the second part of a sum: a softmax separates the classes, this makes them compact
    (the paper adds it with weight 0.003). Alone it collapses all rows. The paper's centers are
    not learned by gradient but moved by `states.update_centers` after each step; to learn them
    instead, differentiate with respect to `centers`.

        |e - c_y|^2 / 2

    Args:
      embeddings: [B, D] rows, not normalised in the paper.
      labels: [B] integer classes.
      centers: [C, D], one center a class.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, centers = jnp.array([[1.0, 1.0], [3.0, 0.0]]), jnp.zeros((2, 2))
      >>> print(center(rows, jnp.array([0, 1]), centers))
      2.75

    Note:
      A mean over rows, so that the weight does not have to follow the batch size; the paper sums.

    Reference:
      Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition,
      ECCV 2016.
    """

    def formula(embedding: Array, own_center: Array) -> Array:
        return 0.5 * ((embedding - own_center) ** 2).sum(axis=-1)

    return over_own_class(formula, embeddings, labels, centers, **options)
