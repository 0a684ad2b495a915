"""Fetching a file: goes on where it stopped, and takes its name when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from jdml.datasets.prepared import turn, writing

_PIECE = 1 << 20
_PATIENCE = 8.0  # seconds without an answer or a byte: without a network nobody waits for long
Tell = Callable[[int, int], object]


def fetch(
    address: str,
    path: pathlib.Path,
    *,
    sha256: str = "",
    tell: Tell = lambda done, total: None,
    patience: float = _PATIENCE,
) -> None:
    """Downloads a file, on from the piece that an earlier call left beside it.

    A file that is there already stays as it is. Calls that come at once take turns, and those that
    waited take what the first one brought.

    Args:
      address: http, https or ftp.
      path: where it shall be. What is not whole lies beside it, with `.part` at the end.
      sha256: of the whole, checked where it is given.
      tell: is told bytes done and in all, 0 where the server does not say.
      patience: seconds to wait for an answer.

    Raises:
      ConnectionError: the address does not answer, or stopped to; what came is kept.
      ValueError: another file than expected came, which is removed; or the folder cannot be
        written, or is full, and what came is kept.
    """
    part = path.with_name(path.name + ".part")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with turn(path.with_name(f".{path.name}.lock"), keep=False):
            if path.exists():
                return
            total = _receive(address, part, tell, patience)
            _check(part, address, total, sha256)
            os.replace(part, path)


@contextlib.contextmanager
def _asking(address: str) -> Iterator[None]:
    """Turns what the network says into a line that names the address."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise ConnectionError(f"{address} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{address} does not answer ({reason})") from error


def _receive(address: str, part: pathlib.Path, tell: Tell, patience: float) -> int:
    """Fetches what is missing of a file; how long all of it is, 0 where the server does not say."""
    done = part.stat().st_size if part.exists() else 0
    with contextlib.ExitStack() as stack:
        with _asking(address):
            try:
                answer = stack.enter_context(_open(address, done, patience))
            except urllib.error.HTTPError as error:
                if error.code != 416:
                    raise
                return _length(error.headers)  # nothing is left to fetch
        resumed = done > 0 and getattr(answer, "status", None) == 206
        length = int(answer.headers.get("Content-Length") or 0)
        done = done if resumed else 0
        total = done + length if length else 0
        file = stack.enter_context(part.open("ab" if resumed else "wb"))
        for piece in _pieces(answer, address):
            file.write(piece)
            done += len(piece)
            tell(done, total)
        return total


def _open(address: str, done: int, patience: float) -> Any:
    request = urllib.request.Request(address, headers={"User-Agent": "jdml"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    return urllib.request.urlopen(request, timeout=patience)


def _length(headers: Any) -> int:
    """Of all of a file whose server has nothing beyond: `Content-Range: bytes */1234`."""
    _, _, length = (headers.get("Content-Range") or "").rpartition("/")
    return int(length) if length.isdecimal() else 0


def _pieces(answer: Any, address: str) -> Iterator[bytes]:
    with _asking(address):
        while piece := answer.read(_PIECE):
            yield piece


def _check(part: pathlib.Path, address: str, total: int, sha256: str) -> None:
    """What lies on the disk, whatever was counted: as long as was said, and with its sum."""
    size = part.stat().st_size
    if size < total:
        with _asking(address):
            raise http.client.IncompleteRead(b"", total - size)
    found = f"it has {size:,} bytes, not {total:,}" if total and size > total else ""
    if sha256 and not found:
        with part.open("rb") as file:
            sum_found = hashlib.file_digest(file, "sha256").hexdigest()
        found = f"its SHA-256 is {sum_found}" if sum_found != sha256 else ""
    if found:
        part.unlink()
        raise ValueError(f"{address} gave another file than expected ({found})")
