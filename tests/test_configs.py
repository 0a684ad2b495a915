"""Every config: what its first lines say, its true shapes, and two steps of a smaller copy."""

import contextlib
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import data, encoder, objectives, run, settings
from experiments.settings import parse, read_config
from jdml import training
from jdml.samplers import ClassBalanced

NAMES = sorted(p.stem for p in settings.CONFIGS.glob("[a-z]*.py"))
# The data sets of published numbers: classes to train on, for tables of their true size.
PUBLISHED = {
    "cub200_proxy_anchor_r50": 100,
    "cars196_multi_similarity_r50": 98,
    "sop_recall_at_k_vit": 11_318,
    "casia_arcface_iresnet50": 10_000,
    "glint_partial_fc": 360_000,
    "cub200_reality_check_arcface": 75,
}
SMALL = {
    "resnet50": {"depths": (1,), "widths": (4,)},
    "iresnet50": {"depths": (1,), "widths": (4,)},
    "iresnet100": {"depths": (1,), "widths": (4,)},
    "vit_base": {"depth": 1, "width": 8, "heads": 2},
}
ON_DEVICES = ("glint_partial_fc", "sop_recall_at_k_vit")
SIDE = 32


def asked(name):
    return parse(["--config", name], prog="train", about="").settings


def is_published(name):
    return asked(name).encoder != "convnet"


def fake(given, classes, each, channels):
    """Data of the shape that an encoder sees, of noise."""
    labels = np.repeat(np.arange(classes), each).astype(np.int32)
    shape = (len(labels), SIDE, SIDE, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pictures = data.Images(images, labels, tuple(map(str, range(classes))))
    sampler = ClassBalanced(labels, given.classes_per_batch, given.per_class, seed=0)
    return data.Data(pictures, None, {"test": pictures}, classes, sampler)


def smaller(given):
    """The settings with a shallow encoder, few rows in a batch and few classes in a step."""
    return dataclasses.replace(
        given,
        steps=2,
        classes_per_batch=8,
        per_class=min(given.per_class, 2),
        chunks=min(given.chunks, 2),
        workers=0,
        crop=0,
        image_size=0,
        dim=8,
        widths=(4,),
        encoder_options={**given.encoder_options, **SMALL.get(given.encoder, {})},
        class_rows=24 if given.class_rows else 0,
        sampled=16 if given.sampled else 0,
        sample_groups=8 if given.sampled else 1,
    )


def finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree.params))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_lines_say_what_to_expect(name):
    text = (settings.CONFIGS / f"{name}.py").read_text().split('"""')[1]
    words = ["python -m experiments.", "MAP@R", "minutes|hours|days", "GPU|cores"]
    if is_published(name):
        words += ["[Pp]ublished", f"--config {name}", "has not been run here"]
    for word in words:
        assert re.search(word, text), word
    assert "SCORE" not in text


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ON_DEVICES])
def test_a_config_trains_two_steps(name, quick_compile):
    small = smaller(asked(name))
    found = fake(small, 12, 2, 3 if is_published(name) else 1)
    parts = {
        "encoder": encoder.build(small),
        "objective": objectives.build(small, 12),
        "optimizer": run.optimizer(small),
    }
    create = functools.partial(training.create_state, images=found.train.images[:1], **parts)
    state = jax.jit(create)(jax.random.key(0))
    step = jax.jit(functools.partial(training.train_step, **parts))
    for number in range(2):
        state, measured = step(state, found.batch(number))
        assert np.isfinite(float(measured["loss"])), name
    assert finite(state)


@pytest.mark.parametrize("name", [name for name in NAMES if not is_published(name)])
def test_a_config_of_a_loss_is_what_its_name_gives(name):
    given = asked(name)
    own = "--data" if name == given.data else "--loss"
    assert given == parse([own, name], prog="train", about="").settings


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_config_builds_with_its_true_shapes(name):
    given, classes = asked(name), PUBLISHED[name]
    objective = objectives.build(given, classes)
    parts = {"objective": objective, "optimizer": run.optimizer(given)}
    module = encoder.build(given)
    side, rows = given.crop or given.image_size, given.classes_per_batch * given.per_class
    images = jax.ShapeDtypeStruct((rows, side, side, 3), jnp.uint8)
    batch = {"labels": jax.ShapeDtypeStruct((rows,), jnp.int32)}
    create = functools.partial(training.create_state, encoder=module, **parts)
    state = jax.eval_shape(lambda image: create(jax.random.key(0), images=image), images)
    embedded = jax.ShapeDtypeStruct((rows, given.dim), jnp.float32)
    parameters = (state.params["objective"], state.objective_state)
    assert jax.eval_shape(objective.loss, *parameters, embedded, batch).shape == ()
    tables = training.tables.class_tables(state.params["objective"])
    assert {table.shape for table in tables} <= {(given.class_rows or classes, given.dim)}


@pytest.mark.parametrize("name", ON_DEVICES)
def test_a_published_config_trains_a_smaller_copy_on_all_devices(name, quick_compile):
    small = smaller(asked(name))
    found = fake(small, 20, 2, 3)
    parts = run.build(small, found)
    state, losses = parts.fresh, []
    with contextlib.closing(parts.batches(0)) as ready:
        for batch in ready:
            state, measured = parts.step(state, batch)
            losses.append(float(measured["loss"]))
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert finite(state)
    assert parts.embed(state, found.train.images[:3]).shape == (3, 8)


def test_the_reality_check_differs_in_the_loss_alone():
    names = [name for name in NAMES if name.startswith("cub200_reality_check_")]
    assert len(names) >= 5
    base = read_config(settings.CONFIGS / "_reality_check.py")
    for name in names:
        given = read_config(settings.CONFIGS / f"{name}.py")
        assert {k: given[k] for k in base} == base
        assert given.keys() - base.keys() <= {"loss", "loss_options", "table_multiplier"}
