"""Which pictures a folder or a table of one's own lists, by class."""

from __future__ import annotations

import csv
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple

PARTS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation",
    "validation": "validation", "test": "test", "testing": "test", "query": "query",
    "gallery": "gallery",
}  # fmt: skip
ENDINGS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga", ".avif", ".heic", ".heif",
))  # fmt: skip
_CLUTTER = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))
NO_PICTURE = "files that are no pictures by their names"
OUTSIDE = "pictures outside the folders of classes"
NO_LABEL = "rows without a label"
TWICE = "pictures that are listed again"


class Listing(NamedTuple):
    """Files that should be pictures.

    Attributes:
      root: that relative paths start from.
      paths: [N], in natural order.
      classes: [N] names.
      parts: [N] of `PARTS`, or None where the classes are not yet divided.
      groups: [N] names of super-classes, or None.
      left_out: names by what is wrong with them.
      notes: what else a person should know, a line each.
    """

    root: str
    paths: list[str]
    classes: list[str]
    parts: list[str] | None
    groups: list[str] | None
    left_out: dict[str, list[str]]
    notes: list[str]


def natural(name: str) -> tuple[list[Any], str]:
    """A key that sorts as people do: numbers by value, without regard to case.

    Example:
      >>> sorted(["b10", "B9", "a"], key=natural)
      ['a', 'B9', 'b10']
    """
    pieces = re.split(r"(\d+)", unicodedata.normalize("NFC", name))
    return [int(text) if k % 2 else text.casefold() for k, text in enumerate(pieces)], name


# ---------------------------------------------------------------- a folder


def in_folder(root: pathlib.Path, depth: int) -> Listing:
    """The pictures of a folder, each class in a folder of its own, at any depth below it.

    Args:
      root: holds the folders of classes, or those of splits, which hold them.
      depth: of the classes; with 2 the folders above them are their super-classes.

    Returns:
      A `Listing`.
    """
    if depth not in (1, 2):
        raise ValueError(f"depth: got {depth}, expected 1, or 2 for super-classes")
    outer = [entry.name for entry in _visible(root) if entry.is_dir()]
    parts = {name: PARTS.get(name.casefold(), "") for name in outer}
    divided = bool(outer) and all(parts.values()) and "train" in parts.values()
    found = Listing(str(root), [], [], [] if divided else None, [] if depth == 2 else None, {}, [])
    if not divided:
        _add(found, root, "", depth, "")
        return found
    if not {"test", "query"} & set(parts.values()):  # train and val, as many folders are
        parts = {name: "test" if part == "validation" else part for name, part in parts.items()}
        if "test" in parts.values():
            found.notes.append("there is no test folder: the validation folder is the test")
    for entry in _visible(root):
        if not entry.is_dir():
            _leave_out(found, entry.name, OUTSIDE)
    for name in outer:
        _add(found, root / name, name, depth, parts[name])
    return found


def _add(found: Listing, folder: pathlib.Path, prefix: str, depth: int, part: str) -> None:
    for path in _walk(folder, prefix, ()):
        inner = path.split(os.sep)[1 if prefix else 0 :]
        if len(inner) <= depth:
            _leave_out(found, path, OUTSIDE)
        elif os.path.splitext(path)[1].casefold() not in ENDINGS:
            _leave_out(found, path, NO_PICTURE)
        else:
            found.paths.append(path)
            found.classes.append("/".join(inner[:depth]))
            if found.parts is not None:
                found.parts.append(part)
            if found.groups is not None:
                found.groups.append(inner[0])


def _leave_out(found: Listing, path: str, kind: str) -> None:
    picture = os.path.splitext(path)[1].casefold() in ENDINGS
    found.left_out.setdefault(kind if picture else NO_PICTURE, []).append(path)


def _visible(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """What a folder holds, less what systems leave in folders, in natural order."""
    with os.scandir(folder) as entries:
        kept = [
            entry
            for entry in entries
            if not entry.name.startswith(".") and entry.name.casefold() not in _CLUTTER
        ]
    return sorted(kept, key=lambda entry: natural(entry.name))


def _walk(folder: Any, prefix: str, above: tuple[Any, ...]) -> Iterator[str]:
    """Paths of all files, links followed, but never in a circle."""
    here = os.stat(folder)
    if (here.st_dev, here.st_ino) in above:
        return
    for entry in _visible(folder):
        path = os.path.join(prefix, entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, path, (*above, (here.st_dev, here.st_ino)))
        else:
            yield path


# ---------------------------------------------------------------- a table


def in_table(
    table: pathlib.Path,
    image: str,
    label: str,
    split: str | None,
    super_class: str | None,
    delimiter: str | None,
) -> Listing:
    """The pictures that a CSV file lists, by the names of its columns.

    Args:
      table: the file; relative paths of pictures start from its folder.
      image: column of paths.
      label: column of classes.
      split: column of "train", "validation", "test", "query" or "gallery".
      super_class: column of super-classes.
      delimiter: between columns; found out by default.

    Returns:
      A `Listing`.

    Raises:
      ValueError: no such column, an unknown split, or pictures that are not there.
    """
    columns, rows = _rows(table, delimiter)
    wanted = {"image": image, "label": label, "split": split, "super_class": super_class}
    for name, column in wanted.items():
        if column is not None and column not in columns:
            raise ValueError(
                f"{name}: got {column!r}, expected one of the columns {', '.join(columns)} of "
                f"{table.name}"
            )
    found = Listing(
        str(table.parent), [], [], None if split is None else [],
        None if super_class is None else [], {}, [],
    )  # fmt: skip
    seen: set[str] = set()
    for number, row in enumerate(rows, 2):
        path, of_class = (row[image] or "").strip(), (row[label] or "").strip()
        if not path or not of_class or path in seen:
            kind = TWICE if path in seen else NO_LABEL
            found.left_out.setdefault(kind, []).append(path or f"line {number}")
            continue
        seen.add(path)
        found.paths.append(path)
        found.classes.append(of_class)
        if found.parts is not None and split is not None:
            word = (row[split] or "").strip()
            if word.casefold() not in PARTS:
                expected = "train, validation, test, query or gallery"
                raise ValueError(
                    f"split: got {word!r} in line {number} of {table.name}, expected {expected}"
                )
            found.parts.append(PARTS[word.casefold()])
        if found.groups is not None and super_class is not None:
            found.groups.append((row[super_class] or "").strip())
    missing = [path for path in found.paths if not (table.parent / path).exists()]
    if missing:
        raise ValueError(
            f"image: {len(missing)} of {len(found.paths)} pictures of {table.name} are not there, "
            f"the first is {missing[0]} (relative paths start from {table.parent})"
        )
    return found


def _rows(table: pathlib.Path, delimiter: str | None) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            if delimiter is None:
                head = file.readline()
                file.seek(0)
                delimiter = max("\t;,", key=head.count)
            reader = csv.DictReader(file, delimiter=delimiter)
            return list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"folder: cannot read {table} ({reason})") from error
