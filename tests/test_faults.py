"""Faults that users of other libraries reported, each with its smallest input and right value.

A test is named after its row: letter and number, then the kind of fault.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import distances, losses, miners

pytestmark = pytest.mark.usefixtures("quick_compile")

PAIR_LOSSES = [
    losses.contrastive,
    losses.squared_contrastive,
    losses.triplet,
    losses.soft_margin_triplet,
    losses.quadruplet,
    losses.lifted_structure,
    losses.generalized_lifted_structure,
    losses.n_pair,
    losses.angular,
]
HEADS = [losses.sphereface, losses.cosface, losses.arcface, losses.combined_margin]
by_name = lambda loss: loss.__name__


def value_and_gradient(loss, x, *args, **options):
    x = jnp.asarray(x, jnp.float32)
    value, gradient = jax.value_and_grad(lambda x: loss(x, *args, **options))(x)
    return float(value), np.asarray(gradient)


# ---------------------------------------------------------------- A: values and gradients


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 2, 3]])
def test_a1_triplet_with_nothing_active(labels):
    x = [[0, 0], [0, 0.1], [9, 0], [9, 0.1]]
    value, gradient = value_and_gradient(losses.triplet, x, np.array(labels), margin=0.2)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("loss", PAIR_LOSSES, ids=by_name)
def test_a2_a3_a5_anchors_without_a_positive_are_no_nan(loss):
    """All labels distinct: whatever rests on positives is 0, with gradient 0."""
    x, y = np.random.default_rng(0).normal(size=(4, 3)), np.arange(4)
    value, gradient = value_and_gradient(loss, x, y, reduction="mean")
    assert np.isfinite(gradient).all()
    if loss not in (losses.contrastive, losses.squared_contrastive):  # these also push negatives
        assert value == 0
        assert not gradient.any()


def test_a2_an_anchor_without_a_positive_leaves_the_mean():
    """Two of three anchors are valid: the mean is over two."""
    x, y = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0, 1])
    value = losses.n_pair(x, y, norm_weight=0.0)
    np.testing.assert_allclose(value, math.log1p(math.exp(-1)), rtol=1e-6)


@pytest.mark.parametrize("loss", PAIR_LOSSES, ids=by_name)
def test_a4_an_anchor_is_not_its_own_positive(loss):
    """Two classes of one row: no positive, and nothing depends on the distance to itself."""
    x, y = np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    weights = 1.0 - np.eye(2, dtype=np.float32)
    plain, weighed = loss(x, y), loss(x, y, weights=weights)
    np.testing.assert_allclose(plain, weighed)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0]])
def test_a5_lifted_structure_without_positives_or_negatives(labels):
    x = np.random.default_rng(0).normal(size=(len(labels), 2))
    value, gradient = value_and_gradient(losses.lifted_structure, x, np.array(labels))
    assert value == 0
    assert not gradient.any()


def test_a6_semi_hard_with_an_empty_band_takes_no_negative():
    """Positive at 1, negative at 0.25: nothing lies between 1 and 1.2, so there is no triplet."""
    x, y = jnp.array([[100.0], [0.0], [1.0], [0.5]]), jnp.array([2, 0, 0, 1])
    options = {"distance": distances.squared_euclidean, "margin": 0.2, "reduction": "none"}
    banded = losses.triplet(x, y, miner=miners.SemiHard(margin=0.2), **options)
    assert not banded.any()
    weights = losses.triplet(x, y, miner=miners.SemiHard(margin=0.2), **{**options, "margin": 1e9})
    assert not weights.any()  # not even a far margin finds one: it is not there


def test_a11_a_norm_of_degree_one_is_no_signed_sum():
    a, p, n = [0.0, 0.0], [1.0, 1.0], [3.0, 3.0]
    x, y = jnp.array([a, p, n]), jnp.array([0, 0, 1])
    loss = losses.triplet(x, y, margin=1.0, distance=distances.lp(1), reduction="none")
    assert float(loss[0]) == 0
    assert np.isfinite(losses.triplet(x, y, distance=distances.lp(3)))


@pytest.mark.parametrize("loss", [losses.arcface, losses.combined_margin], ids=by_name)
@pytest.mark.parametrize("margin", [0.3, 0.5, 1.4])
def test_a14_the_target_logit_never_rises_with_the_angle(loss, margin):
    theta = jnp.linspace(0.0, math.pi, 301)
    x, proxies = jnp.stack([jnp.cos(theta), jnp.sin(theta)], 1), jnp.eye(2)[:1]
    # With one class in the table besides an orthogonal dummy, the loss falls as the logit rises.
    proxies = jnp.concatenate([proxies, jnp.zeros((1, 2))])
    name = "margin" if loss is losses.arcface else "angle_margin"
    values = loss(
        x, jnp.zeros(301, jnp.int32), proxies, scale=1.0, reduction="none", **{name: margin}
    )
    assert (np.diff(values) > -1e-6).all()


def test_a14_sphereface_falls_through_its_steps():
    """psi is 1, -1, -3, -5, -7 at 0, 45, 90, 135 and 180 degrees."""
    theta = jnp.arange(5.0) * math.pi / 4
    x, proxies = jnp.stack([jnp.cos(theta), jnp.sin(theta)], 1), jnp.array([[1.0, 0.0], [0.0, 0.0]])
    values = losses.sphereface(x, jnp.zeros(5, jnp.int32), proxies, reduction="none")
    psi = -jnp.log(jnp.expm1(values))
    np.testing.assert_allclose(psi, [1, -1, -3, -5, -7], atol=1e-3)


@pytest.mark.parametrize("loss", HEADS, ids=by_name)
def test_a15_rows_on_and_opposite_their_class(loss):
    w = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    x = np.array([w[0], -w[0], w[0] * (1 + 1e-7), w[1], -w[1]])
    value, gradient = value_and_gradient(loss, x, np.array([0, 0, 0, 1, 1]), w)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1e3, 1e6])
@pytest.mark.parametrize("loss", HEADS, ids=by_name)
def test_a18_a_scale_that_explodes_stays_finite(loss, scale):
    x, w = np.random.default_rng(0).normal(size=(4, 3)), np.eye(3)
    grad = jax.value_and_grad(lambda s: loss(x, np.array([0, 1, 2, 0]), w, scale=s))
    value, by_scale = grad(jnp.float32(scale))
    assert np.isfinite(value)
    assert np.isfinite(by_scale)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("loss", [*PAIR_LOSSES, *HEADS], ids=by_name)
def test_a19_a20_half_precision_rows(loss, dtype):
    """Rows of norm 400, whose squares overflow float16: lifted first, then the float32 answer."""
    x = np.random.default_rng(0).normal(size=(6, 8))
    x = jnp.asarray(400 * x / np.linalg.norm(x, axis=1, keepdims=True), dtype)
    y = np.array([0, 0, 1, 1, 2, 2], np.int32)
    table = [jnp.asarray(np.eye(3, 8), dtype)] if loss in HEADS else []
    lifted = [v.astype(jnp.float32) for v in (x, *table)]
    got = loss(x, y, *table)
    expected = loss(lifted[0], y, *lifted[1:])
    assert got.dtype == jnp.float32
    assert np.isfinite(got)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("loss", HEADS, ids=by_name)
def test_a21_a_sampled_head_maps_labels_to_its_classes(loss):
    """Classes {1, 3} of four are kept: label 3 means the second row of the table."""
    x, w = (
        np.random.default_rng(0).normal(size=(2, 3)),
        np.random.default_rng(1).normal(size=(4, 3)),
    )
    kept = np.array([1, 3])
    sampled = loss(x, np.array([3, 0]), w[kept], proxy_labels=kept, reduction="none")
    remapped = loss(x, np.array([1, -1]), w[kept], reduction="none")
    np.testing.assert_allclose(sampled, remapped)
    assert float(sampled[1]) == 0  # a class that was not kept does not count


# ---------------------------------------------------------------- B: labels


@pytest.mark.parametrize("loss", HEADS, ids=by_name)
def test_b1_labels_counted_from_one_are_an_error(loss):
    with pytest.raises(ValueError, match="labels: got class 3, expected 0 to 2 for a table of 3"):
        loss(np.zeros((3, 2)), np.array([1, 2, 3]), np.eye(3, 2))


@pytest.mark.parametrize("loss", HEADS, ids=by_name)
def test_b1_inside_jit_such_a_row_trains_no_class(loss):
    """Where values cannot be read, the row does not count: no wrap to another class."""
    x, w, y = np.random.default_rng(0).normal(size=(3, 3)), np.eye(3), np.array([1, 2, 3])
    grad = jax.jit(jax.grad(lambda w, y: loss(x, y, w, reduction="sum")))
    wrong, dropped = grad(jnp.asarray(w), y), grad(jnp.asarray(w), np.array([1, 2, -1]))
    np.testing.assert_allclose(wrong, dropped)


@pytest.mark.parametrize("loss", [*PAIR_LOSSES, *HEADS], ids=by_name)
def test_b2_minus_one_is_padding(loss):
    x, y = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 0, -1, 1, 1])
    table = [np.eye(2, 3)] if loss in HEADS else []
    kept = y >= 0
    np.testing.assert_allclose(
        loss(x, y, *table), loss(x[kept], y[kept], *table), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("loss", [*PAIR_LOSSES, *HEADS], ids=by_name)
def test_b3_text_labels_are_named(loss):
    table = [np.eye(2, 3)] if loss in HEADS else []
    with pytest.raises(TypeError, match=r"labels: got .*, expected numbers; np\.unique"):
        loss(np.zeros((3, 3)), ["a", "b", "a"], *table)


# ---------------------------------------------------------------- D: miners and references


@pytest.mark.parametrize("reverse", [False, True])
def test_d1_explicit_references_keep_their_diagonal(reverse):
    """Row i against reference i is a pair like any other; indices are those of the references."""
    x, y = np.array([[0.0], [1.0]]), np.array([0, 1])
    step = -1 if reverse else 1
    loss = losses.contrastive(
        x, y, refs=x[::step].copy(), ref_labels=y[::step].copy(), negative_margin=3.0,
        reduction="none",
    )  # fmt: skip
    np.testing.assert_allclose(loss, [2.0, 2.0])  # positives at 0, one negative at 1 each


def test_d2_a_duplicate_is_a_positive_and_an_empty_set_is_zero():
    x = np.array([[1.0, 0.0], [1.0, 0.0]])
    options = {"distance": distances.cosine, "miner": miners.MultiSimilarity()}
    third = np.array([[0.9, 0.1]])
    pairs = losses.contrastive(
        np.concatenate([x, third]), np.array([0, 0, 1]), reduction="sum", positive_margin=-1.0,
        **options,
    )  # fmt: skip
    alone = losses.contrastive(x, np.array([0, 1]), reduction="sum", **options)
    # The duplicates pull each other at distance 0; the third row has no positive, so nothing.
    np.testing.assert_allclose(pairs, 2.0 + 2 * 0.9 / math.hypot(0.9, 0.1), rtol=1e-5)
    assert float(alone) == 0


def test_d4_positives_and_negatives_are_not_the_same_number():
    x, y = np.array([[0.0], [0.0], [9.0], [9.0]]), np.array([0, 0, 1, 1])
    pull = losses.contrastive(x, y, negative_margin=0.0, reduction="mean")
    push = losses.contrastive(x, y, negative_margin=10.0, positive_margin=99.0, reduction="mean")
    assert float(pull) == 0
    np.testing.assert_allclose(push, 1.0, rtol=1e-6)  # 10 - 9


def _all_miners():
    return [
        miners.BatchHard(),
        miners.SemiHard(),
        miners.SemiHard(margin=0.5),
        miners.BatchEasyHard("easy", "semihard"),
        miners.TripletMargin(0.5, "hard"),
        miners.MultiSimilarity(),
        miners.PairMargin(0.1, 2.0),
        miners.Chain(miners.PairMargin(0.1, 2.0), miners.BatchHard()),
        miners.Chain(miners.MultiSimilarity(0.5), miners.TripletMargin(1.0, "all")),
    ]


@pytest.mark.parametrize("miner", _all_miners(), ids=str)
def test_d5_miners_jit_to_the_same_triplets(miner):
    x, y = np.random.default_rng(0).normal(size=(9, 3)), np.arange(9) % 3
    x = jnp.asarray(x, jnp.float32)
    compiled = losses.triplet(x, y, margin=1.0, miner=miner, reduction="none")
    with jax.disable_jit():
        plain = losses.triplet(x, y, margin=1.0, miner=miner, reduction="none")
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)
    assert np.asarray(compiled).any()


def test_equal_miners_share_a_compilation():
    x, y = jnp.zeros((6, 2)), np.arange(6) % 3
    losses.triplet(x, y, miner=miners.SemiHard(margin=0.25))
    before = losses.triplet.jitted._cache_size()
    losses.triplet(x, y, miner=miners.SemiHard(margin=0.25))
    losses.triplet(x, y, miner=miners.Chain(miners.SemiHard(margin=0.25)))
    losses.triplet(x, y, miner=miners.Chain(miners.SemiHard(margin=0.25)))
    assert losses.triplet.jitted._cache_size() == before + 1


# ---------------------------------------------------------------- bad input


BAD = [
    ({"labels": np.zeros(4, np.int32)}, ValueError, r"labels: got int32\[4\], expected shape"),
    ({"labels": np.zeros(3)}, TypeError, r"labels: got float\d\d\[3\], expected (class )?integers"),
    ({"labels": np.zeros((3, 1, 1), np.int32)}, ValueError, r"labels: got int32\[3, 1, 1\]"),
    ({"embeddings": np.zeros(3)}, ValueError, r"embeddings: got float\d\d\[3\], expected a matrix"),
    # C9: pairs of rows where single rows are wanted.
    ({"embeddings": np.zeros((3, 2, 2))}, ValueError, r"embeddings: got float\d\d\[3, 2, 2\], exp"),
    ({"embeddings": np.zeros((3, 2), int)}, TypeError, r"embeddings: got int\d\d\[3, 2\]"),
    ({"where": np.ones(3, int)}, TypeError, r"where: got int\d\d\[3\], expected booleans"),
    ({"where": np.ones(2, bool)}, ValueError, r"where: got bool\[2\], expected shape \(3,\)"),
    ({"reduction": "avg"}, ValueError, "reduction: got 'avg', expected one of mean, mean_active"),
    ({"block_size": 0}, ValueError, "block_size: got 0, expected a whole number >= 1"),
    ({"weights": np.ones(2)}, ValueError, r"weights: got float32\[2\], expected shape"),
    ({"labels": np.array([0, 1, 2**40])}, ValueError, "labels: got the id 1099511627776"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD, ids=[str(list(c)) for c, *_ in BAD])
@pytest.mark.parametrize("loss", [losses.triplet, losses.arcface], ids=by_name)
def test_bad_input_is_one_line_that_names_the_argument(loss, change, error, message):
    good = {"embeddings": np.zeros((3, 2)), "labels": np.zeros(3, np.int32)}
    if loss is losses.arcface:
        good["proxies"] = np.eye(2)
    with pytest.raises(error, match=message) as caught:
        loss(**{**good, **change})
    assert "\n" not in str(caught.value)


def test_bad_references_and_tables_are_named():
    x, y = np.zeros((3, 2)), np.zeros(3, np.int32)
    with pytest.raises(ValueError, match=r"refs: got float32\[4, 5\], expected rows of the 2 dim"):
        losses.triplet(x, y, refs=np.zeros((4, 5)), ref_labels=np.zeros(4, np.int32))
    with pytest.raises(ValueError, match="ref_labels: got None, expected the labels of refs"):
        losses.triplet(x, y, refs=np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"ref_labels: got int\d\d\[3\] without refs"):
        losses.triplet(x, y, ref_labels=y)
    with pytest.raises(ValueError, match=r"proxies: got float\d\d\[2, 5\], expected rows of the 2"):
        losses.arcface(x, y, np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"margin: got float32\[2\], expected a number, or shape"):
        losses.arcface(x, y, np.zeros((2, 2)), margin=np.zeros(2))
    with pytest.raises(ValueError, match=r"centers: got float\d\d\[2, 1, 2\], expected a table"):
        losses.center(x, y, np.zeros((2, 1, 2)))
    with pytest.raises(ValueError, match="kind: got 'medium', expected one of all, hard"):
        miners.TripletMargin(kind="medium")
    with pytest.raises(TypeError, match="missing a required argument: 'proxies'"):
        losses.arcface(x, y)
