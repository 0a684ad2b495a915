"""Reported faults, and what their papers promise, of the ranking losses; see `test_faults`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references_ranking

from jdml import distances, losses, miners

pytestmark = pytest.mark.usefixtures("quick_compile")

OF_POSITIVES = [losses.smooth_ap, losses.sup_ap, losses.pnp]  # nothing without a positive
EVERY = [*OF_POSITIVES, losses.roadmap, losses.ranked_list]
by_name = lambda loss: loss.__name__
UNEVEN = np.array([2, 0, 1, 0, 2, 0, 3, 2, 0])  # classes of four, three, one and one row


def value_and_gradient(loss, x, *args, **options):
    x = jnp.asarray(x, jnp.float32)
    value, gradient = jax.value_and_grad(lambda x: loss(x, *args, **options))(x)
    return float(value), np.asarray(gradient)


def random_rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4))


# ---------------------------------------------------------------- A: values and gradients


@pytest.mark.parametrize("loss", [losses.pnp, losses.sup_ap, losses.ranked_list], ids=by_name)
def test_a1_a_list_in_order_has_no_loss_and_no_gradient(loss):
    """Classes are points, far apart: no negative comes first, none is within the boundary."""
    x, y = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]), np.array([0, 0, 1, 1])
    value, gradient = value_and_gradient(loss, x, y)
    np.testing.assert_allclose(value, 0, atol=1e-7)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


@pytest.mark.parametrize("loss", OF_POSITIVES, ids=by_name)
@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]], ids=["all lone", "one class"])
def test_a2_a3_a5_without_positives_or_negatives(loss, labels):
    value, gradient = value_and_gradient(loss, random_rows(4), np.array(labels))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("loss", [losses.roadmap, losses.ranked_list], ids=by_name)
def test_a3_lone_rows_are_still_pushed_apart(loss):
    value, gradient = value_and_gradient(loss, np.array([[1.0, 0.1], [1.0, 0.0]]), np.array([0, 1]))
    assert value > 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", EVERY, ids=by_name)
def test_a4_an_anchor_is_not_its_own_positive(loss):
    x, weights = random_rows(9), 1.0 - np.eye(9, dtype=np.float32)
    np.testing.assert_allclose(loss(x, UNEVEN), loss(x, UNEVEN, weights=weights), rtol=1e-6)


@pytest.mark.parametrize("name", ["positive_scale", "negative_scale"])
def test_a18_a_scale_that_explodes_stays_finite(name):
    """The weights tend to the hardest pair alone."""
    x, y = np.array([[0.0], [1.0], [0.9], [0.5], [0.6]]), np.array([0, 0, 0, 1, 1])
    options = {"distance": distances.euclidean, "negative_scale": 0.0, name: 1e6}
    by_anchor = losses.ranked_list(x, y, reduction="none", **options)
    hardest = {"positive_scale": (0.2, 0.65), "negative_scale": (0.15, 0.7)}[name]
    np.testing.assert_allclose(by_anchor[0], sum(hardest) / 2, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("loss", EVERY, ids=by_name)
def test_a19_a20_j7_half_precision_rows(loss, dtype):
    """Rows of norm 400, whose squares overflow float16: lifted first, then the float32 answer."""
    x = random_rows(9)
    x = jnp.asarray(400 * x / np.linalg.norm(x, axis=1, keepdims=True), dtype)
    got, gradient = jax.value_and_grad(lambda x: loss(x, UNEVEN))(x)
    assert got.dtype == jnp.float32
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(got, loss(x.astype(jnp.float32), UNEVEN), rtol=1e-6)


# ---------------------------------------------------------------- B, D: labels and references


@pytest.mark.parametrize("loss", EVERY, ids=by_name)
def test_b2_minus_one_is_padding(loss):
    x, y = random_rows(5), np.array([0, 0, -1, 1, 1])
    kept = y >= 0
    np.testing.assert_allclose(loss(x, y), loss(x[kept], y[kept]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss", EVERY, ids=by_name)
def test_b3_text_labels_are_named(loss):
    with pytest.raises(TypeError, match=r"labels: got .*, expected numbers; np\.unique"):
        loss(np.zeros((3, 3)), ["a", "b", "a"])


@pytest.mark.parametrize("reverse", [False, True])
def test_d1_explicit_references_keep_their_diagonal(reverse):
    """Row i against reference i is a pair like any other: the positive, in front of the other."""
    x, y = np.eye(2), np.array([0, 1])
    step = -1 if reverse else 1
    refs = {"refs": x[::step].copy(), "ref_labels": y[::step].copy(), "reduction": "none"}
    np.testing.assert_allclose(losses.pnp(x, y, **refs), [0.0, 0.0], atol=1e-6)
    crossed = {**refs, "ref_labels": y[::-step].copy()}
    np.testing.assert_allclose(losses.pnp(x, y, variant="O", **crossed), [1.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("loss", [losses.sup_ap, losses.pnp], ids=by_name)
def test_d2_a_duplicate_is_a_positive(loss):
    """The one other row of the class is a copy: first in the ranking of both."""
    x = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    by_anchor = loss(x, np.array([0, 0, 1, 2]), reduction="none")
    np.testing.assert_allclose(by_anchor, 0.0, atol=1e-6)


@pytest.mark.parametrize("loss", OF_POSITIVES, ids=by_name)
def test_a_pair_of_a_degree_does_not_stand_before_itself(loss):
    """Half a positive and half a negative: the only row of the ranking is at rank one."""
    degrees = np.array([[0.0, 0.5], [0.5, 0.0]], np.float32)
    np.testing.assert_allclose(loss(np.eye(2), degrees), 0.0)


# ---------------------------------------------------------------- J: a known peer's


@pytest.mark.parametrize("loss", EVERY, ids=by_name)
def test_j1_any_class_sizes_in_any_order(loss):
    x, order = random_rows(9), np.argsort(UNEVEN, kind="stable")
    plain, gradient = value_and_gradient(loss, x, UNEVEN)
    by_class, ordered = value_and_gradient(loss, x[order], UNEVEN[order])
    np.testing.assert_allclose(by_class, plain, rtol=1e-5)
    np.testing.assert_allclose(ordered, gradient[order], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", [losses.sup_ap, losses.pnp, losses.roadmap], ids=by_name)
def test_j10_memory_grows_with_the_square_and_not_with_the_cube(loss):
    """Compiled temporaries, doubled batch, one anchor at a time."""

    def temporaries(n: int) -> int:
        x, y = jnp.zeros((n, 4)), jnp.zeros(n, jnp.int32)
        step = jax.jit(jax.grad(lambda x: loss(x, y, block_size=1)))
        return step.lower(x).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(128), temporaries(256)
    assert large <= 4.5 * small
    assert large < 16 * 256 * 256 * 4  # a few squares; the cube would be 256 of them


# ---------------------------------------------------------------- what the papers promise


def missing_precision(x: np.ndarray, y: np.ndarray) -> float:
    """1 - average precision of the true ranking, over anchors with a positive, self left out."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    missing = []
    for i in range(len(y)):
        order = [j for j in np.argsort(-unit @ unit[i]) if j != i]
        hits = np.flatnonzero(y[order] == y[i])
        if len(hits):
            missing.append(1 - np.mean((np.arange(len(hits)) + 1) / (hits + 1)))
    return float(np.mean(missing))


@pytest.mark.parametrize("seed", range(4))
def test_sup_ap_is_above_what_is_missing_of_the_average_precision(seed):
    x = random_rows(9, seed)
    missing = missing_precision(x, UNEVEN)
    for options in ({}, {"offset": 1.44}, {"temperature": 0.3, "slope": 1.0, "delta": 0.4}):
        assert float(losses.sup_ap(x, UNEVEN, **options)) >= missing - 1e-6
    smooth = float(losses.smooth_ap(x, UNEVEN, temperature=1.0))
    assert abs(smooth - missing) > 1e-3  # which a plain sigmoid promises on neither side


def test_sup_ap_with_true_steps_is_what_is_missing_of_the_average_precision():
    x = random_rows(9)
    value = losses.sup_ap(x, UNEVEN, temperature=1e-6, slope=0.0, delta=0.0, offset=1.0, start=0.0)
    np.testing.assert_allclose(value, missing_precision(x, UNEVEN), rtol=1e-5)


def test_sup_ap_leaves_the_order_of_positives_alone():
    """Where a positive stands among its like, and how near, has no gradient."""
    x, y = random_rows(9), np.zeros(9, int)
    y[-1] = 1  # the one negative of all anchors, and far from all of them
    x[:-1, 0], x[-1] = np.abs(x[:-1, 0]) + 20.0, [-1.0, 0.0, 0.0, 0.0]
    _, gradient = value_and_gradient(losses.sup_ap, x, y)
    assert not gradient.any()


def test_the_step_of_sup_ap_rises_and_is_continuous_at_delta():
    """One positive at a cosine of 0.2, one negative that passes it: R- = value / (1 - value)."""
    gaps = np.concatenate([np.linspace(-0.5, 0.5, 41), [0.05 - 1e-5, 0.05 + 1e-5]])
    step = []
    for gap in gaps:
        cosines = np.array([0.2, 0.2 + gap])
        refs = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
        options = {"refs": refs, "ref_labels": np.array([0, 1])}
        value = losses.sup_ap(np.array([[1.0, 0.0]]), np.array([0]), **options)
        step.append(float(value / (1 - value)))
    expected = [references_ranking.h_minus(g, 0.01, 100.0, 0.05, None, 0.5) for g in gaps]
    near_zero = np.abs(gaps) < 1e-6  # a tie, on either side by rounding
    np.testing.assert_allclose(
        np.array(step)[~near_zero], np.array(expected)[~near_zero], rtol=2e-3, atol=1e-5
    )
    assert (np.diff(step[:41]) > -1e-6).all()
    assert abs(step[-1] - step[-2]) < 0.01


def test_ranked_list_holds_its_weights():
    """The gradient is that of a plain mean over pairs that were weighed beforehand."""
    x, margin, scales = random_rows(9), 0.6, (2.0, 5.0)
    numbers = {"positive_scale": scales[0], "negative_scale": scales[1]}
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    same, outer = UNEVEN[:, None] == UNEVEN[None, :], 1 + margin / 2
    scaled = np.where(same, scales[0] * (d - outer + margin), scales[1] * (outer - d))
    held, gradient = value_and_gradient(losses.ranked_list, x, UNEVEN, margin=margin, **numbers)
    plain = {"margin": margin, "negative_scale": 0.0, "weights": np.exp(scaled)}
    value, expected = value_and_gradient(losses.ranked_list, x, UNEVEN, **plain)
    np.testing.assert_allclose(held, value, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    _, through = value_and_gradient(
        losses.ranked_list, x, UNEVEN, margin=margin, hold_weights=False, **numbers
    )
    assert np.abs(through - gradient).max() > 1e-2


@pytest.mark.parametrize("variant", ["O", "Iu", "Ib", "Ds", "Dq"])
def test_pnp_keeps_its_digits_where_almost_nothing_comes_first(variant):
    """One negative behind the positive counts N = sigma(-12): f(N) in float32 to five digits.

    Ib is the exception: its two terms cancel, to about N^2 / 2.
    """
    x, refs = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    options = {"refs": refs, "ref_labels": np.array([0, 1]), "temperature": 1 / 12}
    value = losses.pnp(x, np.array([0]), variant=variant, **options)
    n = 1 / (1 + np.exp(12.0))
    expected = {"O": n, "Iu": (1 + n) * np.log1p(n), "Ib": n**2 / 2, "Ds": np.log1p(n), "Dq": 4 * n}
    atol = 1e-6 if variant == "Ib" else 0.0
    np.testing.assert_allclose(value, expected[variant], rtol=5e-5, atol=atol)


# ---------------------------------------------------------------- bad input


def test_bad_choices_are_one_line_that_names_the_argument():
    x, y = np.eye(3), np.array([0, 0, 1])
    with pytest.raises(ValueError, match="variant: got 'D', expected one of O, Iu, Ib, Ds, Dq"):
        losses.pnp(x, y, variant="D")
    for loss in (losses.pnp, losses.sup_ap, losses.roadmap):
        with pytest.raises(ValueError, match="expected one that picks them for each anchor, as"):
            loss(x, y, miner=miners.SemiHard())
