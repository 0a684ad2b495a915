"""Goldens of losses on relations and of self-supervised losses as calls; see `golden_map`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from golden_calls import Call, numbers_of
from golden_data import Padded
from golden_pairs import Entry, distance_of

from jdml import losses
from jdml._core.options import Pairs


@functools.partial(jax.tree_util.register_dataclass, data_fields=["kept"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Some:
    """Keeps of each anchor's negatives those that `kept` [B, R] says."""

    kept: Any

    def __call__(self, pairs: Pairs) -> Pairs:
        return pairs._replace(negative_weights=pairs.negative_weights * self.kept[pairs.anchors])


def centroid_triplet(entry: Entry) -> Call:
    """The package cuts an anchor's negatives short: of more than three classes the last three."""
    options = entry.get("options", {})
    distance, rows = distance_of(entry)
    choices = {"distance": distance, "soft": options.get("smooth_loss", False)}

    def numbers(case: Padded) -> dict[str, Any]:
        order = np.sort(case.labels)
        kept = np.zeros((len(order), len(order)))
        classes = list(dict.fromkeys(case.labels[case.labels >= 0].tolist()))
        for i, own in enumerate(case.labels):
            last = [c for c in classes if c != own][-3:]
            kept[i, [np.searchsorted(order, c) for c in last]] = 1.0
        return {"margin": options["margin"], "miner": Some(kept)}

    return Call(losses.centroid_triplet, choices, numbers, rows)


def vicreg(entry: Entry) -> Call:
    """The package halves the variance term."""
    numbers = numbers_of(
        entry,
        {
            "invariance_weight": ("invariance_lambda", float, 25.0),
            "variance_weight": ("variance_mu", lambda mu: mu / 2, 25.0),
            "covariance_weight": ("covariance_v", float, 1.0),
            "epsilon": ("eps", float, 1e-4),
        },
    )
    return Call(vicreg_of_features, {}, lambda case: {**numbers, "features": case.features})


def vicreg_of_features(embeddings, labels, *, features, refs, ref_labels, **numbers: Any):
    """Without the columns of padding, which are no dimensions: they would count as collapsed."""
    width, all_of_them = features.sum().astype(embeddings.dtype), features.shape[0]
    share = all_of_them / width
    collapsed = (all_of_them - width) * jnp.maximum(1.0 - jnp.sqrt(numbers["epsilon"]), 0.0) / width
    value = losses.vicreg(embeddings, labels, refs=refs, ref_labels=ref_labels, **numbers)
    return share * value - 2.0 * numbers["variance_weight"] * collapsed


BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "CentroidTripletLoss": centroid_triplet,
    "VICRegLoss": vicreg,
}
LISTED: dict[str, str] = {}
