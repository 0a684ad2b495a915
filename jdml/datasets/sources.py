"""The files of a data set as its authors laid them out: in a folder, in zip or tar archives."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
import os
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_ZIPPED, _TARRED = (".zip",), (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, lzma.LZMAError,
    gzip.BadGzipFile, NotImplementedError,
)  # fmt: skip
Stamp = tuple[str, int, int]
"""Name, size in bytes and time of a file: another one where its content is another."""
_SMALL = 1 << 24  # bytes; larger texts in a tar archive are not kept at hand


class _Store(Protocol):
    """A folder or an archive."""

    path: pathlib.Path

    def names(self) -> Collection[str]: ...

    def read(self, name: str) -> bytes: ...

    def stream(self, wanted: Callable[[str], str | None]) -> Iterator[tuple[str, bytes]]: ...

    def stamps(self, wanted: Callable[[str], str | None]) -> Iterator[Stamp]: ...


class Files:
    """Files by the end of their path, wherever they lie, without unpacking archives on disk.

    `images/a.jpg` finds `CUB_200_2011/images/a.jpg` in an archive as well as in a folder that is
    named, or whose parent or child is.

    Args:
      places: folders, archives and single files. Archives that lie in a folder are opened where
        `archives` names them.
      archives: names of archives, such as "CUB_200_2011.tgz".
      tell: is told in a few words when something takes long.

    Raises:
      FileNotFoundError: a place that is not there.
    """

    def __init__(
        self,
        places: Iterable[str | os.PathLike[str]],
        archives: Collection[str] = (),
        tell: Callable[[str], object] = lambda words: None,
    ) -> None:
        self._known = frozenset(archives)
        self._stores: list[_Store] = []
        self._read: dict[str, str] = {}  # the hash of what was read at once
        for place in map(pathlib.Path, places):
            if place.is_dir():
                inside = _Folder(place)
                packed = [n for n in inside.names() if pathlib.PurePosixPath(n).name in archives]
                self._stores += [
                    _archive(inside.locate(name), tell) for name in packed if _is_archive(name)
                ]
                self._stores.append(inside)
            elif place.is_file():
                self._stores.append(
                    _archive(place, tell) if _is_archive(place.name) else _Single(place)
                )
            else:
                raise FileNotFoundError(f"data: {place} is not there")
        # What is at hand comes before what has to be unpacked from its beginning.
        self._stores.sort(key=lambda store: isinstance(store, _Tar))

    def has(self, part: str) -> bool:
        """Whether an archive is named `part`, or the path of a file has it in it, whole names.

        Tar archives whose names are known are not looked into: that takes long, and their name
        says what they hold.
        """
        if any(store.path.name == part for store in self._stores):
            return True
        quick = (
            s for s in self._stores if not (isinstance(s, _Tar) and s.path.name in self._known)
        )
        return any(f"/{part}/" in f"/{name}/" for store in quick for name in store.names())

    def read(self, end: str) -> bytes:
        """The content of the file whose path ends so.

        Raises:
          FileNotFoundError: there is none.
          ValueError: an archive that cannot be unpacked.
        """
        for store in self._stores:
            found = sorted((n for n in store.names() if _ends(n, end)), key=len)
            if found:
                with _unpacking(store.path):
                    content = store.read(found[0])
                self._read[end] = hashlib.sha256(content).hexdigest()
                return content
        places = ", ".join(str(store.path) for store in self._stores)
        raise FileNotFoundError(f"data: no {end} in {places or 'what was given'}")

    def text(self, end: str) -> list[str]:
        """The lines of a text file that are not empty, without spaces around."""
        lines = self.read(end).decode("utf-8", "replace").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def pictures(self) -> list[str]:
        """The path of every picture, sorted."""
        names = {n for s in self._stores for n in s.names() if n.lower().endswith(PICTURES)}
        return sorted(names)

    def stream(self, ends: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The content of many files, in the order in which they come cheapest.

        Args:
          ends: of their paths.

        Yields:
          (end, content), each once; those that are nowhere do not come.

        Raises:
          ValueError: an archive that cannot be unpacked.
        """
        left, wanted = _wanted(ends)
        for store in self._stores:
            if not left:
                return
            with _unpacking(store.path):
                for found in store.stream(wanted):
                    yield found
                    if not left:
                        break

    def stamp(self, ends: Collection[str]) -> list[Any]:
        """What tells whether the files are still those that they were.

        Args:
          ends: of the paths that `stream` will be asked for.

        Returns:
          A list that JSON holds: of the archives, of the files of these ends in folders, and of
          the content that `read` and `text` have given.
        """
        _, wanted = _wanted(ends)
        stamps = {stamp for store in self._stores for stamp in store.stamps(wanted)}
        return [sorted(stamps), sorted(self._read.items())]


def _wanted(ends: Collection[str]) -> tuple[set[str], Callable[[str], str | None]]:
    """Ends that no path had so far, and a function that takes that of a path away from them."""
    left = set(ends)

    def wanted(name: str) -> str | None:
        found = name if name in left else None
        while found is None and "/" in name:
            name = name.partition("/")[2]
            found = name if name in left else None
        if found is not None:
            left.remove(found)
        return found

    return left, wanted


def _stamp(path: pathlib.Path, name: str) -> Stamp:
    stat = path.stat()
    return name, stat.st_size, stat.st_mtime_ns


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("/" + end)


def _is_archive(name: str) -> bool:
    return name.lower().endswith(_ZIPPED + _TARRED)


def _archive(path: pathlib.Path, tell: Callable[[str], object]) -> _Store:
    with _unpacking(path):
        return _Zip(path) if path.name.lower().endswith(_ZIPPED) else _Tar(path, tell)


def _is_junk(name: str) -> bool:
    """What macOS and version control leave in archives and folders."""
    return any(part == "__MACOSX" or part.startswith(".") for part in name.split("/"))


@contextlib.contextmanager
def _unpacking(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        words = str(error) or type(error).__name__
        raise ValueError(
            f"data: {path} cannot be unpacked ({words}), it may be cut short; fetch it again"
        ) from error


class _Folder:
    """A folder; names begin with its own, so that it may be named instead of its parent."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path.resolve()
        self._names: Sequence[str] | None = None

    def names(self) -> Collection[str]:
        if self._names is None:
            above = self.path.parent
            found, seen = [], set()
            for folder, below, files in os.walk(self.path, followlinks=True):
                real = os.path.realpath(folder)
                if real in seen:  # a link to a folder above itself
                    below.clear()
                    continue
                seen.add(real)
                inside = pathlib.Path(folder).relative_to(above)
                found += [(inside / name).as_posix() for name in files]
            base = len(self.path.name) + 1  # the folder itself may have any name
            self._names = sorted(name for name in found if not _is_junk(name[base:]))
        return self._names

    def locate(self, name: str) -> pathlib.Path:
        """Where a file lies."""
        return self.path.parent / name

    def read(self, name: str) -> bytes:
        return self.locate(name).read_bytes()

    def stream(self, wanted: Callable[[str], str | None]) -> Iterator[tuple[str, bytes]]:
        for name in self.names():
            if (end := wanted(name)) is not None:
                yield end, self.read(name)

    def stamps(self, wanted: Callable[[str], str | None]) -> Iterator[Stamp]:
        for name in self.names():
            if (end := wanted(name)) is not None:
                yield _stamp(self.locate(name), end)


class _Packed:
    """An archive, which is taken as a whole."""

    path: pathlib.Path

    def stamps(self, wanted: Callable[[str], str | None]) -> Iterator[Stamp]:
        del wanted  # to look for it may take as long as to unpack all
        yield _stamp(self.path, self.path.name)


class _Single(_Packed):
    """One file that is no archive."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def names(self) -> Collection[str]:
        return [self.path.name]

    def read(self, name: str) -> bytes:
        del name
        return self.path.read_bytes()

    def stream(self, wanted: Callable[[str], str | None]) -> Iterator[tuple[str, bytes]]:
        if (end := wanted(self.path.name)) is not None:
            yield end, self.read(end)


class _Zip(_Packed):
    """A zip archive, whose files can be read in any order."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._file = zipfile.ZipFile(path)
        self._names = sorted(
            name for name in self._file.namelist() if name[-1] != "/" and not _is_junk(name)
        )

    def names(self) -> Collection[str]:
        return self._names

    def read(self, name: str) -> bytes:
        return self._file.read(name)

    def stream(self, wanted: Callable[[str], str | None]) -> Iterator[tuple[str, bytes]]:
        for name in self._names:
            if (end := wanted(name)) is not None:
                yield end, self.read(name)


class _Tar(_Packed):
    """A tar archive, packed or not, which is read from its beginning each time.

    The first look at it keeps its names and its small files that are no pictures.
    """

    def __init__(self, path: pathlib.Path, tell: Callable[[str], object]) -> None:
        self.path, self._tell = path, tell
        self._texts: dict[str, bytes] = {}
        self._names: list[str] | None = None

    def names(self) -> Collection[str]:
        if self._names is None:
            self._tell(f"listing {self.path.name}")
            names = []
            with _unpacking(self.path):
                for archive, member, name in self._members():
                    names.append(name)
                    if member.size <= _SMALL and not name.lower().endswith(PICTURES):
                        self._texts[name] = _content(archive, member)
            self._names = names
        return self._names

    def read(self, name: str) -> bytes:
        if name in self._texts:
            return self._texts[name]
        for archive, member, found in self._members():
            if found == name:
                return _content(archive, member)
        raise FileNotFoundError(f"data: no {name} in {self.path}")

    def stream(self, wanted: Callable[[str], str | None]) -> Iterator[tuple[str, bytes]]:
        for archive, member, name in self._members():
            if (end := wanted(name)) is not None:
                yield end, _content(archive, member)

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, str]]:
        with tarfile.open(self.path, "r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isfile() and not _is_junk(name):
                    yield archive, member, name
                archive.members.clear()  # type: ignore  # it would keep them all


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()
