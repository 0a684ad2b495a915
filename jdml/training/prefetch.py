"""Batches on their way to the devices while a step runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(batches: Iterable[T], put: Callable[[T], Any], size: int = 2) -> Iterator[Any]:
    """Makes batches ready in a thread, so that a step finds the next one on the devices.

    The thread reads a batch and starts its transfer while earlier steps run, and is at most `size`
    batches ahead. The order stays; an error in the thread is raised where its batch would come.

    Args:
      batches: of any kind, such as dicts of arrays.
      put: starts the transfer: `put` of what `parallel` gives, or `jax.device_put`.
      size: batches that wait at once, 1 or more; each takes device memory.

    Yields:
      What `put` gives for each batch. Closing the iterator stops the thread.

    Raises:
      ValueError: `size` below 1.

    Example:
      >>> list(prefetch(range(4), lambda x: x * x))
      [0, 1, 4, 9]
    """
    if size < 1:
        raise ValueError(f"size: got {size}, expected 1 or more")
    return _prefetch(batches, put, size)


def _prefetch(batches: Iterable[Any], put: Callable[[Any], Any], size: int) -> Iterator[Any]:
    ready: queue.Queue[tuple[str, Any]] = queue.Queue()
    room, stop = threading.Semaphore(size), threading.Event()

    def work() -> None:
        try:
            for batch in batches:
                room.acquire()
                if stop.is_set():
                    return
                ready.put(("batch", put(batch)))
            ready.put(("end", None))
        except BaseException as error:  # belongs to whoever waits for the batch
            ready.put(("error", error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, what = ready.get()
            if kind == "error":
                raise what
            if kind == "end":
                return
            yield what
            room.release()
    finally:
        stop.set()
        room.release()
        thread.join(timeout=5.0)
