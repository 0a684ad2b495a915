"""Protocols on disk, read: encoded pictures as array_record in the form of TFDS, a table of rows.

Nothing here needs TensorFlow. See `writing` for how they come there.
"""

from __future__ import annotations

import functools
import io
import os
import pathlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from jdml.datasets.images import Images, cut
from jdml.datasets.protocol import Counts, Protocol
from jdml.datasets.splits import Split, check_counts

if TYPE_CHECKING:
    from PIL import Image

SPLIT = "images"  # the one split of TFDS that holds all parts
TABLE = "rows.npz"  # label, part, group and record of each picture, sorted by class and path
_Stamp: TypeAlias = tuple[int, int]


def data_folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder of TFDS: the one given, TFDS_DATA_DIR, or the one in the home folder."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(chosen).expanduser()


def place(protocol: Protocol, data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Where a protocol is, or will be, prepared."""
    return data_folder(data_dir) / f"jdml_{protocol.name}" / protocol.version


def is_there(protocol: Protocol, data_dir: str | os.PathLike[str] | None) -> bool:
    """Whether a protocol is prepared; a folder has its name once it is whole."""
    folder = place(protocol, data_dir)
    return all((folder / name).is_file() for name in (TABLE, "dataset_info.json", "features.json"))


def check_size(name: str, images: int, classes: int, expected: Counts) -> None:
    """Refuses a part that is not as large as its protocol says; see `check_counts`."""
    if classes != expected.classes or (expected.images is not None and images != expected.images):
        raise ValueError(
            f"{name}: got {images} images of {classes} classes, expected {counted(expected)}"
        )


def counted(counts: Counts) -> str:
    """A count in words."""
    images = "images" if counts.images is None else f"{counts.images} images"
    return f"{images} of {counts.classes} classes"


def table_of(protocol: Protocol, data_dir: str | os.PathLike[str] | None) -> dict[str, np.ndarray]:
    """The table of rows of a prepared protocol.

    Raises:
      FileNotFoundError: it is not prepared, and how to.
    """
    return _stamped_table(protocol, data_dir)[0]


def _stamped_table(
    protocol: Protocol, data_dir: str | os.PathLike[str] | None
) -> tuple[dict[str, np.ndarray], _Stamp]:
    """The table of rows, and which preparation it is of."""
    path = place(protocol, data_dir) / TABLE
    if not is_there(protocol, data_dir):
        homes = "; ".join(f"{file.name} from {file.home}" for file in protocol.files)
        raise FileNotFoundError(
            f"data: {protocol.name} is not prepared in {path.parents[2]}: run "
            f"python -m experiments.prepare {protocol.name} ({homes})"
        )
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays), _stamp(os.fstat(file.fileno()))


def read(
    protocol: Protocol, data_dir: str | os.PathLike[str] | None, size: int | None = None
) -> dict[str, Split]:
    """The parts of a prepared protocol.

    Args:
      protocol: which.
      data_dir: folder of TFDS.
      size: side of the pictures in pixels, that of the protocol by default.

    Returns:
      A `Split` for each part, by its name.

    Raises:
      FileNotFoundError: it is not prepared.
      ValueError: counts that are not those of the protocol.
    """
    table, stamp = _stamped_table(protocol, data_dir)
    folder = place(protocol, data_dir)
    for shard in _source(folder, stamp).dataset_info.splits[SPLIT].filepaths:
        if not shard.exists():
            raise ValueError(f"data_dir: {shard} is lost; delete {folder} and prepare it again")
    side = protocol.size if size is None else int(size)
    shape = (len(table["record"]), side, side, protocol.channels)
    whole = Split(
        protocol.name,
        _decoded(folder, stamp, table["record"], shape)
        if protocol.in_memory
        else Images(_Records(folder, stamp, table["record"]), shape),
        table["label"],
        tuple(table["classes"].tolist()),
        table["group"] if len(table["groups"]) else None,
    )
    splits = {}
    for part, expected in protocol.counts.items():
        rows = np.flatnonzero(table["part"] == table["parts"].tolist().index(part))
        splits[part] = whole.take(rows, f"{protocol.name}/{part}")
        images_expected = len(rows) if expected.images is None else expected.images
        check_counts(splits[part], images=images_expected, classes=expected.classes)
    return splits


def _decoded(
    folder: pathlib.Path, stamp: _Stamp, records: np.ndarray, shape: tuple[int, int, int, int]
) -> np.ndarray:
    """All pictures of a set that has many small ones: threads would cost more than they bring."""
    from PIL import Image

    images = np.empty(shape, np.uint8)
    source = _current(folder, stamp)
    for first in range(0, len(records), 1000):
        some = source.__getitems__(records[first : first + 1000].tolist())
        for row, record in enumerate(some, first):
            with Image.open(io.BytesIO(record["image"])) as picture:
                images[row] = cut(picture, None, shape[1:3], shape[3])
    return images


class _Records:
    """Reads one picture by its row; a new process opens the files anew.

    Records of another preparation may lie in another order: they are refused, in any process.
    """

    def __init__(self, folder: pathlib.Path, stamp: _Stamp, records: np.ndarray) -> None:
        self._folder, self._stamp, self._records = folder, stamp, records

    def __call__(self, row: int) -> Image.Image:
        from PIL import Image

        record = _current(self._folder, self._stamp)[int(self._records[row])]
        return Image.open(io.BytesIO(record["image"]))


def _stamp(state: os.stat_result) -> _Stamp:
    """Tells preparations apart by their table; the inode would not, as some mounts make them up."""
    return state.st_mtime_ns, state.st_size


def _current(folder: pathlib.Path, stamp: _Stamp) -> Any:
    """The records of one preparation, as long as it is the one that is there.

    Asked for each picture, since shards are opened when they are first read. It takes microseconds.
    """
    if _stamp((folder / TABLE).stat()) != stamp:
        raise ValueError(f"data_dir: {folder} was prepared anew since it was loaded; load it again")
    return _source(folder, stamp)


@functools.lru_cache(8)
def _source(folder: pathlib.Path, stamp: _Stamp) -> Any:
    """Kept open by preparation: one that is deleted and made again is another."""
    del stamp
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(os.fspath(folder))
    return builder.as_data_source(SPLIT, decoders={"image": tfds.decode.SkipDecoding()})
