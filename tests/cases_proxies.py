"""Cases of proxy losses; see `cases`."""

from __future__ import annotations

import math

import references_proxies
import references_proxy_models as models
from case import Case, table_case

from jdml import losses

CASES: list[Case] = [
    table_case(
        losses.proxy_nca,
        references_proxies.proxy_nca,
        name="proxy_nca_plus_plus",
        numbers={"scale": 9.0},
        choices={"own": "kept"},
    ),
    table_case(
        losses.soft_triple,
        models.soft_triple,
        "centers",
        numbers={"scale": 8.0, "gamma": 0.2, "margin": 0.05, "spread_weight": 0.3},
    ),
    table_case(
        losses.soft_triple,
        models.soft_triple,
        "centers",
        name="soft_triple_one_center",
        numbers={"scale": 8.0},
        centers=1,
    ),
    table_case(losses.p2s_grad, models.p2s_grad),
    table_case(losses.instance, models.instance, numbers={"scale": 2.0}),
    table_case(
        losses.instance,
        models.instance,
        name="instance_normalized",
        numbers={"scale": 8.0},
        choices={"normalized": True},
    ),
    table_case(
        losses.hist,
        models.hist,
        "centers",
        numbers={"scale": 4.0, "lower_log_variance": -0.5, "upper_log_variance": 0.7},
        centers=2,
    ),
    table_case(losses.harmonic, models.harmonic, numbers={"exponent": 3.0, "softening": 0.01}),
    table_case(losses.harmonic, models.harmonic, name="harmonic_root_of_dimension"),
    table_case(
        losses.von_mises_fisher,
        models.von_mises_fisher,
        numbers={"scale": 2.0, "upper_concentration": 5.0},
    ),
    table_case(
        losses.manifold,
        models.manifold,
        numbers={"alpha": 0.7, "margin": 0.05, "context_weight": 2.0, "temperature": 0.4},
    ),
    table_case(
        losses.manifold,
        models.manifold,
        name="manifold_context_violations",
        numbers={"margin": 0.05, "context_weight": math.inf},
        choices={"violations_only": True},
    ),
]
