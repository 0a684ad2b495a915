"""Metric-learning losses: pure functions from embeddings and labels to a float32 scalar.

    loss(embeddings [B, D], labels [B][, table], *, <the paper's own numbers>, **shared)

Pair losses (`contrastive`, `squared_contrastive`, `triplet`, `soft_margin_triplet`, `quadruplet`,
`lifted_structure`, `generalized_lifted_structure`, `n_pair`, `angular`) compare every anchor with
references: the rest of the batch of all devices, or `refs`. Table losses (`center`, `sphereface`,
`cosface`, `arcface`, `subcenter_arcface`, `combined_margin`, `adacos`) compare every row with a
table of classes.

Shared keywords
  where: bool [B]; the row exists. What a missing row holds, NaN included, reaches neither value
    nor gradient. Negative labels say the same.
  weights: [B] importance of rows, or [B, R] of pairs for pair losses.
  reduction: "mean" weighted over tuples; "mean_active" over tuples with a positive loss; "sum";
    "none" for sums by anchor [B].
  axis_name: mapped batch axis. The loss is then the global one, equal on all devices: `pmean` the
    gradients of replicated parameters.
  block_size: anchors (pair losses) or classes (table losses) alive at once: changes memory and
    speed, never the answer. None chooses.
  refs [R, D], ref_labels [R], ref_where [R]: a second set in the place of the batch itself, used
    as given; nothing is excluded from it. Pair losses.
  miner: selects or weighs pairs from their distances; see `jdml.miners`. Pair losses.
  proxy_labels: int [C], class of each row of the table, 0..C-1 by default. A row of embeddings
    whose class is not there does not count; negative ones mark rows of the table to leave out.
    Table losses.
  class_axis_name: mapped axis over which the rows of the table are split. Table losses.

Numbers (margins, scales) are traced: schedule, learn or sweep them without compiling again.
Nothing valid gives 0 with a zero gradient. Values are float32 at least, and float64 for float64.
"""

from jdml.losses.angular import angular, sphereface
from jdml.losses.center import center
from jdml.losses.contrastive import contrastive, squared_contrastive
from jdml.losses.face import adacos, arcface, combined_margin, cosface, subcenter_arcface
from jdml.losses.n_pair import n_pair
from jdml.losses.triplet import (
    generalized_lifted_structure,
    lifted_structure,
    quadruplet,
    soft_margin_triplet,
    triplet,
)

__all__ = [
    "adacos",
    "angular",
    "arcface",
    "center",
    "combined_margin",
    "contrastive",
    "cosface",
    "generalized_lifted_structure",
    "lifted_structure",
    "n_pair",
    "quadruplet",
    "soft_margin_triplet",
    "sphereface",
    "squared_contrastive",
    "subcenter_arcface",
    "triplet",
]
