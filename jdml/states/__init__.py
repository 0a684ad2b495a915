"""What a loss reads and a rule rewrites: class centers, a memory of past rows, a running scale.

A state is an array or a NamedTuple. Losses only read it; a pure rule returns the next one, after
the step. With `axis_name` every rule spans the devices of a mapped axis, so that all replicas
hold the same state. No state carries a gradient.
"""

from jdml.states.centers import update_centers
from jdml.states.heads import (
    Norms,
    adacos_scale,
    norms,
    update_adacos,
    update_hardness,
    update_norms,
)
from jdml.states.margins import margins, update_margins
from jdml.states.memory import Memory, as_refs, memory, push

__all__ = [
    "Memory",
    "Norms",
    "adacos_scale",
    "as_refs",
    "margins",
    "memory",
    "norms",
    "push",
    "update_adacos",
    "update_centers",
    "update_hardness",
    "update_margins",
    "update_norms",
]
