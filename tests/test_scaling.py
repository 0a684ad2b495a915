"""What a class table costs by its shapes, and what the compiled program says."""

import functools
import math
import re

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from experiments.scaling import costs, main
from jdml import losses, objectives, training

CLASSES, DIM, ROWS = 2048, 8, 32


@functools.cache
def compiled(model):
    """A step with a head far larger than its encoder, on a mesh of 8 / model x model."""
    parts = {
        "encoder": nn.Dense(DIM),
        "objective": objectives.table(losses.arcface, CLASSES, block_size=CLASSES),
        "optimizer": optax.adam(0.1),
    }
    images = np.ones((ROWS, 3), np.float32)
    create = functools.partial(training.create_state, jax.random.key(0), images=images[:1], **parts)
    step = training.parallel(functools.partial(training.train_step, **parts), "jit", model=model)
    batch = {"images": images, "labels": np.arange(ROWS, dtype=np.int32)}
    return step.lower(step.start(create), batch).compile()


def delivered(program, kind):
    """Bytes of each float32 result of an operation of a kind, on one device."""
    results = re.findall(rf"= ([^=]*?) {kind}(?:-start)?\(", program.as_text())
    shapes = re.findall(r"f32\[([\d,]*)\]", " ".join(results))
    return [4 * math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


@pytest.mark.parametrize("model", [1, 4, 8])
def test_the_compiled_program_costs_what_the_shapes_say(model):
    expected = costs(classes=CLASSES, dim=DIM, rows=ROWS, devices=8, model=model)
    program = compiled(model)
    # What a device holds between steps, but for the small encoder and its rows.
    memory = program.memory_analysis()
    held = expected.table + expected.optimizer
    assert held <= memory.argument_size_in_bytes < held + 1024
    most = 2 * expected.gradient + 4 * expected.scores
    assert expected.gradient + expected.scores <= memory.temp_size_in_bytes <= most
    # What it is sent: exactly these, and nothing else that grows with the classes.
    gathered, reduced = delivered(program, "all-gather"), delivered(program, "all-reduce")
    if model > 1:
        assert expected.rows in gathered
        assert expected.row_gradient in reduced
        assert sum(size == expected.softmax // 4 for size in reduced) >= 4
    assert (expected.table_gradient > 0) == (model < 8) == (expected.table in reduced)
    rest = sorted(gathered + reduced, reverse=True)[int(model < 8) :]
    assert rest[0] <= 4 * ROWS * DIM
    assert not delivered(program, "all-to-all") + delivered(program, "reduce-scatter")


def test_ten_million_classes(capsys):
    on = functools.partial(costs, classes=10_000_000, dim=512, rows=8192, block=8192)
    assert on(devices=8, model=1).table == 20_480_000_000
    assert on(devices=8, model=8).table == 2_560_000_000
    assert on(devices=256, model=256).table == 39_063 * 512 * 4  # rounded up
    assert on(devices=64, model=64).traffic == 2 * 8192 * 512 * 4 + 4 * 8192 * 4
    assert on(devices=64, model=8).table_gradient == 2_560_000_000
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "| 64 | 1 x 64 | 320 MB | 640 MB | 320 MB |" in out
    assert main(["--devices", "3"]) == 2
    assert capsys.readouterr().err == (
        "python -m experiments.scaling: devices: got 3, expected a divisor of the 8192 rows\n"
    )
