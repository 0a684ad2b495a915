"""Tiny data sets in the true layout of their authors, packed under the true names."""

from __future__ import annotations

import dataclasses
import gzip
import io
import pathlib
import tarfile
import zipfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from jdml import datasets
from jdml.datasets.protocol import Counts
from jdml.datasets.protocols import PROTOCOLS
from jdml.datasets.splits import Splits

Tree = dict[str, bytes]


def picture(label: int, shape=(30, 20), kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture of one colour, which tells its label: red is 10 x label."""
    file = io.BytesIO()
    colour = (10 * label, 90, 200) if mode == "RGB" else 10 * label
    Image.new(mode, shape, colour).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def text(*lines: str) -> bytes:
    """The content of a text file."""
    return ("\n".join(lines) + "\n").encode()


def tar(path: pathlib.Path, tree: Tree, mode: str = "w:gz") -> None:
    """Packs a tar archive, with its folders and what macOS leaves in it."""
    with tarfile.open(path, mode) as archive:
        for folder in sorted({str(pathlib.PurePosixPath(name).parent) for name in tree}):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in {**tree, "._junk.jpg": b"junk"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def zipped(path: pathlib.Path, tree: Tree) -> None:
    """Packs a zip archive, with what macOS leaves in it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**tree, "__MACOSX/._x.jpg": b"junk"}.items():
            archive.writestr(name, content)


def unpacked(folder: pathlib.Path, tree: Tree) -> None:
    """The same as files in a folder."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def matlab(**arrays) -> bytes:
    """The content of a file of MATLAB."""
    file = io.BytesIO()
    savemat(file, arrays)
    return file.getvalue()


def structs(**columns) -> np.ndarray:
    """A 1 x N array of structs, as the annotations of Cars196 are."""
    rows = np.empty((1, len(next(iter(columns.values())))), [(name, object) for name in columns])
    for name, values in columns.items():
        for i, value in enumerate(values):
            rows[0, i][name] = value
    return rows


def cells(names) -> np.ndarray:
    """A 1 x N array of texts."""
    array = np.empty((1, len(names)), object)
    array[0, :] = names
    return array


# ---------------------------------------------------------------- trees of files


def cub200_tree(classes: int = 5, each: int = 3) -> Tree:
    """5 birds: 3 train, 2 test."""
    names = [f"{c + 1:03d}.Bird_{c}" for c in range(classes)]
    images = [f"{name}/{name[4:]}_{i:04d}.jpg" for name in names for i in range(each)]
    top = "CUB_200_2011"
    tree = {
        "attributes.txt": text("1 has_bill_shape::curved"),
        f"{top}/classes.txt": text(*(f"{c + 1} {name}" for c, name in enumerate(names))),
        f"{top}/image_class_labels.txt": text(
            *(f"{i + 1} {i // each + 1}" for i in range(len(images)))
        ),
        f"{top}/train_test_split.txt": text(*(f"{i + 1} {i % 2}" for i in range(len(images)))),
    }
    for i, name in enumerate(images):  # pictures before the table of them, as in the archive
        tree[f"{top}/images/{name}"] = picture(i // each, mode="L" if i == 1 else "RGB")
    return {**tree, f"{top}/images.txt": text(*(f"{i + 1} {n}" for i, n in enumerate(images)))}


def cars196_trees() -> dict[str, Tree]:
    """4 cars in the two sets of the authors, which know the same classes."""
    classes = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW X5", "Volvo 240"]
    labels = {"train": [1, 2, 3, 4, 1], "test": [4, 3, 2, 1, 2]}
    tables = {
        part: matlab(
            annotations=structs(
                bbox_x1=[1] * 5,
                **{"class": found},
                fname=[f"{i + 1:05d}.jpg" for i in range(5)],
            )
        )
        for part, found in labels.items()
    }
    images = {
        part: {
            f"cars_{part}/{i + 1:05d}.jpg": picture(label - 1)
            for i, label in enumerate(labels[part])
        }
        for part in labels
    }
    return {
        "cars_train.tgz": images["train"],
        "cars_test.tgz": images["test"],
        "car_devkit.tgz": {
            "devkit/cars_train_annos.mat": tables["train"],
            "devkit/cars_meta.mat": matlab(class_names=cells(classes)),
        },
        "cars_test_annos_withlabels.mat": {"": tables["test"]},
    }


def cars196_old_tree() -> Tree:
    """The same cars in the older form: one folder, one table."""
    classes = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "BMW X5", "Volvo 240"]
    labels = [1, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    names = [f"car_ims/{i + 1:06d}.jpg" for i in range(len(labels))]
    rows = structs(relative_im_path=names, **{"class": labels}, test=[0] * len(labels))
    table = matlab(annotations=rows, class_names=cells(classes))
    return {
        **{n: picture(label - 1) for n, label in zip(names, labels)},
        "cars_annos.mat": table,
    }


def sop_tree() -> Tree:
    """3 products train, 2 others test, of two kinds."""
    kinds = {1: "bicycle", 2: "cabinet"}
    rows = {
        "train": [(1, 1), (1, 1), (2, 1), (2, 1), (3, 2), (3, 2)],
        "test": [(4, 1), (4, 1), (5, 2), (5, 2)],
    }
    tree = {}
    for part, pairs in rows.items():
        lines = ["image_id class_id super_class_id path"]
        for i, (product, kind) in enumerate(pairs):
            path = f"{kinds[kind]}_final/{product:012d}_{i}.JPG"
            lines.append(f"{i + 1} {product} {kind} {path}")
            tree[f"Stanford_Online_Products/{path}"] = picture(product)
        tree[f"Stanford_Online_Products/Ebay_{part}.txt"] = text(*lines)
    return tree


def omniglot_trees() -> dict[str, Tree]:
    """Two alphabets train, one tests; two people drew each character."""
    trees, label = {}, 0
    for archive, alphabets in (("background", ("Greek", "Latin")), ("evaluation", ("Tibetan",))):
        tree = trees[f"images_{archive}.zip"] = {}
        for alphabet in alphabets:
            for character in (1, 2):
                label += 1
                for person in (1, 2):
                    name = f"{alphabet}/character{character:02d}/{label:04d}_{person:02d}.png"
                    drawn = Image.new("1", (105, 105), 1)
                    drawn.paste(0, (0, 0, 10 * label, 105))
                    file = io.BytesIO()
                    drawn.save(file, "PNG")
                    tree[f"images_{archive}/{name}"] = file.getvalue()
    return trees


def lfw_trees() -> dict[str, Tree]:
    """3 people and 2 folds of 2 + 2 pairs."""
    counts = {"Aaron_Eckhart": 3, "Ann_Lee": 2, "Zico": 2}
    faces = {
        f"lfw/{name}/{name}_{i + 1:04d}.jpg": picture(p, shape=(250, 250))
        for p, (name, count) in enumerate(counts.items())
        for i in range(count)
    }
    pairs = text(
        "2\t2",
        "Aaron_Eckhart\t1\t2", "Ann_Lee\t1\t2", "Ann_Lee\t1\tZico\t2", "Aaron_Eckhart\t3\tZico\t1",
        "Zico\t1\t2", "Aaron_Eckhart\t2\t3", "Zico\t1\tAnn_Lee\t2", "Ann_Lee\t1\tAaron_Eckhart\t1",
    )  # fmt: skip
    return {"lfw.tgz": faces, "pairs.txt": {"": pairs}}


def inshop_trees() -> dict[str, Tree]:
    """2 items train, 2 are asked for and searched."""
    rows = [
        ("WOMEN/Dresses", 1, "train"), ("WOMEN/Dresses", 1, "train"), ("MEN/Denim", 2, "train"),
        ("WOMEN/Dresses", 3, "query"), ("WOMEN/Dresses", 3, "gallery"),
        ("MEN/Denim", 4, "query"), ("MEN/Denim", 4, "gallery"), ("MEN/Denim", 4, "gallery"),
    ]  # fmt: skip
    lines, tree = [str(len(rows)), "image_name item_id evaluation_status"], {}
    for i, (kind, item, part) in enumerate(rows):
        path = f"img/{kind}/id_{item:08d}/{i:02d}_1_front.jpg"
        lines.append(f"{path}   id_{item:08d}   {part}")
        tree[path] = picture(item, shape=(256, 256))
    return {"img.zip": tree, "list_eval_partition.txt": {"": text(*lines)}}


def inaturalist_trees() -> dict[str, Tree]:
    """Species 2 and 10 train, 1 tests: labels have to be made anew."""
    names = {
        "train": ["Plantae/10/a.jpg", "Plantae/10/b.jpg", "Aves/2/c.jpg"],
        "test": ["Plantae/1/d.jpg", "Plantae/1/e.jpg"],
    }
    paths = {part: [f"train_val2018/{name}" for name in found] for part, found in names.items()}
    images = {path: picture(int(path.split("/")[2])) for p in paths.values() for path in p}
    return {
        "train_val2018.tar.gz": images,
        "Inaturalist_train_set1.txt": {"": text(*paths["train"])},
        "Inaturalist_test_set1.txt": {"": text(*paths["test"])},
    }


def idx(array: np.ndarray) -> bytes:
    """A packed IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes())


def mnist_trees() -> dict[str, Tree]:
    """All ten digits, twice for training and once for testing, each as grey as its number."""
    trees = {}
    for part, labels in (("train", np.arange(20) % 10), ("t10k", np.arange(10))):
        images = np.broadcast_to(labels[:, None, None], (len(labels), 28, 28)).astype(np.uint8)
        trees[f"{part}-images-idx3-ubyte.gz"] = {"": idx(images)}
        trees[f"{part}-labels-idx1-ubyte.gz"] = {"": idx(labels.astype(np.uint8))}
    return trees


def cifar100_tree() -> Tree:
    """4 classes of 2 groups; red, green and blue of a picture are its label, 1 and 2."""
    record = lambda fine: (
        bytes([fine // 2, fine]) + b"".join(bytes([value]) * 1024 for value in (fine, 1, 2))
    )
    return {
        "cifar-100-binary/train.bin": b"".join(record(fine) for fine in (0, 1, 2, 3, 3)),
        "cifar-100-binary/test.bin": b"".join(record(fine) for fine in (3, 0)),
        "cifar-100-binary/fine_label_names.txt": text("apple", "pear", "cat", "dog"),
        "cifar-100-binary/coarse_label_names.txt": text("fruit", "animals"),
    }


def food101_tree() -> Tree:
    """3 dishes, of which 2 train."""
    names = {"train": ["apple_pie/1", "ramen/2", "sushi/3"], "test": ["apple_pie/4", "sushi/5"]}
    images = {f"food-101/images/{name}.jpg": picture(1) for part in names.values() for name in part}
    lists = {f"food-101/meta/{part}.txt": text(*found) for part, found in names.items()}
    return {**images, **lists, "food-101/meta/classes.txt": text("apple_pie", "ramen", "sushi")}


def dogs_tree() -> Tree:
    """3 breeds, of which 2 train."""
    breeds = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02116738-African_hunting_dog")
    return {
        f"Images/{breed}/{breed[:9]}_{i}.jpg": picture(b)
        for b, breed in enumerate(breeds)
        for i in range(2)
    }


def flowers_trees() -> dict[str, Tree]:
    """3 flowers, of which 2 train; their pictures are in no order."""
    labels = [3, 1, 2, 1, 3]
    return {
        "102flowers.tgz": {f"jpg/image_{i + 1:05d}.jpg": picture(c) for i, c in enumerate(labels)},
        "imagelabels.mat": {"": matlab(labels=np.array([labels], np.uint8))},
    }


# ---------------------------------------------------------------- packed, with their counts

FAKES = {
    "cub200": ({"CUB_200_2011.tgz": cub200_tree()}, {"train": (9, 3), "test": (6, 2)}),
    "cars196": (cars196_trees(), {"train": (6, 2), "test": (4, 2)}),
    "sop": ({"Stanford_Online_Products.zip": sop_tree()}, {"train": (6, 3), "test": (4, 2)}),
    "omniglot": (omniglot_trees(), {"train": (8, 4), "test": (4, 2)}),
    "inshop": (inshop_trees(), {"train": (3, 2), "test": (2, 2), "gallery": (3, 2)}),
    "inaturalist": (inaturalist_trees(), {"train": (3, 2), "test": (2, 1)}),
    "mnist": (mnist_trees(), {"train": (15, 5), "test": (15, 5)}),
    "cifar100": ({"cifar-100-binary.tar.gz": cifar100_tree()}, {"train": (3, 2), "test": (4, 2)}),
    "food101": ({"food-101.tar.gz": food101_tree()}, {"train": (3, 2), "test": (2, 1)}),
    "stanford_dogs": ({"images.tar": dogs_tree()}, {"train": (None, 2), "test": (None, 1)}),
    "oxford_flowers102": (flowers_trees(), {"train": (None, 2), "test": (None, 1)}),
    "lfw": (lfw_trees(), {"pairs": (7, 3)}),
}
"""By name: what is in each archive, and the counts of each part."""


def pack(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes the archives of a fake data set into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, tree in FAKES[name][0].items():
        path = folder / file
        if set(tree) == {""}:
            path.write_bytes(tree[""])
        elif file.endswith(".zip"):
            zipped(path, tree)
        else:
            tar(path, tree, "w" if file.endswith(".tar") else "w:gz")
    return folder


def small(name: str):
    """The protocol with the counts of the fake data set."""
    counts = {part: Counts(*found) for part, found in FAKES[name][1].items()}
    trees = FAKES[name][0].values()
    images = sum(found.images or 0 for found in counts.values())
    images = images or sum(path.endswith(".jpg") for tree in trees for path in tree)
    searched = [c.classes for part, c in counts.items() if part != "gallery"]
    total = Counts(images, sum(searched))
    pairs = 8 if name == "lfw" else 0
    return dataclasses.replace(PROTOCOLS[name], counts=counts, total=total, pairs=pairs)


def made(name: str, tmp_path: pathlib.Path) -> Splits:
    """A fake, packed, prepared and read."""
    datasets.prepare(name, pack(name, tmp_path / "files"), data_dir=tmp_path / "data")
    return datasets.load(name, data_dir=tmp_path / "data", image_size=8)
