"""The folder of a sweep: one file a finished run, and who is at work on what."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.files import make, write_json

SETTINGS = "settings.json"


class Store:
    """Files that appear whole or not at all, so that a kill loses only the run under way.

    A finished run is `runs/LOSS/trial-N.json` or `runs/LOSS/seed-N.json`. Processes that share the
    folder claim their work by a lock that the system gives back when a process ends, however it
    ends; nothing stale stays behind.

    Args:
      folder: made by `open`.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def open(self, settings: Mapping[str, Any], contenders: Mapping[str, Any]) -> None:
        """Makes the folder, or goes on in it.

        Args:
          settings: what all runs have in common.
          contenders: {name: what its runs have in common}; a folder may get more of them later.

        Raises:
          ValueError: the runs there were made with others, in one line, or a folder that cannot
            be written.
        """
        make(self.folder / "runs")
        make(self.folder / "locks")
        with self._locked("settings", wait=True):
            write_json(self.folder / SETTINGS, self.check(settings, contenders))

    def check(self, settings: Mapping[str, Any], contenders: Mapping[str, Any]) -> dict[str, Any]:
        """What `open` would write.

        Args:
          settings: what all runs have in common.
          contenders: as for `open`.

        Returns:
          The content of the file of settings.

        Raises:
          ValueError: the runs there were made with others, in one line.
        """
        asked = json.loads(json.dumps({"settings": settings, "contenders": contenders}))
        found = read_json(self.folder / SETTINGS) or {**asked, "contenders": {}}
        for name, value in asked["settings"].items():
            self._refuse(name, value, found["settings"].get(name))
        for loss, value in asked["contenders"].items():
            self._refuse(loss, value, found["contenders"].setdefault(loss, value))
        return found

    def _refuse(self, name: str, value: Any, before: Any) -> None:
        if value != before:
            raise ValueError(
                f"{name}: got {value}, expected {before} as in {self.folder}; "
                "another --out starts anew"
            )

    def read(self, loss: str, kind: str, number: int) -> dict[str, Any] | None:
        """A finished run, None where there is none.

        Args:
          loss: name of the contender.
          kind: "trial" or "seed".
          number: which one.
        """
        return read_json(self._path(loss, kind, number))

    def write(self, loss: str, kind: str, number: int, result: Mapping[str, Any]) -> None:
        """Keeps a finished run."""
        path = self._path(loss, kind, number)
        path.parent.mkdir(exist_ok=True)
        write_json(path, result)

    def has(self, loss: str, kind: str, number: int) -> bool:
        """Whether a run is finished; see `read`."""
        return self._path(loss, kind, number).exists()

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Whether the work of this name is ours until the block ends; another process has it else.

        Args:
          name: of any piece of work.
        """
        with self._locked(name, wait=False) as ours:
            yield ours

    def _path(self, loss: str, kind: str, number: int) -> pathlib.Path:
        return self.folder / "runs" / file_name(loss) / f"{kind}-{number}.json"

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        try:
            import fcntl
        except ImportError:  # no such locks on Windows: one process there
            yield True
            return
        with (self.folder / "locks" / file_name(name)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def file_name(name: str) -> str:
    """A name with nothing in it that a file name cannot hold.

    Example:
      >>> file_name("triplet, semi-hard")
      'triplet-semi-hard'
    """
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def read_json(path: pathlib.Path) -> Any:
    """The content, None where there is no file.

    Raises:
      ValueError: a file that is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"out: {path} is not JSON ({error})") from error
