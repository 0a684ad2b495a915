"""Margin softmax losses of face recognition: a row against the directions of all classes.

All of them compare a unit row with unit class directions, take a margin off the cosine of the
own class, scale, and apply softmax cross-entropy. A margin may be one number or one a row [B],
for instance `objectives.class_size_margins(...)[labels]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml._core import checks
from jdml._core.compile import loss
from jdml._core.maths import arc_target, cosine_of_angle, monotone_cosine
from jdml._core.options import Array, Number, TableOptions
from jdml._core.table import Row, over_table


def _margin_softmax(
    target: Callable[[Array], Array],
    scale: Number,
    embeddings: Array,
    labels: Array,
    proxies: Array,
    **options: Unpack[TableOptions],
) -> Array:
    """Softmax cross-entropy of scaled cosines, with target(cosine) for the own class."""

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - scale * target(row.target))

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return scale * cosines

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


def _arc_target(margin: Number, easy_margin: bool) -> Callable[[Array], Array]:
    """cos(theta + margin), replaced where that would no longer fall with theta."""
    if not easy_margin:
        return lambda cosine: arc_target(cosine, margin)
    turned = lambda cosine: cosine_of_angle(cosine, jnp.ones((), cosine.dtype), margin)
    return lambda cosine: jnp.where(cosine > 0, turned(cosine), cosine)


@loss(reduction="mean", per_row=("margin",))
def cosface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    margin: Number = 0.35,
    scale: Number = 64.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the direction of its class until its cosine leads all others by a margin.

    The simplest margin softmax and the easiest to train. The defaults are those for faces, with
    tens of thousands of classes; a few hundred classes want a larger scale and margin to be
    searched anew (100 and 0.4 to 0.6 for birds and cars).

        -log softmax of scale cos(theta_c), with scale (cos(theta_y) - margin) for the own class

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      margin: taken off the own cosine, 0 to 1. One number, or one a row [B].
      scale: s, inverse temperature of the softmax, 10 to 100.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
      >>> loss = cosface(rows, jnp.array([0]), proxies, margin=0.5, scale=2.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Reference:
      Wang et al.: CosFace, CVPR 2018; Wang, Cheng, Liu, Liu: Additive Margin Softmax, 2018.
    """
    target = lambda cosine: cosine - margin
    return _margin_softmax(target, scale, embeddings, labels, proxies, **options)


@loss(reduction="mean", per_row=("margin",))
def arcface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    margin: Number = 0.5,
    scale: Number = 64.0,
    easy_margin: bool = False,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the direction of its class as if it were `margin` radians further away.

    The margin is the same length of arc on the sphere wherever the row stands, which is what the
    test by angle asks for. Today's standard for faces; smaller problems want another scale and
    margin (50 and 0.35 are a start).

        -log softmax of scale cos(theta_c), with scale cos(theta_y + margin) for the own class

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      margin: in radians, 0.1 to 0.5. One number, or one a row [B].
      scale: s, inverse temperature of the softmax, 10 to 100.
      easy_margin: no margin for rows more than 90 degrees from their class.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[0.0, 1.0]]), jnp.eye(2)
      >>> loss = arcface(rows, jnp.array([1]), proxies, margin=jnp.pi / 3, scale=2.0)
      >>> print(f"{loss:.5f}")
      0.31326

      The own cosine 1 becomes cos(60 degrees), the other is 0: log(1 + exp(-1)).

    Note:
      Beyond pi - margin, where cos(theta + margin) would rise again, the own cosine is
      cos(theta) - margin sin(margin), as in the authors' first release: it keeps falling with
      theta, with a step at the border. `combined_margin` continues without a step. The derivative
      at a row exactly on, or opposite to, its class is large but finite.

    Reference:
      Deng, Guo, Xue, Zafeiriou: ArcFace, CVPR 2019.
    """
    target = _arc_target(margin, easy_margin)
    return _margin_softmax(target, scale, embeddings, labels, proxies, **options)


@loss(reduction="mean", per_row=("margin",))
def subcenter_arcface(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    margin: Number = 0.5,
    scale: Number = 64.0,
    easy_margin: bool = False,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the nearest of K directions of its class: `arcface` for noisy labels.

    Wrong or unusual rows of a class gather around a center of their own instead of spoiling the
    main one. The paper trains with K = 3, keeps the dominant center, drops rows more than 75
    degrees away from it and trains again.

        arcface with cos(theta_c) = max_k cos(e, proxy_ck)

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, K, D], K directions a class; brought to unit length here.
      margin: in radians. One number, or one a row [B].
      scale: s, inverse temperature of the softmax.
      easy_margin: no margin for rows more than 90 degrees from their class.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> proxies = jnp.array([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])
      >>> rows = jnp.array([[-4.0, 0.0]])
      >>> loss = subcenter_arcface(rows, jnp.array([0]), proxies, margin=jnp.pi / 3, scale=2.0)
      >>> print(f"{loss:.5f}")
      0.31326

    Reference:
      Deng, Guo, Liu, Gong, Zafeiriou: Sub-center ArcFace, ECCV 2020.
    """
    checks.expect(proxies.ndim == 3, "proxies", proxies, "K directions a class, [C, K, D]")
    target = _arc_target(margin, easy_margin)
    return _margin_softmax(target, scale, embeddings, labels, proxies, **options)


@loss(reduction="mean", per_row=("multiplier", "angle_margin", "cosine_margin"))
def combined_margin(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    multiplier: Number = 1.0,
    angle_margin: Number = 0.5,
    cosine_margin: Number = 0.0,
    scale: Number = 64.0,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the direction of its class with the margins of three losses at once.

    The multiplier is SphereFace's (m1), the angle ArcFace's (m2), the cosine CosFace's (m3). The
    own cosine falls with theta without a step, whatever the margins: beyond pi it is continued
    as in SphereFace. With the defaults it is `arcface` with that continuation.

        -log softmax, with scale (psi(multiplier theta_y + angle_margin) - cosine_margin)

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      multiplier: m1, factor of the angle, 1 for none. One number, or one a row [B].
      angle_margin: m2, in radians. One number, or one a row [B].
      cosine_margin: m3, taken off the cosine. One number, or one a row [B].
      scale: s, inverse temperature of the softmax.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
      >>> margins = dict(angle_margin=0.0, cosine_margin=0.5)
      >>> loss = combined_margin(rows, jnp.array([0]), proxies, **margins, scale=2.0)
      >>> print(f"{loss:.5f}")
      0.31326

    Reference:
      Deng, Guo, Xue, Zafeiriou: ArcFace, CVPR 2019 (equation 4).
    """
    target = lambda cosine: monotone_cosine(cosine, multiplier, angle_margin) - cosine_margin
    return _margin_softmax(target, scale, embeddings, labels, proxies, **options)


@loss(reduction="mean")
def adacos(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    scale: Number | None = None,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the direction of its class with a scale that needs no search.

    The scale takes the place of both hyper-parameters of the margin losses. Fixed, it follows
    from the number of classes; dynamic, it is a state that `states.update_adacos` moves with the
    angles of the batch, passed here as `scale`.

        -log softmax of scale cos(theta_c),  scale = sqrt(2) log(C - 1) if not given

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      scale: the dynamic scale, or None for the fixed one. Give it where `proxies` holds only a
        sample of the classes.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Raises:
      ValueError: two classes or fewer and no scale: the fixed scale would be 0.

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> loss = adacos(rows, jnp.array([0]), proxies, scale=1.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Reference:
      Zhang, Zhao, Qiao, Wang, Li: AdaCos, CVPR 2019.
    """
    if scale is None:
        shards = options.get("class_axis_name")
        classes = proxies.shape[0] * (1 if shards is None else lax.axis_size(shards))
        if classes <= 2:
            raise ValueError(
                f"scale: got None with {classes} classes, expected a number: the fixed scale "
                "sqrt(2) log(C - 1) needs 3 classes or more"
            )
        scale = jnp.asarray(math.sqrt(2.0) * math.log(classes - 1), embeddings.dtype)
    target = lambda cosine: cosine
    return _margin_softmax(target, scale, embeddings, labels, proxies, **options)
