"""Which files can be decoded, found out once and remembered by their size and date."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
EMPTY = "empty files"
BROKEN = "pictures that cannot be decoded"
FORBIDDEN = "files that may not be read"
GONE = "links to nothing"
_VERSION = 1  # of the file that remembers
_ORIENTATION = 0x0112  # of EXIF


class Fact(NamedTuple):
    """What is known about a file.

    Attributes:
      size: bytes.
      changed: when, nanoseconds.
      width: pixels, as the picture is meant to be seen.
      height: pixels.
      grey: whether it has no colour.
      turned: orientation as EXIF numbers it; 1 is upright.
      problem: one of the constants above, or nothing.
    """

    size: int = 0
    changed: int = 0
    width: int = 0
    height: int = 0
    grey: bool = False
    turned: int = 1
    problem: str = ""


Progress = Callable[[int, int], None]


def check(
    root: str,
    paths: Sequence[str],
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Fact]:
    """Decodes every file once, by threads.

    Args:
      root: that relative paths start from.
      paths: of the files.
      cache_dir: where to remember what was found; `default_cache` where it is None. A folder that
        cannot be written is done without.
      progress: called with the number of files that are done, and of all.

    Returns:
      A `Fact` for each.
    """
    from PIL import Image

    Image.init()  # its plugins, before threads ask for them
    folder = pathlib.Path(default_cache() if cache_dir is None else cache_dir).expanduser()
    name = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:24]
    memory = folder / f"folder-{name}.json"
    known = _remembered(memory)
    found: dict[str, Fact] = {}
    try:
        # Pictures of 100 megapixels, and broken EXIF, are no reason to warn here.
        with warnings.catch_warnings(), concurrent.futures.ThreadPoolExecutor(_threads()) as pool:
            warnings.simplefilter("ignore")
            work = lambda path: fact(os.path.join(root, path), known.get(path))
            try:
                for done, (path, one) in enumerate(zip(paths, pool.map(work, paths)), 1):
                    found[path] = one
                    if progress is not None and (done % 50 == 0 or done == len(paths)):
                        progress(done, len(paths))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:  # also what an interrupted check has found
        new = {path: one for path, one in found.items() if one.problem not in (FORBIDDEN, GONE)}
        if any(known.get(path) != one for path, one in new.items()):
            _remember(memory, {**known, **new})
    return [found[path] for path in paths]


def default_cache() -> pathlib.Path:
    """The folder of the user's caches: JDML_CACHE, or jdml where the system keeps them."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(os.environ.get("JDML_CACHE") or os.path.join(base, "jdml"))


def fact(path: str, known: Fact | None = None) -> Fact:
    """What is the case with a file.

    Args:
      path: of the file.
      known: what was the case earlier, which holds as long as its size and date do.

    Returns:
      A `Fact`.
    """
    from PIL import Image

    try:
        state = os.stat(path)
    except OSError:
        return Fact(problem=GONE)
    stamp = (state.st_size, state.st_mtime_ns)
    if known is not None and known[:2] == stamp:
        return known
    if not state.st_size:
        return Fact(*stamp, problem=EMPTY)
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1)
            turned = turned if turned in range(1, 9) else 1
            grey = picture.mode in GREY
            width, height = picture.size if turned < 5 else picture.size[::-1]
            picture.draft(None, (64, 64))  # decodes all of a JPEG, at an eighth of its size
            picture.load()
    except PermissionError:
        return Fact(*stamp, problem=FORBIDDEN)
    except Exception:  # whatever a broken file makes a decoder raise
        return Fact(*stamp, problem=BROKEN)
    return Fact(*stamp, width, height, grey, turned)


def _threads() -> int:
    return min(32, 2 * (os.cpu_count() or 1))


def _remembered(memory: pathlib.Path) -> dict[str, Fact]:
    try:
        content = json.loads(memory.read_text())
        if content["version"] == _VERSION:
            return {path: Fact(*values) for path, values in content["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass  # none, or one that is of no use
    return {}


def _remember(memory: pathlib.Path, facts: dict[str, Fact]) -> None:
    content = json.dumps({"version": _VERSION, "files": facts})
    beside = memory.with_name(f"{memory.name}.{os.getpid()}")
    with contextlib.suppress(OSError):  # it costs time, not the run
        memory.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(content)
        os.replace(beside, memory)
