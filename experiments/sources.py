"""What an evaluation reads: the folder of a run, or a file of embeddings from anywhere."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import health
from experiments.settings import CONFIGS, Settings, find_config, read_config
from jdml.report import Items

KEYS = {
    "embeddings": "[N, D], the rows that search among themselves, or the queries",
    "labels": "[N], integers or strings; a negative label marks a row to ignore",
    "gallery_embeddings": "[M, D], what is searched among, with gallery_labels",
    "gallery_labels": "[M]",
    "split": '[N], "query" or "gallery" for each row, in the place of a separate gallery',
    "cameras": "[N], and gallery_cameras [M]: same class and camera are left out",
    "gallery_cameras": "[M]",
    "images": "[N, H, W] or [N, H, W, 1 or 3], and gallery_images",
    "gallery_images": "[M, H, W] or [M, H, W, 1 or 3]",
    "image_paths": "[N] strings, from the folder of the file, and gallery_image_paths",
    "gallery_image_paths": "[M] strings",
    "class_names": "[C] strings, the name of each integer label",
}
_LOCAL = ("data dir", "run dir", "name", "test classes", "checkpoint every")  # not told
_READ = 64  # pixels of the longer side of a picture read from a file


class Source(NamedTuple):
    """Rows to evaluate and what is known about them."""

    queries: Items
    gallery: Items | None
    class_names: Sequence[str] | None
    title: str
    lead: str
    about: dict[str, dict[str, Any]]  # lists for the last section of the page
    log: list[dict[str, float]]  # of a run
    warnings: list[str]
    folder: pathlib.Path  # where the report goes by default
    stem: str  # how its files begin
    files: tuple[ImageFiles, ...] = ()  # pictures that are read from files


def read(path: pathlib.Path, split: str = "", config: str = "") -> Source:
    """The source at a path.

    Args:
      path: the folder of a run, or an .npz file.
      split: of the data of a run, "test" by default.
      config: the file of settings that a run was made with, where it was one of its own.

    Returns:
      A `Source`.

    Raises:
      ValueError: one line on what is missing or wrong.
    """
    if path.is_dir():
        return read_run(path, split, config)
    if split:
        raise ValueError(f"split: got {split} for {path}, expected it with the folder of a run")
    if not path.exists():
        raise ValueError(f"source: got {path}, expected the folder of a run or an .npz file")
    return read_npz(path)


# ---------------------------------------------------------------- a run


def read_run(folder: pathlib.Path, split: str = "", config: str = "") -> Source:
    """Embeds the images of a split with the last checkpoint of a run.

    Raises:
      ValueError: no run, no checkpoint, or no such split.
    """
    from experiments import run
    from experiments.data import load
    from experiments.log import read_log

    settings = read_settings(folder, config)
    if not any((folder / "checkpoints").glob("*")):
        raise ValueError(f"source: {folder} has no checkpoint, expected one in its checkpoints")
    data = load(settings)
    splits = {**data.tests, "train": data.train}
    splits |= {} if data.validation is None else {"validation": data.validation}
    split = split or "test"
    if split not in splits:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(sorted(splits))}")
    try:
        parts, state = run.restored(settings, data, folder)
    except TypeError as error:
        raise ValueError(
            f"loss_options: config.json of {folder} does not tell all of them; name the file of "
            "settings of this run with --config"
        ) from error
    images = splits[split]

    def items(of: Any) -> Items:
        return Items(parts.embed(state, of.images), of.labels, of.images)

    gallery = None if images.gallery is None else items(images.gallery)
    log = read_log(folder)
    name = split.replace("_", " ")
    about = {key.replace("_", " "): value for key, value in settings.as_json().items()}
    about = {key: value for key, value in about.items() if key not in _LOCAL}
    where = "among themselves" if gallery is None else f"{len(gallery.labels):,} others"
    return Source(
        queries=items(images),
        gallery=gallery,
        class_names=images.names,
        title=f"{settings.loss} on {settings.data}",
        lead=f"{len(images.labels):,} images of {len(np.unique(images.labels)):,} classes ({name}) "
        f"search {where}, after {int(state.step):,} steps of training.",
        about={"Settings": about},
        log=log,
        warnings=health.warnings(log, run.most_rank(settings)),
        folder=folder,
        stem="evaluation" if split == "test" else f"evaluation-{split}",
    )


def read_settings(folder: pathlib.Path, config: str = "") -> Settings:
    """The settings of a run, from its config.json.

    Args:
      folder: of the run.
      config: the file of settings that it was made with, where it was one of its own.

    Raises:
      ValueError: no run.
    """
    path = folder / "config.json"
    try:
        stored = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(
            f"source: got {folder}, expected the folder of a run, with config.json"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"source: {path} is not JSON ({error})") from error
    settings = Settings.from_json(stored)
    # JSON holds what a distance or a miner was called: a file of settings has it itself.
    files = [find_config(config)] if config else []
    files += [CONFIGS / f"{settings.loss}.py", *sorted(CONFIGS.glob("*.py"))]
    wanted = stored.get("loss_options", {})
    for file in files if wanted else []:
        options = read_config(file).get("loss_options", {}) if config or file.exists() else {}
        if Settings(loss_options=options).as_json()["loss_options"] == wanted:
            settings = dataclasses.replace(settings, loss_options=options)
            break
    settings.check()
    return settings


# ---------------------------------------------------------------- a file


class ImageFiles:
    """Pictures in files, read when they are indexed: uint8 [n, 64, 64, 3].

    Args:
      folder: that relative paths start from.
      paths: [N].
    """

    def __init__(self, folder: pathlib.Path, paths: Iterable[str]):
        self._paths = [folder / str(path) for path in paths]
        self.unreadable: list[str] = []

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._read(self._paths[row]) for row in rows])

    def _read(self, path: pathlib.Path) -> np.ndarray:
        from PIL import Image, ImageOps, UnidentifiedImageError

        ground = Image.new("RGB", (_READ, _READ), (128, 128, 128))
        try:
            with Image.open(path) as file:
                file.draft("RGB", (_READ, _READ))
                picture = ImageOps.contain(
                    ImageOps.exif_transpose(file).convert("RGB"), ground.size
                )
        except (OSError, UnidentifiedImageError):
            self.unreadable.append(str(path))
            return np.asarray(ground)
        ground.paste(picture, ((_READ - picture.width) // 2, (_READ - picture.height) // 2))
        return np.asarray(ground)


def read_npz(path: pathlib.Path) -> Source:
    """Embeddings and labels from a file; `KEYS` lists what it may hold.

    Raises:
      ValueError: not such a file, a key missing or unknown, or lengths that disagree.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"source: cannot read {path} as .npz ({reason})") from error
    for name in arrays.keys() - KEYS.keys():
        raise ValueError(f"source: {path} holds {name}, expected some of {', '.join(KEYS)}")
    for name in ("embeddings", "labels"):
        if name not in arrays:
            raise ValueError(f"source: {path} lacks {name}, expected embeddings and labels")
    files: list[ImageFiles] = []
    queries, gallery = _sides(arrays, path, files)
    names = arrays.get("class_names")
    lead = f"{len(queries.labels):,} rows search among themselves."
    if gallery is not None:
        lead = f"{len(queries.labels):,} queries search {len(gallery.labels):,} rows."
    return Source(
        queries=queries,
        gallery=gallery,
        class_names=None if names is None else [str(name) for name in names],
        title=path.stem,
        lead=lead,
        about={},
        log=[],
        warnings=[],
        folder=path.parent,
        stem=path.stem,
        files=tuple(files),
    )


def _sides(
    arrays: Mapping[str, np.ndarray], path: pathlib.Path, files: list[ImageFiles]
) -> tuple[Items, Items | None]:
    first = _items(arrays, "", path, files)
    if "split" in arrays:
        if "gallery_embeddings" in arrays:
            raise ValueError(
                f"source: {path} has split and gallery_embeddings, expected one of them"
            )
        return _halves(first, arrays["split"])
    if ("gallery_embeddings" in arrays) != ("gallery_labels" in arrays):
        raise ValueError(f"source: {path} has one of gallery_embeddings and gallery_labels")
    if "gallery_embeddings" not in arrays:
        return first, None
    return first, _items(arrays, "gallery_", path, files)


def _items(
    arrays: Mapping[str, np.ndarray], side: str, path: pathlib.Path, files: list[ImageFiles]
) -> Items:
    embeddings, labels = arrays[f"{side}embeddings"], arrays[f"{side}labels"]
    images: Any = arrays.get(f"{side}images")
    if images is None and f"{side}image_paths" in arrays:
        images = ImageFiles(path.parent, arrays[f"{side}image_paths"].tolist())
        files.append(images)
    items = Items(embeddings, labels, images, arrays.get(f"{side}cameras"))
    for name, field in zip(("labels", "images", "cameras"), items[1:]):
        if field is not None and len(field) != len(embeddings):
            raise ValueError(
                f"{side}{name}: got {len(field)}, expected {len(embeddings)}, one a row of "
                f"{side}embeddings"
            )
    return items


def _halves(items: Items, split: np.ndarray) -> tuple[Items, Items]:
    """Queries and gallery."""
    words = set(np.unique(split).tolist())
    if len(split) != len(items.labels) or words != {"query", "gallery"}:
        raise ValueError(
            f"split: got {len(split)} of {sorted(map(str, words))}, expected {len(items.labels)} "
            "of query and gallery"
        )
    queries, gallery = (np.flatnonzero(split == word) for word in ("query", "gallery"))
    return items.take(queries), items.take(gallery)
