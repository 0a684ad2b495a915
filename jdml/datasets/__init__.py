"""Data sets with class-disjoint splits, read through TFDS data sources.

`load(name)` gives training, validation and test splits that share no class, with the counts of
their protocol checked. `hangul` comes with the package; the others are prepared once.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from jdml.datasets.splits import Split, Splits, check_class_disjoint, check_counts

__all__ = ["Split", "Splits", "check_class_disjoint", "check_counts", "known", "load"]


def _hangul(config: str) -> Callable[[str | None], Splits]:
    def read(data_dir: str | None) -> Splits:
        from jdml.datasets import hangul

        return hangul.load(config, data_dir)

    return read


def _fashion_mnist(data_dir: str | None) -> Splits:
    from jdml.datasets import fashion_mnist

    return fashion_mnist.load(data_dir)


_LOADERS: dict[str, Callable[[str | None], Splits]] = {
    "hangul": _hangul("seen_faces"),
    "hangul/unseen_faces": _hangul("unseen_faces"),
    "fashion_mnist": _fashion_mnist,
}


def known() -> tuple[str, ...]:
    """Names that `load` takes.

    Example:
      >>> known()
      ('hangul', 'hangul/unseen_faces', 'fashion_mnist')
    """
    return tuple(_LOADERS)


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Splits:
    """A data set by name, prepared on first use where no download is needed.

    Args:
      name: one of `known()`.
      data_dir: folder of TFDS; by default its own (TFDS_DATA_DIR, or in the home folder).

    Returns:
      Its `Splits`, whose classes are disjoint.

    Raises:
      ValueError: an unknown name, or a folder that cannot be written.
      FileNotFoundError, ModuleNotFoundError: what is missing, and where to put or get it.

    Example:
      >>> load("imagenet")
      Traceback (most recent call last):
      ValueError: name: got 'imagenet', expected one of hangul, hangul/unseen_faces, fashion_mnist
    """
    if name not in _LOADERS:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(_LOADERS)}")
    return _LOADERS[name](None if data_dir is None else os.fspath(data_dir))
