"""The table from golden names to calls of the library.

`LOSSES` maps the name of a golden to a `Call`, `MINERS` to a miner with the distance that it sees,
`DISTANCES` to a distance. A golden that no argument reaches is in `LISTED` with the reason.
Similarities of the package become distances here: a margin m on a cosine is 1 - m.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import golden_data
import golden_map_face
import golden_map_info_nce
import golden_map_proxies
import golden_map_ranking
import golden_map_self_supervised
import golden_map_statistics
from golden_calls import (
    DEGREES,
    REDUCTIONS,
    SCALE,
    SOFTMAX_SCALE,
    TEMPERATURE,
    Call,
    pair_loss,
    reducers_of,
    shares,
    table_loss,
)  # fmt: skip
from golden_data import Padded
from golden_losses import (
    contrastive_with_lengths,
    cosface_with_spread,
    first_pairs,
    margin_with_betas,
    n_pair_of_firsts,
    smooth_ap_with_query,
    triplet_counts,
    tuplet_and_variance,
)
from golden_pairs import (
    Between,
    Entry,
    distance_of,
    is_similarity,
    miner_of,
    pair_counts,
    seen_by_miner,
    unit,
    with_miner,
)

from jdml import losses

# Pair losses.


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


def angular(entry: Entry) -> Call:
    angle = math.radians(entry.get("options", {}).get("alpha", 40))
    return Call(losses.angular, {}, lambda case: {"angle": angle})


def margin(entry: Entry) -> Call:
    """The package counts a pair once for every triplet that it is in."""
    options = entry.get("options", {})
    distance, rows = distance_of(entry)
    numbers = {"margin": options.get("margin", 0.2)}
    if "weights" not in entry:
        numbers["beta"] = options.get("beta", 1.2)
        weighed = lambda case: {**numbers, "weights": triplet_counts(case)}
        choices = {"distance": distance, "reduction": "mean_active"}
        return Call(losses.margin, choices, weighed, rows)

    def priced(case: Padded) -> dict[str, Any]:
        counts = triplet_counts(case)
        positive, _ = pair_counts(case)
        by_anchor = (positive * counts).sum(1)
        return {**numbers, "price": options["nu"], "triplets": by_anchor, "weights": counts}

    return Call(margin_with_betas, {"distance": distance}, priced, rows, entry["weights"]["input"])


def tuplet_and_more(entry: Entry) -> Call:
    del entry
    numbers = {"margin": math.radians(5.73), "weight": 0.5, "slack": 0.01}
    return Call(tuplet_and_variance, {}, lambda case: numbers)


# Table losses.


def normalized_softmax(entry: Entry) -> Call:
    """Where the rows keep their length, SphereFace without its margin."""
    if entry["distance"]["normalize_embeddings"]:
        return table_loss(losses.normalized_softmax, temperature=("temperature", float, 0.05))(
            entry
        )
    scale = ("temperature", lambda t: 1.0 / t, 0.05)
    margin = ("no margin", float, 1.0)
    return table_loss(losses.sphereface, margin=margin, scale=scale)(entry)


# The tables.

BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "ContrastiveLoss": contrastive,
    "SignalToNoiseRatioContrastiveLoss": contrastive,
    "TripletMarginLoss": triplet,
    "LiftedStructureLoss": lifted(losses.lifted_structure),
    "GeneralizedLiftedStructureLoss": lifted(losses.generalized_lifted_structure, lone="zero"),
    "NPairsLoss": n_pair,
    "AngularLoss": angular,
    "NTXentLoss": pair_loss(losses.ntxent, measures=True, temperature=("temperature", float, 0.07)),
    "SupConLoss": pair_loss(losses.supcon, measures=True, skips=True, temperature=TEMPERATURE),
    "MultiSimilarityLoss": pair_loss(
        losses.multi_similarity,
        alpha=("alpha", float, 2.0),
        beta=("beta", float, 50.0),
        base=("base", float, 0.5),
    ),
    "CircleLoss": pair_loss(
        losses.circle, skips=True, margin=("m", float, 0.4), scale=("gamma", float, 80.0)
    ),
    "TupletMarginLoss": pair_loss(
        losses.tuplet_margin, margin=("margin", math.radians, 5.73), scale=SCALE
    ),
    "MultipleLosses": tuplet_and_more,
    "MarginLoss": margin,
    "NCALoss": pair_loss(losses.nca, measures=True, scale=SOFTMAX_SCALE),
    "SmoothAPLoss": pair_loss(smooth_ap_with_query, temperature=("temperature", float, 0.01)),
    "SmoothAPReference": pair_loss(smooth_ap_with_query, temperature=TEMPERATURE),
    "CosFaceLoss": table_loss(
        losses.cosface, spread=cosface_with_spread, margin=("margin", float, 0.35), scale=SCALE
    ),
    "ArcFaceLoss": table_loss(losses.arcface, margin=DEGREES, scale=SCALE),
    "SubCenterArcFaceLoss": table_loss(losses.subcenter_arcface, margin=DEGREES, scale=SCALE),
    "SphereFaceLoss": table_loss(
        losses.sphereface, margin=("margin", float, 4.0), scale=("scale", float, 1.0)
    ),
    "NormalizedSoftmaxLoss": normalized_softmax,
    "ProxyNCALoss": table_loss(losses.proxy_nca, {"own": "kept"}, scale=SOFTMAX_SCALE),
    "ProxyAnchorLoss": table_loss(
        losses.proxy_anchor, margin=("margin", float, 0.1), alpha=("alpha", float, 32.0)
    ),
    "SoftTripleLoss": table_loss(
        losses.soft_triple,
        scale=("la", float, 20.0),
        gamma=("gamma", float, 0.1),
        margin=("margin", float, 0.01),
        spread_weight=("none, but for a regulariser", float, 0.0),
    ),
}

for part in (
    golden_map_face,
    golden_map_info_nce,
    golden_map_proxies,
    golden_map_ranking,
    golden_map_self_supervised,
    golden_map_statistics,
):
    BUILDERS |= part.BUILDERS

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
    **golden_map_face.LISTED,
    **golden_map_info_nce.LISTED,
    **golden_map_proxies.LISTED,
    **golden_map_ranking.LISTED,
    **golden_map_self_supervised.LISTED,
    **golden_map_statistics.LISTED,
}
LOSSES = {
    name: BUILDERS[entry["loss"]](entry)
    for name, entry in golden_data.entries("losses").items()
    if entry["loss"] in BUILDERS and name not in LISTED
}
MINERS = {
    name: (miner_of(entry["miner"], entry["options"], is_similarity(entry)), *seen_by_miner(entry))
    for name, entry in golden_data.entries("miners").items()
}
DISTANCES = {name: distance_of(entry) for name, entry in golden_data.entries("distances").items()}
