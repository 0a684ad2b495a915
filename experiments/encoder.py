"""From settings to an encoder, and to its pretrained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.settings import Settings
    from jdml.training import TrainState

# Names of encoders, with the pooling that each takes where none is asked for.
POOLING = {
    "convnet": "grid",
    "resnet18": "average",
    "resnet50": "average",
    "iresnet50": "grid",
    "iresnet100": "grid",
    "vit_small": "token",
    "vit_base": "token",
    "efficientnet_lite0": "average",
}


def build(settings: Settings) -> Any:
    """The encoder of a run, without its chunks.

    Weights whose name says that they are TensorFlow's make an EfficientNet-Lite0 of its rules.

    Returns:
      A Linen module.

    Raises:
      ValueError: options that the encoder does not take.
    """
    import jax.numpy as jnp

    from jdml import encoders
    from jdml.encoders.weights import from_tensorflow

    options = {
        "dim": settings.dim,
        "pooling": settings.pooling,
        "dtype": jnp.dtype(settings.dtype),
    }
    if settings.encoder == "convnet":
        strides = tuple(2 if block < 3 else 1 for block in range(len(settings.widths)))
        module = encoders.ConvNet(widths=settings.widths, strides=strides, **options)
    else:
        module = getattr(encoders, settings.encoder)(**options)
    more = dict(settings.encoder_options)
    if settings.encoder == "efficientnet_lite0" and from_tensorflow(settings.weights):
        # What these weights were trained under; evaluation has to know without the file.
        more = {"tensorflow": True, "mean": encoders.HALF, "std": encoders.HALF} | more
    if settings.frozen_norm:
        more["frozen_norm"] = True
    for name in more:
        if name not in module.__dataclass_fields__:
            where = "frozen_norm" if name == "frozen_norm" else "encoder_options"
            raise ValueError(f"{where}: got {name}, expected what {settings.encoder} takes")
    return module.clone(**more)


def pretrained(settings: Settings, state: TrainState) -> TrainState:
    """A fresh state with the weights that the settings name in the place of random ones.

    Raises:
      ValueError: a file that cannot be read, or weights of another encoder.
    """
    from jdml import encoders

    variables = {"params": state.params["encoder"], **state.encoder_state}
    try:
        loaded = encoders.load_timm(settings.weights, build(settings), variables)
    except (OSError, TypeError, ValueError, ModuleNotFoundError) as error:
        raise ValueError(f"weights: {str(error).removeprefix('source: ')}") from error
    params = {**state.params, "encoder": loaded.pop("params")}
    return state._replace(params=params, encoder_state=loaded)
