"""Objectives: a loss with the class table and the state that it owns, ready for a train step.

An `Objective` is a triple of functions, as an Optax optimizer is a pair:

    init(key, dim) -> (params, state)
    loss(params, state, embeddings, batch, *, axis_name=None) -> scalar
    update(state, params, embeddings, batch, *, axis_name=None) -> state

`params` are learned by gradient (class tables), `state` is rewritten by rules (centers, memory,
scales), `batch` holds "labels" [B] and may hold "where" and "weights" [B]. Where class tables are
split over a mapped axis, loss and update take its name as `class_axis_name`. Combinators take
objectives and give one back.

Any number of a loss can be a parameter too:

    pairs(losses.siglip, scale=learned_logarithm(10.0, largest=100.0), bias=learned(-10.0))
    pairs(losses.margin, beta=learned(1.2, num_classes=100))
"""

from jdml.objectives.base import Batch, Objective, pairs, table
from jdml.objectives.combine import regularized, weighted_sum, with_memory
from jdml.objectives.face import elasticface, sphereface2, uniface
from jdml.objectives.lazy import lazy_rows
from jdml.objectives.mixing import mixed
from jdml.objectives.nested import matryoshka
from jdml.objectives.numbers import class_size_margins, sphereface_annealing
from jdml.objectives.parameters import Learned, learned, learned_logarithm
from jdml.objectives.sampled import sample_classes, sampled
from jdml.objectives.stateful import (
    adacos,
    adaface,
    center,
    curricularface,
    dynamic_soft_margin,
    sphereface,
)

__all__ = [
    "Batch",
    "Learned",
    "Objective",
    "adacos",
    "adaface",
    "center",
    "class_size_margins",
    "curricularface",
    "dynamic_soft_margin",
    "elasticface",
    "lazy_rows",
    "learned",
    "learned_logarithm",
    "matryoshka",
    "mixed",
    "pairs",
    "regularized",
    "sample_classes",
    "sampled",
    "sphereface",
    "sphereface2",
    "sphereface_annealing",
    "table",
    "uniface",
    "weighted_sum",
    "with_memory",
]
