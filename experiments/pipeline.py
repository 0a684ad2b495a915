"""The input pipeline: batches by number, read ahead in threads or processes, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_AHEAD = 8  # batches that wait on the host


def batches(
    load: Callable[[int], dict[str, Any]], first: int, end: int, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """Batches `first` to `end - 1`, read ahead while others train.

    A batch is a function of its number alone, so that a resumed run starts at any of them and the
    order does not depend on the workers.

    Args:
      load: from a number to a batch; it travels to the workers, with the data that it holds.
      first: number of the first batch.
      end: one more than the number of the last.
      workers: processes that read; with 0 a thread of this one does. Processes pay off where
        decoding costs more than a step, and they need the `__main__` guard of the script.

    Yields:
      The batches.
    """
    if first >= end:
        return iter(())
    import grain

    numbers = grain.MapDataset.range(first, end).map(load)
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
    read = numbers.to_iter_dataset(reading)
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain asks absl for flags, which nobody here parses
            flags.FLAGS.mark_as_parsed()
        read = read.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(read)
