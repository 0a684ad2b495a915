"""Pictures that stay encoded until a batch asks for them."""

from __future__ import annotations

import concurrent.futures
import functools
import operator
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# A JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves this many times the pixels asked for, a
# side: enough that the picture cannot be told from one decoded whole and then made smaller.
_GAP = 2.0
_WHOLE = (0.0, 0.0, 1.0, 1.0)


class Images:
    """A stack of pictures, uint8 [N, H, W, C], decoded by threads when rows are asked for.

    In the place of an array that would not fit in memory. Rows come with the shorter side resized
    to fit and the centre cut out; `crop` cuts another box of the whole picture instead.
    Transparent pictures are laid on white, and grey ones become RGB where C = 3.

    Args:
      read: row number -> PIL image, best not yet loaded, so that a JPEG may be decoded at a
        smaller scale. Called from several threads.
      shape: (N, H, W, C), with C = 1 (grey) or 3 (RGB).
      workers: threads; one a core by default.

    Example:
      >>> from PIL import Image
      >>> images = Images(lambda row: Image.new("RGB", (60, 40), (row, 0, 9)), (5, 8, 8, 3))
      >>> images[[4, 1]].shape, images[[4, 1]][:, 0, 0].tolist()
      ((2, 8, 8, 3), [[4, 0, 9], [1, 0, 9]])
      >>> images.crop([2], [[0.5, 0.0, 0.5, 1.0]], 4).shape
      (1, 4, 4, 3)
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        read: Callable[[int], Image.Image],
        shape: Sequence[int],
        *,
        workers: int | None = None,
    ) -> None:
        if len(shape) != 4 or shape[3] not in (1, 3) or min(shape[1:]) < 1:
            raise ValueError(f"shape: got {tuple(shape)}, expected (N, H, W, C) with C = 1 or 3")
        self.read = read
        self.shape: tuple[int, int, int, int] = tuple(int(size) for size in shape)  # type: ignore
        self.workers = workers or cores()

    def __len__(self) -> int:
        """Number of pictures."""
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<Images {' x '.join(map(str, self.shape))}, decoded when asked for>"

    def __getitem__(self, rows: Any) -> np.ndarray:
        """uint8 [n, H, W, C] for integers, a slice or a mask; [H, W, C] for one number."""
        if isinstance(rows, (int, np.integer)):
            return self[[rows]][0]
        return self._cut(self._numbers(rows), None, self.shape[1:3])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of them, decoded: mind the memory."""
        return np.asarray(self[:], dtype)

    def crop(self, rows: Any, boxes: Any, size: int | tuple[int, int]) -> np.ndarray:
        """A box of each picture, cut and resized in one go.

        Args:
          rows: [n] integers, a slice or a mask.
          boxes: [n, 4], (left, top, width, height) as fractions of the whole picture.
          size: of the result in pixels, a side or (height, width).

        Returns:
          uint8 [n, height, width, C].

        Raises:
          ValueError: a box outside the picture, no size, or a picture that cannot be decoded.
        """
        numbers = self._numbers(rows)
        cuts = np.asarray(boxes, np.float64)
        if cuts.shape != (len(numbers), 4):
            raise ValueError(f"boxes: got {list(cuts.shape)}, expected [{len(numbers)}, 4]")
        ends = cuts[:, :2] + cuts[:, 2:]
        fine = (cuts[:, :2] >= 0).all(1) & (cuts[:, 2:] > 0).all(1) & (ends <= 1 + 1e-6).all(1)
        if not fine.all():
            raise ValueError(
                f"boxes: got {cuts[~fine][0].tolist()}, expected left, top, width, height as "
                "fractions of the picture and inside it"
            )
        return self._cut(numbers, cuts, sides(size))

    def take(self, rows: Any) -> Images:
        """Some of the pictures, as encoded as they are.

        Args:
          rows: [n] integers, a slice or a mask.

        Returns:
          `Images` of these rows.
        """
        numbers = self._numbers(rows)
        chosen = _Chosen(self.read, numbers)
        return Images(chosen, (len(numbers), *self.shape[1:]), workers=self.workers)

    def sized(self, size: int | tuple[int, int]) -> Images:
        """The same pictures in another size.

        Args:
          size: in pixels, a side or (height, width).

        Returns:
          `Images` that decode to it.

        Raises:
          ValueError: no size.
        """
        shape = (len(self), *sides(size), self.shape[3])
        return Images(self.read, shape, workers=self.workers)

    def _numbers(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            return np.arange(len(self))[rows]
        numbers = np.asarray(rows)
        if numbers.dtype == bool and numbers.shape == (len(self),):
            return np.flatnonzero(numbers)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(
                f"rows: got {numbers.dtype}{list(numbers.shape)}, expected integers [n]"
            )
        wrong = numbers[(numbers < 0) | (numbers >= len(self))]
        if wrong.size:
            raise IndexError(f"rows: got {wrong[0]}, expected 0 to {len(self) - 1}")
        return numbers.astype(np.int64)

    def _cut(
        self, numbers: np.ndarray, boxes: np.ndarray | None, size: tuple[int, int]
    ) -> np.ndarray:
        done = np.empty((len(numbers), *size, self.shape[3]), np.uint8)

        def one(place: int) -> None:
            box = None if boxes is None else tuple(boxes[place])
            done[place] = self._picture(int(numbers[place]), box, size)

        if self.workers > 1 and len(numbers) > 1:
            list(_pool(self.workers, os.getpid()).map(one, range(len(numbers))))
        else:
            for place in range(len(numbers)):
                one(place)
        return done

    def _picture(self, row: int, box: Any, size: tuple[int, int]) -> np.ndarray:
        from PIL import Image

        try:
            return cut(self.read(row), box, size, self.shape[3])
        # PIL raises any of these for what it cannot decode, the last for what is too large.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"images: picture {row} cannot be decoded ({error})") from error


def sides(size: Any) -> tuple[int, int]:
    """A size in pixels as (height, width).

    Args:
      size: an integer of any kind for both sides, or (height, width).

    Raises:
      ValueError: anything else, or less than 1.

    Example:
      >>> sides(np.int64(8)), sides((4, 6))
      ((8, 8), (4, 6))
    """
    try:
        height, width = (size, size) if np.ndim(size) == 0 else size
        both = operator.index(height), operator.index(width)
    except (TypeError, ValueError):
        both = (0, 0)
    if min(both) < 1:
        raise ValueError(f"size: got {size!r}, expected pixels, a side or (height, width)")
    return both


def cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Chosen:
    """Reads some rows of another reader; an object and no closure, so that it can be pickled."""

    def __init__(self, read: Callable[[int], Image.Image], rows: np.ndarray) -> None:
        if isinstance(read, _Chosen):  # a choice of a choice asks the first reader
            read, rows = read._read, read._rows[rows]
        self._read, self._rows = read, rows

    def __call__(self, row: int) -> Image.Image:
        return self._read(int(self._rows[row]))


class _Array:
    """Reads the rows of an array as pictures."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images

    def __call__(self, row: int) -> Image.Image:
        from PIL import Image

        image = self._images[row]
        return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def from_array(images: np.ndarray, *, workers: int | None = None) -> Images:
    """The pictures of an array, to be cropped or resized as those of a file are.

    Args:
      images: uint8 [N, H, W, C], C = 1 or 3.
      workers: threads; one a core by default.

    Returns:
      `Images` of the same shape.

    Example:
      >>> from_array(np.full((2, 6, 6, 1), 7, np.uint8)).sized(3)[:].shape
      (2, 3, 3, 1)
    """
    return Images(_Array(images), images.shape, workers=workers)


@functools.cache
def _pool(workers: int, process: int) -> concurrent.futures.ThreadPoolExecutor:
    """Threads shared by all sets of a process; one that was forked needs its own."""
    del process
    return concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="pictures")


def cut(picture: Image.Image, box: Any, size: tuple[int, int], channels: int) -> np.ndarray:
    """One picture, cut and resized.

    Args:
      picture: of PIL, any mode.
      box: (left, top, width, height) as fractions, or None for the largest one in the middle that
        has the shape of `size`.
      size: (height, width) in pixels.
      channels: 1 or 3.

    Returns:
      uint8 [height, width, channels].
    """
    from PIL import Image

    height, width = size
    left, top, wide, high = _middle(picture.size, size) if box is None else box
    picture.draft(None, (int(_GAP * width / wide), int(_GAP * height / high)))
    picture = plain(picture, "L" if channels == 1 else "RGB")
    across, down = picture.size
    # Rounding may end a box one part in a million outside, which PIL refuses.
    edges = (
        left * across,
        top * down,
        min((left + wide) * across, across),
        min((top + high) * down, down),
    )
    if edges != (0, 0, width, height) or picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=edges)
    return np.asarray(picture, np.uint8).reshape(height, width, channels)


def _middle(picture: tuple[int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest box of the shape of `size` (height, width) in the middle of (width, height)."""
    scale = min(picture[0] / size[1], picture[1] / size[0])
    # Rounding may make the whole of a side a little more, and PIL takes no box from below 0.
    wide = min(size[1] * scale / picture[0], 1.0)
    high = min(size[0] * scale / picture[1], 1.0)
    return (1 - wide) / 2, (1 - high) / 2, wide, high


def plain(picture: Image.Image, mode: str) -> Image.Image:
    """A picture in grey or RGB: transparent ones on white, 16 bits a pixel made 8.

    White is 65535 at 16 bits; where neither mode nor format tells (I, F), only if values pass 255.

    Args:
      picture: of PIL, any mode.
      mode: "L" or "RGB".

    Returns:
      A picture of that mode, loaded.
    """
    from PIL import Image

    if picture.mode[0] in "IF":  # PIL would cut these off at 255
        values = np.asarray(picture, np.float64)
        # The mode or the format says 16 bits; others with I or F do not say what white is.
        deep = picture.mode.startswith("I;16") or picture.format == "PPM"
        top = 65535.0 if deep or values.max(initial=0.0) > 255 else 255.0
        picture = Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        clear = picture.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        picture = Image.alpha_composite(white, clear)
    return picture if picture.mode == mode else picture.convert(mode)
