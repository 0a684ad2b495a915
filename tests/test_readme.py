"""The README's Python runs as it stands, its commands exist, and its table names every loss."""

from __future__ import annotations

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from jdml import losses, miners

README = pathlib.Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


@pytest.fixture(scope="module")
def namespace():
    """What the blocks leave behind, one after the other as a reader would run them."""
    room: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for block in BLOCKS:
            exec(compile(block, str(README), "exec"), room)
    return room


def test_the_ten_lines_train(namespace):
    params, opt_state = namespace["params"], namespace["opt_state"]
    images, labels, first = namespace["images"], namespace["labels"], namespace["value"]
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(5):
            params, opt_state, value = namespace["step"](params, opt_state, images, labels)
    assert float(value) < float(first)


def test_the_loss_of_the_reader_takes_the_shared_keywords(namespace):
    loss, z, y = namespace["exponential"], namespace["z"], namespace["y"]
    whole = loss(z, y, miner=miners.MultiSimilarity(), where=y > 0)
    cut = loss(z, y, miner=miners.MultiSimilarity(), where=y > 0, block_size=5)
    assert jnp.isfinite(whole)
    assert jnp.allclose(whole, cut, rtol=1e-5)


def test_every_loss_is_in_the_table():
    named = set(re.findall(r"`(\w+)`", README.read_text()))
    assert set(losses.__all__) <= named
