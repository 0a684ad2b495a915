"""Calls that would train another loss in silence, or fail far from their cause: one line each."""

from __future__ import annotations

import functools
import math
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdml import diagnostics, distances, losses, miners
from jdml._core.compile import loss as public
from jdml._core.options import PairOptions

pytestmark = pytest.mark.usefixtures("quick_compile")
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = np.array([0, 0, 1, 1, 2, 2], np.int32)
TABLE = X[:3]
NAN = math.nan
PRESENT = np.arange(6) < 5


def refused(error, message: str, call, *args, **options) -> None:
    with pytest.raises(error, match="^" + message) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("loss", [losses.triplet, losses.supcon, losses.histogram])
def test_classes_with_an_axis_too_many_are_not_one_label(loss):
    message = r"labels: got int32\[6, 1\], expected \[B\], a class a row: drop the last axis"
    refused(ValueError, message, loss, X, Y[:, None])
    refused(ValueError, message, jax.jit(lambda y: loss(X, y)), Y[:, None])


def test_ids_beyond_int32_do_not_disappear():
    large = jnp.array([4_000_000_000] * 3 + [5] * 3, jnp.uint32)
    refused(ValueError, "labels: got the id 4000000000, expected ids", losses.contrastive, X, large)
    inside = jax.jit(lambda y: losses.contrastive(X, y))
    refused(TypeError, r"labels: got uint32\[6\] inside jit, expected signed", inside, large)
    expected = losses.contrastive(X, Y)
    np.testing.assert_array_equal(losses.contrastive(X, jnp.asarray(Y, jnp.uint32)), expected)
    np.testing.assert_array_equal(inside(jnp.asarray(Y, jnp.uint8)), expected)


@pytest.mark.parametrize("loss", [losses.arcface, losses.proxy_anchor])
def test_a_class_has_one_row_of_the_table(loss):
    twice = np.array([0, 1, 2, 1])
    message = "proxy_labels: got class 1 more than once, expected each class once"
    refused(ValueError, message, loss, X, Y, TABLE[twice], proxy_labels=twice)
    absent = loss(X, Y, TABLE[twice], proxy_labels=np.array([0, 1, 2, -1]))
    np.testing.assert_allclose(absent, loss(X, Y, TABLE), rtol=1e-6)


def test_rows_that_are_not_there_may_have_any_label():
    """Outside jit as inside."""
    wild = np.where(PRESENT, Y, 99).astype(np.int32)
    expected = losses.arcface(X, np.where(PRESENT, Y, -1), TABLE)
    np.testing.assert_array_equal(losses.arcface(X, wild, TABLE, where=PRESENT), expected)
    refused(ValueError, "labels: got class 99", losses.arcface, X, wild, TABLE, where=~PRESENT)

    degrees = (Y[:, None] == Y).astype(np.float32)
    expected = losses.supcon(X[:5], degrees[:5, :5])
    degrees[5], degrees[:, 5] = NAN, NAN
    np.testing.assert_allclose(losses.supcon(X, degrees, where=PRESENT), expected, rtol=1e-6)
    options = {"refs": X, "ref_where": PRESENT}
    value = losses.supcon(X[:5], degrees[:5], **options)
    assert np.isfinite(value)
    refused(ValueError, r"labels: got float32\[6, 6\] with values", losses.supcon, X, degrees)
    refused(ValueError, "labels: got float32", losses.supcon, X, degrees, **options)

    sets = np.eye(3, dtype=np.int32)[Y]
    sets[5, 0] = 7
    assert np.isfinite(losses.supcon(X, sets, where=PRESENT))
    refused(ValueError, r"labels: got int32\[6, 3\] with the value 7", losses.supcon, X, sets)


# ---------------------------------------------------------------- numbers and choices


@pytest.mark.parametrize("block_size", [None, 2])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (1,)])
def test_a_number_is_one_number(shape, block_size):
    many = np.ones(shape, np.float32)
    got = rf"got float32\[{', '.join(map(str, shape))}\], expected one number"
    options = {"block_size": block_size}
    refused(ValueError, f"margin: {got}", losses.triplet, X, Y, margin=many, **options)
    call = functools.partial(losses.contrastive, X, Y, negative_margin=many, **options)
    refused(ValueError, f"negative_margin: {got}", call)
    refused(ValueError, f"temperature: {got}", losses.ntxent, X, Y, temperature=many, **options)
    refused(ValueError, f"scale: {got}", losses.arcface, X, np.arange(6), X, scale=many, **options)


def test_numbers_that_a_loss_takes_by_row_are_one_a_row():
    margins = np.full(6, 0.3, np.float32)
    np.testing.assert_allclose(
        losses.arcface(X, Y, TABLE, margin=margins), losses.arcface(X, Y, TABLE, margin=0.3)
    )
    message = r"cosine_margin: got float32\[5\], expected a number, or shape \(6,\)"
    refused(ValueError, message, losses.combined_margin, X, Y, TABLE, cosine_margin=margins[:5])


def test_a_loss_without_types_has_the_numbers_that_its_defaults_are():
    @public(reduction="mean")
    def reader(embeddings, labels, *, scale=2.0, state=None, **options: Unpack[PairOptions]):
        return scale * embeddings.sum() + (0.0 if state is None else state.sum())

    assert np.isfinite(reader(X, Y, state=np.ones(6, np.float32)))
    refused(ValueError, r"scale: got float32\[6\], expected one", reader, X, Y, scale=np.ones(6))


TRIPLET = functools.partial(losses.triplet, X, Y)
CALLS = {
    "distance text": (TRIPLET, {"distance": "cosine"}, "distance: got str 'cosine', expected dist"),
    "distance class": (TRIPLET, {"distance": distances.Euclidean}, "distance: got the class Eucl"),
    "distance uncalled": (TRIPLET, {"distance": distances.lp}, r"distance: got the function lp\("),
    "distance uncalled too": (TRIPLET, {"distance": distances.poincare}, "curvature: got float32"),
    "distance None": (TRIPLET, {"distance": None}, "distance: got NoneType None, expected"),
    "miner text": (TRIPLET, {"miner": "SemiHard"}, r"miner: got str 'SemiHard', expected miners\."),
    "miner class": (TRIPLET, {"miner": miners.SemiHard}, "miner: got the class SemiHard, expected"),
    "miner list": (TRIPLET, {"miner": [miners.SemiHard()]}, r"miner: got list \[SemiHard"),
    "miner gives None": (TRIPLET, {"miner": lambda pairs: None}, "miner: gave NoneType, expected"),
    "margin None": (TRIPLET, {"margin": None}, "margin: got None, expected a number"),
    "margin text": (TRIPLET, {"margin": "0.2"}, r"margin: got <U3\[\], expected numbers$"),
    "swap text": (TRIPLET, {"swap": "no"}, "swap: got str 'no', expected True or False"),
    "block_size True": (TRIPLET, {"block_size": True}, "block_size: got True, expected a whole"),
    "labels None": (losses.triplet, {"embeddings": X, "labels": None}, "labels: got None, exp"),
    "embeddings None": (losses.triplet, {"embeddings": None, "labels": Y}, "embeddings: got None"),
    "proxies None": (
        functools.partial(losses.arcface, X, Y), {"proxies": None}, "proxies: got None, expected an"
    ),
    "labels ragged": (
        losses.triplet, {"embeddings": X, "labels": [[0], [1, 2]]}, "labels: got rows of unequal"
    ),
    "no rows": (
        losses.triplet, {"embeddings": X[:0], "labels": Y[:0]}, r"embeddings: got float32\[0, 4\]"
    ),
    "no refs": (TRIPLET, {"refs": X[:0], "ref_labels": Y[:0]}, r"refs: got float32\[0, 4\], expec"),
    "ks number": (losses.recall_at_k, {"ks": 1}, "ks: got 1, expected whole numbers >= 1, such"),
    "ks empty": (losses.recall_at_k, {"ks": ()}, r"ks: got \(\), expected whole numbers >= 1"),
    "ks zero": (losses.recall_at_k, {"ks": (0,)}, "ks: got 0, expected a whole number >= 1"),
    "bins float": (losses.fast_ap, {"bins": 10.0}, "bins: got 10.0, expected a whole number >= 1"),
    "bins zero": (losses.histogram, {"bins": 0}, "bins: got 0, expected a whole number >= 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_work_names_its_argument(name: str):
    call, options, message = CALLS[name]
    if call in (losses.recall_at_k, losses.fast_ap, losses.histogram):
        call = functools.partial(call, X, Y)
    refused((TypeError, ValueError), message, call, **options)


def test_a_traced_choice_is_named():
    message = r"swap: got a traced bool\[\], expected a choice"
    refused(TypeError, message, jax.jit(lambda swap: losses.triplet(X, Y, swap=swap)), True)


def test_choices_of_numpy_and_lists_of_ranks_are_taken():
    expected = losses.recall_at_k(X, Y, ks=(1, 2))
    assert losses.recall_at_k(X, Y, ks=[1, np.int64(2)]) == expected
    assert losses.fast_ap(X, Y, bins=np.int64(10)) == losses.fast_ap(X, Y, bins=10)
    assert losses.triplet(X, Y, swap=np.True_) == losses.triplet(X, Y, swap=True)


def test_an_argument_comes_once():
    refused(TypeError, "multiple values for argument 'embeddings'", TRIPLET, embeddings=10 * X)


# ---------------------------------------------------------------- distances and miners


@pytest.mark.parametrize("block_size", [None, 2])
def test_a_distance_of_rows_one_by_one_is_refused(block_size):
    one_by_one = lambda x, y: jnp.sqrt(((x - y[: len(x)]) ** 2).sum(-1) + 1e-9)
    call = functools.partial(losses.contrastive, X, Y, block_size=block_size)
    refused(
        ValueError, r"distance: got float32\[\d\], expected \[\d, 6\]", call, distance=one_by_one
    )
    column = lambda x, y: jnp.zeros((len(x), 1))
    refused(ValueError, r"distance: got float32\[\d, 1\], expected", call, distance=column)


EACH = {
    "euclidean": distances.euclidean, "squared": distances.squared_euclidean, "lp": distances.lp(2),
    "cosine": distances.cosine, "dot": distances.dot, "snr": distances.snr,
    "angular": distances.angular, "poincare": distances.poincare(),
    "normalized": distances.normalized(distances.lp(1)),
}  # fmt: skip


@pytest.mark.parametrize("name", EACH)
def test_distances_of_half_precision_are_those_of_the_same_rows_in_float32(name: str):
    distance, signs = EACH[name], jnp.where(jnp.arange(512) % 3, 20.0, -20.0)[None]
    for dtype in (jnp.float16, jnp.bfloat16):
        x = signs.astype(dtype)
        found = distance(x, -x)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, distance(signs, -signs))


@pytest.mark.parametrize("name", EACH)
def test_distances_are_of_two_matrices_of_one_width(name: str):
    distance = EACH[name]
    refused(ValueError, r"x: got float32\[4\], expected a matrix", distance, X[0], X)
    refused(ValueError, r"y: got float32\[4\], expected a matrix", distance, X, X[0])
    message = r"y: got float32\[6, 1\], expected rows of the 4 dimensions of x"
    refused(ValueError, message, distance, X, X[:, :1])


def test_what_is_normalized_is_a_distance():
    refused(TypeError, "distance: got str 'euclidean'", distances.normalized, "euclidean")
    refused(ValueError, r"order: got 0\.0", distances.normalized, distances.dot, order=0)


MINERS = {
    "margin: got nan": lambda: miners.TripletMargin(NAN),
    "positive_margin: got nan": lambda: miners.PairMargin(NAN, 0.5),
    "negative_margin: got nan": lambda: miners.PairMargin(0.5, NAN),
    "epsilon: got nan": lambda: miners.MultiSimilarity(NAN),
    "epsilon: got str 'a', expected a number": lambda: miners.MultiSimilarity("a"),  # type: ignore
    "margin: got nan, expected a number above 0": lambda: miners.SemiHard(NAN),
    "margin: got -1, expected a number above 0": lambda: miners.SemiHard(-1),
    "fraction: got str '1'": lambda: miners.HardFraction("1"),  # type: ignore
    r"positive_range: got \(1, 0\), expected low <=": lambda: miners.BatchEasyHard(
        positive_range=(1, 0)
    ),
    "negative_range: got nan": lambda: miners.BatchEasyHard(negative_range=(NAN, 1.0)),
    r"positive_range: got float 1\.0": lambda: miners.BatchEasyHard(positive_range=1.0),  # type: ignore
    "miners: got the class SemiHard": lambda: miners.Chain(miners.SemiHard),
}


@pytest.mark.parametrize("message", MINERS)
def test_a_miner_that_could_only_drop_everything_is_refused(message: str):
    refused((TypeError, ValueError), message, MINERS[message])


# ---------------------------------------------------------------- diagnostics


def test_numbers_that_are_none_are_warned_of():
    names = ("mean_similarity", "effective_rank", "variance", "active_fraction", "saturation")
    found = diagnostics.warnings(dict.fromkeys(names, NAN), most_rank=64)
    assert set(found) == set(names)
    assert found["variance"].startswith("not a number: variance is nan")
    broken = diagnostics.collapse(jnp.asarray(X).at[0, 0].set(NAN))
    assert len(diagnostics.warnings({k: float(v) for k, v in broken.items()}, most_rank=4)) == 3
    recovering = {"variance": NAN}
    assert diagnostics.warnings(recovering, most_rank=4, before={"variance": 1.0})


def test_a_loss_below_zero_has_a_share_of_anchors():
    loss = functools.partial(losses.proxy_nca, X, Y, TABLE)
    each = loss(reduction="none")
    assert 0 < (each > 0).mean() < 1
    assert diagnostics.activity(loss)["active_fraction"] == pytest.approx(float((each > 0).mean()))


def test_diagnostics_take_masks():
    refused(TypeError, r"where: got float32\[6\]", diagnostics.collapse, X, where=jnp.full(6, 0.5))
    refused(ValueError, r"where: got bool\[5\]", diagnostics.collapse, X, where=PRESENT[:5])
    refused(ValueError, r"where: got bool\[5\]", diagnostics.activity, TRIPLET, where=PRESENT[:5])
