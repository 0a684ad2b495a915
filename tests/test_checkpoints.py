"""Checkpoints: a resumed run is the undisturbed one, and a half one is never read."""

import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import encoders, losses, objectives, training
from jdml.checkpoints import Checkpoints

IMAGES = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 1), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)


@functools.cache
def parts():
    """Something of every kind that a checkpoint must carry."""
    objective = objectives.weighted_sum(
        (1.0, objectives.table(losses.cosface, 3, scale=4.0)),
        (0.1, objectives.center(3)),
        (1.0, objectives.with_memory(objectives.pairs(losses.contrastive), 4)),
    )
    module = encoders.ConvNet(dim=3, widths=(2,), strides=(2,), dropout=0.2)
    optimizer = training.optimizer(1e-2, steps=10)
    return {"encoder": module, "objective": objective, "optimizer": optimizer}


@functools.cache
def step():
    return jax.jit(functools.partial(training.train_step, **parts()))


def fresh(**changed):
    return training.create_state(jax.random.key(3), images=IMAGES, **{**parts(), **changed})


def train(state, steps):
    for _ in range(steps):
        order = np.random.default_rng(int(state.step)).permutation(6)
        state, _ = step()(state, {"images": IMAGES[order], "labels": LABELS[order]})
    return state


def equal(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    raw = lambda state: jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))
    for x, y in zip(raw(got), raw(expected)):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(autouse=True)
def _quick(quick_compile):
    pass


def test_g1_five_steps_saved_and_five_more_are_ten(tmp_path):
    undisturbed = train(fresh(), 10)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(train(fresh(), 5), {"seed": 3})
    with Checkpoints(tmp_path) as checkpoints:
        resumed, config = checkpoints.restore_latest(fresh())
    assert config == {"seed": 3}
    equal(train(resumed, 5), undisturbed)


def test_the_newest_few_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.restore_latest(fresh()) is None
        for number in (1, 2, 7):
            checkpoints.save(fresh()._replace(step=jnp.int32(number)))
        assert sorted(os.listdir(tmp_path)) == ["2", "7"]
        assert int(checkpoints.restore_latest(fresh())[0].step) == 7


def test_an_interrupted_save_is_never_read(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(fresh()._replace(step=jnp.int32(1)))

    class Interrupted(BaseException):
        pass

    def stop(*paths, **options):
        raise Interrupted

    with monkeypatch.context() as patch:
        for owner, name in ((os, "rename"), (os, "replace")):
            patch.setattr(owner, name, stop)
        with pytest.raises(Interrupted), Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(fresh()._replace(step=jnp.int32(2)))
    assert any(name.startswith("2") for name in os.listdir(tmp_path))
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore_latest(fresh())[0].step) == 1
        checkpoints.save(fresh()._replace(step=jnp.int32(2)))  # and its place is free
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore_latest(fresh())[0].step) == 2


def test_a_checkpoint_of_other_settings_names_what_differs(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(fresh())
        other = fresh(encoder=parts()["encoder"].clone(dim=4))
        with pytest.raises(ValueError, match=r"^checkpoint .*got float32\[.*expected.*$"):
            checkpoints.restore_latest(other)
        with pytest.raises(ValueError, match=r"^checkpoint .*got .* for .*, expected"):
            checkpoints.restore_latest(fresh(encoder=nn.Sequential([lambda x: x[:, 0, 0]])))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^folder: got [^\n]*file/run, expected [^\n]*$"):
        Checkpoints(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"^keep: got 0, expected 1 or more$"):
        Checkpoints(tmp_path, keep=0)
