"""Train and eval steps: plain functions that the caller wraps in one line.

    step = functools.partial(train_step, encoder=encoder, objective=objective, optimizer=optimizer)

    jax.jit(step)
    jax.pmap(functools.partial(step, axis_name="batch"), "batch", in_axes=(None, 0), out_axes=None)
    jax.shard_map(functools.partial(step, axis_name="batch"), mesh=mesh,
                  in_specs=(P(), P("batch")), out_specs=P())
    parallel(step, "jit")        # any of these, with padding, placement and donation

The loss is the global one, of the batch of all devices, so the gradients of replicated parameters
are averaged over the devices (`pmean`), in every wrapping. After any number of steps the
parameters are those of a single device, with encoders whose batch norm spans the devices and
leaves out rows that do not exist, as `encoders.BatchNorm` and so all of `jdml.encoders` do. Flax's
own normalises by each device's rows, and is refused where a batch is filled up.
"""

from jdml.training.devices import Parallel, fill_up, parallel, parallel_eval
from jdml.training.optimizer import optimizer, schedule
from jdml.training.prefetch import prefetch
from jdml.training.steps import TrainState, create_state, embed, eval_step, train_step
from jdml.training.tables import class_specs

__all__ = [
    "Parallel",
    "TrainState",
    "class_specs",
    "create_state",
    "embed",
    "eval_step",
    "fill_up",
    "optimizer",
    "parallel",
    "parallel_eval",
    "prefetch",
    "schedule",
    "train_step",
]
