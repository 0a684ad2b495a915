"""Optimizers against PyTorch's rules by hand, courses of the rate, parts that wait or stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import training

STEPS = 6
TREE = {
    "encoder": {
        "Neck_0": {"Dense_0": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])}},
        "Conv_0": {"kernel": jnp.array([[3.0]])},
    },
    "objective": {"proxies": jnp.array([[1.0], [4.0]])},
}


def descend(gradient, **options):
    """The trees after each of a few steps of gradients equal to `gradient(tree, step)`."""
    tx = training.optimizer(
        0.1, steps=STEPS, warmup=0, course="constant", clip_norm=None, **options
    )
    trees, tree, state = [], TREE, tx.init(TREE)
    update = jax.jit(tx.update)
    with jax.numpy_dtype_promotion("standard"):
        for step in range(STEPS):
            updates, state = update(gradient(tree, step), state, tree)
            tree = jax.tree.map(jnp.add, tree, updates)
            trees.append(tree)
    return trees


def ones(tree, step):
    return jax.tree.map(jnp.ones_like, tree)


def numbers(trees, *path):
    for name in path:
        trees = [tree[name] for tree in trees]
    return np.array([np.ravel(tree) for tree in trees])


def test_sgd_adds_decay_to_the_gradient_and_keeps_momentum():
    trees = descend(ones, kind="sgd", momentum=0.9, weight_decay=0.5, table_decay=0.25)
    for path, start, decay in (
        (("encoder", "Conv_0", "kernel"), 3.0, 0.5),
        (("encoder", "Neck_0", "Dense_0", "bias"), 1.0, 0.0),
        (("objective", "proxies"), np.array([1.0, 4.0]), 0.25),
    ):
        weight, speed = start, 0.0
        for got in numbers(trees, *path):
            speed = 0.9 * speed + 1.0 + decay * weight
            weight = weight - 0.1 * speed
            np.testing.assert_allclose(got, np.ravel(weight), rtol=1e-5)


def test_rmsprop_is_that_of_pytorch():
    trees = descend(ones, kind="rmsprop", momentum=0.9, weight_decay=0.5)
    weight, square, speed = 3.0, 0.0, 0.0
    for got in numbers(trees, "encoder", "Conv_0", "kernel"):
        gradient = 1.0 + 0.5 * weight
        square = 0.99 * square + 0.01 * gradient**2
        speed = 0.9 * speed + gradient / (np.sqrt(square) + 1e-8)
        weight -= 0.1 * speed
        np.testing.assert_allclose(got, weight, rtol=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_frozen_trunk_stays_and_then_starts_as_if_it_were_the_first_step(kind):
    options = {"kind": kind, "weight_decay": 0.1, "trunk_multiplier": 0.5}
    trees = descend(ones, freeze_trunk_steps=2, **options)
    trunk = numbers(trees, "encoder", "Conv_0", "kernel")
    np.testing.assert_array_equal(trunk[:2], 3.0)
    free = descend(ones, **options)
    np.testing.assert_allclose(trunk[2:], numbers(free, "encoder", "Conv_0", "kernel")[:-2])
    for path in (("encoder", "Neck_0", "Dense_0", "kernel"), ("objective", "proxies")):
        np.testing.assert_array_equal(numbers(trees, *path), numbers(free, *path))
        assert (numbers(trees, *path)[0] != numbers([TREE], *path)[0]).all()
    alike = descend(ones, kind=kind, weight_decay=0.1)
    moved = [numbers(t, "encoder", "Conv_0", "kernel")[0] - 3.0 for t in (free, alike)]
    np.testing.assert_allclose(moved[0], 0.5 * moved[1], rtol=1e-4)


def test_lazy_tables_leave_rows_without_a_gradient():
    def second_now_and_then(tree, step):
        gradient = ones(tree, step)
        gradient["objective"]["proxies"] = jnp.array([[1.0], [float(step % 2)]])
        return gradient

    lazy = descend(second_now_and_then, kind="sgd", table_decay=0.1, lazy_tables=True)
    rows = numbers(lazy, "objective", "proxies")
    assert (np.diff(rows[:, 0]) != 0).all()
    np.testing.assert_array_equal(np.diff(rows[:, 1]) != 0, [True, False, True, False, True])
    eager = descend(second_now_and_then, kind="sgd", table_decay=0.1)
    assert (np.diff(numbers(eager, "objective", "proxies")[:, 1]) != 0).all()


def test_the_courses_of_the_rate():
    steps = training.schedule(1.0, steps=10, warmup=2, course="steps", milestones=(4, 8), drop=0.5)
    got = [float(steps(step)) for step in range(10)]
    assert got == [0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]
    constant = training.schedule(1.0, steps=10, warmup=0, course="constant")
    assert [float(constant(step)) for step in (0, 9, 99)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kind", {"kind": "adam"}),
        ("course", {"course": "linear"}),
        ("milestones", {"course": "steps"}),
        ("milestones", {"milestones": (3,)}),
        ("milestones", {"course": "steps", "milestones": (3, 2)}),
        ("drop", {"drop": 2.0}),
        ("trunk_multiplier", {"trunk_multiplier": -1.0}),
        ("table_decay", {"table_decay": float("nan")}),
        ("freeze_trunk_steps", {"freeze_trunk_steps": -1}),
        ("momentum", {"momentum": -0.1}),
    ],
)
def test_bad_numbers_are_one_line(name, options):
    with pytest.raises(ValueError, match=f"^{name}: got [^\n]*, expected [^\n]*$"):
        training.optimizer(0.1, steps=9, **options)
