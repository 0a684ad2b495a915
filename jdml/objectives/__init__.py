"""Objectives: a loss with the class table and the state that it owns, ready for a train step.

An `Objective` is a triple of functions, as an Optax optimizer is a pair:

    init(key, dim) -> (params, state)
    loss(params, state, embeddings, batch, *, axis_name=None) -> scalar
    update(state, params, embeddings, batch, *, axis_name=None) -> state

`params` are learned by gradient (class tables), `state` is rewritten by rules (centers, memory,
scales), `batch` holds "labels" [B] and may hold "where" and "weights" [B]. Combinators take
objectives and give one back.
"""

from jdml.objectives.base import Batch, Objective, pairs, table
from jdml.objectives.combine import weighted_sum, with_memory
from jdml.objectives.numbers import class_size_margins, sphereface_annealing
from jdml.objectives.stateful import adacos, adaface, center, curricularface, sphereface

__all__ = [
    "Batch",
    "Objective",
    "adacos",
    "adaface",
    "center",
    "class_size_margins",
    "curricularface",
    "pairs",
    "sphereface",
    "sphereface_annealing",
    "table",
    "weighted_sum",
    "with_memory",
]
