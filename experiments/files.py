"""The folder of a run."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from experiments.settings import Settings

# A resumed run may change these.
FREE = ("data_dir", "run_dir", "name", "parallel", "checkpoint_every")


_LOCK = ".lock"


class Held:
    """A folder that no other run gets until this is closed; the system closes it at the end.

    Where the system has no such locks, a folder is held by nothing but its name.

    Args:
      folder: that exists.

    Raises:
      BlockingIOError: another one has it.
    """

    def __init__(self, folder: pathlib.Path):
        self._path = folder / _LOCK
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR)
        try:
            _lock(self._file, self._path)
        except BlockingIOError:
            os.close(self._file)
            self._file = -1
            raise

    def close(self) -> None:
        """Gives the folder back."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


def _lock(file: int, path: pathlib.Path) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):  # Windows, and some network file systems
        return
    # Who had it may have removed the file since it was opened: the next one makes another.
    if not path.exists() or not os.path.samestat(os.fstat(file), path.stat()):
        raise BlockingIOError


def choose_folder(settings: Settings, resume: bool) -> pathlib.Path:
    """Where to write: a folder of its own, or with `resume` that of the run to go on with.

    Raises:
      ValueError: a named folder that is taken, nothing to resume, or settings that are not those
        of the run.
    """
    if not resume:
        return next(_candidates(settings))
    numbered = _numbered(settings)
    taken = [folder for folder in numbered if (folder / "config.json").exists()]
    folder = numbered[0] if settings.name else (taken or numbered)[-1 if taken else 0]
    if not (folder / "config.json").exists():
        raise ValueError(f"resume: got {folder}, expected the folder of a run")
    # A run of an older version lacks what came since, and ran without it.
    before = Settings().as_json() | json.loads((folder / "config.json").read_text())
    for name, value in settings.as_json().items():
        if name not in FREE and before[name] != value:
            raise ValueError(f"{name}: got {value}, expected {before[name]} as in {folder}")
    return folder


def claim(settings: Settings, resume: bool) -> tuple[pathlib.Path, Held]:
    """Makes the folder of `choose_folder` and holds it, against runs that start at this moment too.

    Raises:
      ValueError: as `choose_folder`, a folder that cannot be written, or one that another process
        is writing to.
    """
    for folder in [choose_folder(settings, True)] if resume else _candidates(settings):
        make(folder)
        try:
            held = Held(folder)
        except BlockingIOError:
            continue
        if resume or _is_free(folder):  # still: who had it may have left
            return folder, held
    raise ValueError(f"name: got {settings.folder()}, which another process is writing to")


def _numbered(settings: Settings) -> list[pathlib.Path]:
    first = settings.folder()
    return [first, *(first.with_name(f"{first.name}-{n}") for n in range(2, 1000))]


def _candidates(settings: Settings) -> Iterator[pathlib.Path]:
    """Folders that a new run may take: the named one, or any number where it has no name."""
    if not settings.name:
        yield from filter(_is_free, _numbered(settings))
        return
    folder = settings.folder()
    if (folder / "config.json").exists():
        raise ValueError(f"name: got {folder}, which holds a run: --resume goes on with it")
    if not _is_free(folder):
        raise ValueError(f"name: got {folder}, which holds other files: give another name")
    yield folder


def _is_free(folder: pathlib.Path) -> bool:
    return not folder.exists() or all(path.name == _LOCK for path in folder.iterdir())


def make(folder: pathlib.Path) -> None:
    """Makes the folder.

    Raises:
      ValueError: one that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise ValueError(f"run_dir: cannot write to {folder} ({error})") from error


def write_json(path: pathlib.Path, content: Any) -> None:
    """Written beside its place and renamed, so that no half file is ever there.

    The name beside is that of this process: several may write at once.
    """
    beside = path.with_suffix(f".part{os.getpid()}")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(beside, path)
