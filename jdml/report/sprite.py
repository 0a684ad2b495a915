"""Many small pictures as one image inside a page, of bounded size."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdml.report.select import as_pictures

LARGEST = 64  # pixels of a side
MOST_PIXELS = 8_000_000  # of all thumbnails together, one or two megabytes
_CHUNK = 256  # images of full size held at once
_GUTTER = 1  # repeats the border, so that scaling never shows a neighbour


def sprite(sources: Sequence[Any], picks: Sequence[tuple[int, int]]) -> dict[str, Any] | None:
    """Thumbnails of some images, side by side in one picture.

    Args:
      sources: each [N, H, W], [N, H, W, 1] or [N, H, W, 3]; or whatever gives such an array of a
        few images when it is indexed by their rows; or None without images.
      picks: (source, row) of the image of each thumbnail.

    Returns:
      None where a source has no images, else a dict: `uri`, the picture as a data URI; `side`,
      pixels of a thumbnail; `cell`, the distance from one to the next; `columns` and `rows`.
      Thumbnail i stands in row i // columns and column i % columns.
    """
    if not picks or any(sources[source] is None for source, _ in picks):
        return None
    count = len(picks)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    first = _colour(sources[picks[0][0]][np.array([picks[0][1]])])
    side = min(max(first.shape[1:3]), LARGEST, int(math.sqrt(MOST_PIXELS / count)))
    cell = side + 2 * _GUTTER
    sheet = np.zeros((rows * cell, columns * cell, 3), np.uint8)
    edges = ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0))
    for source, images in enumerate(sources):
        places = [place for place, pick in enumerate(picks) if pick[0] == source]
        for start in range(0, len(places), _CHUNK):
            chunk = places[start : start + _CHUNK]
            pictures = _colour(images[np.array([picks[place][1] for place in chunk])])
            for place, picture in zip(chunk, pictures):
                top, left = place // columns * cell, place % columns * cell
                square = np.pad(_fitted(picture, side), edges, mode="edge")
                sheet[top : top + cell, left : left + cell] = square
    return {"uri": _data_uri(sheet), "side": side, "cell": cell, "columns": columns, "rows": rows}


def _colour(images: Any) -> np.ndarray:
    """uint8 [n, H, W, 3]."""
    array = np.asarray(images)
    pictures = as_pictures("images", array, np.zeros(len(array), np.int32))
    pictures = np.round(255 * pictures).astype(np.uint8)
    return np.repeat(pictures[..., None], 3, axis=-1) if pictures.ndim == 3 else pictures


def _fitted(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture in a square of `side` pixels, in the middle of a grey ground."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    if size != (width, height):
        smaller = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
        picture = np.asarray(smaller)
    if picture.shape[:2] == (side, side):
        return picture
    square = np.full((side, side, 3), 128, np.uint8)
    top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
    square[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return square


def _data_uri(sheet: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="webp", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
