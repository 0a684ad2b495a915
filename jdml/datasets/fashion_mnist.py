"""Fashion-MNIST with disjoint classes: 70,000 product photographs, 6 classes seen, 4 unseen.

Both TFDS splits are merged. The first six classes (t-shirt, trouser, pullover, dress, coat,
sandal) train, the last four (shirt, sneaker, bag, ankle boot) test: the unseen ones include
look-alikes of seen ones and of each other.

Preparing needs TensorFlow, since TFDS's own builder does; reading does not.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import pathlib
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

from jdml.datasets.prepared import is_there, opened, prepared, read_all
from jdml.datasets.splits import Splits, by_classes, check_counts

TRAIN_CLASSES, TEST_CLASSES = range(6), range(6, 10)
# SHA-256 of the unpacked files: archives differ with the program that packed them (Debian's are
# not those that TFDS knows), and other data sets use the same four names.
FILES = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",  # noqa: E501
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",  # noqa: E501
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def load(data_dir: str | None, source: str | os.PathLike[str] | None = None) -> Splits:
    """The splits, prepared from local IDX files where they are not there yet.

    Args:
      data_dir: folder of TFDS.
      source: folder of the files; by default FASHION_MNIST_DIR, else the one for files fetched by
        hand, else where Debian puts them.

    Returns:
      The `Splits`.

    Raises:
      FileNotFoundError, ModuleNotFoundError: what is missing, and where to put or get it.
      ValueError: other files, counts that are not those of the protocol.
    """
    import tensorflow_datasets as tfds

    def make() -> Any:
        return tfds.builder("fashion_mnist", data_dir=data_dir, file_format="array_record")

    builder = opened(make)
    if not is_there(builder):
        builder = _prepare(make, pathlib.Path(builder.data_dir).parents[1], source)
    columns = read_all(builder, "train+test")
    names = builder.info.features["label"].names
    parts = {"train": TRAIN_CLASSES, "test": TEST_CLASSES}
    splits = by_classes("fashion_mnist", columns["image"], columns["label"], names, parts)
    check_counts(splits["train"], images=42_000, classes=6)
    check_counts(splits["test"], images=28_000, classes=4)
    return Splits(splits["train"], None, splits["test"])


def _prepare(make: Callable[[], Any], data_dir: pathlib.Path, source: Any) -> Any:
    manual = data_dir / "downloads" / "manual"
    folders = [pathlib.Path(source or os.environ.get("FASHION_MNIST_DIR", manual))]
    folders += [] if source else [_DEBIAN]
    found = next((f for f in folders if all((f / name).is_file() for name in FILES)), None)
    if found is None:
        raise FileNotFoundError(
            f"data: fashion_mnist is not prepared, and its files are not in "
            f"{' or '.join(map(str, folders))}: put {', '.join(FILES)} into the first (or name "
            "their folder in FASHION_MNIST_DIR), or install Debian's dataset-fashion-mnist"
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            'data: preparing fashion_mnist needs TensorFlow once: pip install "jdml[prepare]"; '
            "reading it afterwards does not"
        )
    with tempfile.TemporaryDirectory() as scratch:
        local = _LocalFiles(found, pathlib.Path(scratch))

        def make_from_files() -> Any:
            builder = make()
            # Only the download is replaced: the rest of TFDS's own builder runs as it is.
            generators = builder._split_generators
            builder._split_generators = lambda dl_manager: generators(local)
            return builder

        return prepared(make_from_files, download_dir=scratch)


class _LocalFiles:
    """Stands in for TFDS's download manager: unpacks files that are here, and asks no network."""

    def __init__(self, folder: pathlib.Path, scratch: pathlib.Path) -> None:
        self._folder, self._scratch = folder, scratch

    def download_and_extract(self, addresses: dict[str, str]) -> dict[str, str]:
        """The path of the unpacked file for each address, by its last part."""
        return {key: self._unpacked(pathlib.Path(one).name) for key, one in addresses.items()}

    def _unpacked(self, name: str) -> str:
        path = self._folder / name
        try:
            content = gzip.decompress(path.read_bytes())
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"data: {path} cannot be unpacked ({error})") from error
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise ValueError(f"data: {path} is not the file of Fashion-MNIST, its content differs")
        unpacked = self._scratch / name.removesuffix(".gz")
        unpacked.write_bytes(content)
        return str(unpacked)
