"""What was tried on rows whose targets are not reached everywhere, printed with the shortfall.

Times are medians on two AMD cores whose matrix products run at about 200 GFLOP/s.
"""

from __future__ import annotations

_TILES = (
    "each pair once, by tiles (at 4,096 rows: contrastive 200 to 100 ms, SupCon 117 to 76, "
    "multi-similarity 121 to 82); the gradient's products as plain ones behind barriers (2,048 "
    "rows: 29 to 24 ms); larger tiles and the dense program are slower"
)
_RETRIEVAL = (
    "two blocks under way at once (100 a class: 2.0 to 1.3 s); blocks of 128 and 512 queries, "
    "groups of 16 and 32, no masks, products by tiles: the same or slower; products in bfloat16 "
    "before exact ones: 0.8 to 0.6 s, only on cores that have them, left out; each pair "
    "once, from the two largest of every group either way: its passes cost more than half of the "
    "products"
)

TRIED = {
    "triplet, all": "a loop over class-mates in blocks of 128 rows (1,024 rows: 25 to 10 ms); "
    "sorted rows and cubes are slower",
    "triplet, large classes": "as for all triplets: a loop over class-mates, 128 rows at a time",
    "triplet, semi-hard": "a loop over class-mates in the place of a cube (690 to 6 ms)",
    "triplet, batch hard": "only the chosen pairs measured again (2,048 rows: 80 to 48 ms), "
    "comparisons in the place of argmax (48 to 24 ms)",
    "contrastive": _TILES,
    "multi-similarity": _TILES,
    "SupCon": _TILES,
    "ArcFace": "scores of a block below 2^24 numbers (10,000 classes: 145 to 100 ms); a barrier "
    "around the whole gradient and other compiler flags are slower",
    "ArcFace, 1M classes": "blocks that divide the table (3.8 to 2.0 GiB)",
    "angular": "a partner for each anchor in the place of a cube (560 to 5.5 ms)",
    "retrieval": _RETRIEVAL,
    "retrieval, large classes": _RETRIEVAL,
    "retrieval, counted": "counting in strides (a reduction of comparisons would write them down); "
    "the short lists are made beside the counts, and a call without them does not exist",
}
