"""Goldens of ranking losses as calls; see `golden_map`."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from golden_calls import Call, pair_loss
from golden_pairs import Entry, distance_of, pair_counts

from jdml import losses


def pnp_with_query(embeddings, labels, **options):
    """The query stands among what it retrieves: it is a reference like all others."""
    return losses.pnp(embeddings, labels, refs=embeddings, ref_labels=labels, **options)


def pnp(entry: Entry) -> Call:
    """The query alone is no ranking: only rows with another of their class are queries."""
    read = pair_loss(
        pnp_with_query,
        alpha=("alpha", float, 1.0),
        b=("b", float, 2.0),
        temperature=("anneal", float, 0.01),
    )
    call = read(entry)
    choices = {**call.choices, "variant": entry["options"].get("variant", "O")}
    paired = lambda case: pair_counts(case)[0].any(axis=1).astype(float)
    numbers = lambda case: {**call.numbers(case), "weights": paired(case)}
    return call._replace(choices=choices, numbers=numbers)


def ranked_list_with_filler(
    embeddings, labels, *, margin, boundary, positive_scale, negative_scale, negative_share,
    filler, distance,
):  # fmt: skip
    """The package divides by the sum of the weights and a filler of 1e-5 a row of the batch.

    So each mean is that of the library times its share of mass / (mass + filler).
    """
    there = labels >= 0
    pairs = there[:, None] & there[None, :] & ~jnp.eye(len(labels), dtype=bool)
    same = labels[:, None] == labels[None, :]
    rows = jnp.where(there[:, None], embeddings, 1.0)
    between = distance(rows, rows)
    limit = 1.0 + margin / 2 if boundary is None else boundary
    sides = [
        (pairs & same, between - (limit - margin), positive_scale, 1.0 - negative_share),
        (pairs & ~same, limit - between, negative_scale, negative_share),
    ]
    numbers = {
        "margin": margin, "boundary": limit, "positive_scale": positive_scale,
        "negative_scale": negative_scale,
    }  # fmt: skip
    choices = {"distance": distance, "hold_weights": False, "reduction": "none"}
    value = jnp.zeros((), embeddings.dtype)
    for side, (kind, gaps, scale, share) in enumerate(sides):
        mean = losses.ranked_list(
            embeddings, labels, negative_share=float(side), **numbers, **choices
        )
        mass = jnp.where(kind & (gaps > 0), jnp.exp(scale * gaps), 0.0).sum(axis=-1)
        value += share * (mean * mass / (mass + filler)).sum()
    return value / there.sum().astype(value.dtype)


def ranked_list(entry: Entry) -> Call:
    options = entry["options"]
    numbers = {
        "margin": float(options["margin"]),
        "boundary": options.get("alpha"),
        "positive_scale": float(options.get("Tp", 0)),
        "negative_scale": float(options["Tn"]),
        "negative_share": float(options.get("imbalance", 0.5)),
    }
    distance, rows = distance_of(entry)
    filled = lambda case: {**numbers, "filler": 1e-5 * (case.labels >= 0).sum()}
    return Call(ranked_list_with_filler, {"distance": distance}, filled, rows)


def fast_ap(entry: Entry) -> Call:
    """The range of the histogram is that of a power of the distance between unit rows."""
    distance, rows = distance_of(entry)
    choices = {"bins": entry["options"].get("num_bins", 10), "distance": distance}
    upper = 2.0 ** entry["distance"]["power"]
    return Call(losses.fast_ap, choices, lambda case: {"upper": upper}, rows)


BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "FastAPLoss": fast_ap,
    "PNPLoss": pnp,
    "RankedListLoss": ranked_list,
}
LISTED: dict[str, str] = {}
