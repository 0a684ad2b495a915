"""Distances and miners of the goldens as those of the library, run on padded cases.

A similarity of the package is a distance here: a margin m on a cosine becomes 1 - m.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from golden_data import Padded

from jdml import distances, miners
from jdml._core.options import Pairs

Entry = dict[str, Any]
# Compiles fast instead of well.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


# Distances.


def centred(x: jax.Array, features: jax.Array) -> jax.Array:
    """Rows less the mean of their features."""
    n = features.sum().astype(x.dtype)
    mean = jnp.where(features[None, :], x, 0.0).sum(axis=-1, keepdims=True) / n
    return jnp.where(features[None, :], x - mean, 0.0)


def unit(x: jax.Array, features: jax.Array) -> jax.Array:
    del features
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def unit_and_centred(x: jax.Array, features: jax.Array) -> jax.Array:
    return centred(unit(x, features), features)


def distance_of(entry: Entry) -> tuple[Any, Any]:
    """The distance of an entry, and what is done to the rows before (None for nothing)."""
    d = entry["distance"]
    kind, normalizes, p, power = d["type"], d["normalize_embeddings"], d["p"], d["power"]
    if kind == "SNRDistance":
        # Centred here too, since columns of padding would count as features.
        return distances.snr, unit_and_centred if normalizes else centred
    if kind == "CosineSimilarity":
        return distances.cosine, None
    if kind == "DotProductSimilarity":
        plain = distances.dot
    elif p == 2:
        plain = distances.euclidean if power == 1 else distances.squared_euclidean
    else:
        plain = distances.lp(p)
    return distances.normalized(plain, order=p) if normalizes else plain, None


def is_similarity(entry: Entry) -> bool:
    return entry["distance"]["is_similarity"]


@cache
def _compiled_distance(distance: Any, rows: Any) -> Any:
    def matrix(x, y, features):
        ready = lambda x: x if rows is None else rows(x, features)
        return distance(ready(x), ready(y))

    return jax.jit(matrix, compiler_options=QUICK)


def measured(distance: Any, rows: Any, case: Padded, between: bool = False) -> jax.Array:
    """Distances [B, R] of a case, or those `between` references [R, R], the padding included."""
    refs = case.embeddings if case.refs is None else case.refs
    arrays = (jnp.asarray(x) for x in (refs if between else case.embeddings, refs, case.features))
    return _compiled_distance(distance, rows)(*arrays)


# Miners.


@dataclasses.dataclass(frozen=True)
class Between:
    """Keeps pairs within a range of distances, one for each kind: a miner of one's own."""

    positives: tuple[float, float]
    negatives: tuple[float, float]

    def __call__(self, pairs: Any) -> Any:
        def kept(x, weights, bounds):
            return jnp.where((x > bounds[0]) & (x < bounds[1]), weights, 0.0)

        return pairs._replace(
            positive_weights=kept(pairs.positives, pairs.positive_weights, self.positives),
            negative_weights=kept(pairs.negatives, pairs.negative_weights, self.negatives),
        )


def miner_of(kind: str, options: dict[str, Any], similarity: bool) -> Any:
    if kind == "TripletMarginMiner":
        return miners.TripletMargin(options["margin"], options["type_of_triplets"])
    if kind == "BatchHardMiner":
        return miners.BatchHard()
    if kind == "MultiSimilarityMiner":
        return miners.MultiSimilarity(options["epsilon"])
    if kind == "PairMarginMiner":
        margins = options.get("pos_margin", 0.2), options.get("neg_margin", 0.8)
        return miners.PairMargin(*(1 - m if similarity else m for m in margins))
    if kind == "BatchEasyHardMiner":
        ranges = (options.get(f"allowed_{side}_range") for side in ("pos", "neg"))
        return miners.BatchEasyHard(
            options["pos_strategy"],
            options["neg_strategy"],
            *(None if r is None else tuple(r) for r in ranges),
        )
    if kind == "AngularMiner":
        return miners.Angular(math.radians(options["angle"]))
    if kind == "HDCMiner":
        return miners.HardFraction(options["filter_percentage"])
    return None


def seen_by_miner(entry: Entry) -> tuple[Any, Any]:
    """What `distance_of` gives; the angular miner of the package looks at rows as they are."""
    if entry["miner"] != "AngularMiner":
        return distance_of(entry)
    return distance_of({"distance": {**entry["distance"], "normalize_embeddings": False}})


def with_miner(entry: Entry) -> dict[str, Any]:
    if "miner" not in entry:
        return {}
    miner = entry["miner"]
    return {"miner": miner_of(miner["type"], miner["options"], is_similarity(miner))}


def pair_counts(case: Padded) -> tuple[np.ndarray, np.ndarray]:
    """[B, R] which pairs are positive and which are negative."""
    other = case.labels if case.refs is None else case.ref_labels
    there = (case.labels >= 0)[:, None] & (other >= 0)[None, :]
    if case.refs is None:
        there &= ~np.eye(len(other), dtype=bool)
    same = case.labels[:, None] == other[None, :]
    return there & same, there & ~same


class Kept(NamedTuple):
    """What a miner keeps, as sorted index tuples."""

    positives: list[tuple[int, int]]
    negatives: list[tuple[int, int]]
    triplets: list[tuple[int, int, int]]


@cache
def _compiled_miner(miner: Any) -> Any:
    def run(pairs: Pairs) -> Pairs:
        if hasattr(miner, "survey"):
            pairs = pairs._replace(bounds=miner.survey(lambda fn: fn(pairs)))
        return miner(pairs)

    return jax.jit(run, compiler_options=QUICK)


def kept(miner: Any, matrix: jax.Array, case: Padded, between: jax.Array | None = None) -> Kept:
    """Runs a miner on the distances [B, R] of a case, and those between references [R, R]."""
    weights = (jnp.asarray(pairs.astype(np.float64)) for pairs in pair_counts(case))
    pairs = _compiled_miner(miner)(Pairs(matrix, matrix, *weights, between=between))
    columns = np.broadcast_to(np.arange(matrix.shape[1]), matrix.shape)
    p, n = (
        columns if found is None else np.asarray(found)
        for found in (pairs.positive_columns, pairs.negative_columns)
    )
    pw, nw = np.asarray(pairs.positive_weights), np.asarray(pairs.negative_weights)
    shape = (*p.shape, n.shape[-1])  # the negatives as each positive sees them
    n3, nw3 = (np.broadcast_to(a if a.ndim == 3 else a[:, None, :], shape) for a in (n, nw))
    i, j, k = np.nonzero(pw[:, :, None] * nw3)
    return Kept(
        sorted({(int(a), int(p[a, b])) for a, b in zip(*np.nonzero(pw))}),
        sorted({(int(a[0]), int(n[a])) for a in zip(*np.nonzero(nw))}),
        sorted(zip(i.tolist(), p[i, j].tolist(), n3[i, j, k].tolist())),
    )


def but_for_ties(mined: list, golden: list, matrix: jax.Array, farthest: bool) -> list:
    """What is mined less the pairs that tie with the last of the golden.

    Where several pairs are as hard as the last one that is kept, the package keeps some of them,
    such as one of the two ends of a pair.
    """
    distances = np.asarray(matrix)
    if not golden:
        return mined
    last = (min if farthest else max)(distances[pair] for pair in golden)
    tied = lambda pair: math.isclose(distances[pair], last, rel_tol=1e-9)
    return [pair for pair in mined if pair in golden or not tied(pair)]
