"""Which rows make a batch. Batch i is a pure function of the seed and i, so a run resumes anywhere.

Samplers run on the host: `sampler(i)` gives the row numbers of batch i, an int64 [B] of one size,
for i from 0 without end, and `len(sampler)` the batches of a round. What they number is up to the
caller. `share` cuts a batch for several processes.

* `ClassBalanced`: P classes with K rows each, every class in each round.
* `Hierarchical`: the same within a few groups of classes, so that a batch holds look-alikes.
* `WeightedClasses`, `Weighted`: classes or rows as often as their weights say.
* `NoDuplicates`: no two rows of one key, where a batch's other rows serve as negatives.
* `Sequential`: all rows once, in order.
"""

from jdml.samplers.balanced import ClassBalanced
from jdml.samplers.batches import SmallClasses, share
from jdml.samplers.distinct import NoDuplicates
from jdml.samplers.hierarchical import Hierarchical
from jdml.samplers.sequential import Sequential
from jdml.samplers.weighted import Weighted, WeightedClasses, class_weights

__all__ = [
    "ClassBalanced",
    "Hierarchical",
    "NoDuplicates",
    "Sequential",
    "SmallClasses",
    "Weighted",
    "WeightedClasses",
    "class_weights",
    "share",
]
