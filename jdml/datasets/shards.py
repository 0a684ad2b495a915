"""Shards of a data set that is being written: what is stopped goes on after the last whole one."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INFO = "dataset_info.json"  # of TFDS, which rewrites it with every batch
_NOTES = "shard-*.json"


class Shards:
    """Pictures written one after the other, each shard noted once it is whole.

    A note holds the paths of the pictures in a shard and TFDS's own record of all shards so far.
    What was begun with the same plan is taken up after its last noted shard; what was begun with
    another one is removed.

    Args:
      folder: of this data set while it is not whole.
      plan: of all that decides what is written.
      info: what TFDS writes beside the shards, made for this folder.
      split: the split of TFDS that they belong to.
      size: pictures of a shard, a multiple of the batches that are added.

    Attributes:
      paths: of the pictures that are written, in the order of their records.
    """

    def __init__(self, folder: pathlib.Path, plan: str, info: Any, split: str, size: int) -> None:
        import tensorflow_datasets as tfds

        notes = list(_noted(folder, plan, split))
        _keep_only(folder, split, len(notes))
        if notes:
            (folder / _INFO).write_text(notes[-1]["info"])
        self.paths: list[str] = [path for note in notes for path in note["paths"]]
        self._folder, self._plan, self._split, self._size = folder, plan, split, size
        self._writer = tfds.core.SequentialWriter(
            info, size, overwrite=not notes, file_format="array_record"
        )
        self._writer.initialize_splits([split], fail_if_exists=False)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Writes a batch.

        Args:
          records: the features of each picture; "path" is one of them.
        """
        self._writer.add_examples({self._split: list(records)})
        self.paths += [record["path"] for record in records]
        if len(self.paths) % self._size == 0:
            self._note(len(self.paths) // self._size - 1)

    def _note(self, number: int) -> None:
        note = {
            "plan": self._plan,
            "paths": self.paths[-self._size :],
            "info": (self._folder / _INFO).read_text(),
        }
        beside = self._folder / "note"
        beside.write_text(json.dumps(note))
        os.replace(beside, self._folder / _NOTES.replace("*", f"{number:05d}"))

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close_all()
        (self._folder / "metadata.json").unlink(missing_ok=True)  # empty, of a writer that went on

    def forget(self) -> None:
        """Removes the notes, the last one first: those that are left are of the first shards."""
        for note in sorted(self._folder.glob(_NOTES), reverse=True):
            note.unlink()


def any_whole(folder: pathlib.Path) -> bool:
    """Whether a shard in a folder is noted as whole."""
    return any(folder.glob(_NOTES))


def _noted(folder: pathlib.Path, plan: str, split: str) -> Iterator[dict[str, Any]]:
    """The notes of this plan whose shards are whole, up to the first that is not."""
    for number in itertools.count():
        path = folder / _NOTES.replace("*", f"{number:05d}")
        try:
            note = json.loads(path.read_text())
            if note["plan"] != plan or _length(folder, split, number) != len(note["paths"]):
                return
        except (OSError, ValueError, KeyError, TypeError):
            return
        yield note


def _length(folder: pathlib.Path, split: str, number: int) -> int:
    """How many records a shard holds; after the machine's fall that may be none."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    (path,) = folder.glob(f"*-{split}.array_record-{number:05d}")  # or ValueError
    try:
        with ArrayRecordDataSource([os.fspath(path)]) as source:
            return len(source)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _keep_only(folder: pathlib.Path, split: str, shards: int) -> None:
    """Removes all but the first shards and their notes."""
    if not shards:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return
    for path in (*folder.glob(_NOTES), *folder.glob(f"*-{split}.array_record-*")):
        if int(path.name.removesuffix(".json").rpartition("-")[2]) >= shards:
            path.unlink()
