"""Goldens of margin-softmax losses as calls; see `golden_map`."""

from __future__ import annotations

from collections.abc import Callable

from golden_calls import Call, table_loss
from golden_pairs import Entry

from jdml import losses

BUILDERS: dict[str, Callable[[Entry], Call]] = {
    "LargeMarginSoftmaxLoss": table_loss(
        losses.large_margin_softmax, margin=("margin", float, 4.0), scale=("scale", float, 1.0)
    ),
}
LISTED: dict[str, str] = {}
