"""The table from golden names to calls of the library.

`LOSSES` maps the name of a golden to a `Call`, `MINERS` to a miner with the distance that it sees,
`DISTANCES` to a distance. A golden that no argument reaches is in `LISTED` with the reason.
Similarities of the package become distances here: a margin m on a cosine is 1 - m.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import golden_data
import jax
import jax.numpy as jnp
import numpy as np
from golden_data import Padded
from golden_pairs import (
    Between,
    Entry,
    distance_of,
    is_similarity,
    kept,
    measured,
    miner_of,
    pair_counts,
    unit,
    with_miner,
)

from jdml import losses

REDUCTIONS = {"AvgNonZeroReducer": "mean_active", "MeanReducer": "mean", "SumReducer": "sum"}


class Call(NamedTuple):
    """One golden as a call: `loss(rows(embeddings), labels[, table], **choices, **numbers)`."""

    loss: Callable[..., jax.Array]
    choices: dict[str, Any]  # static, equal by value: goldens that agree share a compilation
    numbers: Callable[[Padded], dict[str, Any]]  # traced
    rows: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # (rows [B, D], features [D])
    table: str | None = None  # the input that is the table of classes


# Pair losses.


def reducers_of(entry: Entry) -> dict[str, Any]:
    """The one reducer that all terms of an entry share."""
    reducer = entry["reducer"]
    return next(iter(reducer.get("sum_of", {"": reducer}).values()))


def shares(case: Padded, per_anchor: bool) -> np.ndarray:
    """Weights [B, R] with which "sum" is a reduction that the library does not name.

    Per anchor: the mean over all anchors of the mean over an anchor's pairs. Else: the mean over
    pairs of a value times the weight of the anchor's class, not divided by the weights.
    """
    total = np.zeros((len(case.labels), 1))
    for pairs in pair_counts(case):
        if per_anchor:
            each = 1 / np.maximum(pairs.sum(1, keepdims=True), 1) / (case.labels >= 0).sum()
        else:
            each = case.data["class_loss_weights"][case.labels][:, None] / pairs.sum()
        total = total + pairs * each
    return total


def contrastive(entry: Entry) -> Call:
    options, extra = entry.get("options", {}), entry.get("extra", {})
    pull, push = options.get("pos_margin", 0.0), options.get("neg_margin", 1.0)
    if is_similarity(entry):
        pull, push = 1.0 - pull, 1.0 - push
    numbers = {"positive_margin": pull, "negative_margin": push}
    distance, rows = distance_of(entry)
    choices = {"distance": distance, **with_miner(entry)}
    reducer = reducers_of(entry)
    kind = reducer["type"]
    weights = None
    if kind == "ThresholdReducer":  # keeps tuples whose loss is in a range
        low, high = reducer["low"], reducer["high"]
        choices["miner"] = Between((pull + low, pull + high), (push - high, push - low))
        choices["reduction"] = "mean"
    elif kind in ("PerAnchorReducer", "ClassWeightedReducer"):
        weights = lambda case: {"weights": shares(case, kind == "PerAnchorReducer")}
        choices["reduction"] = "sum"
    else:
        choices["reduction"] = REDUCTIONS[kind]
    loss = losses.contrastive
    if "embedding_regularizer" in extra:
        loss = contrastive_with_lengths
        numbers["length_weight"] = extra["embedding_reg_weight"]
    return Call(loss, choices, lambda c: {**numbers, **(weights(c) if weights else {})}, rows)


def contrastive_with_lengths(embeddings, labels, *, length_weight, **options):
    """The contrastive loss and the mean length of the rows."""
    there = labels >= 0
    length = jnp.linalg.norm(jnp.where(there[:, None], embeddings, 1.0), axis=-1)
    mean = jnp.where(there, length, 0.0).sum() / there.sum().astype(length.dtype)
    return losses.contrastive(embeddings, labels, **options) + length_weight * mean


def triplet(entry: Entry) -> Call:
    options = entry.get("options", {})
    loss = losses.soft_margin_triplet if options.get("smooth_loss") else losses.triplet
    distance, rows = distance_of(entry)
    choices = {"distance": distance, "swap": options.get("swap", False), **with_miner(entry)}
    numbers = {"margin": options.get("margin", 0.05)}
    kind = reducers_of(entry)["type"]
    if kind != "ClassWeightedReducer":
        choices["reduction"] = REDUCTIONS[kind]
        return Call(loss, choices, lambda case: numbers, rows)

    def weighted(case: Padded) -> dict[str, Any]:
        positive, negative = pair_counts(case)
        triplets = (positive.sum(1) * negative.sum(1)).sum()
        return {**numbers, "weights": case.data["class_loss_weights"][case.labels] / triplets}

    return Call(loss, {**choices, "reduction": "sum"}, weighted, rows)


def lifted(loss: Callable, **choices: Any) -> Callable[[Entry], Call]:
    def build(entry: Entry) -> Call:
        distance, rows = distance_of(entry)
        margin = entry.get("options", {}).get("neg_margin", 1.0)
        kept = {"distance": distance, "reduction": REDUCTIONS[reducers_of(entry)["type"]]}
        return Call(loss, {**kept, **choices}, lambda case: {"margin": margin}, rows)

    return build


def n_pair(entry: Entry) -> Call:
    rows = unit if entry["distance"]["normalize_embeddings"] else None
    return Call(n_pair_of_firsts, {}, first_pairs, rows)


def first_pairs(case: Padded) -> dict[str, Any]:
    """The package takes one pair of each class, its first two rows; -1 fills up."""
    y = case.labels
    firsts = [np.flatnonzero(y == c)[:2] for c in range(len(y))]
    a, p = (np.array([f[k] if len(f) == 2 else -1 for f in firsts]) for k in (0, 1))
    return {"anchors": a, "partners": p}


def n_pair_of_firsts(embeddings, labels, *, anchors, partners):
    y = jnp.where(anchors >= 0, labels[anchors], -1)
    options = {"refs": embeddings[partners], "ref_labels": y, "norm_weight": 0.0}
    return losses.n_pair(embeddings[anchors], y, **options)


def angular(entry: Entry) -> Call:
    angle = math.radians(entry.get("options", {}).get("alpha", 40))
    return Call(losses.angular, {}, lambda case: {"angle": angle})


# Table losses.


def table_loss(loss: Callable, **read: tuple[str, Callable, Any]) -> Callable[[Entry], Call]:
    """`read` holds, for each number of the loss, its name in the golden, its unit, its default."""

    def build(entry: Entry) -> Call:
        options = entry.get("options", {})
        numbers = {
            ours: convert(options.get(theirs, default))
            for ours, (theirs, convert, default) in read.items()
        }
        call = Call(loss, {}, lambda case: numbers, table=entry["weights"]["input"])
        if "weight_regularizer" in entry.get("extra", {}):
            numbers["spread_weight"] = entry["extra"]["weight_reg_weight"]
            return call._replace(loss=cosface_with_spread)
        if "miner" not in entry:
            return call
        counted = lambda case: {**numbers, "weights": mined_shares(entry, case)}
        return call._replace(choices={"reduction": "sum"}, numbers=counted)

    return build


def cosface_with_spread(embeddings, labels, proxies, *, proxy_labels, spread_weight, **options):
    """CosFace and the mean, over classes, of the cosine to the nearest other class."""
    rows = proxies / jnp.linalg.norm(proxies, axis=-1, keepdims=True)
    there = proxy_labels >= 0
    other = there[None, :] & ~jnp.eye(len(rows), dtype=bool)
    nearest = jnp.where(other, rows @ rows.T, -jnp.inf).max(axis=-1)
    spread = jnp.where(there, nearest, 0.0).sum() / there.sum().astype(nearest.dtype)
    value = losses.cosface(embeddings, labels, proxies, proxy_labels=proxy_labels, **options)
    return value + spread_weight * spread


def mined_shares(entry: Entry, case: Padded) -> np.ndarray:
    """Weights [B] by how often a row is in a mined triplet, over the most frequent and B."""
    matrix = measured(*distance_of(entry["miner"]), case)
    triplets = kept(with_miner(entry)["miner"], matrix, case).triplets
    counts = np.bincount(np.array(triplets).ravel(), minlength=len(case.labels))
    return counts / counts.max() / (case.labels >= 0).sum()


# The tables.

DEGREES = ("margin", math.radians, 28.6)
BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "ContrastiveLoss": contrastive,
    "SignalToNoiseRatioContrastiveLoss": contrastive,
    "TripletMarginLoss": triplet,
    "LiftedStructureLoss": lifted(losses.lifted_structure),
    "GeneralizedLiftedStructureLoss": lifted(losses.generalized_lifted_structure, lone="zero"),
    "NPairsLoss": n_pair,
    "AngularLoss": angular,
    "CosFaceLoss": table_loss(
        losses.cosface, margin=("margin", float, 0.35), scale=("scale", float, 64.0)
    ),
    "ArcFaceLoss": table_loss(losses.arcface, margin=DEGREES, scale=("scale", float, 64.0)),
    "SubCenterArcFaceLoss": table_loss(
        losses.subcenter_arcface, margin=DEGREES, scale=("scale", float, 64.0)
    ),
    "SphereFaceLoss": table_loss(
        losses.sphereface, margin=("margin", float, 4.0), scale=("scale", float, 1.0)
    ),
    "NormalizedSoftmaxLoss": table_loss(
        losses.adacos, scale=("temperature", lambda t: 1.0 / t, 0.05)
    ),
}

# What a loss of the package is called here, or will be: a golden of a loss that exists in the
# library has to be mapped or listed.
NAMES = {
    "CentroidTripletLoss": "centroid_triplet",
    "CircleLoss": "circle",
    "DynamicSoftMarginLoss": "dynamic_soft_margin",
    "FastAPLoss": "fast_ap",
    "HistogramLoss": "histogram",
    "InstanceLoss": "instance",
    "IntraPairVarianceLoss": "intra_pair_variance",
    "LargeMarginSoftmaxLoss": "large_margin_softmax",
    "ManifoldLoss": "manifold",
    "MarginLoss": "margin",
    "MultiSimilarityLoss": "multi_similarity",
    "MultipleLosses": "tuplet_margin",
    "NCALoss": "nca",
    "NTXentLoss": "ntxent",
    "P2SGradLoss": "p2s_grad",
    "PNPLoss": "pnp",
    "ProxyAnchorLoss": "proxy_anchor",
    "ProxyNCALoss": "proxy_nca",
    "RankedListLoss": "ranked_list",
    "SmoothAPLoss": "smooth_ap",
    "SmoothAPReference": "smooth_ap",
    "SoftTripleLoss": "soft_triple",
    "SupConLoss": "supcon",
    "ThresholdConsistentMarginLoss": "threshold_consistent_margin",
    "TupletMarginLoss": "tuplet_margin",
    "VICRegLoss": "vicreg",
}
LISTED = {
    "angular": "leaves the negatives at their own length, which the paper does not; the same "
    "numbers with unit rows are angular_unit",
    "normalized_softmax_raw": "leaves the embeddings at their own length; adacos, whose scaled "
    "softmax the other two reach, does not",
}
LOSSES = {
    name: BUILDERS[entry["loss"]](entry)
    for name, entry in golden_data.entries("losses").items()
    if entry["loss"] in BUILDERS and name not in LISTED
}
MINERS = {
    name: (miner_of(entry["miner"], entry["options"], is_similarity(entry)), *distance_of(entry))
    for name, entry in golden_data.entries("miners").items()
    if entry["miner"] not in ("AngularMiner", "HDCMiner")
}
DISTANCES = {name: distance_of(entry) for name, entry in golden_data.entries("distances").items()}
