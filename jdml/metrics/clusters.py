"""How well clusters of the embeddings agree with the classes."""

from __future__ import annotations

import importlib
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from jdml.metrics.task import kept_rows
from jdml.metrics.verification import unit
from jdml.retrieval.rows import label_array
from jdml.retrieval.rows import whole as whole_number

Distance: TypeAlias = Literal["cosine", "euclidean"]


def clustering(
    embeddings: Any,
    labels: Any,
    *,
    clusters: int | None = None,
    distance: Distance = "cosine",
    repeats: int = 10,
    seed: int = 0,
) -> dict[str, float | int]:
    """Agreement of k-means clusters with the classes: NMI, AMI and ARI.

    k-means is that of scikit-learn, and so are the three scores. NMI grows with the number of
    clusters even where they are drawn at random: AMI and ARI are adjusted for chance, 0 for
    random clusters.

    Args:
      embeddings: [B, D], numpy or JAX.
      labels: [B], integers or strings; a negative label marks a row to ignore.
      clusters: how many, or None for the number of classes.
      distance: "cosine" clusters rows of unit length, "euclidean" the rows as they are.
      repeats: k-means starts, of which the tightest clusters count.
      seed: of the starts.

    Returns:
      A dict: `nmi` (arithmetic mean of the entropies), `ami`, `ari`, and the count `clusters`.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.
      ValueError: more clusters than rows, and as in `retrieval`.

    Example:
      >>> rows = np.array([[0.0, 1.0], [0.1, 1.0], [5.0, 0.2], [6.0, 0.1]])
      >>> clustering(rows, ["x", "x", "y", "y"])["ami"]
      1.0

    Reference:
      Vinh, Epps and Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR
      2010. Hubert and Arabie, "Comparing Partitions", Journal of Classification 1985.
    """
    whole_number(repeats, "repeats")
    if distance not in get_args(Distance):
        raise ValueError(f"distance: got {distance!r}, expected cosine or euclidean")
    labels = label_array("labels", labels)
    rows, kept = kept_rows(("embeddings", embeddings), ("labels", labels))
    labels = labels[kept]
    if not len(rows):
        raise ValueError("labels: got no row that is not ignored, expected at least one")
    clusters = len(np.unique(labels)) if clusters is None else clusters
    whole_number(clusters, "clusters")
    if clusters > len(rows):
        raise ValueError(f"clusters: got {clusters}, expected at most {len(rows)}, the rows")
    if distance == "cosine":
        rows = unit(rows.astype(np.float64)).astype(rows.dtype)
    model = _sklearn("cluster").KMeans(clusters, n_init=repeats, random_state=seed)
    return agreement(model.fit_predict(rows), labels) | {"clusters": clusters}


def agreement(assignments: Any, labels: Any) -> dict[str, float | int]:
    """NMI, AMI and ARI of clusters that were made elsewhere.

    Args:
      assignments: [B], the cluster of each row, integers or strings; any integer is a cluster,
        also the -1 that some give to noise.
      labels: [B], its class; a negative label marks a row to ignore.

    Returns:
      A dict of floats: `nmi` (arithmetic mean of the entropies), `ami`, `ari`.

    Raises:
      ModuleNotFoundError: scikit-learn is not installed.
      ValueError: shapes that disagree, or no row that is not ignored.

    Example:
      >>> agreement([1, 1, 0, 0], ["x", "x", "y", "y"])["ari"]
      1.0
    """
    assignments = label_array("assignments", assignments)
    labels = label_array("labels", labels)
    if len(assignments) != len(labels):
        raise ValueError(
            f"assignments: got {len(assignments)} of them, expected {len(labels)}, one a label"
        )
    if labels.dtype.kind != "U":
        assignments, labels = assignments[labels >= 0], labels[labels >= 0]
    if not len(labels):
        raise ValueError("labels: got no row that is not ignored, expected at least one")
    scores = _sklearn("metrics")
    return {
        "nmi": float(scores.normalized_mutual_info_score(labels, assignments)),
        "ami": float(scores.adjusted_mutual_info_score(labels, assignments)),
        "ari": float(scores.adjusted_rand_score(labels, assignments)),
    }


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "clustering: scikit-learn is not installed, expected `pip install scikit-learn`"
        ) from error
