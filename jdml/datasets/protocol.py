"""What a protocol is: which files, how they are laid out, which classes train, how many of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jdml.datasets.sources import Files


class Counts(NamedTuple):
    """How large a part of a data set is; `images` is None where only the total is published."""

    images: int | None
    classes: int


class File(NamedTuple):
    """A file that a data set comes in.

    Attributes:
      names: of the file; others than the first do as well.
      shows: a part of the paths that show it unpacked.
      home: where people get it, in words or as an address.
      address: what a program can download; empty where there is none.
      sha256: of what is downloaded from there.
    """

    names: tuple[str, ...]
    shows: str
    home: str
    address: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        """The usual one."""
        return self.names[0]

    def is_in(self, files: Files) -> bool:
        """Whether it is among these, packed or not."""
        return any(files.has(name) for name in self.names) or files.has(self.shows)


class Entry(NamedTuple):
    """One picture: an index into the classes, a part of the protocol, an index into the groups."""

    label: int
    part: str = ""
    group: int = 0


class Pair(NamedTuple):
    """Two pictures by their paths, whether they show the same class, and the fold they are in."""

    first: str
    second: str
    same: bool
    fold: int


class Merge(NamedTuple):
    """How the splits of a data set that TFDS has prepared become the parts of a protocol.

    Attributes:
      name: in TFDS.
      parts: of each of its splits; empty where classes are split instead, whatever split a
        picture is in.
      label: the feature that is the class.
      group: the feature that classes belong to; empty where there is none.
    """

    name: str
    parts: Mapping[str, str]
    label: str = "label"
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a layout finds in the files of a data set.

    Attributes:
      classes: their names.
      entries: for each picture, by the end of its path.
      groups: names of what classes belong to; empty where a data set has no such thing.
      pictures: (path, encoded picture) for data sets that pack them in a form of their own.
      pairs: of a verification protocol.
      stamp: what JSON holds, another one where the files have changed.
    """

    classes: Sequence[str]
    entries: Mapping[str, Entry]
    groups: Sequence[str] = ()
    pictures: Iterable[tuple[str, bytes]] | None = None
    pairs: Sequence[Pair] = ()
    stamp: Any = ()


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A data set as the field splits and counts it.

    Attributes:
      name: as `datasets.load` takes it.
      title: as its authors call it.
      rule: which classes train and which test, in one line.
      files: all of which are needed.
      others: files that do as well, together.
      layout: reads them.
      counts: of each part; checked when it is prepared and when it is read.
      total: of all parts.
      size: of a picture's side in pixels when it is read, unless another one is asked for.
      channels: 1 or 3.
      in_memory: pictures are small and decoded once.
      pairs: how many, for a verification protocol.
      merge: the data set in TFDS, where it has all that the protocol needs.
      version: of what is prepared; another one is prepared anew.
    """

    name: str
    title: str
    rule: str
    files: tuple[File, ...]
    layout: Callable[[Files], Contents]
    counts: Mapping[str, Counts]
    total: Counts
    others: tuple[File, ...] = ()
    size: int = 256
    channels: int = 3
    in_memory: bool = False
    pairs: int = 0
    merge: Merge | None = None
    version: str = "1.0.0"

    @property
    def archives(self) -> tuple[str, ...]:
        """The names of all files that it may come in."""
        return tuple(name for file in (*self.files, *self.others) for name in file.names)

    def missing(self, files: Files) -> list[File]:
        """Which of its files are not among these."""
        if self.others and all(file.is_in(files) for file in self.others):
            return []
        return [file for file in self.files if not file.is_in(files)]


def halves(contents: Contents) -> Contents:
    """The half-split rule: of C classes in order the first ceil(C / 2) train, the others test.

    Args:
      contents: whose entries have no part yet.

    Returns:
      The same with the part of each entry.

    Example:
      >>> contents = Contents(("a", "b", "c"), {"1.jpg": Entry(1), "2.jpg": Entry(2)})
      >>> [entry.part for entry in halves(contents).entries.values()]
      ['train', 'test']
    """
    first = -(-len(contents.classes) // 2)
    entries = {
        path: entry._replace(part="train" if entry.label < first else "test")
        for path, entry in contents.entries.items()
    }
    return dataclasses.replace(contents, entries=entries)
