"""PyTorch files read without PyTorch: arrays come out, and no code of the file runs.

A file that `torch.save` wrote is a pickle whose tensors point into raw numbers. The pickle of an
unknown file can run anything; the reader here knows dictionaries, tensors and storages, and
makes an inert `Unread` of whatever else it meets, such as an optimizer or a settings object.
"""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
PARAMETERS = tuple(
    ("torch._utils", name) for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")
)
OLD_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before PyTorch 1.6


def read_torch(path: str | pathlib.Path) -> Any:
    """What `torch.save` wrote, with NumPy arrays in place of tensors.

    Both formats are read: the zip archive of PyTorch 1.6 (2020) and later, and the run of pickles
    before it. Half precision and bfloat16 keep their dtype.

    Args:
      path: a .pth, .pt or .bin file.

    Returns:
      The object that was saved, mostly a dictionary of arrays.

    Raises:
      ValueError: no such format; a TorchScript program; or a file that ends early.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
      ...     _ = file.write(b"no weights")
      ...     file.flush()
      ...     read_torch(file.name)  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: file: got ...pth, expected what torch.save wrote of a state dict: ...
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return _filled(*(_read_zip(file) if zipped else _read_old(file)))
    except FileNotFoundError:
        raise
    except Exception as error:  # a pickle can fail in every way, and none is the user's to read
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"file: got {path}, expected what torch.save wrote of a state dict: {reason}"
        ) from error


class Unread:
    """Stands for an object of a class that the reader does not know; does nothing at all.

    Example:
      >>> Unread(1, name="adam").anything(2)
      <not read>
    """

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Unread:
        del args, kwargs
        return self

    def __repr__(self) -> str:
        return "<not read>"

    def __setstate__(self, state: Any) -> None:
        del state

    def __setitem__(self, key: Any, value: Any) -> None:
        del key, value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unread

    def append(self, value: Any) -> None:
        """Takes and forgets it, as a pickle fills a list."""
        del value

    def extend(self, values: Any) -> None:
        """Takes and forgets them, as a pickle fills a list."""
        del values

    add = append


class _Storage(NamedTuple):
    """A run of numbers: what the pickle says of it before they are read."""

    key: str
    dtype: Any


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


class _Reader(pickle.Unpickler):
    """An unpickler that finds no class but these."""

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = (module, name)
        if known == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if known == ("collections", "defaultdict"):
            return lambda *rest: {}
        if known in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return lambda storage, offset, shape, strides, *rest: _Tensor(
                storage, offset, tuple(shape), tuple(strides)
            )
        if known in PARAMETERS:
            return lambda tensor, *rest: tensor
        if known == ("torch._tensor", "_rebuild_from_type_v2"):  # with attributes or of a subclass
            return lambda rebuild, kind, args, *rest: rebuild(*args)
        if known == ("torch", "Size"):
            return tuple
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        return Unread

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            return Unread  # a class, or a whole module with its source
        if not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it has numbers of a kind that is not known")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype))


Numbers = Callable[[_Storage], np.ndarray]


def _read_zip(file: BinaryIO) -> tuple[Any, Numbers]:
    archive = zipfile.ZipFile(file)
    names = set(archive.namelist())
    roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise pickle.UnpicklingError("it is a zip archive of another kind")
    (root,) = roots
    if f"{root}constants.pkl" in names:
        raise pickle.UnpicklingError("it is a TorchScript program")
    big = f"{root}byteorder" in names and archive.read(f"{root}byteorder") == b"big"

    def numbers(storage: _Storage) -> np.ndarray:
        raw = archive.read(f"{root}data/{storage.key}")
        return np.frombuffer(raw, _ordered(storage.dtype, big))

    return _Reader(io.BytesIO(archive.read(f"{root}data.pkl"))).load(), numbers


def _read_old(file: BinaryIO) -> tuple[Any, Numbers]:
    if _Reader(file).load() != OLD_MAGIC:
        raise pickle.UnpicklingError("it does not begin as one")
    _Reader(file).load()  # version of the protocol
    big = not _Reader(file).load().get("little_endian", True)
    reader = _Reader(file)
    saved = reader.load()
    read = {}
    for key in _Reader(file).load():
        count = int.from_bytes(file.read(8), "big" if big else "little")
        dtype = _ordered(reader.storages[str(key)].dtype, big)
        read[str(key)] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return saved, lambda storage: read[storage.key]


def _ordered(dtype: np.dtype, big: bool) -> np.dtype:
    """The dtype of the file's byte order; bfloat16 has that of the machine alone."""
    return dtype if dtype == jnp.bfloat16 else dtype.newbyteorder(">" if big else "<")


def _filled(saved: Any, numbers: Numbers) -> Any:
    """The object with arrays; tensors that share numbers share them still."""
    known: dict[str, np.ndarray] = {}

    def fill(part: Any) -> Any:
        if isinstance(part, _Tensor):
            if part.storage.key not in known:
                known[part.storage.key] = numbers(part.storage)
            return _view(known[part.storage.key], part)
        if isinstance(part, Mapping):
            return {name: fill(inner) for name, inner in part.items()}
        if isinstance(part, (list, tuple)) and not isinstance(part, _Storage):
            return [fill(inner) for inner in part]
        return part

    return fill(saved)


def _view(numbers: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The tensor within its numbers, which the file may lie about."""
    whole = (tensor.offset, *tensor.shape, *tensor.strides)
    steps = [(size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides)]
    last = tensor.offset + sum(steps) if 0 not in tensor.shape else 0
    fits = len(tensor.shape) == len(tensor.strides) and min(whole) >= 0
    if not fits or last >= max(len(numbers), 1):
        raise pickle.UnpicklingError(
            f"a tensor {tensor.shape} reaches beyond its {len(numbers)} numbers"
        )
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    begin = numbers[tensor.offset :]
    return np.lib.stride_tricks.as_strided(begin, tensor.shape, strides, writeable=False)
