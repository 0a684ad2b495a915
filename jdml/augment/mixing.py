"""Mixup of pairs: rows made of two, and the degree to which they are pairs of others."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdml.augment.chain import Array, as_floats, each

Partners = Literal["negatives", "positives", "any"]


class Mixed(NamedTuple):
    """What `mix` gives, as the keywords of a pair loss.

    Attributes:
      rows: [B, ...], row i is a part of row i of the batch and the rest of another.
      degrees: [B, B], the degree from 0 to 1 to which row b of the batch and mixed row i are a
        pair: the `labels` of the loss.
      weights: [B, B], 0 where b is one of the two that i is made of, else 1.
      where: bool [B], the mixed row exists.
    """

    rows: Array
    degrees: Array
    weights: Array
    where: Array


def mix(
    keys: Array,
    rows: Array,
    labels: Any,
    *,
    where: Array | None = None,
    alpha: float | Array = 2.0,
    partners: Partners = "negatives",
) -> Mixed:
    """Mixes each row with another one, for pair losses that take degrees.

    Row i becomes s * row i + (1 - s) * row j. Whoever is a pair of i is a pair of the mixture to
    the degree s, whoever is a pair of j to 1 - s: a positive of that weight and a negative of the
    rest, in any pair loss that takes degrees as labels. Mixtures lie where no training class is,
    which is where unseen classes will be.

    Embeddings are mixed after the network, which costs nothing; images before it, which takes a
    second pass for the mixtures. Add the loss to the one without mixtures, at 0.4 of its weight or
    so:

        mixed = augment.mix(keys, z, labels)
        loss = losses.contrastive(z, labels) + 0.4 * losses.contrastive(
            z, mixed.degrees, refs=mixed.rows, ref_where=mixed.where, weights=mixed.weights)

    Args:
      keys: [B], one a row; see `keys`.
      rows: [B, D] embeddings, or [B, H, W, C] images (integers to 255 or floats from 0 to 1).
      labels: int [B]; a row with a negative label does not exist.
      where: bool [B], the row exists.
      alpha: of the Beta(alpha, alpha) distribution of s, above 0: 1 is even, more keeps s near
        one half. The paper has 2.
      partners: what j is to i: of another class, a class-mate, or any other row. A row without
        such a partner stays as it is.

    Returns:
      A `Mixed`.

    Raises:
      ValueError: labels that are not one integer a row, unknown partners, or an alpha that is not
        above 0, where it is known outside jit.

    Example:
      >>> from jdml.augment import keys
      >>> mixed = mix(keys(0, 0, [0, 1, 2]), jnp.array([[0.0], [0.0], [1.0]]), jnp.array([4, 4, 5]))
      >>> share = mixed.rows[0, 0]  # of row 2, in the mixture of row 0
      >>> bool(mixed.degrees[1, 0] == 1 - share), mixed.weights[:, 0].tolist()
      (True, [0.0, 1.0, 0.0])

    Reference:
      Venkataramanan, Psomas, Kijak, Amsaleg, Karantzalos, Avrithis, "It Takes Two to Tango: Mixup
      for Deep Metric Learning", ICLR 2022.
    """
    rows, labels = jnp.asarray(rows), jnp.asarray(labels)
    _check_alpha(alpha)
    if not jnp.issubdtype(rows.dtype, jnp.floating):
        rows = as_floats(rows)
    if labels.shape != rows.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels: got {labels.dtype}{list(labels.shape)}, expected integers [{len(rows)}]"
        )
    if partners not in get_args(Partners):
        expected = ", ".join(get_args(Partners))
        raise ValueError(f"partners: got {partners!r}, expected one of {expected}")
    exists = labels >= 0 if where is None else (labels >= 0) & where
    same = labels[:, None] == labels[None, :]
    itself = jnp.eye(len(labels), dtype=bool)
    allowed = {"negatives": ~same, "positives": same & ~itself, "any": ~itself}[partners]
    allowed = allowed & exists[None, :] & exists[:, None]
    partner, share = each(lambda key, mask: _draw(key, mask, alpha), keys, allowed)
    taken = jnp.zeros_like(itself).at[jnp.arange(len(labels)), partner].set(True)
    aside = itself | taken.T  # [b, i]
    own = jnp.where(same, share[None, :], 0.0)
    degrees = own + jnp.where(same[:, partner], 1.0 - share[None, :], 0.0)
    part = share.astype(rows.dtype).reshape(-1, *(1,) * (rows.ndim - 1))
    clean = jnp.where(exists.reshape(part.shape), rows, jnp.zeros_like(rows))
    return Mixed(
        part * clean + (1 - part) * clean[partner],
        degrees,
        jnp.where(aside, 0.0, 1.0),
        exists,
    )


def _check_alpha(alpha: Any) -> None:
    """Refuses what gives no distribution, where the value is at hand: outside jit."""
    if isinstance(alpha, Tracer):
        return
    value = np.asarray(alpha)  # not jnp: it would trace the comparison where jit closes over alpha
    if value.ndim or not 0 < value < math.inf:
        raise ValueError(f"alpha: got {alpha}, expected a number above 0")


def _draw(key: Array, allowed: Array, alpha: float | Array) -> tuple[Array, Array]:
    """The partner of one row, evenly among those allowed, and the row's own share."""
    partner_key, share_key = jax.random.split(key)
    luck = jnp.where(allowed, jax.random.uniform(partner_key, allowed.shape), -1.0)
    share = jax.random.beta(share_key, alpha, alpha)
    return luck.argmax(), jnp.where(allowed.any(), share, 1.0)
