"""Preparing and reading TFDS data sets, as array_record, without TensorFlow where it can be."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_CHUNK = 1000  # records decoded at once


def prepared(make: Callable[[], Any], *, silently: bool = False, **options: Any) -> Any:
    """A TFDS builder whose data set is there, prepared now if it was not.

    TFDS writes into a folder of another name and renames it when it is whole, so what is there is
    never half prepared. Processes that come at once take turns.

    Args:
      make: a new `tfds.core.DatasetBuilder`; one made earlier does not see what another process
        has prepared since.
      silently: prepares as `quiet` does, for sets that take seconds.
      **options: for its `download_and_prepare`.

    Returns:
      A builder to read from.

    Raises:
      ValueError: the folder cannot be written, or holds a part of a data set or other files.
    """
    builder = opened(make)
    if is_there(builder):
        return builder
    folder = pathlib.Path(builder.data_dir).parent
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with turn(folder / ".lock"):
            builder = opened(make)
            if not is_there(builder):
                _refuse_part(builder)
                with quiet() if silently else contextlib.nullcontext():
                    builder.download_and_prepare(file_format="array_record", **options)
    return builder


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
    """Turns what the system says of a folder into a line that names it; the network speaks.

    Args:
      folder: that is written.

    Raises:
      ValueError: it cannot be written, or is full.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise ValueError(
            f"data_dir: cannot write to {folder} ({error.strerror or error}); "
            "name another folder, or set TFDS_DATA_DIR"
        ) from error


def is_there(builder: Any) -> bool:
    """Whether the data set of a builder is prepared.

    Args:
      builder: of TFDS, which would warn of a folder that is not there yet.
    """
    with _unwarned():
        return builder.is_prepared()


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
def turn(path: pathlib.Path, *, keep: bool = True) -> Iterator[None]:
    """Holds a lock on a file; where the system has none, goes on without.

    Args:
      path: of the file, made where it is not there.
      keep: whether the file stays; else whoever held it removes it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file.fileno(), path):
                break
            stack.close()  # whoever held it has removed it, and the next ones hold another
        try:
            yield
        finally:
            if not keep:
                path.unlink(missing_ok=True)


def _is_at(file: int, path: pathlib.Path) -> bool:
    """Whether an open file is the one that has the name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TFDS's progress bars and absl's warnings: for sets that prepare in seconds.

    Nor with what TFDS prints, which speaks of a download even where there is none. All three are
    of the whole process, so only while something is prepared; what was found comes back.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils

    bars = getattr(tqdm_utils, "_active", True)  # TFDS tells it in no other way
    tfds.disable_progress_bar()
    try:
        with _unwarned(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(bars)


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Without absl's warnings."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
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
