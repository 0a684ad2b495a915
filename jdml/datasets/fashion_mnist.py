"""Fashion-MNIST with disjoint classes: 70,000 product photographs, 6 classes seen, 4 unseen.

Both TFDS splits are merged. The first six classes (t-shirt, trouser, pullover, dress, coat,
sandal) train, the last four (shirt, sneaker, bag, ankle boot) test: the unseen ones include
look-alikes of seen ones and of each other.

Preparing needs TensorFlow, since TFDS's own builder does; reading does not.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Callable
from typing import Any

from jdml.datasets.prepared import prepared, read_all
from jdml.datasets.splits import Splits, by_classes, check_counts

TRAIN_CLASSES, TEST_CLASSES = range(6), range(6, 10)
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def load(data_dir: str | None) -> Splits:
    """The splits, prepared from local IDX files where they are not there yet."""
    import tensorflow_datasets as tfds

    make = lambda: tfds.builder("fashion_mnist", data_dir=data_dir, file_format="array_record")
    builder = make()
    if not builder.is_prepared():
        builder = _prepare(make, pathlib.Path(builder.data_dir).parents[1])
    columns = read_all(builder, "train+test")
    names = builder.info.features["label"].names
    parts = {"train": TRAIN_CLASSES, "test": TEST_CLASSES}
    splits = by_classes("fashion_mnist", columns["image"], columns["label"], names, parts)
    check_counts(splits["train"], images=42_000, classes=6)
    check_counts(splits["test"], images=28_000, classes=4)
    return Splits(splits["train"], None, splits["test"])


def _prepare(make: Callable[[], Any], data_dir: pathlib.Path) -> Any:
    import tensorflow_datasets as tfds

    manual = data_dir / "downloads" / "manual"
    folders = [pathlib.Path(os.environ.get("FASHION_MNIST_DIR", manual)), _DEBIAN]
    found = next((f for f in folders if all((f / name).is_file() for name in FILES)), None)
    if found is None:
        raise FileNotFoundError(
            f"data: fashion_mnist is not prepared, and its files are neither in {folders[0]} nor "
            f"in {_DEBIAN}: put {', '.join(FILES)} into the first (or name their folder in "
            "FASHION_MNIST_DIR), or install Debian's dataset-fashion-mnist"
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            'data: preparing fashion_mnist needs TensorFlow once: pip install "jdml[prepare]"; '
            "reading it afterwards does not"
        )
    # The files have the names and checksums that TFDS knows, so nothing is fetched.
    return prepared(make, download_config=tfds.download.DownloadConfig(manual_dir=str(found)))
