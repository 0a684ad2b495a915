"""Writes a protocol: encoded pictures as array_record in the form of TFDS, and a table of rows.

TFDS's own builders need TensorFlow and keep whole data sets in memory where their order matters;
its sequential writer does neither.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jdml.datasets.images import cores
from jdml.datasets.prepared import turn, writing
from jdml.datasets.protocol import Contents, Pair, Protocol
from jdml.datasets.shards import Shards, any_whole
from jdml.datasets.store import SPLIT, TABLE, check_size, is_there, place

_AT_ONCE = 256  # pictures checked and written at once
_BATCHES_OF_A_SHARD = 32
Progress = Callable[[str, int, int], object]
"""Is told what is going on, how much is done and of how much; 0 of 0 where nobody knows."""


def write(
    protocol: Protocol,
    find: Callable[[], Contents],
    data_dir: str | os.PathLike[str] | None,
    tell: Progress = lambda what, done, total: None,
) -> None:
    """Prepares a protocol from what its data set is found to hold, unless it is there.

    It is written into a folder of another name, counted, and renamed: whatever stops it, what is
    read later is whole. Shards that are whole stay; the next attempt goes on after them, if it
    finds the same tables and files. Processes that come at once take turns.

    Args:
      protocol: which.
      find: looks through the files of its authors.
      data_dir: folder of TFDS.
      tell: is told how far it is.

    Raises:
      ValueError: pictures that are missing or cannot be decoded, counts that are not those of the
        protocol, or a folder that cannot be written.
      FileNotFoundError: a table that is not among the files.
      OSError: a file that cannot be read.
    """
    folder = place(protocol, data_dir)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = contextlib.ExitStack()
        lock.enter_context(turn(folder.parent / ".lock"))
    with lock:
        if is_there(protocol, data_dir):
            return
        beside = folder.with_name(f"incomplete.{folder.name}")
        for left in {*folder.parent.glob("incomplete.*"), folder} - {beside}:
            shutil.rmtree(left, ignore_errors=True)
        try:
            _fill(protocol, find, beside, tell)
            with writing(folder):
                os.replace(beside, folder)
        except BaseException:
            if not any_whole(beside):
                shutil.rmtree(beside, ignore_errors=True)
            raise


def _plan(protocol: Protocol, contents: Contents) -> str:
    """Another one where anything would be written otherwise."""
    what = (
        (protocol.name, protocol.version, protocol.channels, _AT_ONCE, _BATCHES_OF_A_SHARD),
        (list(contents.classes), list(contents.groups), contents.stamp),
        sorted(contents.entries.items()),
    )
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _fill(
    protocol: Protocol, find: Callable[[], Contents], folder: pathlib.Path, tell: Progress
) -> None:
    tell("reading the tables", 0, 0)
    contents = _in_training_order(find())
    total = len(contents.entries)
    _check_entries(protocol, contents)
    parts = sorted({entry.part for entry in contents.entries.values()})
    with writing(folder):
        info = _info(protocol, contents, parts, folder)
        size = _AT_ONCE * _BATCHES_OF_A_SHARD
        shards = Shards(folder, _plan(protocol, contents), info, SPLIT, size)
    done = frozenset(shards.paths)
    if done:
        tell("writing pictures", len(done), total)
    for some in _checked(picture for picture in contents.pictures or () if picture[0] not in done):
        with writing(folder):
            shards.add([_record(contents, *picture) for picture in some])
        tell("writing pictures", len(shards.paths), total)
    if len(shards.paths) < total:
        left = sorted(set(contents.entries) - set(shards.paths))
        raise ValueError(
            f"data: {protocol.name} lacks {len(left)} of {total} pictures, the first is {left[0]}"
        )
    table: Any = _table(contents, shards.paths, parts)
    with writing(folder):
        shards.close()
        np.savez_compressed(folder / TABLE, **table)
        shards.forget()


def _record(contents: Contents, path: str, content: bytes) -> dict[str, Any]:
    entry = contents.entries[path]
    numbers = {"label": entry.label, "part": entry.part, "group": entry.group}
    return {"image": io.BytesIO(content), "path": path, **numbers}


def _in_training_order(contents: Contents) -> Contents:
    """With the classes that train first, so that their labels are the rows of a class table."""
    trained = {entry.label for entry in contents.entries.values() if entry.part == "train"}
    order = sorted(range(len(contents.classes)), key=lambda label: (label not in trained, label))
    new = {old: label for label, old in enumerate(order)}
    entries = {p: e._replace(label=new[e.label]) for p, e in contents.entries.items()}
    classes = [contents.classes[old] for old in order]
    return dataclasses.replace(contents, classes=classes, entries=entries)


def _check_entries(protocol: Protocol, contents: Contents) -> None:
    """Refuses tables whose counts are not those of the protocol, before pictures are written."""
    entries = contents.entries.values()
    of_part = lambda part: [entry.label for entry in entries if entry.part == part]
    for part, expected in (*protocol.counts.items(), ("", protocol.total)):
        labels = of_part(part) if part else [entry.label for entry in entries]
        name = f"{protocol.name}/{part}" if part else protocol.name
        check_size(name, len(labels), len(set(labels)), expected)
    if len(contents.pairs) != protocol.pairs:
        raise ValueError(
            f"{protocol.name}: got {len(contents.pairs)} pairs, expected {protocol.pairs}"
        )


def _info(protocol: Protocol, contents: Contents, parts: list[str], folder: pathlib.Path) -> Any:
    """What TFDS says of the data set beside its shards."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity

    identity = DatasetIdentity(
        name=f"jdml_{protocol.name}",
        version=tfds.core.Version(protocol.version),
        data_dir=os.fspath(folder),
        module_name=__name__,
    )
    features = tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(None, None, protocol.channels)),
        "label": tfds.features.ClassLabel(names=list(contents.classes)),
        "part": tfds.features.ClassLabel(names=parts),
        "group": tfds.features.ClassLabel(names=list(contents.groups) or ["all"]),
        "path": tfds.features.Text(),
    })  # fmt: skip
    return tfds.core.DatasetInfo(
        builder=identity,
        description=f"{protocol.title}. {protocol.rule}.",
        features=features,
        supervised_keys=("image", "label"),
    )


def _checked(pictures: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Lists of pictures, each of which has been decoded once, small, by threads."""
    pictures = iter(pictures)
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        while some := list(itertools.islice(pictures, _AT_ONCE)):
            list(pool.map(_check_picture, some))
            yield some


def _check_picture(picture: tuple[str, bytes]) -> None:
    from PIL import Image

    path, content = picture
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"data: {path} cannot be decoded ({error}); fetch it again") from error


def _table(contents: Contents, paths: list[str], parts: list[str]) -> dict[str, np.ndarray]:
    """What reading needs to know of every row, in an order that no archive decides."""
    entries = [contents.entries[path] for path in paths]
    order = sorted(range(len(paths)), key=lambda i: (entries[i].label, paths[i]))
    table = {
        "label": np.array([entries[i].label for i in order], np.int32),
        "part": np.array([parts.index(entries[i].part) for i in order], np.int8),
        "group": np.array([entries[i].group for i in order], np.int32),
        "record": np.array(order, np.int64),
        "classes": np.array(contents.classes),
        "parts": np.array(parts),
        "groups": np.array(contents.groups, dtype=np.str_),
    }
    rows = {paths[i]: row for row, i in enumerate(order)}
    return table | _pair_rows(contents.pairs, rows)


def _pair_rows(pairs: Iterable[Pair], rows: Mapping[str, int]) -> dict[str, np.ndarray]:
    pairs = list(pairs)
    for pair in pairs:
        for path in (pair.first, pair.second):
            if path not in rows:
                raise ValueError(f"data: a pair names {path}, which is not among the pictures")
    return {
        "first": np.array([rows[pair.first] for pair in pairs], np.int64),
        "second": np.array([rows[pair.second] for pair in pairs], np.int64),
        "same": np.array([pair.same for pair in pairs], bool),
        "fold": np.array([pair.fold for pair in pairs], np.int64),
    }
