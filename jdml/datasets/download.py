"""Fetching a file: goes on where it stopped, and takes its name when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

_PIECE = 1 << 20
_PATIENCE = 8.0  # seconds without an answer or a byte: without a network nobody waits for long


def fetch(
    address: str,
    path: pathlib.Path,
    *,
    sha256: str = "",
    tell: Callable[[int, int], object] = lambda done, total: None,
    patience: float = _PATIENCE,
) -> None:
    """Downloads a file, on from the piece that an earlier call left beside it.

    Args:
      address: http, https or ftp.
      path: where it shall be. What is not whole lies beside it, with `.part` at the end.
      sha256: of the whole, checked where it is given.
      tell: is told bytes done and in all, 0 where the server does not say.
      patience: seconds to wait for an answer.

    Raises:
      ConnectionError: the address does not answer, or stopped to; what came is kept.
      ValueError: another file than expected came; it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    try:
        with _open(address, done, patience) as answer:
            resumed = done > 0 and getattr(answer, "status", None) == 206
            length = int(answer.headers.get("Content-Length") or 0)
            done = done if resumed else 0
            total = done + length if length else 0
            with part.open("ab" if resumed else "wb") as file:
                while piece := answer.read(_PIECE):
                    file.write(piece)
                    done += len(piece)
                    tell(done, total)
            if total and done < total:
                raise http.client.IncompleteRead(b"", total - done)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is left to fetch
            raise ConnectionError(f"{address} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{address} does not answer ({reason})") from error
    _check(part, address, sha256)
    os.replace(part, path)


def _open(address: str, done: int, patience: float) -> Any:
    request = urllib.request.Request(address, headers={"User-Agent": "jdml"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    return urllib.request.urlopen(request, timeout=patience)


def _check(part: pathlib.Path, address: str, sha256: str) -> None:
    if not sha256:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        part.unlink()
        raise ValueError(f"{address} gave another file than expected (its SHA-256 is {found})")
