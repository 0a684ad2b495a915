"""Pictures that are decoded when a batch needs them: whole, their middle, or random boxes."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from typing import Any

import numpy as np

from jdml import augment
from jdml.datasets import Images, Split


class Lazy:
    """A stack uint8 [N, H, W, C] that is decoded where it is indexed, and one slice ahead.

    Args:
      images: `datasets.Images`, or an array.
      crop: side of the middle that is given; 0 gives all.
    """

    ndim = 4

    def __init__(self, images: Any, crop: int = 0):
        self.images, self.crop = images, crop
        self.dtype = images.dtype
        size = (crop, crop) if crop else images.shape[1:3]
        self.shape = (len(images), *size, images.shape[3])
        self._ahead: tuple[Any, Any] = (None, None)  # bounds of a slice, and its pictures to be

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """uint8 [n, H, W, C] for integers, a slice or a mask; [H, W, C] for one number."""
        if not isinstance(rows, slice) or not isinstance(self.images, Images):
            return self._read(rows)
        start, stop, step = rows.indices(len(self))
        bounds, coming = self._ahead
        found = coming.result() if bounds == (start, stop, step) else self._read(rows)
        following = slice(stop, min(2 * stop - start, len(self)), step)
        if step == 1 and start < stop < len(self):
            work = _reader(os.getpid()).submit(self._read, following)
            self._ahead = ((following.start, following.stop, 1), work)
        else:
            self._ahead = (None, None)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, decoded: mind the memory."""
        del copy
        return np.asarray(self._read(slice(None)), dtype)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ahead": (None, None)}

    def _read(self, rows: Any) -> np.ndarray:
        images = self.images[rows]
        if not self.crop:
            return images
        height, width = images.shape[-3:-1]
        top, left = (height - self.crop) // 2, (width - self.crop) // 2
        return images[..., top : top + self.crop, left : left + self.crop, :]


@functools.cache
def _reader(process: int) -> concurrent.futures.ThreadPoolExecutor:
    """The thread that reads ahead; one a process, which may be a fork."""
    del process
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ahead")


class Crops:
    """Random resized crops of training images: a pure function of the seed, step and place.

    Args:
      split: what is trained on.
      side: of the crops, pixels.
      scale: least and most share of the area.
      seed: of the run.
    """

    def __init__(self, split: Split, side: int, scale: tuple[float, float], seed: int):
        self._split, self._side, self._scale, self._seed = split, side, scale, seed
        height, width = split.image_shape[:2]
        self._shapes = np.full(len(split), width / height)
        if isinstance(split.images, Images):
            self._shapes[:] = np.nan  # known when a picture has been opened

    def __call__(self, step: int, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Crops of some rows.

        Args:
          step: number of the batch.
          rows: [n].
          places: [n] of these rows in the batch, which may hold a row twice.

        Returns:
          uint8 [n, side, side, C].
        """
        for row in rows[np.isnan(self._shapes[rows])]:
            with self._split.images.read(int(row)) as picture:  # pyright: ignore
                self._shapes[row] = picture.width / picture.height
        shapes = self._shapes[rows]
        boxes = augment.boxes(self._seed, step, places, shapes, scale=self._scale)
        return self._split.crop(rows, boxes, self._side)
