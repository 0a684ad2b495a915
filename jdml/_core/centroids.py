"""Sums and means of the rows of each class, by sorting: no matrix of rows against rows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdml._core.options import Array
from jdml._core.reduce import safe_divide


class Centroids(NamedTuple):
    """One slot a class, as many slots as rows; those in excess are empty."""

    rows: Array  # [R, D] means
    labels: Array  # [R]
    exists: Array  # [R]
    sums: Array  # [R, D]
    counts: Array  # [R]
    order: Array  # [R] the labels of the rows, sorted

    def of(self, labels: Array) -> tuple[Array, Array]:
        """Sum [B, D] and number [B] of the rows of each label's class; 0 where there is none."""
        slot = jnp.minimum(jnp.searchsorted(self.order, labels), self.order.shape[0] - 1)
        found = self.exists[slot] & (self.labels[slot] == labels)
        return (
            jnp.where(found[:, None], self.sums[slot], 0.0),
            jnp.where(found, self.counts[slot], 0.0),
        )


def centroids_of(rows: Array, labels: Array, exists: Array) -> Centroids:
    """The centroids of rows [R, D] by class [R]."""
    n = rows.shape[0]
    labels = jnp.where(exists, labels, -1)
    order = jnp.sort(labels)
    slot = jnp.searchsorted(order, labels)  # of each class, where its labels start
    there = exists.astype(rows.dtype)
    sums = jax.ops.segment_sum(jnp.where(exists[:, None], rows, 0.0), slot, n)
    counts = jax.ops.segment_sum(there, slot, n)
    full = counts > 0
    return Centroids(
        safe_divide(sums, counts[:, None]), jnp.where(full, order, -1), full, sums, counts, order
    )
