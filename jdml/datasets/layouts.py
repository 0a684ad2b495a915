"""How the authors of each data set laid out its files. One function a layout, files -> contents."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jdml.datasets.protocol import Contents, Entry, Pair, halves
from jdml.datasets.sources import Files


def cub200(files: Files) -> Contents:
    """CUB-200-2011: tables of numbers in text files, pictures in `images/`."""
    classes = [line.split(maxsplit=1)[1] for line in files.text("classes.txt")]
    labels = dict(line.split() for line in files.text("image_class_labels.txt"))
    pictures = (line.split(maxsplit=1) for line in files.text("images.txt"))
    return halves(
        Contents(
            classes,
            {f"images/{path}": Entry(int(labels[number]) - 1) for number, path in pictures},
        )
    )


def cars196(files: Files) -> Contents:
    """Cars196, either with `cars_annos.mat` or with the development kit, both of MATLAB."""
    if files.has("cars_annos.mat"):
        table = _matlab(files, "cars_annos.mat")
        classes = [str(name) for name in table["class_names"]]
        rows = table["annotations"]
        entries = _cars(rows["relative_im_path"], rows["class"], "{}")
        return halves(Contents(classes, entries))
    classes = [str(name) for name in _matlab(files, "cars_meta.mat")["class_names"]]
    entries = {}
    for table, folder in (
        ("cars_train_annos.mat", "cars_train"),
        ("cars_test_annos_withlabels.mat", "cars_test"),
    ):
        rows = _matlab(files, table)["annotations"]
        entries |= _cars(rows["fname"], rows["class"], folder + "/{}")
    return halves(Contents(classes, entries))


def _cars(paths: Any, labels: Any, where: str) -> dict[str, Entry]:
    paths, labels = np.atleast_1d(paths), np.atleast_1d(labels)
    return {where.format(path): Entry(int(label) - 1) for path, label in zip(paths, labels)}


def sop(files: Files) -> Contents:
    """Stanford Online Products: two tables, whose products are disjoint already."""
    classes: dict[int, str] = {}
    entries, kinds = {}, {}
    for table, part in (("Ebay_train.txt", "train"), ("Ebay_test.txt", "test")):
        for line in files.text(table)[1:]:
            _, product, kind, path = line.split(maxsplit=3)
            title = path.partition("/")[0].removesuffix("_final")
            classes[int(product) - 1] = f"{title} {product}"
            kinds[int(kind) - 1] = title
            entries[path] = Entry(int(product) - 1, part, int(kind) - 1)
    return Contents(_in_order(classes), entries, _in_order(kinds))


def omniglot(files: Files) -> Contents:
    """Omniglot: one folder an alphabet, one in it a character; the background set trains."""
    parts = {"images_background": "train", "images_evaluation": "test"}
    found = []
    for path in files.pictures():
        *_, top, alphabet, character, _ = ("", "", "", "", *path.split("/"))
        if top in parts:
            found.append(("/".join(path.split("/")[-4:]), parts[top], alphabet, character))
    names = sorted({(part != "train", a, c) for _, part, a, c in found})
    numbers = {(alphabet, character): i for i, (_, alphabet, character) in enumerate(names)}
    alphabets = sorted({a for _, _, a, _ in found})
    groups = {alphabet: i for i, alphabet in enumerate(alphabets)}
    entries = {p: Entry(numbers[a, c], part, groups[a]) for p, part, a, c in found}
    return Contents([f"{a}/{c}" for _, a, c in names], entries, alphabets)


def inshop(files: Files) -> Contents:
    """In-Shop Clothes Retrieval: one table says who trains, who asks and who is searched."""
    parts = {"train": "train", "query": "test", "gallery": "gallery"}
    rows = [line.split() for line in files.text("list_eval_partition.txt")[2:]]
    items = sorted({item for _, item, _ in rows})
    kinds = sorted({_kind(path) for path, _, _ in rows})
    numbers, groups = _numbers(items), _numbers(kinds)
    entries = {
        path: Entry(numbers[item], parts[part], groups[_kind(path)]) for path, item, part in rows
    }
    return Contents(items, entries, kinds)


def _kind(path: str) -> str:
    """`WOMEN/Dresses` of `img/WOMEN/Dresses/id_00000002/02_1_front.jpg`."""
    return "/".join(path.split("/")[1:3])


def inaturalist(files: Files) -> Contents:
    """iNaturalist 2018: two lists of paths, in which the folders are kingdom and species."""
    found = [
        (path, part)
        for table, part in (
            ("Inaturalist_train_set1.txt", "train"),
            ("Inaturalist_test_set1.txt", "test"),
        )
        for path in files.text(table)
    ]
    species = sorted({path.split("/")[-2] for path, _ in found}, key=lambda name: (len(name), name))
    kinds = sorted({path.split("/")[-3] for path, _ in found})
    numbers, groups = _numbers(species), _numbers(kinds)
    titles = {path.split("/")[-2]: "/".join(path.split("/")[-3:-1]) for path, _ in found}
    entries = {
        "/".join(path.split("/")[-4:]): Entry(
            numbers[path.split("/")[-2]], part, groups[path.split("/")[-3]]
        )
        for path, part in found
    }
    return Contents([titles[name] for name in species], entries, kinds)


def lfw(files: Files) -> Contents:
    """Labeled Faces in the Wild: one folder a person, and the pairs of View 2."""
    paths = ["/".join(path.split("/")[-2:]) for path in files.pictures()]
    people = sorted({path.partition("/")[0] for path in paths})
    numbers = _numbers(people)
    entries = {path: Entry(numbers[path.partition("/")[0]], "pairs") for path in paths}
    return Contents(people, entries, pairs=_pairs(files.text("pairs.txt")))


def _pairs(lines: Sequence[str]) -> list[Pair]:
    """10 folds, each of as many pairs of one person as of two."""
    folds, each = (int(word) for word in lines[0].split())
    pairs = []
    for number, line in enumerate(lines[1:]):
        words = line.split("\t") if "\t" in line else line.split()
        person, other = words[0], words[-2] if len(words) == 4 else words[0]
        first, second = words[1], words[-1]
        pairs.append(
            Pair(
                f"{person}/{person}_{int(first):04d}.jpg",
                f"{other}/{other}_{int(second):04d}.jpg",
                len(words) == 3,
                number // (2 * each),
            )
        )
    if len(pairs) != folds * 2 * each:
        raise ValueError(
            f"data: pairs.txt has {len(pairs)} pairs, expected {folds * 2 * each} as it says"
        )
    return pairs


def food101(files: Files) -> Contents:
    """Food-101: lists of class/number, both of which are used whole."""
    classes = files.text("meta/classes.txt")
    numbers = _numbers(classes)
    names = [*files.text("meta/train.txt"), *files.text("meta/test.txt")]
    entries = {f"images/{name}.jpg": Entry(numbers[name.partition("/")[0]]) for name in names}
    return halves(Contents(classes, entries))


def stanford_dogs(files: Files) -> Contents:
    """Stanford Dogs: one folder a breed, in the order of WordNet's numbers."""
    paths = ["/".join(path.split("/")[-2:]) for path in files.pictures()]
    paths = [path for path in paths if path[0] == "n" and path[1:9].isdigit()]
    breeds = sorted({path.partition("/")[0] for path in paths})
    numbers = _numbers(breeds)
    return halves(Contents(breeds, {p: Entry(numbers[p.partition("/")[0]]) for p in paths}))


def oxford_flowers102(files: Files) -> Contents:
    """Oxford Flowers 102: numbered pictures, labels in a file of MATLAB, no names."""
    labels = np.atleast_1d(_matlab(files, "imagelabels.mat")["labels"])
    entries = {
        f"image_{number:05d}.jpg": Entry(int(label) - 1) for number, label in enumerate(labels, 1)
    }
    return halves(Contents([f"flower {n:03d}" for n in range(1, labels.max() + 1)], entries))


def mnist(files: Files) -> Contents:
    """MNIST: arrays of bytes behind a header, which are packed as PNG here."""
    stacks = {
        part: (_idx(files, f"{part}-images-idx3-ubyte"), _idx(files, f"{part}-labels-idx1-ubyte"))
        for part in ("train", "t10k")
    }
    entries = {
        f"{part}/{number:05d}": Entry(int(label))
        for part, (_, labels) in stacks.items()
        for number, label in enumerate(labels)
    }
    pictures = (
        (f"{part}/{number:05d}", png(image))
        for part, (images, _) in stacks.items()
        for number, image in enumerate(images)
    )
    return halves(Contents([str(digit) for digit in range(10)], entries, pictures=pictures))


def _idx(files: Files, name: str) -> np.ndarray:
    packed = files.has(name + ".gz")
    content = files.read(name + ".gz" if packed else name)
    try:
        content = gzip.decompress(content) if packed else content
        rank = content[3]
        shape = np.frombuffer(content, ">u4", rank, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape.astype(int))
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise ValueError(f"data: {name} cannot be unpacked ({error}); fetch it again") from error


def cifar100(files: Files) -> Contents:
    """CIFAR-100, the binary form: two labels and 3 x 32 x 32 bytes a record, packed as PNG here."""
    classes = files.text("fine_label_names.txt")
    groups = files.text("coarse_label_names.txt")
    tables = {
        part: np.frombuffer(files.read(f"{part}.bin"), np.uint8) for part in ("train", "test")
    }
    records = {part: table[: len(table) // 3074 * 3074].reshape(-1, 3074)
               for part, table in tables.items()}  # fmt: skip
    entries = {
        f"{part}/{number:05d}": Entry(int(row[1]), group=int(row[0]))
        for part, rows in records.items()
        for number, row in enumerate(rows)
    }
    return halves(Contents(classes, entries, groups, _cifar_pictures(records)))


def _cifar_pictures(records: dict[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    for part, rows in records.items():
        for number, row in enumerate(rows):
            yield f"{part}/{number:05d}", png(row[2:].reshape(3, 32, 32).transpose(1, 2, 0))


def png(image: np.ndarray) -> bytes:
    """A picture as a PNG file.

    Args:
      image: uint8 [H, W] or [H, W, 3].

    Returns:
      The content of the file.

    Example:
      >>> png(np.zeros((2, 2), np.uint8))[1:4]
      b'PNG'
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _matlab(files: Files, name: str) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    content = files.read(name)
    try:
        return loadmat(io.BytesIO(content), squeeze_me=True)
    except (MatReadError, ValueError, TypeError, OSError, NotImplementedError, zlib.error) as error:
        raise ValueError(f"data: {name} is not a file of MATLAB ({error})") from error


def _numbers(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _in_order(names: dict[int, str]) -> list[str]:
    """The names of 0, 1, ...; where a number is not used its place is kept."""
    return [names.get(number, f"unused {number}") for number in range(max(names, default=-1) + 1)]
