"""Cases of margin-softmax losses; see `cases`."""

from __future__ import annotations

import jax
import references_face
from case import Case, table_case

from jdml import losses

KEY = {"key": jax.random.key(2)}

CASES: list[Case] = [
    table_case(
        losses.elasticface,
        references_face.elasticface,
        numbers={"margin": 0.5, "margin_std": 0.2, "scale": 8.0},
        arrays=KEY,
        ordered=True,
    ),
    table_case(
        losses.elasticface,
        references_face.elasticface,
        name="elasticface_cos_plus",
        numbers={"margin": 0.35, "margin_std": 0.1, "scale": 8.0},
        choices={"variant": "cos", "plus": True},
        arrays=KEY,
        ordered=True,
    ),
    table_case(
        losses.large_margin_softmax,
        references_face.large_margin_softmax,
        numbers={"margin": 4.0, "scale": 1.3, "annealing": 2.0},
    ),
    table_case(
        losses.sphereface2,
        references_face.sphereface2,
        numbers={"balance": 0.7, "scale": 8.0, "margin": 0.4, "exponent": 3.0, "bias": 1.5},
    ),
    table_case(
        losses.uniface,
        references_face.uniface,
        numbers={"margin": 0.4, "scale": 8.0, "negative_weight": 0.8, "bias": 3.0},
    ),
]
