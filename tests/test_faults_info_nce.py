"""Reported faults of the InfoNCE family, each with its smallest input and right value."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import losses

pytestmark = pytest.mark.usefixtures("quick_compile")
FAMILY = [
    losses.ntxent, losses.supcon, losses.clip, losses.decoupled_ntxent, losses.hard_negative_ntxent
]  # fmt: skip
by_name = lambda loss: loss.__name__
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def test_a2_the_mean_is_over_anchors_with_a_positive():
    u, y = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32), np.array([0, 0, 1])
    right = math.log1p(math.exp(-1))  # .31326, not the .20884 of a mean over all three
    for loss in (losses.supcon, losses.ntxent):
        np.testing.assert_allclose(loss(u, y, temperature=1.0), right, rtol=1e-6)


@pytest.mark.parametrize("loss", FAMILY, ids=by_name)
def test_a3_all_labels_distinct_is_zero(loss):
    value, gradient = jax.value_and_grad(lambda x: loss(x, np.arange(4)))(jnp.asarray(X[:4]))
    assert float(value) == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("loss", FAMILY, ids=by_name)
@pytest.mark.parametrize("temperature", [1e-3, 2e-4, 100.0])
def test_a18_extreme_temperatures_stay_finite(loss, temperature):
    y = np.array([0, 0, 1, 1, 2, 3])
    grad = jax.value_and_grad(lambda x, t: loss(x, y, temperature=t), argnums=(0, 1))
    value, (by_rows, by_temperature) = grad(jnp.asarray(X), jnp.float32(temperature))
    assert np.isfinite(value)
    assert np.isfinite(by_rows).all()
    assert np.isfinite(by_temperature)


def test_a22_a_batch_of_four_is_not_two_batches_of_two():
    """More rows are more negatives: averaging two halves is another loss, as it should be."""
    loss = lambda n: losses.ntxent(
        np.eye(4)[:n], np.arange(n), refs=np.eye(4)[:n], ref_labels=np.arange(n), temperature=1.0
    )
    np.testing.assert_allclose(loss(4), math.log1p(3 * math.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(loss(2), math.log1p(math.exp(-1)), rtol=1e-6)


@pytest.mark.parametrize("loss", FAMILY, ids=by_name)
def test_c7_a_duplicate_under_the_same_label_is_no_negative(loss):
    """Two equal (query, document) pairs: with one label for both there is nothing to push."""
    queries, documents = X[[0, 0, 1]], X[[2, 2, 3]]
    options = {"refs": documents, "ref_labels": np.array([0, 0, 1]), "reduction": "none"}
    same = loss(queries, np.array([0, 0, 1]), **options)
    np.testing.assert_allclose(same[0], same[1], rtol=1e-6)
    told = loss(queries[:1], np.array([0]), **{**options, "reduction": "sum"})
    apart = loss(
        queries[:1], np.array([0]), refs=documents, ref_labels=np.array([0, 2, 1]), reduction="sum"
    )
    if loss in (losses.ntxent, losses.decoupled_ntxent, losses.hard_negative_ntxent):
        assert float(told) / 2 < float(apart)  # a false negative makes the pair dearer


def test_e4_a_positive_is_found_by_its_label_wherever_it_stands():
    """Positives and negatives interleaved or in runs: the target of a query is its own document."""
    queries, y = X[:2], np.array([0, 1])
    documents, labels = X[2:6], np.array([0, 8, 1, 9])
    order = np.array([0, 2, 1, 3])
    plain = losses.ntxent(queries, y, refs=documents, ref_labels=labels)
    mixed = losses.ntxent(queries, y, refs=documents[order], ref_labels=labels[order])
    np.testing.assert_allclose(mixed, plain, rtol=1e-6)


def test_without_hardness_and_prior_hard_negatives_are_ntxent():
    y = np.array([0, 0, 1, 1, 0, 2])
    hard = losses.hard_negative_ntxent(X, y, temperature=0.3, hardness=0.0, prior=0.0)
    np.testing.assert_allclose(hard, losses.ntxent(X, y, temperature=0.3), rtol=1e-6)


def test_views_of_an_item_are_its_label():
    """Two views: SimCLR's loss, written out; with more views nothing else changes."""
    first, second = X[:3], X[3:]
    z = np.concatenate([first, second])
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    logits = u @ u.T / 0.5
    np.fill_diagonal(logits, -np.inf)
    partner = np.array([3, 4, 5, 0, 1, 2])
    expected = np.mean([np.logaddexp.reduce(logits[i]) - logits[i, partner[i]] for i in range(6)])
    labels = np.tile(np.arange(3), 2)
    np.testing.assert_allclose(losses.ntxent(z, labels, temperature=0.5), expected, rtol=1e-5)


def test_clip_is_the_mean_of_two_cross_entropies():
    images, texts, y = X[:3], X[3:], np.arange(3)
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)
    logits = unit(images) @ unit(texts).T / 0.2
    entropy = lambda z: np.mean([np.logaddexp.reduce(z[i]) - z[i, i] for i in range(3)])
    expected = (entropy(logits) + entropy(logits.T)) / 2
    value = losses.clip(images, y, refs=texts, ref_labels=y, temperature=0.2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
