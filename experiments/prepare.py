"""Prepares a data set once, from its authors' files, so that it is read fast and never in part.

python -m experiments.prepare cub200                       # fetches what has an address
python -m experiments.prepare cars196 --from ~/Downloads   # archives, or what was in them
python -m experiments.prepare --list                       # all sets, their counts, what is there
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jdml import datasets
from jdml.datasets import merge, store
from jdml.datasets.download import fetch
from jdml.datasets.protocol import File, Protocol
from jdml.datasets.protocols import PROTOCOLS
from jdml.datasets.sources import Files

PROG = "python -m experiments.prepare"
OWN = {
    "hangul": "comes with the package; classes are syllables, three disjoint sets",
    "fashion_mnist": "6 kinds of products train, 4 test; built by TFDS, which needs TensorFlow",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Args:
      argv: its arguments; those of the process by default.

    Returns:
      The exit code: 2 for a wrong argument, 1 for a data set that cannot be prepared.
    """
    asked = _parse(argv)
    try:
        if asked.list:
            show_all(asked.data_dir)
        else:
            for name in asked.names:
                prepare(name, asked.data_dir, asked.source, download=not asked.no_download)
    except (ValueError, ModuleNotFoundError, OSError) as error:
        print(f"{PROG}: {str(error).removeprefix('data: ')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROG}: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog=PROG, description=about, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets, see --list")
    parser.add_argument("--list", action="store_true", help="show all of them and what is there")
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="of TFDS data sets; its own by default"
    )
    parser.add_argument(
        "--from",
        dest="source",
        nargs="+",
        metavar="PATH",
        help="the archives, a folder with them or with what was in them, or one of TFDS",
    )
    parser.add_argument("--no-download", action="store_true", help="ask no address")
    asked = parser.parse_args(argv)
    known = (*OWN, *PROTOCOLS)
    wrong = next((name for name in asked.names if name not in known), None)
    if wrong is not None:
        parser.exit(2, f"{PROG}: NAME: got {wrong}, expected one of {', '.join(known)}\n")
    if not asked.names and not asked.list:
        parser.exit(2, f"{PROG}: NAME: none given, expected one of {', '.join(known)}\n")
    if asked.source and len(asked.names) != 1:
        parser.exit(2, f"{PROG}: --from: goes with one NAME\n")
    if asked.source and asked.names == ["hangul"]:
        parser.exit(2, f"{PROG}: --from: hangul comes with the package, expected no PATH\n")
    if len(asked.source or ()) > 1 and asked.names == ["fashion_mnist"]:
        parser.exit(2, f"{PROG}: --from: got {len(asked.source)} paths, expected one folder\n")
    return asked


# ---------------------------------------------------------------- one data set


def prepare(
    name: str, data_dir: str | None, source: Sequence[str] | None, *, download: bool = True
) -> None:
    """Prepares a data set and says what is there then.

    Args:
      name: of the data set.
      data_dir: folder of TFDS.
      source: archives or folders; by default those fetched earlier or put there by hand.
      download: whether addresses may be asked.

    Raises:
      FileNotFoundError: what has to be put where.
      ConnectionError: an address that does not answer.
      ValueError, ModuleNotFoundError: as `datasets.prepare`.
    """
    if name in OWN:
        _prepare_own(name, data_dir, source)
        return
    protocol = PROTOCOLS[name]
    there = store.is_there(protocol, data_dir)
    if not there:
        with _progress() as tell:
            places = _places(protocol, data_dir, source, download, tell)
            datasets.prepare(name, places, data_dir=data_dir, tell=tell)
    _show(protocol, data_dir, "was there" if there else "is ready")


def _prepare_own(name: str, data_dir: str | None, source: Sequence[str] | None) -> None:
    if name == "fashion_mnist":
        from jdml.datasets import fashion_mnist

        splits = fashion_mnist.load(data_dir, source[0] if source else None)
    else:
        splits = datasets.load(name, data_dir=data_dir)
    print(f"{name} is ready: {splits.train}, {splits.test}")


def _places(
    protocol: Protocol,
    data_dir: str | None,
    source: Sequence[str] | None,
    download: bool,
    tell: Callable[[str, int, int], object],
) -> list[pathlib.Path]:
    """Where the files are, after fetching those that can be.

    Raises:
      FileNotFoundError: what has to be put where.
      ConnectionError: an address that does not answer.
    """
    if source:
        return [pathlib.Path(path).expanduser() for path in source]
    manual = store.data_folder(data_dir) / "downloads" / "manual"
    own = manual / protocol.name
    loose = [manual / name for name in protocol.archives if (manual / name).is_file()]
    places = [*([own] if own.is_dir() else []), *loose]
    files = Files(places, protocol.archives, lambda words: tell(words, 0, 0))
    missing = protocol.missing(files)
    of_tfds = merge.prepared_by_tfds(store.data_folder(data_dir), protocol.merge)
    if missing and of_tfds is not None:
        return [of_tfds]
    by_hand = missing if not download else [file for file in missing if not file.address]
    if by_hand:
        raise FileNotFoundError(_put(protocol, by_hand, own))
    for file in missing:
        try:
            fetch(
                file.address,
                own / file.name,
                sha256=file.sha256,
                tell=lambda done, total, file=file: tell(f"fetching {file.name}", done, total),
            )
        except ConnectionError as error:
            raise ConnectionError(f"{_put(protocol, missing, own)}; {error}") from error
    return [own, *loose] if missing else places


def _put(protocol: Protocol, files: Sequence[File], folder: pathlib.Path) -> str:
    """The one line that says which files go where."""
    homes = dict.fromkeys(file.home for file in files)
    named = (
        f"{', '.join(file.name for file in files if file.home == home)} (from {home})"
        for home in homes
    )
    return f"{protocol.name}: put {' and '.join(named)} into {folder}, or name its place in --from"


def _show(protocol: Protocol, data_dir: str | None, what: str) -> None:
    if protocol.pairs:
        found = str(datasets.load_pairs(protocol.name, data_dir=data_dir)).strip("<>")
    else:
        table = store.table_of(protocol, data_dir)
        found = ", ".join(
            f"{part} {(rows := table['part'] == number).sum():,} images of "
            f"{len(set(table['label'][rows].tolist())):,} classes"
            for number, part in enumerate(table["parts"].tolist())
        )
    print(f"{protocol.name} {what}: {found}; in {store.place(protocol, data_dir)}")


# ---------------------------------------------------------------- what a person sees


def show_all(data_dir: str | None) -> None:
    """A table of all data sets.

    Args:
      data_dir: folder of TFDS.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "images", "classes that train / test", "rule", "there")
    for name, about in OWN.items():
        there = name == "hangul" or any((store.data_folder(data_dir) / name).glob("*/*.json"))
        table.add_row(name, "", "", about, "yes" if there else "")
    for name, protocol in PROTOCOLS.items():
        images = " / ".join(
            f"{part.images:,}" for part in protocol.counts.values() if part.images is not None
        )
        classes = " / ".join(f"{part.classes:,}" for part in protocol.counts.values())
        there = "yes" if store.is_there(protocol, data_dir) else ""
        table.add_row(name, images or f"{protocol.total.images:,}", classes, protocol.rule, there)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, else a line now and then."""
    if not sys.stdout.isatty():
        yield _Lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, Any] = {}
    with bar:

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None, count="")
            count = f"{done:,} of {total:,}" if total else ""
            bar.update(tasks[what], completed=done, total=total or None, count=count)

        yield tell


class _Lines:
    """Prints when something begins, and each tenth of it that takes more than a few seconds."""

    def __init__(self) -> None:
        self._what, self._tenth, self._time = "", 0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 0
        begins = what != self._what
        if begins or (tenth > self._tenth and time.monotonic() - self._time > 3):
            print(f"{what}: {done:,} of {total:,}" if total else what, flush=True)
            self._tenth, self._time = tenth, time.monotonic()
        self._what = what


if __name__ == "__main__":
    sys.exit(main())
