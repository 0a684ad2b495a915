"""Metric-learning losses: pure functions from embeddings and labels to a float32 scalar.

    loss(embeddings [B, D], labels [B][, table], *, <the paper's own numbers>, **shared)

Pair losses compare every anchor with references: the rest of the batch of all devices, or `refs`.
They are `contrastive`, `squared_contrastive`, `margin`, `triplet`, `soft_margin_triplet`,
`quadruplet`, `lifted_structure`, `generalized_lifted_structure`, `n_pair`, `tuplet_margin`,
`angular`, `clip`, `decoupled_ntxent`, `hard_negative_ntxent`, `ntxent`, `supcon`,
`multi_similarity`, `circle`, `nca`, `siglip`, `smooth_ap`, `intra_pair_variance`,
`threshold_consistent_margin`, `histogram`, `dynamic_soft_margin`, `alignment`, `uniformity`,
`log_ratio`, `centroid_triplet`, `vicreg`, `barlow_twins`, `recall_at_k`, `fast_ap`, `sup_ap`,
`roadmap`, `ranked_list` and `pnp`.

Table losses compare every row with a table of classes. They are `center`, `sphereface`,
`large_margin_softmax`, `cosface`, `arcface`, `subcenter_arcface`, `combined_margin`, `adacos`,
`curricularface`, `magface`, `adaface`, `elasticface`, `sphereface2`, `uniface`,
`normalized_softmax`, `proxy_nca`, `proxy_anchor`, `soft_triple`, `p2s_grad`, `instance`, `hist`,
`harmonic`, `von_mises_fisher` and `manifold`.

`labels` are integers [B], a class a row. Pair losses also take, in their place,
  integers [B, L] of 0 and 1: which of L labels a row has (`ref_labels` [R, L]); rows that share a
    label are positives;
  bools or floats [B, R]: the pairs themselves, or the degree from 0 to 1 to which they are (no
    `ref_labels`). A pair of degree s is a positive of weight s and a negative of weight 1 - s.

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
  proxy_labels: int [C], class of each row of the table, 0..C-1 by default, each class once. A row
    of embeddings whose class is not there does not count (in `proxy_anchor` it is still pushed
    from all proxies); negative ones mark rows of the table to leave out. Table losses.
  class_axis_name: mapped axis over which the rows of the table are split. Table losses.

Numbers (margins, scales) are traced: schedule, learn or sweep them without compiling again. Each
is one number; where a loss says so, also one a row [B].
Nothing valid gives 0 with a zero gradient. Values are float32 at least, and float64 for float64.
"""

from jdml.losses.adaptive_face import adaface, curricularface, elasticface, magface
from jdml.losses.angular import angular, large_margin_softmax, sphereface
from jdml.losses.binary_face import sphereface2, uniface
from jdml.losses.center import center
from jdml.losses.contrastive import contrastive, margin, squared_contrastive
from jdml.losses.distributions import harmonic, hist, von_mises_fisher
from jdml.losses.face import adacos, arcface, combined_margin, cosface, subcenter_arcface
from jdml.losses.info_nce import (
    clip,
    decoupled_ntxent,
    hard_negative_ntxent,
    ntxent,
    supcon,
)
from jdml.losses.list_ranking import pnp, ranked_list
from jdml.losses.manifold import manifold
from jdml.losses.n_pair import n_pair, tuplet_margin
from jdml.losses.proxies import (
    instance,
    normalized_softmax,
    p2s_grad,
    proxy_anchor,
    proxy_nca,
    soft_triple,
)
from jdml.losses.ranking import fast_ap, recall_at_k, roadmap, smooth_ap, sup_ap
from jdml.losses.relations import alignment, centroid_triplet, log_ratio, uniformity
from jdml.losses.self_supervised import barlow_twins, vicreg
from jdml.losses.similarity import circle, multi_similarity, nca, siglip
from jdml.losses.statistics import (
    dynamic_soft_margin,
    histogram,
    intra_pair_variance,
    threshold_consistent_margin,
)
from jdml.losses.triplet import (
    generalized_lifted_structure,
    lifted_structure,
    quadruplet,
    soft_margin_triplet,
    triplet,
)

__all__ = [
    "adacos",
    "adaface",
    "alignment",
    "angular",
    "arcface",
    "barlow_twins",
    "center",
    "centroid_triplet",
    "circle",
    "clip",
    "combined_margin",
    "contrastive",
    "cosface",
    "curricularface",
    "decoupled_ntxent",
    "dynamic_soft_margin",
    "elasticface",
    "fast_ap",
    "generalized_lifted_structure",
    "hard_negative_ntxent",
    "harmonic",
    "hist",
    "histogram",
    "instance",
    "intra_pair_variance",
    "large_margin_softmax",
    "lifted_structure",
    "log_ratio",
    "magface",
    "manifold",
    "margin",
    "multi_similarity",
    "n_pair",
    "nca",
    "normalized_softmax",
    "ntxent",
    "p2s_grad",
    "pnp",
    "proxy_anchor",
    "proxy_nca",
    "quadruplet",
    "ranked_list",
    "recall_at_k",
    "roadmap",
    "siglip",
    "smooth_ap",
    "soft_margin_triplet",
    "soft_triple",
    "sphereface",
    "sphereface2",
    "squared_contrastive",
    "subcenter_arcface",
    "sup_ap",
    "supcon",
    "threshold_consistent_margin",
    "triplet",
    "tuplet_margin",
    "uniface",
    "uniformity",
    "vicreg",
    "von_mises_fisher",
]
