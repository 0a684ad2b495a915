"""Miners: which pairs and triplets of a batch a loss looks at.

A miner is a function from `Pairs` to `Pairs`, passed as `miner=` to a pair loss. It sees the
loss's own distances, so there is no second matrix and no mismatch, and it works in blocks, over
memories and across devices. It multiplies weights, or gathers to a smaller static width; lists
whose length depends on the data do not exist. A weight of 0 means that a pair is not there.

Miners are frozen dataclasses, equal by value, so that equal miners share a compilation. Margins
are in the unit of the loss's distance, where smaller is closer. Of each anchor `BatchHard`,
`SemiHard` and `BatchEasyHard` pick rows; `TripletMargin`, `MultiSimilarity`, `PairMargin` and
`Angular` keep what is on one side of a margin; `HardFraction` and `UniformHistogram` look at the
whole batch first; `DistanceWeighted` draws negatives; `Chain` applies several.

Miners that draw take a random `key`. It is traced, so that a new key for every step does not
compile again, and may come from an outer jit: `miner=miners.DistanceWeighted(128, key=key)`. What
is drawn for a pair depends on the key and on its place in the batch of all devices alone. Without
a key they weigh by the expectation.

A miner of your own may tell the engine more about itself by attributes: `cube = True`, that it
makes arrays [b, P, N], so that blocks are kept small; `between = True`, that it reads the distances
between references, `pairs.between`; a method `survey(count)`, called before the main sweep, with
count(fn) the sum of fn(pairs) over all pairs of the batch: what it returns is `pairs.bounds` then.
Its arrays are traced where it is a registered tree (`jax.tree_util.register_dataclass`).
"""

from jdml.miners.batch import HardFraction, UniformHistogram
from jdml.miners.chain import Chain
from jdml.miners.hard import BatchEasyHard, BatchHard, SemiHard
from jdml.miners.margins import Angular, MultiSimilarity, PairMargin, TripletMargin
from jdml.miners.sampling import DistanceWeighted

__all__ = [
    "Angular",
    "BatchEasyHard",
    "BatchHard",
    "Chain",
    "DistanceWeighted",
    "HardFraction",
    "MultiSimilarity",
    "PairMargin",
    "SemiHard",
    "TripletMargin",
    "UniformHistogram",
]
