"""What lifts retrieval after training: expansion, re-ranking, whitening, several models.

Everything here is a function from embeddings to embeddings (or to distances): judge it by the
metrics of `jdml.metrics`, with its numbers chosen on validation classes.
"""

from jdml.postprocess.expansion import augment_database, expand_queries
from jdml.postprocess.models import average, concatenate
from jdml.postprocess.reranking import rerank
from jdml.postprocess.whitening import Whitening, fit_whitening, whiten

__all__ = [
    "Whitening",
    "augment_database",
    "average",
    "concatenate",
    "expand_queries",
    "fit_whitening",
    "rerank",
    "whiten",
]
