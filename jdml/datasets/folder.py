"""Pictures of one's own: a folder for each class, or a CSV file that lists them.

Folders are as people have them. Files that are empty, broken or no pictures are left out and
counted, as are classes of a single picture; hidden files are passed over. Grey, palette, 16-bit,
CMYK and transparent pictures are taken, turned upright where a camera says how.
"""

from __future__ import annotations

import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdml.datasets import folder_check, folder_files
from jdml.datasets.folder_check import Fact, Progress
from jdml.datasets.folder_files import Listing, natural
from jdml.datasets.images import Images
from jdml.datasets.splits import Split, Splits

IMAGE_SIZE = 256
_NAMED = 3  # names in a line
_TOLD = {"query": "test"}  # what a part is called in `Splits`
_TURNS = {  # of EXIF, to upright
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip


class Folder(NamedTuple):
    """Pictures of one's own, and what is to be said about them.

    Attributes:
      splits: training, validation, test and gallery.
      notes: a line for each kind of thing that was left out, with the first names.
      report: all of it, as JSON holds it: counts, and every name.
    """

    splits: Splits
    notes: tuple[str, ...]
    report: dict[str, Any]


def load(path: str | os.PathLike[str], **options: Any) -> Splits:
    """Pictures of one's own, in splits that share no class; what is left out is warned of.

    Args:
      path: as `read` takes it.
      **options: as `read` takes them.

    Returns:
      `Splits`.

    Raises:
      ValueError: one line on what is wrong.

    Example:
      >>> load("/nowhere")
      Traceback (most recent call last):
      ValueError: folder: got /nowhere, expected a folder or a .csv file
    """
    found = read(path, **options)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    return found.splits


def read(
    path: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    image: str = "image",
    label: str = "label",
    split: str | None = None,
    super_class: str | None = None,
    delimiter: str | None = None,
    depth: int = 1,
    train: float = 0.5,
    validation: float = 0.0,
    least: int = 2,
    merge: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Folder:
    """Pictures of one's own, and what was left out of them.

    A folder holds a folder for each class, with pictures at any depth. Where all its folders are
    called train, val, test, query or gallery (and one is train), they are the splits and hold
    the classes. Else, sorted as people sort, the first classes train and the rest test.

    A .csv file lists pictures by columns; relative paths start from its own folder.

    Args:
      path: of the folder or the file.
      image_size: side of the pictures in pixels, 256 by default.
      image: column of paths.
      label: column of classes.
      split: column of train, validation, test, query and gallery; without it classes are split.
      super_class: column of super-classes.
      delimiter: of columns; found out by default.
      depth: 2 where folders of super-classes hold those of classes.
      train: share of the classes that are seen in training, 0 to 1.
      validation: share of those that are kept apart to choose by, the last ones.
      least: pictures that a class needs to be taken.
      merge: puts the folders of splits together, and splits by class.
      cache_dir: where it is remembered which files are good; JDML_CACHE or the user's folder of
        caches by default.
      progress: called with the number of files checked, and of all.

    Returns:
      A `Folder`. Its pictures are decoded when asked for, and grey only if all are.

    Raises:
      ValueError: no such folder or column, no pictures, fewer than two classes, a split that
        shares classes with training, or pictures of a table that are not there.
    """
    for name, share in (("train", train), ("validation", validation)):
        if not 0 <= share < 1:
            raise ValueError(f"{name}: got {share}, expected a share of the classes, 0 to 1")
    root = pathlib.Path(os.path.expanduser(path))
    try:
        if root.is_dir():
            listing = folder_files.in_folder(root, depth)
        elif root.is_file() and root.suffix.casefold() in (".csv", ".tsv", ".txt"):
            listing = folder_files.in_table(root, image, label, split, super_class, delimiter)
        else:
            raise ValueError(f"folder: got {_shown(str(path))}, expected a folder or a .csv file")
    except OSError as error:
        where = _shown(str(error.filename or path))
        raise ValueError(f"folder: cannot read {where} ({error.strerror})") from error
    if merge:
        listing = listing._replace(parts=None)
    facts = folder_check.check(listing.root, listing.paths, cache_dir, progress)
    rows = _good(listing, facts, str(path))
    rows = _large(listing, rows, least)
    parts = _divided(listing, rows, train, validation, str(path))
    side = IMAGE_SIZE if image_size is None else image_size
    splits = _splits(listing, facts, parts, root.name, side)
    return Folder(splits, tuple(_notes(listing)), _report(listing, facts, splits, str(path)))


# ---------------------------------------------------------------- what is taken


def _good(listing: Listing, facts: Sequence[Fact], path: str) -> list[int]:
    """Rows that can be decoded; the others are noted."""
    for row, fact in enumerate(facts):
        if fact.problem:
            listing.left_out.setdefault(fact.problem, []).append(listing.paths[row])
    rows = [row for row, fact in enumerate(facts) if not fact.problem]
    if not rows:
        notes = "; ".join(_notes(listing))
        why = f" ({notes})" if notes else ""
        raise ValueError(
            f"folder: {_shown(path)} has no pictures{why}, expected a folder for each class"
        )
    return rows


def _large(listing: Listing, rows: list[int], least: int) -> list[int]:
    """Rows of classes with enough pictures, in their split; the other classes are noted."""
    # Those of a query are searched in a gallery, and may be one each.
    counts: dict[tuple[str, str], int] = {}
    part_of = lambda row: "" if listing.parts is None else listing.parts[row]
    for row in rows:
        key = (part_of(row), listing.classes[row])
        counts[key] = counts.get(key, 0) + 1
    small = {
        key for key, count in counts.items() if count < least and key[0] not in ("query", "gallery")
    }
    if small:
        kind = f"classes of fewer than {least} pictures"
        names = ("/".join(filter(None, key)) for key in small)
        listing.left_out[kind] = sorted(names, key=natural)
    return [row for row in rows if (part_of(row), listing.classes[row]) not in small]


def _divided(
    listing: Listing, rows: list[int], train: float, validation: float, path: str
) -> dict[str, list[int]]:
    """Rows by part: train, validation, test (or query) and gallery."""
    classes = sorted({listing.classes[row] for row in rows}, key=natural)
    if len(classes) < 2:
        only = f" ({_shown(classes[0])})" if classes else ""
        notes = "; ".join(_notes(listing))
        raise ValueError(
            f"folder: {_shown(path)} has {len(classes)} class{only}, expected 2 or more"
            + f" ({notes})" * bool(notes)
        )
    if listing.parts is None:
        return _by_class(listing, rows, classes, train, validation)
    parts: dict[str, list[int]] = {}
    for row in rows:
        parts.setdefault(listing.parts[row], []).append(row)
    tests = parts.keys() & {"test", "query"}
    if len(tests) != 1 or ("query" in tests) != ("gallery" in parts):
        found = ", ".join(
            part for part in dict.fromkeys(folder_files.PARTS.values()) if part in parts
        )
        raise ValueError(f"split: got {found}, expected train and test, or train, query, gallery")
    if "train" not in parts:
        raise ValueError(f"split: got {', '.join(parts)}, expected train among them")
    _check_disjoint({part: {listing.classes[row] for row in parts[part]} for part in parts})
    return parts


def _by_class(
    listing: Listing, rows: list[int], classes: list[str], train: float, validation: float
) -> dict[str, list[int]]:
    seen = _share(train, len(classes))
    held = _share(validation, seen)
    place = {name: number for number, name in enumerate(classes)}
    ends = {"train": seen - held, "validation": seen, "test": len(classes)}
    parts: dict[str, list[int]] = {}
    for row in rows:
        number = place[listing.classes[row]]
        part = next(part for part, end in ends.items() if number < end)
        parts.setdefault(part, []).append(row)
    if seen - held < 2 or "test" not in parts:
        raise ValueError(
            f"train: got {train:g} of {len(classes)} classes ({held} of them for validation), "
            "expected 2 or more to train on, and some to test"
        )
    return parts


def _share(share: float, count: int) -> int:
    """That share of a count, rounded up, but not for what floats add: 0.55 * 100 is above 55."""
    return math.ceil(share * count - 1e-9)


def _check_disjoint(classes: dict[str, set[str]]) -> None:
    """Refuses splits that share a class with training."""
    for first, second in (("train", "test"), ("train", "query"), ("train", "gallery"),
                          ("train", "validation"), ("validation", "test")):  # fmt: skip
        shared = sorted(classes.get(first, set()) & classes.get(second, set()), key=natural)
        if shared:
            word = "class" if len(shared) == 1 else "classes"
            raise ValueError(
                f"split: {first} and {second} share {len(shared)} {word}: {_names(shared)}; "
                "merge=1 puts their pictures together and splits by class"
            )


# ---------------------------------------------------------------- what is given


class _Reader:
    """Opens a picture by its row; an object and no closure, so that it travels to workers."""

    def __init__(self, root: str, paths: list[str], turned: np.ndarray, side: int) -> None:
        self._root, self._paths, self._turned, self._side = root, paths, turned, side

    def __call__(self, row: int) -> Any:
        from PIL import Image

        picture = Image.open(os.path.join(self._root, self._paths[row]))
        turn = _TURNS.get(int(self._turned[row]))
        if turn is None and picture.format == "JPEG":
            return picture  # not yet decoded: whoever knows the size wanted may do it smaller
        with picture:  # formats that may hold several pictures would stay open
            picture.draft(None, (4 * self._side, 4 * self._side))
            picture.load()
        return picture if turn is None else picture.transpose(Image.Transpose[turn])


def _splits(
    listing: Listing,
    facts: Sequence[Fact],
    parts: dict[str, list[int]],
    name: str,
    side: int,
) -> Splits:
    order: dict[str, int] = {}  # classes of train first, so that its labels are 0 to C - 1
    for part in ("train", "validation", "test", "query", "gallery"):
        found = {listing.classes[row] for row in parts.get(part, ())}
        for one in sorted(found - order.keys(), key=natural):
            order[one] = len(order)
    groups = None
    if listing.groups is not None:
        known = {one: k for k, one in enumerate(sorted(set(listing.groups), key=natural))}
        groups = np.array([known[one] for one in listing.groups], np.int64)
    channels = 1 if all(facts[row].grey for rows in parts.values() for row in rows) else 3
    made = {}
    for part, rows in parts.items():
        turned = np.array([facts[row].turned for row in rows], np.uint8)
        reader = _Reader(listing.root, [listing.paths[row] for row in rows], turned, side)
        part = _TOLD.get(part, part)
        made[part] = Split(
            f"{_shown(name)}/{part}",
            Images(reader, (len(rows), side, side, channels)),
            np.array([order[listing.classes[row]] for row in rows], np.int64),
            tuple(map(_shown, order)),
            None if groups is None else groups[rows],
        )
    return Splits(made["train"], made.get("validation"), made["test"], made.get("gallery"))


def _notes(listing: Listing) -> list[str]:
    """A line for each kind of thing that was left out."""
    lines = [
        f"left out: {kind} ({len(names):,}): {_names(names)}"
        for kind, names in listing.left_out.items()
    ]
    return [*listing.notes, *lines]


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(_shown, names[:_NAMED])) + ", ..." * (len(names) > _NAMED)


def _shown(name: str) -> str:
    """A name that can be printed, whatever bytes the file system gave."""
    return os.fsencode(name).decode("utf-8", "replace").replace("\n", " ")


def _report(listing: Listing, facts: Sequence[Fact], splits: Splits, path: str) -> dict[str, Any]:
    sizes = {}
    for name in ("train", "validation", "test", "gallery"):
        split = getattr(splits, name)
        if split is not None:
            sizes[name] = {"pictures": len(split), "classes": len(split.classes)}
    left_out = {
        kind: [_shown(name) for name in sorted(names, key=natural)]
        for kind, names in listing.left_out.items()
    }
    return {
        "path": _shown(path),
        "files": len(facts),
        "grey": splits.train.image_shape[-1] == 1,
        "splits": sizes,
        "notes": list(listing.notes),
        "left_out": left_out,
    }
