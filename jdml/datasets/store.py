"""Protocols on disk: encoded pictures as array_record in the form of TFDS, and a table of rows.

Nothing here needs TensorFlow. TFDS's own builders do, and keep whole data sets in memory where
their order matters; its sequential writer does neither.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import io
import itertools
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jdml.datasets.images import Images, cores, cut
from jdml.datasets.prepared import turn
from jdml.datasets.protocol import Contents, Counts, Pair, Protocol
from jdml.datasets.splits import Split, check_counts

if TYPE_CHECKING:
    from PIL import Image

SPLIT = "images"  # the one split of TFDS that holds all parts
_TABLE = "rows.npz"  # label, part, group and record of each picture, sorted by class and path
_AT_ONCE = 256  # pictures checked and written at once
_A_SHARD = 8192
Progress = Callable[[str, int, int], object]
"""Is told what is going on, how much is done and of how much; 0 of 0 where nobody knows."""


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
    return all((folder / name).is_file() for name in (_TABLE, "dataset_info.json", "features.json"))


# ---------------------------------------------------------------- writing


def write(
    protocol: Protocol,
    find: Callable[[], Contents],
    data_dir: str | os.PathLike[str] | None,
    tell: Progress = lambda what, done, total: None,
) -> None:
    """Prepares a protocol from what its data set is found to hold, unless it is there.

    It is written into a folder of another name, counted, and renamed: whatever stops it, what is
    read later is whole. What an earlier attempt left is removed. Processes that come at once
    take turns.

    Args:
      protocol: which.
      find: looks through the files of its authors.
      data_dir: folder of TFDS.
      tell: is told how far it is.

    Raises:
      ValueError: pictures that are missing or cannot be decoded, counts that are not those of the
        protocol, or a folder that cannot be written.
      FileNotFoundError: a table that is not among the files.
    """
    folder = place(protocol, data_dir)
    with _writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with turn(folder.parent / ".lock"):
            if is_there(protocol, data_dir):
                return
            for left in (*folder.parent.glob("incomplete.*"), folder):
                shutil.rmtree(left, ignore_errors=True)
            beside = folder.with_name(f"incomplete.{uuid.uuid4().hex[:8]}_{folder.name}")
            beside.mkdir()
            try:
                _fill(protocol, find, beside, tell)
                os.replace(beside, folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    """Turns what the system says of a folder into a line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(
            f"data_dir: cannot write to {folder} ({error.strerror or error}); "
            "name another folder, or set TFDS_DATA_DIR"
        ) from error


def _fill(
    protocol: Protocol, find: Callable[[], Contents], folder: pathlib.Path, tell: Progress
) -> None:
    tell("reading the tables", 0, 0)
    contents = _in_training_order(find())
    total = len(contents.entries)
    _check_entries(protocol, contents)
    parts = sorted({entry.part for entry in contents.entries.values()})
    writer = _writer(protocol, contents, parts, folder)
    paths = []
    for some in _checked(contents.pictures or ()):
        records = []
        for path, content in some:
            entry = contents.entries[path]
            records.append({
                "image": io.BytesIO(content), "label": entry.label, "part": entry.part,
                "group": entry.group, "path": path,
            })  # fmt: skip
            paths.append(path)
        writer.add_examples({SPLIT: records})
        tell("writing pictures", len(paths), total)
    writer.close_all()
    if len(paths) < total:
        left = sorted(set(contents.entries) - set(paths))
        raise ValueError(
            f"data: {protocol.name} lacks {len(left)} of {total} pictures, the first is {left[0]}"
        )
    table: Any = _table(contents, paths, parts)
    np.savez_compressed(folder / _TABLE, **table)


def _in_training_order(contents: Contents) -> Contents:
    """With the classes that train first, so that their labels are the rows of a class table."""
    trained = {entry.label for entry in contents.entries.values() if entry.part == "train"}
    order = sorted(range(len(contents.classes)), key=lambda label: (label not in trained, label))
    new = {old: label for label, old in enumerate(order)}
    entries = {p: e._replace(label=new[e.label]) for p, e in contents.entries.items()}
    classes = [contents.classes[old] for old in order]
    return Contents(classes, entries, contents.groups, contents.pictures, contents.pairs)


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


def _writer(protocol: Protocol, contents: Contents, parts: list[str], folder: pathlib.Path) -> Any:
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
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=f"{protocol.title}. {protocol.rule}.",
        features=features,
        supervised_keys=("image", "label"),
    )
    writer = tfds.core.SequentialWriter(info, _A_SHARD, file_format="array_record")
    writer.initialize_splits([SPLIT])
    return writer


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
    except (OSError, SyntaxError, ValueError) as error:
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


# ---------------------------------------------------------------- reading


def table_of(protocol: Protocol, data_dir: str | os.PathLike[str] | None) -> dict[str, np.ndarray]:
    """The table of rows of a prepared protocol.

    Raises:
      FileNotFoundError: it is not prepared, and how to.
    """
    path = place(protocol, data_dir) / _TABLE
    if not is_there(protocol, data_dir):
        homes = "; ".join(f"{file.name} from {file.home}" for file in protocol.files)
        raise FileNotFoundError(
            f"data: {protocol.name} is not prepared in {path.parents[2]}: run "
            f"python -m experiments.prepare {protocol.name} ({homes})"
        )
    with np.load(path) as arrays:
        return dict(arrays)


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
    table = table_of(protocol, data_dir)
    folder = place(protocol, data_dir)
    for shard in _source(folder).dataset_info.splits[SPLIT].filepaths:
        if not shard.exists():
            raise ValueError(f"data_dir: {shard} is lost; delete {folder} and prepare it again")
    side = protocol.size if size is None else int(size)
    shape = (len(table["record"]), side, side, protocol.channels)
    whole = Split(
        protocol.name,
        _decoded(folder, table["record"], shape)
        if protocol.in_memory
        else Images(_Records(folder, table["record"]), shape),
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
    folder: pathlib.Path, records: np.ndarray, shape: tuple[int, int, int, int]
) -> np.ndarray:
    """All pictures of a set that has many small ones: threads would cost more than they bring."""
    from PIL import Image

    images = np.empty(shape, np.uint8)
    source = _source(folder)
    for first in range(0, len(records), 1000):
        some = source.__getitems__(records[first : first + 1000].tolist())
        for row, record in enumerate(some, first):
            with Image.open(io.BytesIO(record["image"])) as picture:
                images[row] = cut(picture, None, shape[1:3], shape[3])
    return images


class _Records:
    """Reads one picture by its row; a new process opens the files anew."""

    def __init__(self, folder: pathlib.Path, records: np.ndarray) -> None:
        self._folder, self._records = folder, records

    def __call__(self, row: int) -> Image.Image:
        from PIL import Image

        record = _source(self._folder)[int(self._records[row])]
        return Image.open(io.BytesIO(record["image"]))


@functools.lru_cache(8)
def _source(folder: pathlib.Path) -> Any:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(os.fspath(folder))
    return builder.as_data_source(SPLIT, decoders={"image": tfds.decode.SkipDecoding()})
