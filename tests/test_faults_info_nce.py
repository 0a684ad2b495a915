"""Reported faults, and what their papers promise, of the InfoNCE family; see `test_faults`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jdml import losses, miners

pytestmark = pytest.mark.usefixtures("quick_compile")
OF_NEGATIVES = [
    losses.ntxent, losses.clip, losses.decoupled_ntxent, losses.hard_negative_ntxent
]  # fmt: skip
FAMILY = [losses.supcon, *OF_NEGATIVES]
by_name = lambda loss: loss.__name__
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
REFS = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
Y = np.array([0, 0, 1, 1, 0, 2])


def cosines(x, y):
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)
    return unit(x.astype(np.float64)) @ unit(y.astype(np.float64)).T


# ---------------------------------------------------------------- A: values and gradients


@pytest.mark.parametrize("loss", FAMILY, ids=by_name)
def test_a2_the_mean_is_over_anchors_with_a_positive(loss):
    u, y = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32), np.array([0, 0, 1])
    right = math.log1p(math.exp(-1))  # .31326, not the .20884 of a mean over all three
    options = {"prior": 0.0} if loss is losses.hard_negative_ntxent else {}
    if loss is losses.decoupled_ntxent:
        right = -1.0
    np.testing.assert_allclose(loss(u, y, temperature=1.0, **options), right, rtol=1e-6)


@pytest.mark.parametrize("loss", FAMILY, ids=by_name)
def test_a3_all_labels_distinct_is_zero(loss):
    value, gradient = jax.value_and_grad(lambda x: loss(x, np.arange(4)))(jnp.asarray(X[:4]))
    assert float(value) == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("loss", [*FAMILY, losses.siglip], ids=by_name)
@pytest.mark.parametrize("labels", [[0, 1], [0, 0, 1]], ids=str)
def test_a4_an_anchor_is_not_its_own_positive(loss, labels):
    """Nothing depends on the pair of a row with itself: its weight is of no account."""
    n = len(labels)
    weighed = loss(X[:n], np.array(labels), weights=1.0 - np.eye(n, dtype=np.float32))
    np.testing.assert_allclose(loss(X[:n], np.array(labels)), weighed, rtol=1e-6)


def test_a13_softmaxes_are_those_written_out():
    """Plain exponentials in float64, without any of the steps that keep them in range."""
    x, y = np.random.default_rng(2).normal(size=(8, 3)), np.array([0, 0, 1, 1, 0, 2, 2, 1])
    powers = np.exp(cosines(x, x) / 0.5) * (1 - np.eye(8))
    same = (y[:, None] == y) & ~np.eye(8, dtype=bool)
    whole, others = powers.sum(1, keepdims=True), (powers * (y[:, None] != y)).sum(1, keepdims=True)
    mean = lambda values: np.where(same, values, 0).sum(1) / same.sum(1)
    share, alone = (powers + np.eye(8)) / whole, (powers + np.eye(8)) / (powers + others)
    expected = {
        "supcon": (losses.supcon, {}, mean(-np.log(share)).mean()),
        "inside": (losses.supcon, {"inside": True}, -np.log(mean(share)).mean()),
        "ntxent": (losses.ntxent, {}, -np.log(alone[same]).mean()),
        "all": (losses.ntxent, {"denominator": "all"}, -np.log(share[same]).mean()),
        "decoupled": (
            losses.decoupled_ntxent, {}, -np.log(((powers + np.eye(8)) / others)[same]).mean()
        ),
    }  # fmt: skip
    for name, (loss, options, value) in expected.items():
        got = loss(x.astype(np.float32), y, temperature=0.5, **options)
        np.testing.assert_allclose(got, value, atol=1e-6, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("loss", FAMILY, ids=by_name)
@pytest.mark.parametrize("temperature", [1e-3, 2e-4, 100.0])
def test_a18_extreme_temperatures_stay_finite(loss, temperature):
    grad = jax.value_and_grad(lambda x, t: loss(x, Y, temperature=t), argnums=(0, 1))
    value, (by_rows, by_temperature) = grad(jnp.asarray(X), jnp.float32(temperature))
    assert np.isfinite(value)
    assert np.isfinite(by_rows).all()
    assert np.isfinite(by_temperature)


def test_a18_an_extreme_scale_stays_finite():
    grad = jax.value_and_grad(lambda x, s: losses.siglip(x, Y, scale=s), argnums=(0, 1))
    value, gradients = grad(jnp.asarray(X), jnp.float32(1e4))
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("loss", [losses.ntxent, losses.clip], ids=by_name)
def test_a22_a_batch_of_four_is_not_two_batches_of_two(loss):
    """More rows are more negatives: averaging two halves is another loss, as it should be."""
    value = lambda rows: loss(
        np.eye(4)[rows], rows, refs=np.eye(4)[rows], ref_labels=rows, temperature=1.0
    )
    np.testing.assert_allclose(value(np.arange(4)), math.log1p(3 * math.exp(-1)), rtol=1e-6)
    halves = (value(np.arange(2)) + value(np.arange(2, 4))) / 2
    np.testing.assert_allclose(halves, math.log1p(math.exp(-1)), rtol=1e-6)


# ---------------------------------------------------------------- C, E: duplicates and devices


@pytest.mark.parametrize("loss", OF_NEGATIVES, ids=by_name)
def test_c7_a_duplicate_under_the_same_label_is_no_negative(loss):
    """Two equal (query, document) pairs under one label: every value is as if there were one."""
    options = {"refs": REFS[[2, 2, 3]], "ref_labels": np.array([0, 0, 1]), "reduction": "none"}
    twice = loss(X[[0, 0, 1]], np.array([0, 0, 1]), **options)
    options = {**options, "refs": REFS[[2, 3]], "ref_labels": np.array([0, 1])}
    once = loss(X[:2], np.array([0, 1]), **options)
    if loss is losses.hard_negative_ntxent:  # more negatives for the other query, that is all
        np.testing.assert_allclose(twice[:2], 2 * np.asarray(once)[[0, 0]], rtol=1e-5)
    else:
        np.testing.assert_allclose(twice[0], 2 * once[0], rtol=1e-5)
    apart = loss(X[:1], np.array([0]), **{**options, "ref_labels": np.array([0, 1])})
    false = loss(
        X[:1], np.array([0]), refs=REFS[[2, 2, 3]], ref_labels=np.array([0, 2, 1]),
        reduction="none",
    )  # fmt: skip
    assert float(apart[0]) < float(false[0])  # a false negative makes the pair dearer


def on_devices(fn, kind: str, *arrays):
    """fn on eight devices: (value, gradients by the rows of each device)."""
    if kind == "pmap":
        split = lambda v: v.reshape(8, -1, *v.shape[1:])
        value, gradients = jax.pmap(fn, axis_name="batch")(*map(split, arrays))
        return value[0], [g.reshape(-1, g.shape[-1]) / 8 for g in gradients]
    mesh, checked = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,)), kind == "checked"
    spec = P("batch")
    step = jax.shard_map(
        fn, mesh=mesh, in_specs=(spec,) * len(arrays), out_specs=(P(), (spec, spec)),
        check_vma=checked,
    )  # fmt: skip
    value, gradients = jax.jit(step)(*arrays)
    return value, [g / (1 if checked else 8) for g in gradients]


@pytest.mark.parametrize("kind", ["pmap", "checked", "unchecked"])
@pytest.mark.parametrize("loss", [losses.ntxent, losses.clip], ids=by_name)
def test_e2_e4_gathered_partners_have_their_gradients_and_their_labels(loss, kind):
    """A query a device, each with its document and a hard negative: order P N P N, not P P N N.

    The other modality looks back at the queries of all devices, and each document gets the
    gradient of every query.
    """
    rng = np.random.default_rng(3)
    queries, documents = (jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (8, 16))
    y = jnp.arange(8)
    labels = jnp.stack([y, y + 8], axis=1).reshape(-1)  # a hard negative is an item of its own

    def step(queries, y, documents, labels):
        everyone = lambda v: lax.all_gather(v, "batch", tiled=True)

        def value(queries, documents):
            options = {"refs": everyone(documents), "ref_labels": everyone(labels)}
            return loss(queries, y, **options, temperature=0.5, axis_name="batch")

        return jax.value_and_grad(value, (0, 1))(queries, documents)

    def single(queries, documents):
        order = np.r_[0:16:2, 1:16:2]
        options = {"refs": documents[order], "ref_labels": labels[order]}
        return loss(queries, y, **options, temperature=0.5)

    value, gradients = on_devices(step, kind, queries, y, documents, labels)
    expected, by_rows = jax.value_and_grad(single, (0, 1))(queries, documents)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for found, right in zip(gradients, by_rows):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- what the papers promise


def test_without_hardness_and_prior_hard_negatives_are_ntxent():
    """Also where an anchor has no negative: both count it as 0."""
    weights = np.ones((6, 6), np.float32)
    weights[4, [2, 3, 5]] = 0
    for options in ({}, {"weights": weights}):
        hard = losses.hard_negative_ntxent(
            X, Y, temperature=0.3, hardness=0.0, prior=0.0, **options
        )
        plain = losses.ntxent(X, Y, temperature=0.3, **options)
        np.testing.assert_allclose(hard, plain, rtol=1e-6)


def test_hard_negatives_with_one_positive_are_the_authors_estimate():
    """Reweighed negatives less the share of the pair's own exponential, held at e^(-1 / t)."""
    y, t, beta = np.tile(np.arange(3), 2), 0.5, 0.7
    partner = np.array([3, 4, 5, 0, 1, 2])
    x = X + 0.6 * X[partner]
    powers, held = np.exp(cosines(x, x) / t), 0
    for prior in (0.1, 0.5):
        values = []
        for i in range(6):
            positive, negatives = powers[i, partner[i]], np.delete(powers[i], [i, partner[i]])
            importance = negatives**beta / (negatives**beta).mean()
            hard = ((importance * negatives).sum() - prior * 4 * positive) / (1 - prior)
            held += hard < 4 * math.exp(-1 / t)
            values.append(math.log1p(max(hard, 4 * math.exp(-1 / t)) / positive))
        got = losses.hard_negative_ntxent(x, y, temperature=t, hardness=beta, prior=prior)
        np.testing.assert_allclose(got, np.mean(values), rtol=1e-5)
    assert 0 < held < 12  # both branches were taken


def test_weights_of_far_positives_are_constants():
    """Value of the paper's weights, with the gradient of the loss in which they are numbers."""
    y, t, sigma, partner = np.tile(np.arange(3), 2), 0.5, 0.4, np.array([3, 4, 5, 0, 1, 2])
    near = np.exp(cosines(X, X)[np.arange(6), partner] / sigma)
    weights = jnp.asarray(2 - near / near.mean(), jnp.float32)

    def by_hand(x):
        u = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        s = u @ u.T
        negative = (y[:, None] != y).astype(np.float32)
        return (
            jnp.log((jnp.exp(s / t) * negative).sum(1)) - weights * s[np.arange(6), partner] / t
        ).mean()

    loss = lambda x: losses.decoupled_ntxent(
        x, y, temperature=t, weighted=True, concentration=sigma
    )
    (value, gradient), expected = (jax.value_and_grad(f)(jnp.asarray(X)) for f in (loss, by_hand))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_clip_is_the_mean_of_both_directions(denominator):
    """Any number of partners; importance of pairs goes with the pair."""
    labels, choice = np.array([0, 1, 1, 0, 2, 2, 7, 3]), {"denominator": denominator}
    weights = np.random.default_rng(4).integers(0, 3, (6, 8)).astype(np.float32)
    forth = losses.ntxent(X, Y, refs=REFS, ref_labels=labels, weights=weights, **choice)
    back = losses.ntxent(REFS, labels, refs=X, ref_labels=Y, weights=weights.T.copy(), **choice)
    options = {"refs": REFS, "ref_labels": labels, "weights": weights, **choice}
    both = losses.clip(X, Y, temperature=0.1, **options)
    np.testing.assert_allclose(both, (forth + back) / 2, rtol=1e-5)
    np.testing.assert_allclose(
        losses.clip(X, Y, temperature=0.1, **choice), losses.ntxent(X, Y, **choice), rtol=1e-5
    )


def test_clip_with_one_partner_is_two_cross_entropies():
    logits = cosines(X[:3], X[3:]) / 0.2
    entropy = lambda z: np.mean([np.logaddexp.reduce(z[i]) - z[i, i] for i in range(3)])
    expected = (entropy(logits) + entropy(logits.T)) / 2
    for denominator in ("negatives", "all"):
        value = losses.clip(
            X[:3], np.arange(3), refs=X[3:], ref_labels=np.arange(3), temperature=0.2,
            denominator=denominator,
        )  # fmt: skip
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_clip_looks_back_through_the_miner():
    """The nearest negative of each side, from the distances of that side."""
    s = cosines(X, REFS[:6]) / 0.2
    expected = []
    for i in range(6):
        forth, back = (np.delete(z[i], i).max() - s[i, i] for z in (s, s.T))
        expected.append((np.logaddexp(0, forth) + np.logaddexp(0, back)) / 2)
    value = losses.clip(
        X, np.arange(6), refs=REFS[:6], ref_labels=np.arange(6), temperature=0.2,
        miner=miners.BatchHard(),
    )  # fmt: skip
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)


def test_views_of_an_item_are_its_label():
    """Two views: SimCLR's loss, written out; with more views nothing else changes."""
    logits = cosines(X, X) / 0.5
    np.fill_diagonal(logits, -np.inf)
    partner = np.array([3, 4, 5, 0, 1, 2])
    expected = np.mean([np.logaddexp.reduce(logits[i]) - logits[i, partner[i]] for i in range(6)])
    labels = np.tile(np.arange(3), 2)
    np.testing.assert_allclose(losses.ntxent(X, labels, temperature=0.5), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.ntxent, losses.clip], ids=by_name)
def test_an_unknown_denominator_is_named(loss):
    with pytest.raises(ValueError, match="denominator: got 'others', expected 'negatives' or"):
        loss(X, Y, denominator="others")
