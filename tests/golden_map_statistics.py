"""Goldens of losses on the statistics of pairs as calls; see `golden_map`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from golden_calls import Call, numbers_of, pair_loss
from golden_data import Padded
from golden_pairs import Entry, pair_counts

from jdml import losses


def threshold_consistent_margin(entry: Entry) -> Call:
    """The package averages over the pairs beyond each threshold, whatever its reducer."""
    read = {
        "positive_margin": ("margin_plus", float, 0.9),
        "negative_margin": ("margin_minus", float, 0.5),
        "positive_share": ("lambda_plus", float, 1.0),
        "negative_share": ("lambda_minus", float, 1.0),
    }
    numbers = numbers_of(entry, read)
    choices = {"reduction": "mean_active"}
    return Call(losses.threshold_consistent_margin, choices, lambda case: numbers)


def histogram(entry: Entry) -> Call:
    bins = entry.get("options", {}).get("n_bins", 100)
    return Call(losses.histogram, {"bins": bins}, lambda case: {"weights": in_triplets(case)})


def in_triplets(case: Padded) -> np.ndarray:
    """Weights [B, B]: the package takes each pair once, and only pairs that are in a triplet."""
    positive, negative = pair_counts(case)
    anchor = positive.any(axis=1) & negative.any(axis=1)
    return anchor[:, None] * np.where(anchor[None, :], 0.5, 1.0)


BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "IntraPairVarianceLoss": pair_loss(
        losses.intra_pair_variance,
        positive_slack=("pos_eps", float, 0.01),
        negative_slack=("neg_eps", float, 0.01),
    ),
    "ThresholdConsistentMarginLoss": threshold_consistent_margin,
    "HistogramLoss": histogram,
}
LISTED: dict[str, str] = {
    "dynamic_soft_margin": "its gradient also flows through the weights, which the paper holds; "
    "value and histogram are tested in test_faults_statistics",
}
