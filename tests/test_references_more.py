"""The slow references of similarities, rankings and proxies: goldens, and values by hand."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import golden_data
import numpy as np
import pytest
import references
import references_more as more
import references_proxies as tables
from test_references import LINE, REDUCTIONS, mined_for, on_circle, read_distance, value

# One function for each loss of the golden file: (batch, options, entry, table) -> terms.


def pair_loss(loss, names, batch, options, entry, table):
    """`names`: what an option of the package is called here."""
    numbers = {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
    return loss(*batch, **numbers)


def with_distance(loss, names, batch, options, entry, table):
    loss = partial(loss, distance=read_distance(entry))
    return pair_loss(loss, names, batch, options, entry, table)


def multi_similarity(batch, options, entry, table):
    return more.multi_similarity(*batch, **options, mined=mined_for(batch, entry))


def tuplet_margin(batch, options, entry, table):
    margin = math.radians(options.get("margin", 5.73))
    return more.tuplet_margin(*batch, margin=margin, scale=options.get("scale", 64))


def fast_ap(batch, options, entry, table):
    """The package's histogram ends at 2 to the power of the distance, here it ends at 4."""
    distance, stretch = read_distance(entry), 4 / 2 ** entry["distance"]["power"]
    bins = options.get("num_bins", 10)
    return more.fast_ap(*batch, bins=bins, distance=lambda a, b: stretch * distance(a, b))


def smooth_ap(batch, options, entry, table):
    """The query stands among what it retrieves, first: here that is the batch as references."""
    x, y, _, _ = batch
    return more.smooth_ap(x, y, x, y, temperature=options.get("temperature", 0.01))


def triplet_counts(batch):
    """Weights [B, R]: how many triplets a pair is in."""
    s = references.PairSet(*batch)
    weights = np.zeros(s.d.shape)
    for i in s.anchors:
        positives, negatives = s.positives(i), s.negatives(i)
        weights[i, positives], weights[i, negatives] = len(negatives), len(positives)
    return weights


def margin(batch, options, entry, table):
    """The package counts a pair once for every triplet that it is in."""
    beta = options.get("beta", 1.2) if table is None else table[batch[1]]
    (term,) = more.margin(
        *batch, margin=options.get("margin", 0.2), beta=beta,
        distance=read_distance(entry), weights=triplet_counts(batch),
    )  # fmt: skip
    if table is None:
        return [term]
    active = sum(weight for _, lost, weight in term if lost > 0)
    every = references.PairSet(*batch).triplets()
    price = options["nu"] * sum(beta[i] for i, _, _ in every) / active
    return [term, [(0, price, 1.0)]]


def tuplet_and_variance(batch, options, entry, table):
    """Tuplet margin, and half of the squares beyond the mean positive and negative similarity."""
    s = references.PairSet(*batch, distance=references.cosine)
    near = [1 - s.d[pair] for pair in s.positive_pairs()]
    far = [1 - s.d[pair] for pair in s.negative_pairs()]
    low, high = 0.99 * np.mean(near), 1.01 * np.mean(far)
    below = [(0, max(0.0, low - c) ** 2 / 2, 1.0) for c in near]
    above = [(0, max(0.0, c - high) ** 2 / 2, 1.0) for c in far]
    return [*tuplet_margin(batch, {}, entry, table), below, above]


def table_loss(loss, names, batch, options, entry, table):
    numbers = {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
    terms = loss(*batch[:2], table, **numbers)
    if "weight_regularizer" in entry.get("extra", {}):
        return [*terms, [(0, entry["extra"]["weight_reg_weight"] * spread(table), 1.0)]]
    return terms


def spread(centers):
    """The mean distance of two centers of a class, halved."""
    distance = references.normalized(references.euclidean)
    apart = [distance(a, b) for rows in centers for a, b in combinations(rows, 2)]
    return sum(apart) / len(apart) / 2


SCALED = {"softmax_scale": "scale"}
LOSSES = {
    "NTXentLoss": partial(
        with_distance, partial(more.ntxent, temperature=0.07), {"temperature": "temperature"}
    ),
    "SupConLoss": partial(with_distance, more.supcon, {"temperature": "temperature"}),
    "MultiSimilarityLoss": multi_similarity,
    "CircleLoss": partial(pair_loss, more.circle, {"m": "margin", "gamma": "scale"}),
    "TupletMarginLoss": tuplet_margin,
    "MarginLoss": margin,
    "MultipleLosses": tuplet_and_variance,
    "NCALoss": partial(with_distance, more.nca, SCALED),
    "FastAPLoss": fast_ap,
    "SmoothAPLoss": smooth_ap,
    "SmoothAPReference": smooth_ap,
    "NormalizedSoftmaxLoss": partial(
        table_loss, tables.normalized_softmax, {"temperature": "temperature"}
    ),
    "ProxyNCALoss": partial(table_loss, partial(tables.proxy_nca, own="kept"), SCALED),
    "ProxyAnchorLoss": partial(
        table_loss, tables.proxy_anchor, {"margin": "margin", "alpha": "alpha"}
    ),
    "SoftTripleLoss": partial(
        table_loss, tables.soft_triple, {"la": "scale", "gamma": "gamma", "margin": "margin"}
    ),
}
OTHERS = {"normalized_softmax_raw": "leaves the embeddings at their own length"}
COVERED = [
    name for name, entry in golden_data.entries("losses").items()
    if entry["loss"] in LOSSES and name not in OTHERS
]  # fmt: skip


def reduced(terms, entry, n_anchors):
    """The mean of the package counts all anchors, also those that have no value."""
    reducer = entry.get("reducer", {"type": "MeanReducer"})
    kinds = {r["type"] for r in reducer.get("sum_of", {"": reducer}).values()}
    reduction = REDUCTIONS.get(kinds.pop(), "mean")
    if entry["loss"] == "MarginLoss":
        return value(terms, "mean_active")
    whole = value(terms, reduction)
    if entry["loss"] in ("SupConLoss", "CircleLoss") and reduction == "mean":
        return whole * len(terms[0]) / n_anchors
    return whole


@pytest.mark.parametrize("name", COVERED)
def test_a_loss_equals_its_golden(name):
    entry = golden_data.entries("losses")[name]
    symmetric = entry.get("extra", {}).get("symmetric", True)
    for case, golden in entry["cases"].items():
        batch = golden_data.pair_inputs(case, entry.get("call", ""), symmetric)
        table = golden_data.inputs(case).get(entry.get("weights", {}).get("input"))
        terms = LOSSES[entry["loss"]](batch, entry.get("options", {}), entry, table)
        found = reduced(terms, entry, len(batch[1]))
        np.testing.assert_allclose(found, golden["value"], rtol=entry["rtol"], err_msg=case)


# Values by hand, where the goldens have none.

softplus = lambda z: math.log1p(math.exp(z))
CORNER = on_circle(0.0, 0.0, math.pi / 2)  # two rows at one place, one at a right angle


def test_softmaxes_of_similarities_by_hand():
    """Row A2: an anchor without a positive is no part of the mean."""
    y = [0, 0, 1]
    for loss in (more.ntxent, more.supcon):
        assert value(loss(CORNER, y, temperature=1.0)) == pytest.approx(softplus(-1), rel=1e-12)
    x, y = on_circle(0.0, 0.0, math.pi / 2, math.pi), [0, 0, 0, 1]
    near, side, away = math.exp(2), 1.0, math.exp(-2)
    first = lambda terms: [lost for i, lost, _ in terms[0] if i == 0]
    assert first(more.ntxent(x, y, temperature=0.5)) == pytest.approx(
        [math.log((near + away) / near), math.log((side + away) / side)]
    )
    whole = near + side + away
    logs = [math.log(whole / near), math.log(whole / side)]
    assert first(more.ntxent(x, y, temperature=0.5, denominator="all")) == pytest.approx(logs)
    assert first(more.supcon(x, y, temperature=0.5)) == pytest.approx([sum(logs) / 2])
    assert first(more.supcon(x, y, temperature=0.5, inside=True)) == pytest.approx(
        [math.log(2 * whole / (near + side))]
    )


def test_who_counts_without_pairs():
    lone = CORNER[1:], [0, 1]
    assert more.multi_similarity(CORNER[:1], [0]) == [[(0, 0.0, 1.0)]]
    assert more.siglip(CORNER[:1], [0]) == [[(0, 0.0, 1.0)]]
    assert [i for i, _, _ in more.circle(CORNER, [0, 0, 1])[0]] == [0, 1]
    for loss in (more.ntxent, more.supcon, more.circle, more.tuplet_margin, more.nca,
                 more.fast_ap, more.smooth_ap, more.recall_at_k):  # fmt: skip
        assert loss(*lone) == [[]]


def test_margin_with_a_border_for_each_anchor():
    beta, distance = np.array([0.7, 2.0, 4.0]), references.euclidean
    terms = more.margin(LINE[:3], [0, 0, 1], margin=0.5, beta=beta, distance=distance)
    pulls, pushes = [0.8, 0.0], [0.0, 0.5, 1.5, 2.5]
    assert [entry[1] for entry in terms[0]] == pytest.approx(pulls + pushes)


def test_siglip_by_hand():
    terms = more.siglip(CORNER, [0, 0, 1], scale=2.0, bias=-0.5)
    like, unlike = softplus(-1.5), softplus(-0.5)
    assert [entry[1] for entry in terms[0]] == pytest.approx([like + unlike] * 2 + [2 * unlike])


RANKED = on_circle(0.1, 0.2, 0.3, 0.4), [0, 1, 0, 1]  # right, wrong, right, wrong


def test_ranking_surrogates_by_hand():
    query = on_circle(0.0), [0], *RANKED
    assert value(more.smooth_ap(*query, temperature=1e-5)) == pytest.approx(1 - (1 + 2 / 3) / 2)
    tied = more.smooth_ap(on_circle(0.0), [0], on_circle(0.1, 0.1), [0, 1])
    assert value(tied) == pytest.approx(1 - 1 / 1.5)
    numbers = {"ks": (1, 2, 4), "temperature": 0.1, "rank_temperature": 1e-5}
    at_border, inside = 0.5, 1 / (1 + math.exp(-10))  # sigmoid of 0 and 1 over the temperature
    first = at_border, inside, 1 / (1 + math.exp(-30))
    second = 1 / (1 + math.exp(20)), 1 / (1 + math.exp(10)), inside
    recalls = [(a + b) / n for a, b, n in zip(first, second, (1, 2, 2))]
    assert value(more.recall_at_k(*query, **numbers)) == pytest.approx(1 - sum(recalls) / 3)


def test_the_query_is_no_positive_of_its_own():
    x, y = on_circle(0.0, 0.1, 0.4), [0, 1, 0]
    assert value(more.smooth_ap(x, y, temperature=1e-5)) == pytest.approx(1 - 1 / 2)


def test_fast_ap_by_hand():
    """At three edges 0, 2, 4: one positive at 1, halfway, and one negative at 2."""
    rows = [[1.0], [math.sqrt(2)]]
    distance = references.squared_euclidean
    terms = more.fast_ap([[0.0]], [0], rows, [0, 1], bins=2, distance=distance)
    assert value(terms) == pytest.approx(1 - (0.5 * 0.5 / 0.5 + 0.5 * 1 / 2))


@pytest.mark.parametrize("loss", [
    more.ntxent, partial(more.ntxent, denominator="all"), more.supcon,
    partial(more.supcon, inside=True), more.multi_similarity, more.circle, more.tuplet_margin,
    more.margin, more.nca, more.siglip, more.fast_ap, more.smooth_ap, more.recall_at_k,
])  # fmt: skip
def test_a_pair_of_integer_weight_is_a_repeated_reference(loss):
    rng = np.random.default_rng(3)
    x, refs, ref_labels = rng.normal(size=(1, 4)), rng.normal(size=(6, 4)), np.arange(6) % 2
    times = np.array([2, 3, 1, 2, 1, 1])
    if loss in (more.smooth_ap, more.recall_at_k):  # a positive of weight 2 is no tie with itself
        times[::2] = 1
    weighed = loss(x, [0], refs, ref_labels, weights=times[None, :])
    again = loss(x, [0], refs.repeat(times, 0), ref_labels.repeat(times))
    assert value(weighed) == pytest.approx(value(again), rel=1e-12)
    assert value(again) != pytest.approx(value(loss(x, [0], refs, ref_labels)), rel=1e-6)


def test_proxy_nca_by_hand():
    table, x = 5 * np.eye(2), np.array([[3.0, 0.0]])
    assert value(tables.proxy_nca(x, [0], table)) == pytest.approx(-2)
    assert value(tables.proxy_nca(x, [0], table, own="kept")) == pytest.approx(softplus(-2))
    assert value(tables.proxy_nca(x, [0], table, scale=3.0)) == pytest.approx(-6)
    assert tables.proxy_nca(x, [0], table[:1]) == [[]]


def test_proxy_anchor_by_hand():
    x, options = 3 * np.eye(3)[[0, 0, 1]], {"alpha": 2.0, "margin": 0.25}
    pull, push = math.exp(-2 * 0.75), math.exp(2 * 0.25)
    pulls, pushes = tables.proxy_anchor(x, [0, 0, 1], np.eye(3), weights=[2, 1, 1], **options)
    assert [entry[0] for entry in pulls] == [0, 1]
    logs = [math.log(1 + 3 * pull), math.log(1 + pull)]
    assert [entry[1] for entry in pulls] == pytest.approx(logs)
    logs = [math.log(1 + n * push) for n in (1, 3, 4)]
    assert [entry[1] for entry in pushes] == pytest.approx(logs)
    sampled = tables.proxy_anchor(x, [0, 0, 1], np.eye(3)[1:], proxy_labels=[1, 2], **options)
    assert [entry[1] for entry in sampled[1]] == pytest.approx(
        [math.log(1 + 2 * push), math.log(1 + 3 * push)]
    )


def test_soft_triple_by_hand():
    centers = np.stack([on_circle(0.0, math.pi / 2), on_circle(math.pi, math.pi)])
    terms = tables.soft_triple(on_circle(0.0), [0], centers, scale=2.0, gamma=0.5, margin=0.1)
    own = 1 / (1 + math.exp(-2))
    assert value(terms) == pytest.approx(softplus(2 * (-1 - own + 0.1)))


TWO = on_circle(0.0, math.pi / 2)


def test_curricularface_by_hand():
    lost = partial(tables.curricularface, hardness=0.3, scale=2.0)
    easy, hard, beyond = (value(lost(on_circle(t), [0], TWO)) for t in (0.2, 1.0, 3.0))
    opposite = value(lost(on_circle(math.pi), [0], on_circle(0.0, 0.1)))
    assert easy == pytest.approx(softplus(2 * (math.sin(0.2) - math.cos(0.7))))
    other = math.sin(1.0) * (0.3 + math.sin(1.0))
    assert hard == pytest.approx(softplus(2 * (other - math.cos(1.5))))
    other, target = math.sin(3.0) * (0.3 + math.sin(3.0)), math.cos(3.0) - 0.5 * math.sin(0.5)
    assert beyond == pytest.approx(softplus(2 * (other - target)))
    near, target = (
        -math.cos(0.1),
        -1 - 0.5 * math.sin(0.5),
    )  # nearer than the own one, which fell on
    assert opposite == pytest.approx(softplus(2 * (near * (0.3 + near) - target)))


def test_magface_by_hand():
    lost = lambda length: value(tables.magface(length * on_circle(0.4), [0], TWO, scale=2.0))
    for length, clipped, margin in ((60, 60, 0.625), (1, 10, 0.45), (500, 110, 0.8)):
        soft = softplus(2 * (math.sin(0.4) - math.cos(0.4 + margin)))
        assert lost(length) == pytest.approx(soft + 35 * (1 / clipped + clipped / 110**2))


def test_adaface_by_hand():
    numbers = {"norm_mean": 2.0, "norm_std": 0.333, "scale": 2.0}  # one step of z is a length of 1

    def target(length, theta):  # read back from the loss
        lost = value(tables.adaface(length * on_circle(theta), [0], TWO, **numbers))
        return math.sin(theta) - math.log(math.expm1(lost)) / 2

    assert target(2.0, 0.9) == pytest.approx(math.cos(0.9) - 0.4)
    assert target(2.5, 0.9) == pytest.approx(math.cos(0.7) - 0.6)
    assert target(1.0, 0.9) == pytest.approx(math.cos(1.3))
    assert target(50.0, 0.1) == pytest.approx(math.cos(1e-3) - 0.8)
    assert target(0.1, 3.0) == pytest.approx(math.cos(math.pi - 1e-3))


def test_rules_by_hand():
    x, there = 7 * on_circle(0.2, 1.0, 2.0), np.array([True, True, False])
    hardness = tables.update_hardness(0.5, x, [0, 1, 0], TWO, where=there)
    assert hardness == pytest.approx(0.99 * 0.5 + 0.01 * (math.cos(0.2) + math.sin(1.0)) / 2)
    assert tables.update_hardness(0.5, x, [2, -1, 5], TWO) == 0.5
    lengths = np.array([[1.0], [3.0], [500.0], [9.0]])
    mean, std = tables.update_norms((20.0, 100.0), lengths, where=np.arange(4) < 3)
    assert mean == pytest.approx(0.99 * 20 + 0.01 * 104 / 3)
    deviations = [(n - 104 / 3) ** 2 for n in (1, 3, 100)]
    assert std == pytest.approx(0.99 * 100 + 0.01 * math.sqrt(sum(deviations) / 2))
    assert tables.update_norms((20.0, 100.0), lengths[:1]) == (20.0, 100.0)
