"""Data sets that TFDS has prepared as array_record, with their splits merged for a protocol."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jdml.datasets.protocol import Contents, Entry, Merge, halves

_INFO = "dataset_info.json"


def prepared_by_tfds(data_dir: pathlib.Path, merge: Merge | None) -> pathlib.Path | None:
    """Where TFDS has prepared a data set, the newest version of it.

    Args:
      data_dir: folder of TFDS.
      merge: how its splits are merged, None for what TFDS does not have.

    Returns:
      Its folder, None where there is none.
    """
    found = () if merge is None else data_dir.glob(f"{merge.name}/*/{_INFO}")
    return max((path.parent for path in found), key=lambda path: path.name, default=None)


def is_tfds(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that TFDS has prepared."""
    return (pathlib.Path(folder) / _INFO).is_file()


def contents(folder: str | os.PathLike[str], merge: Merge) -> Contents:
    """The pictures of all splits, still encoded, and the part that each belongs to.

    Args:
      folder: prepared by TFDS.
      merge: how its splits are merged.

    Returns:
      The same as a layout finds in archives.

    Raises:
      ValueError: a folder that TFDS cannot read without TensorFlow, or not at all.
    """
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(os.fspath(folder))
        skip = {"image": tfds.decode.SkipDecoding()}
        sources = {split: builder.as_data_source(split, decoders=skip) for split in merge.parts}
    except (NotImplementedError, ValueError, KeyError) as error:
        words = str(error).strip().splitlines()[0]
        raise ValueError(
            f"data: {folder} cannot be read ({words}); let TFDS prepare it with "
            'file_format="array_record", or name the archives'
        ) from error
    features = builder.info.features
    entries = {
        _path(split, row): Entry(
            int(record[merge.label]),
            merge.parts[split],
            int(record[merge.group]) if merge.group else 0,
        )
        for split, source in sources.items()
        for row, record in enumerate(source)
    }
    found = Contents(
        features[merge.label].names,
        entries,
        features[merge.group].names if merge.group else (),
        _pictures(sources),
        stamp=[
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(pathlib.Path(folder).iterdir())
        ],
    )
    return found if all(merge.parts.values()) else halves(found)


def _path(split: str, row: int) -> str:
    return f"{split}/{row:07d}"


def _pictures(sources: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for split, source in sources.items():
        for row, record in enumerate(source):
            yield _path(split, row), record["image"]
