"""Pairs of pictures, of one class or of two, that a trained embedding has to tell apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.settings import Settings
from jdml import datasets, metrics
from jdml.postprocess import models


def load_pairs(settings: Settings) -> datasets.Pairs:
    """The pairs that the settings name, as large as the encoder sees pictures.

    Raises:
      ValueError: an unknown or missing data set.
    """
    size = settings.crop or settings.image_size or None
    try:
        return datasets.load_pairs(
            settings.verify, data_dir=settings.data_dir or None, image_size=size
        )
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        told = str(error).removeprefix("name: ").removeprefix("data: ")
        raise ValueError(f"verify: {told}") from error


def verify(embed: Callable[[Any], np.ndarray], pairs: datasets.Pairs | None) -> dict[str, Any]:
    """The accuracy of ten folds, each judged by the threshold of the others.

    Args:
      embed: from images to embeddings.
      pairs: to tell apart; None for nothing.

    Returns:
      {"verification": {"accuracy", "standard_error"}}, or nothing.
    """
    if pairs is None:
        return {}
    rows = models.unit(embed(pairs.split.images))
    similarities = (rows[pairs.first] * rows[pairs.second]).sum(axis=1)
    found = metrics.fold_accuracy(similarities, pairs.same, folds=pairs.fold)
    names = ("accuracy", "standard_error")
    return {"verification": {name: round(float(found[name]), 5) for name in names}}
