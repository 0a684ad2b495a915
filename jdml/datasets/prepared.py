"""Preparing and reading TFDS data sets, as array_record, without TensorFlow where it can be."""

from __future__ import annotations

import contextlib
import io
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_CHUNK = 1000  # records decoded at once


def prepared(make: Callable[[], Any], **options: Any) -> Any:
    """A TFDS builder whose data set is there, prepared now if it was not.

    TFDS writes into a folder of another name and renames it when it is whole, so what is there is
    never half prepared. Processes that come at once take turns.

    Args:
      make: a new `tfds.core.DatasetBuilder`; one made earlier does not see what another process
        has prepared since.
      **options: for its `download_and_prepare`.

    Returns:
      A builder to read from.

    Raises:
      ValueError: the folder cannot be written, or holds a part of a data set or other files.
    """
    builder = opened(make)
    if builder.is_prepared():
        return builder
    folder = pathlib.Path(builder.data_dir).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with turn(folder / ".lock"):
            builder = opened(make)
            if not builder.is_prepared():
                _refuse_part(builder)
                builder.download_and_prepare(file_format="array_record", **options)
    except OSError as error:
        raise ValueError(
            f"data_dir: cannot write to {folder} ({error.strerror or error}); "
            "name another folder, or set TFDS_DATA_DIR"
        ) from error
    return builder


def _refuse_part(builder: Any) -> None:
    """Refuses a folder that was cut short by a copy or a deletion: TFDS would take it as it is."""
    if builder.data_path.exists():
        raise ValueError(
            f"data_dir: {builder.data_path} is not a whole data set (dataset_info.json or "
            "features.json is missing); delete it to prepare it again"
        )


def opened(make: Callable[[], Any]) -> Any:
    """The builder of `make`, which refuses what was prepared in another file format.

    Args:
      make: a new `tfds.core.DatasetBuilder` with `file_format="array_record"`.

    Returns:
      The builder; whether its data set is there, it knows.

    Raises:
      ValueError: the data set is there in a format that only TensorFlow can read.
    """
    try:
        return make()
    except ValueError as error:
        if "File format" not in str(error):
            raise
        raise ValueError(
            "data_dir: this data set was prepared there in another file format, expected "
            f"array_record; name another folder, or delete it to prepare it again ({error})"
        ) from error


@contextlib.contextmanager
def turn(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock on a file; where the system has none, goes on without.

    Args:
      path: of the file, made where it is not there.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TFDS's progress bars and absl's warnings: for sets that prepare in seconds.

    Nor with what TFDS prints, which speaks of a download even where there is none.
    """
    import tensorflow_datasets as tfds

    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        log.setLevel(level)


def read_all(builder: Any, split: str) -> dict[str, np.ndarray]:
    """Every feature of a split, stacked in memory.

    Args:
      builder: prepared as array_record.
      split: such as "train" or "train+test".

    Returns:
      An array [N, ...] for each feature.
    """
    source = builder.as_data_source(split)
    columns: dict[str, list[Any]] = {name: [] for name in builder.info.features}
    for first in range(0, len(source), _CHUNK):
        for record in source.__getitems__(range(first, min(first + _CHUNK, len(source)))):
            for name, values in columns.items():
                values.append(record[name])
    return {name: np.stack(values) for name, values in columns.items()}
