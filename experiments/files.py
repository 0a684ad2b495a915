"""The folder of a run."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from experiments.settings import Settings

# A resumed run may change these.
FREE = ("data_dir", "run_dir", "name", "parallel", "checkpoint_every")


def choose_folder(settings: Settings, resume: bool) -> pathlib.Path:
    """Where to write: a folder of its own, or with `resume` that of the run to go on with.

    Raises:
      ValueError: a named folder that is taken, nothing to resume, or settings that are not those
        of the run.
    """
    first = settings.folder()
    numbered = [first, *(first.with_name(f"{first.name}-{n}") for n in range(2, 1000))]
    taken = [folder for folder in numbered if (folder / "config.json").exists()]
    if not resume:
        if settings.name and taken and taken[0] == first:
            raise ValueError(f"name: got {first}, which holds a run: --resume goes on with it")
        return next(
            folder for folder in numbered if not folder.exists() or not any(folder.iterdir())
        )
    folder = first if settings.name else (taken or [first])[-1]
    if not (folder / "config.json").exists():
        raise ValueError(f"resume: got {folder}, expected the folder of a run")
    # A run of an older version lacks what came since, and ran without it.
    before = Settings().as_json() | json.loads((folder / "config.json").read_text())
    for name, value in settings.as_json().items():
        if name not in FREE and before[name] != value:
            raise ValueError(f"{name}: got {value}, expected {before[name]} as in {folder}")
    return folder


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
