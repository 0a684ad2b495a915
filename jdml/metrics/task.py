"""What is asked of a search: who is a query, who is relevant to it, and who may not be found."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jdml.retrieval.prepare import Index, Prepared, index_of, prepare, within
from jdml.retrieval.rows import Distance, block_rows, finite_rows, label_array, own_row_numbers

# Above this k, recall@k counts the items closer than the nearest relevant one, a pass over the
# similarities; the time of a selection grows with k.
LONGEST_LIST = 64


class LabelledGallery(NamedTuple):
    """A gallery prepared once, its classes and cameras."""

    index: Index  # of the rows that are not ignored
    kept: np.ndarray  # bool [N] rows that are not ignored
    classes: np.ndarray  # [C] labels, sorted
    codes: np.ndarray  # int32 [n] class of the kept rows
    cameras: np.ndarray | None  # [n]
    padded_codes: jax.Array  # int32 [N'] class, -1 where it only pads
    order: jax.Array  # int32 [n] kept rows sorted by class
    starts: np.ndarray  # int32 [C + 1] where each class starts in the order
    mesh: Mesh | None  # devices that share the queries


class Task(NamedTuple):
    """Queries that have a relevant item, and the gallery."""

    prepared: Prepared
    gallery: LabelledGallery
    scored: np.ndarray  # bool [B] rows that are queries with a relevant item
    codes: np.ndarray  # int32 [Q] class
    start: np.ndarray  # int32 [Q] where that class starts in the gallery's order
    count: np.ndarray  # int32 [Q] rows of that class in the gallery, the query's own included
    relevant: np.ndarray  # int [Q] relevant items
    lone: int  # queries left out for want of a relevant item


class Asked(NamedTuple):
    """The arguments that say who is compared with whom, as callers give them."""

    embeddings: Any
    labels: Any
    gallery: Any = None
    gallery_labels: Any = None
    own_rows: Any = None
    cameras: Any = None
    gallery_cameras: Any = None


def labelled_gallery(
    rows: Any,
    labels: Any,
    cameras: Any,
    distance: Distance,
    double: bool | None = None,
    names: tuple[str, str, str] = ("gallery", "gallery_labels", "gallery_cameras"),
    mesh: Mesh | None = None,
) -> LabelledGallery:
    """Checks a gallery, drops the rows to ignore and prepares the rest."""
    labels = label_array(names[1], labels)
    y, kept = kept_rows((names[0], rows), (names[1], labels))
    labels, cameras = labels[kept], camera_array(names[2], cameras, kept)
    classes, codes = np.unique(labels, return_inverse=True)
    codes = codes.astype(np.int32)
    index = index_of(y, distance, double)
    padded = np.full(len(index.rows), -1, np.int32)
    padded[: len(codes)] = codes
    order = np.argsort(codes, kind="stable").astype(np.int32)
    starts = np.searchsorted(codes[order], np.arange(len(classes) + 1)).astype(np.int32)
    rows, pads, first, padded, order = jax.device_put(
        (index.rows, index.pads, index.first, padded, order), everywhere(mesh)
    )
    index = index._replace(rows=rows, pads=pads, first=first)
    return LabelledGallery(index, kept, classes, codes, cameras, padded, order, starts, mesh)


def everywhere(mesh: Mesh | None) -> NamedSharding | None:
    """Where an array lies that every device of a mesh reads; None for the default device."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def task_of(
    asked: Asked,
    distance: Distance,
    block_size: int | None,
    ks: tuple[int, ...],
    whole: bool = False,
    mesh: Mesh | None = None,
) -> Task:
    """Checks everything, drops ignored rows and lone queries, and prepares the search.

    `whole` where the place of every relevant item is wanted, which takes more memory.
    """
    check_together(asked)
    labels = label_array("labels", asked.labels)
    x, kept = kept_rows(("embeddings", asked.embeddings), ("labels", labels))
    cameras = camera_array("cameras", asked.cameras, kept)
    gallery = asked.gallery
    if not isinstance(gallery, LabelledGallery):
        gallery = _gallery(asked, labels, x, distance, mesh)
    codes = class_numbers(labels[kept], gallery.classes)
    own = own_row_numbers(asked.own_rows, asked.gallery is None, len(labels), len(gallery.kept))
    own = renumbered(own, gallery.kept)[kept]
    start, stop = gallery.starts[codes], gallery.starts[codes + (codes >= 0)]
    groups = camera_groups(codes, cameras, gallery)
    relevant = stop - start - left_out_of_class(codes, own, groups, gallery.codes)
    has = relevant > 0
    scored = np.zeros(len(labels), bool)
    scored[np.flatnonzero(kept)[has]] = True
    most = int(relevant.max(initial=1))
    listed = max((most, *ks)) if max(ks, default=1) <= max(most, LONGEST_LIST) else most
    extra = 4 * listed  # the list, its columns and its tie groups
    extra += 24 * most if whole else 0  # a dozen wide numbers for each relevant item
    prepared = prepare(
        x[has], gallery.index, distance, own[has], block_size, extra, ("embeddings", "gallery"),
        None if groups is None else groups[0][has], None if groups is None else groups[1],
    )  # fmt: skip
    for k in ks:
        within(k, "ks", prepared)
    if gallery.mesh is not None:  # a block of each device
        columns, itemsize = len(gallery.index.rows), prepared.queries.itemsize
        share = -(-len(prepared.queries) // gallery.mesh.size)
        share = block_rows(block_size, share, columns + extra, itemsize)
        prepared = prepared._replace(
            block_size=share * gallery.mesh.size,
            gallery_groups=jax.device_put(prepared.gallery_groups, everywhere(gallery.mesh)),
        )
    return Task(
        prepared,
        gallery,
        scored,
        codes=codes[has],
        start=start[has],
        count=(stop - start)[has],
        relevant=relevant[has],
        lone=int((~has).sum()),
    )


def some_scored(task: Task) -> None:
    """Raises ValueError when no query has a relevant item."""
    if not len(task.relevant):
        raise ValueError(
            f"labels: none of {len(task.scored)} queries has a relevant item, expected another "
            "row of the same label in the gallery for at least one"
        )


def check_together(asked: Asked) -> None:
    """Raises where an argument of the gallery came without its partner."""
    if isinstance(asked.gallery, LabelledGallery):
        return
    if (asked.gallery is None) != (asked.gallery_labels is None):
        missing = "gallery_labels" if asked.gallery_labels is None else "gallery"
        raise ValueError(f"{missing}: got None, expected gallery and gallery_labels together")
    if asked.gallery is None and asked.gallery_cameras is not None:
        raise ValueError("gallery_cameras: got cameras without a gallery, expected cameras alone")
    lacking = (asked.cameras is None) != (asked.gallery_cameras is None)
    if asked.gallery is not None and lacking:
        missing = "cameras" if asked.cameras is None else "gallery_cameras"
        raise ValueError(f"{missing}: got None, expected cameras and gallery_cameras together")


def _gallery(
    asked: Asked, labels: np.ndarray, x: np.ndarray, distance: Distance, mesh: Mesh | None
) -> LabelledGallery:
    """The gallery that the caller gave, or the embeddings themselves."""
    if asked.gallery is None:
        names = ("embeddings", "labels", "cameras")
        return labelled_gallery(
            asked.embeddings, labels, asked.cameras, distance, x.dtype == np.float64, names, mesh
        )
    other = label_array("gallery_labels", asked.gallery_labels)
    same_kind("gallery_labels", other, "labels", labels)
    double = np.float64 in (x.dtype, np.asarray(asked.gallery).dtype)
    return labelled_gallery(
        asked.gallery, other, asked.gallery_cameras, distance, double, mesh=mesh
    )


def same_kind(name: str, other: np.ndarray, of: str, labels: np.ndarray) -> None:
    """Raises TypeError where text meets integers."""
    if labels.dtype.kind != other.dtype.kind:
        raise TypeError(
            f"{name}: got dtype {other.dtype}, expected the kind of {of}, {labels.dtype}"
        )


def class_numbers(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The place of each label among sorted classes, int32 [B], -1 where it is not there."""
    if not len(classes):
        return np.full(len(labels), -1, np.int32)
    same_kind("labels", labels, "gallery_labels", classes)
    place = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return np.where(classes[place] == labels, place, -1).astype(np.int32)


def renumbered(own: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Own rows counted anew without the ignored ones; -1 reads the last entry, -1."""
    return np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)[own]


def camera_array(name: str, cameras: Any, kept: np.ndarray) -> np.ndarray | None:
    """The cameras of the kept rows, or None."""
    if cameras is None:
        return None
    array = label_array(name, cameras)
    if len(array) != len(kept):
        raise ValueError(f"{name}: got {len(array)} of them, expected {len(kept)}, one a row")
    return array[kept]


def camera_groups(
    codes: np.ndarray, cameras: np.ndarray | None, gallery: LabelledGallery
) -> tuple[np.ndarray, np.ndarray] | None:
    """One number a (class, camera) for queries and gallery, -1 for none; None without cameras."""
    if cameras is None or gallery.cameras is None:
        if (cameras is None) != (gallery.cameras is None):
            missing = "cameras" if cameras is None else "gallery_cameras"
            raise ValueError(f"{missing}: got None, expected cameras of queries and gallery")
        return None
    same_kind("gallery_cameras", gallery.cameras, "cameras", cameras)
    names, camera = np.unique(np.concatenate([cameras, gallery.cameras]), return_inverse=True)
    classes = np.concatenate([codes, gallery.codes]).astype(np.int64)
    number = np.where(classes < 0, -1, classes * len(names) + camera)
    return number[: len(codes)], number[len(codes) :]


def left_out_of_class(
    codes: np.ndarray,
    own: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray] | None,
    gallery_codes: np.ndarray,
) -> np.ndarray:
    """Rows of each query's class that it may not find, int [B]: itself, and those of its camera."""
    itself = (own >= 0) & (np.append(gallery_codes, -1)[own] == codes)
    if groups is None:
        return itself.astype(int)
    asked, there = groups
    if not len(there):
        return itself.astype(int)
    names, counts = np.unique(there, return_counts=True)
    place = np.minimum(np.searchsorted(names, asked), len(names) - 1)
    same_camera = np.where((asked >= 0) & (names[place] == asked), counts[place], 0)
    return same_camera + (itself & (np.append(there, -1)[own] != asked))


def kept_rows(
    rows: tuple[str, Any], labels: tuple[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows [n, D] that are not ignored, checked, and which they are: bool [B]."""
    name, array = rows[0], np.asarray(rows[1])
    kept = np.ones(len(labels[1]), bool) if labels[1].dtype.kind == "U" else labels[1] >= 0
    if array.ndim != 2 or len(array) != len(kept):
        raise ValueError(
            f"{labels[0]}: got {len(kept)} of them for {name} of shape {array.shape}, "
            f"expected one a row of {name} [B, D]"
        )
    if kept.all():
        return finite_rows(name, array), kept
    # What an ignored row holds does not matter, and a bad row is named by the caller's count.
    cleared = np.where(kept[:, None], array, np.zeros((), array.dtype))
    return finite_rows(name, cleared)[kept], kept
