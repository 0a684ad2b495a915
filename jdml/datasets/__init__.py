"""Data sets with class-disjoint splits, as the field splits and counts them.

`load(name)` gives training, validation and test splits that share no class, with the counts of
their protocol checked. `hangul` comes with the package, `folder:PATH` is your own; the others are
prepared once, with `python -m experiments.prepare NAME` or `prepare`. Reading needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jdml.datasets.images import Images
from jdml.datasets.pairs import Pairs
from jdml.datasets.splits import Split, Splits, check_class_disjoint, check_counts

if TYPE_CHECKING:
    from jdml.datasets.protocol import Contents, Protocol

__all__ = [
    "Images",
    "Pairs",
    "Split",
    "Splits",
    "check_class_disjoint",
    "check_counts",
    "known",
    "known_pairs",
    "load",
    "load_pairs",
    "prepare",
]

_OWN = ("hangul", "hangul/unseen_faces", "fashion_mnist")  # prepare themselves when they are read


def known() -> tuple[str, ...]:
    """Names that `load` takes, besides `folder:PATH`.

    Example:
      >>> known()[:5]
      ('hangul', 'hangul/unseen_faces', 'fashion_mnist', 'cub200', 'cars196')
    """
    from jdml.datasets.protocols import PROTOCOLS

    return (*_OWN, *(name for name, protocol in PROTOCOLS.items() if not protocol.pairs))


def known_pairs() -> tuple[str, ...]:
    """Names that `load_pairs` takes.

    Example:
      >>> known_pairs()
      ('lfw',)
    """
    from jdml.datasets.protocols import PROTOCOLS

    return tuple(name for name, protocol in PROTOCOLS.items() if protocol.pairs)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    **options: Any,
) -> Splits:
    """A data set by name. Nothing is downloaded: what is not there is said in one line.

    Args:
      name: one of `known()`, or "folder:PATH".
      data_dir: folder of TFDS; by default its own (TFDS_DATA_DIR, or in the home folder).
      image_size: side of the pictures in pixels; where a data set has many sizes 256 by default,
        else its own.
      **options: of `folder:PATH` only, see `jdml.datasets.folder.read`.

    Returns:
      Its `Splits`, whose classes are disjoint.

    Raises:
      ValueError: an unknown name, wrong counts, or a folder that cannot be written.
      FileNotFoundError, ModuleNotFoundError: what is missing, and where to put or get it.

    Example:
      >>> load("imagenet")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: name: got 'imagenet', expected one of hangul, hangul/unseen_faces, ... folder:PATH
    """
    from jdml.datasets import folder, store
    from jdml.datasets.protocols import PROTOCOLS

    if name.startswith("folder:"):
        return folder.load(name.removeprefix("folder:"), image_size=image_size, **options)
    if options:
        raise ValueError(f"{next(iter(options))}: is an option of folder:PATH, not of {name}")
    if name in known_pairs():
        raise ValueError(f"name: {name} is a set of pairs, which datasets.load_pairs reads")
    if name not in known():
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(known())}, folder:PATH")
    if name in _OWN:
        return _sized(_own(name)(None if data_dir is None else os.fspath(data_dir)), image_size)
    splits = store.read(PROTOCOLS[name], data_dir, image_size)
    return Splits(splits["train"], None, splits["test"], splits.get("gallery"))


def _own(name: str) -> Callable[[str | None], Splits]:
    from jdml.datasets import fashion_mnist, hangul

    if name == "fashion_mnist":
        return fashion_mnist.load
    config = "unseen_faces" if name.endswith("/unseen_faces") else "seen_faces"
    return lambda data_dir: hangul.load(config, data_dir)


def _sized(splits: Splits, size: int | None) -> Splits:
    if size is None:
        return splits
    validation = splits.validation and splits.validation.sized(size)
    return Splits(splits.train.sized(size), validation, splits.test.sized(size))


def load_pairs(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
) -> Pairs:
    """A verification set by name: pictures, pairs of them, and the folds of the pairs.

    Args:
      name: one of `known_pairs()`.
      data_dir: as in `load`.
      image_size: as in `load`.

    Returns:
      Its `Pairs`.

    Raises:
      ValueError, FileNotFoundError: as `load`.

    Example:
      >>> load_pairs("agedb")
      Traceback (most recent call last):
      ValueError: name: got 'agedb', expected one of lfw
    """
    from jdml.datasets import store
    from jdml.datasets.protocols import PROTOCOLS

    if name not in known_pairs():
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(known_pairs())}")
    (split,) = store.read(PROTOCOLS[name], data_dir, image_size).values()
    table = store.table_of(PROTOCOLS[name], data_dir)
    return Pairs(split, *(table[column] for column in ("first", "second", "same", "fold")))


def prepare(
    name: str,
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    tell: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> None:
    """Prepares a data set from the files of its authors, as they are or unpacked.

    A folder in which TFDS has prepared the data set as array_record does as well: its splits are
    merged and split anew as the protocol says.

    Nothing is downloaded here; `python -m experiments.prepare` also does that. What is there
    already stays as it is. What is stopped in the middle, or by an error, is never read; called
    again with the same files, it goes on.

    Args:
      name: one of `known()` or `known_pairs()`.
      source: the archive, or the folder with the archives or with what was in them, or several.
      data_dir: as in `load`.
      tell: is told what is done, how much of it, and how much there is, 0 where nobody knows.

    Raises:
      ValueError: an unknown name, files that cannot be unpacked or decoded, wrong counts.
      FileNotFoundError: files that are not there.
      OSError: files that cannot be read.

    Example:
      >>> prepare("imagenet", "downloads")  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: name: got 'imagenet', expected one of cub200, cars196, sop, ...
    """
    from jdml.datasets import store, writing
    from jdml.datasets.protocols import PROTOCOLS

    if name not in PROTOCOLS:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if store.is_there(protocol, data_dir):
        return
    places = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    writing.write(protocol, lambda: _found(protocol, places, tell), data_dir, tell)


def _found(protocol: Protocol, places: Sequence[Any], tell: Any) -> Contents:
    """What a data set holds, by the files of its authors or by a folder of TFDS."""
    from jdml.datasets import merge
    from jdml.datasets.sources import Files

    if protocol.merge and len(places) == 1 and merge.is_tfds(places[0]):
        return merge.contents(places[0], protocol.merge)
    files = Files(places, protocol.archives, lambda words: tell(words, 0, 0))
    missing = protocol.missing(files)
    if missing:
        raise FileNotFoundError(
            f"data: {protocol.name} lacks {', '.join(file.name for file in missing)} (from "
            f"{missing[0].home}) in {', '.join(map(str, places))}"
        )
    try:
        found = protocol.layout(files)
    except (ValueError, KeyError, IndexError) as error:
        if str(error).startswith("data: "):
            raise
        raise ValueError(
            f"data: the tables of {protocol.name} are not in the form that its authors gave them "
            f"({type(error).__name__}: {error})"
        ) from error
    if found.pictures is None:
        found = dataclasses.replace(found, pictures=files.stream(found.entries.keys()))
    return dataclasses.replace(found, stamp=files.stamp(found.entries.keys()))
