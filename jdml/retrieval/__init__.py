"""Exact nearest neighbours, by blocks of queries, in bounded memory.

Every query is compared with every row of the gallery; nothing is approximated unless an index of
faiss is given, and no [Q, N] array is ever held. A query is told apart from its own row by
identity, never by rank or by distance, so that an exact duplicate is found like any other
neighbour. A gallery that serves many searches is prepared once by `index`, on one device or split
over many.

Ties go to the lower row of the gallery. Identical rows always tie, on every backend and for every
block size. Different rows whose distances would be equal in real arithmetic tie when the products
are exact (whole numbers, say) and are otherwise ordered by rounding, about 1e-7 of |x| |y|.
"""

from jdml.retrieval.approximate import FaissIndex, faiss_index
from jdml.retrieval.prepare import Index, index
from jdml.retrieval.rows import Distance
from jdml.retrieval.search import Neighbours, neighbours

__all__ = ["Distance", "FaissIndex", "Index", "Neighbours", "faiss_index", "index", "neighbours"]
