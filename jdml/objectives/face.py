"""Objectives of face losses that learn a bias, or that draw their margins."""

from __future__ import annotations

from typing import Any

import jax

from jdml import losses
from jdml._core.options import Array
from jdml.losses.binary_face import sphereface2_bias, uniface_bias
from jdml.objectives.base import Batch, Objective, at_least, table
from jdml.objectives.parameters import Learned, learned


def elasticface(num_classes: int, **numbers: Any) -> Objective:
    """ElasticFace: the random key of its margins is a state, split after each step.

    Args:
      num_classes: C.
      **numbers: keywords for `losses.elasticface`, and `rows` of the table.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D]} and a key as state.

    Example:
      >>> objective = elasticface(10, variant="cos", plus=True)
      >>> params, key = objective.init(jax.random.key(0), 4)
      >>> batch = {"labels": jnp.array([0, 1])}
      >>> following = objective.update(key, params, jnp.ones((2, 4)), batch)
      >>> bool((jax.random.key_data(following) == jax.random.key_data(key)).all())
      False

    Reference:
      Boutros, Damer, Kirchbuchner, Kuijper: ElasticFace, CVPR Workshops 2022.
    """
    proxies = table(losses.elasticface, num_classes, **numbers)

    def init(key: Array, dim: int) -> tuple[Any, Any]:
        table_key, state = jax.random.split(key)
        return proxies.init(table_key, dim)[0], state

    def value(params: Any, state: Any, embeddings: Array, batch: Batch, **shared: Any) -> Array:
        draw_key, _ = jax.random.split(state)
        return proxies.loss(params, (), embeddings, batch, key=draw_key, **shared)

    def update(state: Any, params: Any, embeddings: Array, batch: Batch, **shared: Any) -> Any:
        del params, embeddings, batch, shared
        _, following = jax.random.split(state)
        return following

    return Objective(init, value, update)


def sphereface2(num_classes: int, **numbers: Any) -> Objective:
    """SphereFace2 with a bias that is learned, from where yes and no are in balance.

    Args:
      num_classes: C, at least 2.
      **numbers: keywords for `losses.sphereface2`, and `rows` of the table.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D], "bias": []}.

    Example:
      >>> params, _ = sphereface2(101, margin=0.0, exponent=1.0).init(jax.random.key(0), 4)
      >>> print(f"{params['bias']:.4f}")  # log(0.7 / (0.3 x 100))
      -3.7579

    Reference:
      Wen, Liu, Weller, Raj, Singh: SphereFace2, ICLR 2022.
    """
    if "bias" not in numbers:
        shape = {name: _start(numbers[name]) for name in _SHAPE if name in numbers}
        numbers["bias"] = learned(float(sphereface2_bias(num_classes, **shape)))
    return table(losses.sphereface2, num_classes, **numbers)


def uniface(num_classes: int, **numbers: Any) -> Objective:
    """UniFace with a bias that is learned, from log(10 C).

    Divided by the scale, it is a threshold of verification that belongs to the trained encoder.

    Args:
      num_classes: C.
      **numbers: keywords for `losses.uniface`, and `rows` of the table.

    Returns:
      An `Objective` with the parameters {"proxies": [C, D], "bias": []}.

    Example:
      >>> params, _ = uniface(10).init(jax.random.key(0), 4)
      >>> print(f"{params['bias']:.4f}")
      4.6052

    Reference:
      Zhou, Jia, Li, Shen, Duan: UniFace, ICCV 2023.
    """
    at_least("num_classes", num_classes, 1)
    return table(
        losses.uniface, num_classes, **{"bias": learned(uniface_bias(num_classes)), **numbers}
    )


_SHAPE = ("balance", "scale", "margin", "exponent")  # what the start of the bias depends on


def _start(number: Any) -> Any:
    return number.start if isinstance(number, Learned) else number
