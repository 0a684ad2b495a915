"""Slow metrics with loops, from their definitions: one query, one order of its items at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np


def scores_of_order(hits, relevant, ks):
    """Every metric of one query whose items, nearest first, are relevant or not."""
    ranks = [i + 1 for i, hit in enumerate(hits) if hit]
    precision = {r: sum(hits[:r]) / r for r in ranks}
    gain = lambda n: sum(1 / math.log2(1 + r) for r in ranks if r <= n)
    best = lambda n: sum(1 / math.log2(1 + r) for r in range(1, min(relevant, n) + 1))
    scores = {f"recall_at_{k}": float(any(hits[:k])) for k in ks}
    scores["precision_at_1"] = float(hits[0])
    scores["r_precision"] = sum(hits[:relevant]) / relevant
    scores["map_at_r"] = sum(precision[r] for r in ranks if r <= relevant) / relevant
    for k in ks:
        scores[f"precision_at_{k}"] = sum(hits[:k]) / k
        scores[f"ndcg_at_{k}"] = gain(k) / best(k)
    scores["map"] = sum(precision.values()) / relevant
    scores["mrr"] = 1 / ranks[0]
    scores["ndcg"] = gain(len(hits)) / best(len(hits))
    scores["inp"] = relevant / ranks[-1]
    return scores


def orders(distances, values, ties):
    """Every order of items by distance; only the best or the worst when ties are not random."""
    groups = [np.flatnonzero(distances == value) for value in np.unique(distances)]
    if ties == "expected":
        for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
            yield [values[item] for part in parts for item in part]
    else:
        first = ties == "optimistic"
        yield [value for group in groups for value in sorted(values[group], reverse=first)]


def retrieval_by_query(distances, labels, gallery_labels, barred, ks, ties):
    """The metrics of each query from distances [B, N], None where nothing is relevant.

    `barred` [B, N] are the items that a query may not find.
    """
    found = []
    for i, row in enumerate(distances):
        items = np.flatnonzero(~barred[i])
        hits = np.array([int(gallery_labels[j] == labels[i]) for j in items])
        if not hits.sum():
            found.append(None)
            continue
        runs = [scores_of_order(o, int(hits.sum()), ks) for o in orders(row[items], hits, ties)]
        found.append({name: np.mean([run[name] for run in runs]) for name in runs[0]})
    return found


def means_of(by_query):
    """The mean of each metric over the scored queries, and the counts."""
    scored = [scores for scores in by_query if scores is not None]
    means = {name: float(np.mean([scores[name] for scores in scored])) for name in scored[0]}
    return means | {"queries": len(scored), "lone_queries": len(by_query) - len(scored)}


def squared(x, y):
    """Squared Euclidean distances of whole numbers, exactly, [B, N]."""
    table = [
        [sum((a - b) ** 2 for a, b in zip(u, v)) for v in np.float64(y)] for u in np.float64(x)
    ]
    return np.array(table)


def graded(distances, grades, ks, ties):
    """nDCG of one query, over every order of tied items: [nDCG, nDCG at each k]."""
    runs = []
    for order in orders(distances, grades, ties):
        best = sorted(grades, reverse=True)
        value = lambda g, n: sum(x / math.log2(2 + i) for i, x in enumerate(g[:n]))
        runs.append([value(order, n) / value(best, n) for n in (len(order), *ks)])
    return np.mean(runs, axis=0)


def rates(similarities, same, threshold):
    """(FAR, TAR) of accepting at or above a threshold."""
    accepted = [s >= threshold for s in similarities]
    far = sum(a and not s for a, s in zip(accepted, same)) / sum(not s for s in same)
    tar = sum(a and bool(s) for a, s in zip(accepted, same)) / sum(bool(s) for s in same)
    return far, tar


def equal_error(similarities, same):
    """Where FAR meets FRR, on straight lines between the points of all thresholds."""
    thresholds = [math.inf, *sorted(set(similarities), reverse=True)]
    points = [rates(similarities, same, threshold) for threshold in thresholds]
    for (far0, tar0), (far1, tar1) in itertools.pairwise(points):
        before, after = (1 - tar0) - far0, (1 - tar1) - far1
        if after <= 0:
            return far0 + (far1 - far0) * before / (before - after)
    raise AssertionError


def agreement(assignments, labels):
    """NMI (arithmetic) and ARI from the contingency of pairs, with loops."""
    n = len(labels)
    share = lambda values, v: sum(x == v for x in values) / n
    entropy = lambda values: (
        -sum(share(values, v) * math.log(share(values, v)) for v in set(values))
    )
    mutual = 0.0
    for a in set(assignments):
        for b in set(labels):
            both = sum(x == a and y == b for x, y in zip(assignments, labels)) / n
            if both:
                mutual += both * math.log(both / share(assignments, a) / share(labels, b))
    nmi = mutual / ((entropy(assignments) + entropy(labels)) / 2)
    pairs = list(itertools.combinations(range(n), 2))
    first = [assignments[i] == assignments[j] for i, j in pairs]
    second = [labels[i] == labels[j] for i, j in pairs]
    together = sum(x and y for x, y in zip(first, second))
    chance = sum(first) * sum(second) / len(pairs)
    ari = (together - chance) / ((sum(first) + sum(second)) / 2 - chance)
    return nmi, ari
