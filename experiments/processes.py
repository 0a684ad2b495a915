"""Several processes that train one model: joining them, and what only one of them does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import numpy as np

T = TypeVar("T")
_LONGEST = 4096  # bytes of a text that one process tells the others
AUTO = "auto"


class Processes(NamedTuple):
    """Which process of a run this is, as the command line says."""

    coordinator: str = ""  # host:port of process 0, "auto" where the platform knows all
    count: int = 1
    index: int = 0

    def check(self) -> None:
        """Raises ValueError for what cannot be joined."""
        if self.count < 1:
            raise ValueError(f"processes: got {self.count}, expected 1 or more")
        if not 0 <= self.index < self.count:
            raise ValueError(f"process: got {self.index}, expected 0 to {self.count - 1}")
        port = self.coordinator.rpartition(":")[2]
        if self.coordinator not in ("", AUTO) and not port.isdigit():
            raise ValueError(f"coordinator: got {self.coordinator!r}, expected host:port or auto")
        if self.count > 1 and self.coordinator in ("", AUTO):
            raise ValueError(
                f"coordinator: got {self.coordinator!r}, expected host:port of process 0"
            )

    def join(self) -> None:
        """Waits for the other processes; before the first use of a device.

        Raises:
          ValueError: nobody there, or a platform that does not tell.
        """
        if not self.coordinator:
            return
        try:
            if self.coordinator == AUTO:
                jax.distributed.initialize()
            else:
                jax.distributed.initialize(self.coordinator, self.count, self.index)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"coordinator: {str(error).splitlines()[0]}") from error


def first() -> bool:
    """Whether this is the process that writes files and talks."""
    return jax.process_index() == 0


def together(work: Callable[[], T]) -> T:
    """What `work` gives; where it fails on one process, it fails on all, and none waits in vain.

    Raises:
      ValueError: that of `work`, here or on another process.
    """
    if jax.process_count() == 1:
        return work()
    from jax.experimental import multihost_utils

    error, result = None, None
    try:
        result = work()
    except ValueError as failed:
        error = failed
    failures = np.atleast_1d(multihost_utils.process_allgather(np.int32(error is not None)))
    if error is not None:
        raise error
    if failures.any():
        raise ValueError(f"process {failures.argmax()} failed; its own message says why")
    return result  # pyright: ignore[reportReturnType]


def one_before_the_rest(work: Callable[[], T]) -> T:
    """What `work` gives here; the first process does it alone, and what it leaves is there for all.

    Raises:
      ValueError: that of `work`, here or on another process.
    """
    early = together(lambda: work() if first() else None)
    late = together(lambda: None if first() else work())
    return early if first() else late  # pyright: ignore[reportReturnType]


def told(work: Callable[[], str]) -> str:
    """What `work` gives on the first process, which alone does it, on all of them.

    Raises:
      ValueError: that of `work`.
    """
    if jax.process_count() == 1:
        return work()
    from jax.experimental import multihost_utils

    text = together(lambda: work() if first() else "").encode()
    if len(text) > _LONGEST:
        raise ValueError(f"run_dir: got a path of {len(text)} bytes, expected {_LONGEST} or less")
    padded = np.zeros(_LONGEST, np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    padded = multihost_utils.broadcast_one_to_all(padded)
    return bytes(np.asarray(padded, np.uint8)).rstrip(b"\0").decode()
