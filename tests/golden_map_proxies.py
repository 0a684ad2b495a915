"""Goldens of proxy losses as calls; see `golden_map`."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from golden_calls import Call, numbers_of, table_loss
from golden_pairs import Entry
from jax import lax

from jdml import losses


def p2s_grad_of_free_rows(embeddings, labels, proxies, *, proxy_labels):
    """The mean square over classes, at a table of unit rows that are not held to that length.

    The gradient of the package by its table is taken at the unit copy and not through the
    normalisation. What the loss lacks of it is the part along each row, added here with value 0.
    """
    unit = lambda rows: rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)
    table = proxies + lax.stop_gradient(unit(proxies) - proxies)
    there = (labels >= 0)[:, None] & (proxy_labels >= 0)[None, :]
    cosines = unit(embeddings) @ unit(table).T
    own = (labels[:, None] == proxy_labels[None, :]).astype(cosines.dtype)
    length = jnp.linalg.norm(table, axis=-1)[None, :]
    squares = jnp.where(there, (length * lax.stop_gradient(cosines) - own) ** 2, 0.0)
    along = squares.sum() / there.sum().astype(squares.dtype)
    value = losses.p2s_grad(embeddings, labels, table, proxy_labels=proxy_labels)
    share = 2.0 / (proxy_labels >= 0).sum().astype(value.dtype)
    return share * value + along - lax.stop_gradient(along)


def instance_of_batch(embeddings, labels, *, own_labels, **options):
    """The rows are the table as well, and a label is the place of a row in the batch.

    With labels that are classes, as the package also takes them, that is a row without relation
    to the anchor: the number is reached, and means nothing.
    """
    places = jnp.where(labels >= 0, jnp.arange(labels.shape[0]), -1)
    wanted = places if own_labels else labels
    options |= {"proxy_labels": places, "normalized": True}
    return losses.instance(embeddings, wanted, embeddings, **options)


def instance(entry: Entry) -> Call:
    numbers = numbers_of(entry, {"scale": ("gamma", float, 64.0)})
    choices = {"own_labels": entry.get("call") == "unique_labels"}
    return Call(instance_of_batch, choices, lambda case: numbers)


BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "P2SGradLoss": table_loss(p2s_grad_of_free_rows),
    "InstanceLoss": instance,
    "ManifoldLoss": table_loss(
        losses.manifold,
        {"violations_only": True},
        alpha=("alpha", float, 0.8),
        margin=("margin", float, 5e-4),
        context_weight=("lambdaC", float, 1.0),
    ),
}
LISTED: dict[str, str] = {
    "instance_unique": "values down to 1e-11, of which the package rounds off what is below "
    "1e-16: equal to that in test_faults_proxies",
}
