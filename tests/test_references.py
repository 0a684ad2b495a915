"""The slow references equal the golden values, and values that a person can check by hand."""

from __future__ import annotations

import math
from functools import cache, partial

import golden_data
import numpy as np
import pytest
import reference_miners
import references

REDUCTIONS = {"AvgNonZeroReducer": "mean_active", "MeanReducer": "mean", "SumReducer": "sum"}
SIMILARITIES = ("CosineSimilarity", "DotProductSimilarity")


def signal_to_noise(a, b):
    """Variance of the difference over variance of the anchor, to reach the goldens that use it."""
    return float(np.var(a - b) / np.var(a))


@cache
def distance_of(kind, normalizes, p, power):
    if kind == "CosineSimilarity":
        return references.cosine
    if kind == "SNRDistance":
        plain = signal_to_noise
    elif kind == "DotProductSimilarity":
        plain = references.dot
    elif p == 2:
        plain = references.euclidean if power == 1 else references.squared_euclidean
    else:
        plain = references.lp(p)
    if not normalizes:
        return plain

    def of_units(a, b):  # the package measures the length of a row in the norm of the distance
        return plain(*(row / (np.abs(row) ** p).sum() ** (1 / p) for row in (a, b)))

    return of_units


def read_distance(entry):
    d = entry["distance"]
    return distance_of(d["type"], d["normalize_embeddings"], d["p"], d["power"])


def mine(s, miner, options, similarity=False):
    if miner == "TripletMarginMiner":
        return reference_miners.triplet_margin(s, options["type_of_triplets"], options["margin"])
    if miner == "MultiSimilarityMiner":
        return reference_miners.multi_similarity(s, options["epsilon"])
    if miner == "BatchHardMiner":
        return reference_miners.batch_hard(s)
    if miner == "PairMarginMiner":
        margins = options.get("pos_margin", 0.2), options.get("neg_margin", 0.8)
        return reference_miners.pair_margin(s, *(1 - m if similarity else m for m in margins))
    ranges = options.get("allowed_pos_range"), options.get("allowed_neg_range")
    return reference_miners.batch_easy_hard(
        s, options["pos_strategy"], options["neg_strategy"], *ranges
    )


def mined_for(batch, entry):
    if "miner" not in entry:
        return None
    miner = entry["miner"]
    s = references.PairSet(*batch, distance=read_distance(miner))
    return mine(s, miner["type"], miner["options"])


# One function for each loss of the golden file: (batch, options, entry, table) -> terms.


def contrastive(batch, options, entry, table):
    margins = options.get("pos_margin", 0.0), options.get("neg_margin", 1.0)
    if entry["distance"]["type"] in SIMILARITIES:
        margins = 1 - options["pos_margin"], 1 - options["neg_margin"]
    return references.contrastive(
        *batch, positive_margin=margins[0], negative_margin=margins[1],
        distance=read_distance(entry), mined=mined_for(batch, entry),
    )  # fmt: skip


def triplet(batch, options, entry, table):
    loss = references.soft_margin_triplet if options.get("smooth_loss") else references.triplet
    return loss(
        *batch, margin=options.get("margin", 0.05), swap=options.get("swap", False),
        distance=read_distance(entry), mined=mined_for(batch, entry),
    )  # fmt: skip


def lifted(loss, batch, options, entry, table):
    return loss(*batch, margin=options.get("neg_margin", 1.0), distance=read_distance(entry))


def n_pair(batch, options, entry, table):
    """The package takes one pair of each class, the first in order."""
    x, y, _, _ = batch
    pairs = [np.flatnonzero(y == c)[:2] for c in np.unique(y)]
    a, p = np.array([pair for pair in pairs if len(pair) == 2]).T
    if entry["distance"]["normalize_embeddings"]:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return references.n_pair(x[a], y[a], x[p], y[p], norm_weight=0.0)


def angular(batch, options, entry, table):
    return references.angular(*batch, angle=math.radians(options.get("alpha", 40)))


def table_loss(loss, names, batch, options, entry, table):
    numbers = {ours: read(options[theirs]) for theirs, (ours, read) in names.items()
               if theirs in options}  # fmt: skip
    return loss(*batch[:2], table, **numbers)


NUMBER = {"margin": ("margin", float), "scale": ("scale", float)}
DEGREES = {"margin": ("margin", math.radians), "scale": ("scale", float)}
ARCFACE_DEFAULT = math.radians(28.6)
LOSSES = {
    "ContrastiveLoss": contrastive,
    "SignalToNoiseRatioContrastiveLoss": contrastive,
    "TripletMarginLoss": triplet,
    "LiftedStructureLoss": partial(lifted, references.lifted_structure),
    "GeneralizedLiftedStructureLoss": partial(
        lifted, partial(references.generalized_lifted_structure, lone="zero")
    ),
    "NPairsLoss": n_pair,
    "AngularLoss": angular,
    "CosFaceLoss": partial(table_loss, references.cosface, NUMBER),
    "SphereFaceLoss": partial(table_loss, references.sphereface, NUMBER),
    "ArcFaceLoss": partial(
        table_loss, partial(references.arcface, margin=ARCFACE_DEFAULT), DEGREES
    ),
    "SubCenterArcFaceLoss": partial(
        table_loss, partial(references.subcenter_arcface, margin=ARCFACE_DEFAULT), DEGREES
    ),
    "NormalizedSoftmaxLoss": partial(
        table_loss, partial(references.adacos, scale=20.0),
        {"temperature": ("scale", lambda t: 1 / t)},
    ),
}  # fmt: skip
OTHERS = {
    "contrastive_threshold": "keeps tuples by the size of their loss",
    "contrastive_per_anchor": "another reduction",
    "contrastive_class_weighted": "another reduction",
    "triplet_m02_class_weighted": "another reduction",
    "contrastive_emb_reg": "adds a regulariser of the embeddings",
    "cosface_weight_reg": "adds a regulariser of the table",
    "arcface_miner_weights": "weighs rows by how often they were mined",
    "angular": "leaves the negatives at their own length, unlike the paper",
    "normalized_softmax_raw": "leaves the embeddings at their own length",
}
COVERED = [
    name for name, entry in golden_data.entries("losses").items()
    if entry["loss"] in LOSSES and name not in OTHERS
]  # fmt: skip


def reduction_of(entry):
    reducer = entry["reducer"]
    kinds = {r["type"] for r in reducer.get("sum_of", {"": reducer}).values()}
    return REDUCTIONS[kinds.pop()]


@pytest.mark.parametrize("name", COVERED)
def test_a_loss_equals_its_golden(name):
    entry = golden_data.entries("losses")[name]
    symmetric = entry.get("extra", {}).get("symmetric", True)
    for case, golden in entry["cases"].items():
        batch = golden_data.pair_inputs(case, entry.get("call", ""), symmetric)
        table = golden_data.inputs(case).get(entry.get("weights", {}).get("input"))
        terms = LOSSES[entry["loss"]](batch, entry.get("options", {}), entry, table)
        value = references.reduce(terms, reduction_of(entry), len(batch[0]))
        np.testing.assert_allclose(value, golden["value"], rtol=entry["rtol"], err_msg=case)


MINED = [
    name for name, entry in golden_data.entries("miners").items()
    if entry["miner"] not in ("AngularMiner", "HDCMiner")
]  # fmt: skip


@pytest.mark.parametrize("name", MINED)
def test_a_miner_keeps_what_its_golden_keeps(name):
    entry = golden_data.entries("miners")[name]
    similarity = entry["distance"]["type"] == "CosineSimilarity"
    for case, golden in entry["cases"].items():
        s = references.PairSet(*golden_data.pair_inputs(case), distance=read_distance(entry))
        mined = mine(s, entry["miner"], entry["options"], similarity)
        if "triplets" in golden:
            s.mined = mined
            assert s.triplets() == as_tuples(golden["triplets"]), case
        else:
            assert sorted(mined.positives) == as_tuples(golden["pos_pairs"]), case
            assert sorted(mined.negatives) == as_tuples(golden["neg_pairs"]), case


def as_tuples(key):
    return [tuple(int(v) for v in row) for row in golden_data.array(key)]


@pytest.mark.parametrize("name", golden_data.entries("distances"))
def test_a_distance_equals_its_golden(name):
    entry = golden_data.entries("distances")[name]
    distance = read_distance(entry)
    for case, golden in entry["cases"].items():
        data = golden_data.inputs(case)
        x, r = data["embeddings"], data.get("ref_emb", data["embeddings"])
        matrix = np.array([[distance(a, b) for b in r] for a in x])
        kind = entry["distance"]["type"]
        ours = {"CosineSimilarity": 1 - matrix, "DotProductSimilarity": -matrix}.get(kind, matrix)
        np.testing.assert_allclose(ours, golden_data.array(golden["matrix"]), atol=1e-6)


# Values by hand, where the goldens have none.

LINE = np.array([[0.0], [1.0], [3.0], [7.0]])


def value(terms, reduction="mean", n_anchors=4):
    return references.reduce(terms, reduction, n_anchors)


def test_reductions():
    terms = [[(0, 2.0, 1.0), (0, 0.0, 1.0), (2, 4.0, 0.5)], [(1, 3.0, 2.0)], []]
    assert value(terms) == 4 / 2.5 + 3
    assert value(terms, "mean_active") == 4 / 1.5 + 3
    assert value(terms, "sum") == 10
    assert value(terms, "none").tolist() == [2, 6, 2, 0]


def test_distances_by_hand():
    a, b = np.array([1.0, -2.0]), np.array([5.0, 7.0])
    assert references.lp(math.inf)(a, b) == 9
    assert references.lp(0.5)(a, b) == pytest.approx((2 + 3) ** 2)
    assert references.dot(a, b) == 9
    assert references.angular_distance(a, np.array([4.0, 2.0])) == pytest.approx(math.pi / 2)


def test_squared_contrastive_by_hand():
    terms = references.squared_contrastive(LINE[:3], [0, 0, 1], margin=2.5)
    pulls, pushes = 2 * 0.5 * 1**2, 2 * 0.5 * (2.5 - 2) ** 2
    assert value(terms) == pytest.approx((pulls + pushes) / 6)


def test_quadruplet_by_hand():
    first, second = references.quadruplet(LINE, [0, 0, 1, 2], margin=5.0, second_margin=16.0)
    assert [entry[1] for entry in first] == [0, 0, 1 - 4 + 5, 0]
    assert [entry[1] for entry in second] == [1 - 16 + 16] * 4


def test_lifted_structure_against_references_by_hand():
    terms = references.lifted_structure([[0.0], [3.0]], [0, 1], [[1.0], [5.0]], [0, 1])
    first = math.log(math.exp(1 - 5) + math.exp(1 - 2)) + 1
    second = math.log(math.exp(1 - 2) + math.exp(1 - 5)) + 2
    assert value(terms) == pytest.approx((first**2 + second**2) / 4)


def test_a_lone_anchor_leaves_generalized_lifted_structure():
    paired = references.generalized_lifted_structure(LINE[:3], [0, 0, 1])
    assert [entry[0] for entry in paired[0]] == [0, 1]
    ported = references.generalized_lifted_structure(LINE[:3], [0, 0, 1], margin=4.0, lone="zero")
    assert ported[0][2][1] == pytest.approx(math.log(math.exp(4 - 3) + math.exp(4 - 2)))


def test_n_pair_by_hand():
    x, refs = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    gaps = [0 - 1, 2 - 2]  # negative similarity minus positive similarity
    norms = [(1 + 2) / 2, (4 + 1) / 2]
    terms = references.n_pair(x, [0, 1], refs, [0, 1], norm_weight=0.1)
    parts = [math.log(1 + math.exp(g)) + 0.1 * n for g, n in zip(gaps, norms)]
    assert value(terms) == pytest.approx(sum(parts) / 2)
    labels = [0, 1, 2, 2]
    terms = references.n_pair(x[:1], [0], LINE @ [[1, 0]], labels, one_versus_one=True)
    others = sum(math.log(1 + math.exp(s - 0)) for s in (1, 3, 7))
    assert value(terms) == pytest.approx(others + 0.002 * 1 / 2)


def test_angular_hinge_by_hand():
    x = np.array([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])
    terms = references.angular(x, [0, 0, 1], angle=math.atan(0.5), hinge=True)
    away = (1.5**2 + 0.5**2, 1.5**2 + 0.5**2)
    assert [entry[1] for entry in terms[0]] == pytest.approx([max(0, 2 - d) for d in away])
    near = references.angular(x[[0, 1, 1]], [0, 0, 1], angle=math.atan(0.5), hinge=True)
    assert near[0][0][1] == pytest.approx(2 - 0.5)


def test_center_and_its_rule_by_hand():
    e, centers = np.array([[1.0, 1.0], [1.0, 1.0]]), np.zeros((3, 2))
    assert value(references.center(e, [0, 0], centers)) == 1
    moved = references.update_centers(centers, e, [0, 0], rate=0.5)
    np.testing.assert_allclose(moved, [[1 / 3, 1 / 3], [0, 0], [0, 0]])


def on_circle(*angles):
    return np.array([[math.cos(a), math.sin(a)] for a in angles])


def test_margins_by_hand():
    table = on_circle(0.0, math.pi / 2)

    def gap(loss, theta, **numbers):  # the target logit, read back from the loss
        lost = value(loss(on_circle(theta), [0], table, scale=1.0, **numbers))
        return math.cos(theta - math.pi / 2) - math.log(math.expm1(lost))

    m = 0.5
    assert gap(references.arcface, 1.0) == pytest.approx(math.cos(1.5))
    assert gap(references.arcface, 3.0) == pytest.approx(math.cos(3.0) - m * math.sin(m))
    assert gap(references.arcface, 3.0, easy_margin=True) == pytest.approx(math.cos(3.0))
    assert gap(references.arcface, 1.0, easy_margin=True) == pytest.approx(math.cos(1.5))
    for theta, psi in zip((0, math.pi / 4, math.pi / 2, 3 * math.pi / 4), (1, -1, -3, -5)):
        assert gap(references.sphereface, theta) == pytest.approx(psi)
    annealed = (5 * math.cos(0.3) + math.cos(1.2)) / 6
    assert gap(references.sphereface, 0.3, annealing=5.0) == pytest.approx(annealed)
    combined = partial(gap, references.combined_margin)
    numbers = {"multiplier": 1.2, "angle_margin": 0.1, "cosine_margin": 0.2}
    assert combined(0.5, **numbers) == pytest.approx(math.cos(1.2 * 0.5 + 0.1) - 0.2)
    assert combined(3.0, **numbers) == pytest.approx(-math.cos(1.2 * 3.0 + 0.1) - 2 - 0.2)


def test_adacos_by_hand():
    table, x = on_circle(0.0, math.pi / 2, math.pi), on_circle(0.2, 0.4)
    fixed = references.adacos(x, [0, 0], table)
    factor = math.sqrt(2) * math.log(2)
    cosines = math.cos(0.2), math.sin(0.2), -math.cos(0.2)
    soft = math.log(sum(math.exp(factor * c) for c in cosines)) - factor * cosines[0]
    assert fixed[0][0][1] == pytest.approx(soft)
    others = [math.exp(2 * math.sin(a)) + math.exp(-2 * math.cos(a)) for a in (0.2, 0.4)]
    expected = math.log(sum(others) / 2) / math.cos(0.3)
    assert references.update_adacos(2.0, x, [0, 0], table) == pytest.approx(expected)


def test_semi_hard_takes_no_triplet_where_the_band_is_empty():
    """Row A6: nothing lies between the positive and the margin."""
    s = references.PairSet(
        [[100.0], [0.0], [1.0], [0.5]], [2, 0, 0, 1], distance=references.squared_euclidean
    )
    assert (1, 2) not in {(a, p) for a, p, _ in reference_miners.semi_hard(s, 0.2).triplets}
    assert (1, 2, 0) in reference_miners.semi_hard(s).triplets


def test_rows_that_do_not_exist_and_weights():
    y, there = np.array([0, 0, 1, 1]), np.array([True, True, True, False])
    full = references.contrastive(LINE[:3], y[:3], negative_margin=4.0)
    for gone in (
        references.contrastive(LINE, y, negative_margin=4.0, where=there),
        references.contrastive(LINE, [0, 0, 1, -1], negative_margin=4.0),
        references.contrastive(LINE, y, negative_margin=4.0, weights=np.outer(there, there)),
    ):
        assert value(gone) == value(full)
    table = on_circle(0.0, 1.0, 2.0)
    twice = references.cosface(on_circle(0.3, 0.3, 2.0), [0, 0, 1], table)
    weighed = references.cosface(on_circle(0.3, 2.0), [0, 1], table, weights=[2.0, 1.0])
    assert value(twice) == pytest.approx(value(weighed))
    sampled = references.cosface(on_circle(0.3, 2.0), [7, 1], table, proxy_labels=[4, 7, 9])
    assert [entry[0] for entry in sampled[0]] == [0]


def test_explicit_references_keep_the_diagonal():
    """Row D1."""
    rows = [[0.0], [1.0]]
    assert references.PairSet(rows, [0, 1], rows, [0, 1]).positive_pairs() == [(0, 0), (1, 1)]
    assert references.PairSet(rows, [0, 1], rows, [1, 0]).positive_pairs() == [(0, 1), (1, 0)]
