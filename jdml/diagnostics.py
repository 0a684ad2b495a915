"""Is training still healthy? Collapse of the embedding, saturation of the loss, active tuples.

A loss curve hides the usual failures. Embeddings may shrink to one point, where a triplet loss
rests at its margin; they may use a few of their dimensions only; and a loss may have nothing left
to teach because every tuple is satisfied. These numbers tell, from one batch, and cost a few
small matrix products: measure them now and then, beside the train step and not inside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jdml._core import checks
from jdml._core.maths import unit
from jdml._core.options import Array
from jdml._core.reduce import safe_divide

TAUGHT = 1e-3
"""An anchor whose loss is below this teaches nothing any more."""


def collapse(embeddings: Array, *, where: Array | None = None) -> dict[str, Array]:
    """How far rows have fallen together, whatever the loss says.

    - `mean_similarity`: the mean cosine of all pairs of rows. 1 where all point one way; near 0
      for rows spread over the sphere.
    - `effective_rank`: the exponential of the entropy of the unit rows' singular values, divided
      by their sum: how many dimensions are in use, from 1 to min(B, D).
    - `variance`: summed over the coordinates of the rows as they are. It tells of shrinking, which
      the two others, of unit rows, do not see.

    Args:
      embeddings: [B, D].
      where: bool [B], the row exists.

    Returns:
      A dict of float scalars as named above; traceable.

    Example:
      >>> numbers = collapse(jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -2.0]]))
      >>> print({name: round(float(number), 4) for name, number in numbers.items()})
      {'mean_similarity': -0.3333, 'effective_rank': 2.0, 'variance': 2.5}
      >>> round(float(collapse(jnp.ones((5, 3)))["effective_rank"]), 4)
      1.0

    Reference:
      Roy and Vetterli, "The Effective Rank", EUSIPCO 2007. Garrido, Balestriero, Najman and LeCun,
      "RankMe", ICML 2023 (of embeddings).
    """
    embeddings = jnp.asarray(embeddings)
    checks.expect(embeddings.ndim == 2, "embeddings", embeddings, "a matrix [B, D]")
    rows = embeddings.astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    exists = _existing(where, len(rows), "embeddings")
    rows = jnp.where(exists[:, None], rows, 0.0)
    count = exists.sum().astype(rows.dtype)
    mean = safe_divide(rows.sum(axis=0), count)
    spread = jnp.where(exists[:, None], rows - mean[None], 0.0)
    units = unit(rows)
    alike = jnp.square(units.sum(axis=0)).sum() - jnp.square(units).sum()  # without the diagonal
    values = jnp.linalg.svd(units, compute_uv=False)
    shares = safe_divide(values, values.sum())
    return {
        "mean_similarity": safe_divide(alike, count * (count - 1.0)),
        "effective_rank": jnp.exp(jax.scipy.special.entr(shares).sum()),
        "variance": safe_divide(jnp.square(spread).sum(), count),
    }


def activity(loss: Callable[..., Array], *, where: Array | None = None) -> dict[str, Array]:
    """How much of a batch a loss still learns from.

    - `active_fraction`: tuples with a loss above 0, as a share of all: the ratio of the
      reductions `"mean"` and `"mean_active"`. Of a loss of several terms, the mean of their
      fractions, weighed by how much each says. Smooth losses (a softmax) are always at 1. That
      ratio is a share of losses that are never negative; where an anchor's is below 0, it is the
      share of the anchors whose loss is above 0 instead.
    - `saturation`: the share of anchors whose loss is below 0.001. Anchors' losses are put on the
      scale of the mean: each share of the sum, times the mean.

    Args:
      loss: a function of the keyword `reduction` alone, such as
        `functools.partial(losses.triplet, embeddings, labels)`.
      where: bool [B], the anchor exists.

    Returns:
      A dict of float scalars as named above; traceable.

    Example:
      >>> import functools
      >>> from jdml import losses
      >>> rows, labels = jnp.array([[0.0], [0.1], [0.3], [9.0]]), jnp.array([0, 0, 1, 1])
      >>> numbers = activity(functools.partial(losses.triplet, rows, labels, margin=1.0))
      >>> print({name: round(float(number), 4) for name, number in numbers.items()})
      {'active_fraction': 0.75, 'saturation': 0.0}
    """
    mean, active = loss(reduction="mean"), loss(reduction="mean_active")
    each = loss(reduction="none")
    exists = _existing(where, len(each), "the loss")
    each = jnp.where(exists, each, 0.0)
    count = exists.sum().astype(each.dtype)
    on_scale = mean * count * safe_divide(each, each.sum())
    quiet = (exists & (jnp.abs(on_scale) < TAUGHT)).sum().astype(each.dtype)
    above = (each > 0).sum().astype(each.dtype)  # rows that are not there are at 0
    share = jnp.where((each < 0).any(), safe_divide(above, count), safe_divide(mean, active))
    return {
        "active_fraction": share,
        "saturation": safe_divide(quiet, count),
    }


def _existing(where: Array | None, n: int, of: str) -> Array:
    if where is None:
        return jnp.ones(n, bool)
    exists = jnp.asarray(where)
    checks.vector("where", exists, n, of)
    checks.boolean("where", exists)
    return exists


def warnings(
    numbers: Mapping[str, float], *, most_rank: int, before: Mapping[str, float] | None = None
) -> dict[str, str]:
    """What the numbers of `collapse` and `activity` warn of, in one line each.

    Networks often begin with all embeddings in a narrow cone. With `before`, an earlier
    measurement, a collapse from which the embeddings are recovering is not warned of. A number
    that is NaN or infinite always is.

    Args:
      numbers: those that were measured; others are passed over.
      most_rank: the largest effective rank that there can be, min(B, D).
      before: what was measured earlier.

    Returns:
      A dict from the name of a number to its warning, empty where all is well.

    Example:
      >>> warnings({"mean_similarity": 0.2, "effective_rank": 40.0}, most_rank=64)
      {}
      >>> print(warnings({"mean_similarity": 0.991}, most_rank=64)["mean_similarity"])
      collapse: pairs have a mean similarity of 0.991, so all embeddings are nearly one point
      >>> warnings({"mean_similarity": 0.97}, most_rank=64, before={"mean_similarity": 0.99})
      {}
    """
    before = {} if before is None else before
    found = {}

    def warn(name: str, good: bool, line: str, recovers: Callable[[float, float], bool]) -> None:
        now, then = numbers[name], before.get(name)
        if not math.isfinite(now):
            found[name] = f"not a number: {name} is {float(now)}, so embeddings or the loss are too"
        elif not good and not (then is not None and recovers(now, then)):
            found[name] = line.format(now)

    rises = lambda now, then: now > 1.02 * then
    never = lambda now, then: False
    if "mean_similarity" in numbers:
        line = "pairs have a mean similarity of {:.3f}, so all embeddings are nearly one point"
        falls = lambda now, then: now < 0.995 * then
        warn("mean_similarity", numbers["mean_similarity"] <= 0.95, f"collapse: {line}", falls)
    if "effective_rank" in numbers and most_rank > 2:
        line = f"the effective rank is {{:.1f}}, few of {most_rank} dimensions are in use"
        high = numbers["effective_rank"] >= max(1.5, 0.04 * most_rank)
        warn("effective_rank", high, f"collapse: {line}", rises)
    if "variance" in numbers:
        line = "the variance of the embeddings is {:.1e}, they shrink to one point"
        warn("variance", numbers["variance"] >= 1e-6, f"collapse: {line}", rises)
    if "active_fraction" in numbers:
        line = "{:.2%} of the tuples have a loss above 0, the others teach nothing"
        enough = numbers["active_fraction"] >= 1e-3
        warn("active_fraction", enough, f"few active tuples: {line}", never)
    if "saturation" in numbers:
        line = f"the loss of {{:.1%}} of the anchors is below {TAUGHT:g}"
        warn("saturation", numbers["saturation"] <= 0.98, f"saturated loss: {line}", never)
    return found
