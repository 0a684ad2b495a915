"""What a run is measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.data import Images
from jdml import metrics

SCORES = ("recall_at_1", "map_at_r", "r_precision")
_SMALL, _THUMBNAIL = 32, 16  # pixels of a side
_AT_A_TIME = 256  # pictures


def score(
    embeddings: np.ndarray,
    labels: np.ndarray,
    gallery: tuple[np.ndarray, np.ndarray] | None = None,
    ks: Sequence[int] = (1,),
) -> dict[str, float]:
    """Exact retrieval among the images themselves, or in a gallery.

    Args:
      embeddings: [N, D] of the queries.
      labels: [N].
      gallery: embeddings [M, D] and labels [M] that are searched, by default the queries.
      ks: ranks of recall.

    Returns:
      Recall at each rank, MAP@R and R-precision.
    """
    rows, classes = gallery or (None, None)
    found = metrics.retrieval(
        embeddings, labels, gallery=rows, gallery_labels=classes, ks=tuple(ks)
    )
    names = [f"recall_at_{k}" for k in ks] + list(SCORES[1:])
    return {name: round(float(found[name]), 5) for name in names}


def score_rows(
    rows: np.ndarray, searched: Images, gallery: np.ndarray | None, ks: Sequence[int]
) -> dict[str, float]:
    """The scores of a test.

    Args:
      rows: embeddings of its images.
      searched: the test.
      gallery: embeddings of its gallery, where it has one.
      ks: ranks of recall.
    """
    if gallery is None or searched.gallery is None:
        return score(rows, searched.labels, ks=ks)
    return score(rows, searched.labels, (gallery, searched.gallery.labels), ks)


def check_ranks(ks: Sequence[int], tests: dict[str, Images]) -> None:
    """Refuses ranks beyond what a search can find.

    Raises:
      ValueError: a rank that is too large for a test.
    """
    for name, images in tests.items():
        most = len(images.labels) - 1
        if images.gallery is not None:
            most = len(images.gallery.labels)
        if max(ks) > most:
            raise ValueError(
                f"ks: got {max(ks)}, expected {most} or less, what a search of {name} can find"
            )


def raw_pixels(searched: Images) -> np.ndarray:
    """The pixels as embeddings: what retrieval is worth without training.

    Pictures with sides above 32 are made 16 x 16: as good a baseline, and small.
    """
    images = searched.images
    if max(images.shape[1:3]) <= _SMALL:
        return images[:].reshape(len(images), -1).astype(np.float32) / 255.0
    blocks = range(0, len(images), _AT_A_TIME)
    return np.concatenate([_shrunk(images[start : start + _AT_A_TIME]) for start in blocks])


def _shrunk(images: Any) -> np.ndarray:
    from PIL import Image

    def small(image: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        return np.asarray(picture.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))

    return np.stack([small(image).ravel() for image in images]).astype(np.float32) / 255.0
