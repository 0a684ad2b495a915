"""How well embeddings serve: retrieval, verification, identification, clustering, classification.

Evaluation disputes are mostly about counting, so the rules are few and stated. A query never finds
itself: it is left out by identity, not by rank. A query without a relevant item has no right
answer: it is left out of every mean and counted. Items at equal distance have no order: their
credit is the expectation over all their orders, unless the best or the worst one is asked for.
Nothing depends on the block size. Labels are integers of any width, or strings; a negative label
marks a row to ignore.
"""

from jdml.metrics.averages import bootstrap, per_class
from jdml.metrics.classify import few_shot, knn, nearest_centroid
from jdml.metrics.clusters import agreement, clustering
from jdml.metrics.foreign import from_distances, from_lists
from jdml.metrics.graded import ndcg
from jdml.metrics.identify import Confusion, confusion, gap, global_average_precision, open_set
from jdml.metrics.pairing import Pairs, pairs
from jdml.metrics.ranking import by_query, cmc, retrieval
from jdml.metrics.streaming import Streaming, stream_centroids, stream_pairs, stream_retrieval
from jdml.metrics.ties import Ties
from jdml.metrics.verification import Roc, fold_accuracy, roc, triplet_accuracy, verification

__all__ = [
    "Confusion",
    "Pairs",
    "Roc",
    "Streaming",
    "Ties",
    "agreement",
    "bootstrap",
    "by_query",
    "clustering",
    "cmc",
    "confusion",
    "few_shot",
    "fold_accuracy",
    "from_distances",
    "from_lists",
    "gap",
    "global_average_precision",
    "knn",
    "ndcg",
    "nearest_centroid",
    "open_set",
    "pairs",
    "per_class",
    "retrieval",
    "roc",
    "stream_centroids",
    "stream_pairs",
    "stream_retrieval",
    "triplet_accuracy",
    "verification",
]
