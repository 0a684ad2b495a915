"""The pictures of a run, as PNG files in its folder."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.data import Images
from jdml import report, retrieval

VALIDATION = "validation_map_at_r"


def draw(
    folder: pathlib.Path,
    log: Sequence[Mapping[str, float]],
    embeddings: np.ndarray,
    searched: Images,
    gallery_rows: np.ndarray | None = None,
) -> None:
    """Draws the training curve, and what the embedding makes of images of unseen classes.

    Args:
      folder: of the run; gets training_curve, gallery, similarities and map, as .png.
      log: rows with "step", "loss" and now and then "validation_map_at_r".
      embeddings: [N, D] of the images searched.
      searched: these images.
      gallery_rows: [M, D] of the images of its gallery, where it has one.
    """
    images, labels, names, gallery = searched
    steps, losses = ([row[name] for row in log] for name in ("step", "loss"))
    seen = [row for row in log if VALIDATION in row]
    scores = ([row["step"] for row in seen], [row[VALIDATION] for row in seen])
    validation = {"MAP@R of validation": scores} if seen else None
    report.training_curve(folder / "training_curve.png", steps, losses, validation)
    if gallery is None or gallery_rows is None:
        nearest = retrieval.neighbours(embeddings, k=min(9, len(labels) - 1)).indices
        apart = {}
    else:
        most = min(9, len(gallery.labels))
        nearest = retrieval.neighbours(embeddings, gallery_rows, k=most).indices
        apart = {"gallery_images": gallery.images, "gallery_labels": gallery.labels}
    report.retrieval_gallery(folder / "gallery.png", images, labels, nearest, names, **apart)
    report.similarity_histogram(folder / "similarities.png", embeddings, labels)
    report.embedding_map(folder / "map.png", embeddings, labels, images, names)
