"""Every law, on every loss of the table of cases. Values are those of slow float64 references."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, ONE_EACH, PAIR_CASES, TABLE_CASES, B, C, Case, table
from runs import LABELS, check_values, masks, rows, run, tolerance

from jdml import losses

pytestmark = pytest.mark.usefixtures("quick_compile")
every = pytest.mark.parametrize("case", CASES, ids=str)
one_each = pytest.mark.parametrize("case", ONE_EACH, ids=str)  # where a law compiles for itself
one_pair_each = pytest.mark.parametrize("case", [c for c in ONE_EACH if not c.table], ids=str)
every_pair = pytest.mark.parametrize("case", PAIR_CASES, ids=str)
every_table = pytest.mark.parametrize("case", TABLE_CASES, ids=str)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# ---------------------------------------------------------------- values


@every
def test_value_is_the_reference(case: Case, x64):
    x = rows(0)
    check_values(case, run(case, x), x=x, y=LABELS)
    where, weights = masks()
    got = run(case, x, where=where, weights=weights)
    check_values(case, got, x=x, y=LABELS, where=where, weights=weights)


@one_pair_each
def test_value_with_references_and_pair_weights(case: Case, x64):
    x, r = rows(0), rows(1, 9)
    ref_labels = np.array([0, 1, 2, 3, 4, 0, 1, 6, 2])
    ref_where = np.arange(9) != 4
    refs = (r, ref_labels, ref_where)
    weights = np.random.default_rng(4).integers(0, 3, (B, 9)).astype(float)
    if "miner" in case.choices:  # a miner sees only whether a pair is there
        weights = np.ones((B, 9))
    if case.classes_only:
        weights = weights[:, 0]
    got = run(case, x, refs=refs, weights=weights)
    inputs = {"refs": r, "ref_labels": ref_labels, "ref_where": ref_where, "weights": weights}
    check_values(case, got, x=x, y=LABELS, **inputs)


@one_each
def test_jit_is_no_jit(case: Case):
    x = jnp.asarray(rows(0), jnp.float32)
    args = (x, LABELS) if not case.table else (x, LABELS, jnp.asarray(table(case), jnp.float32))
    compiled = case.loss(*args, **case.numbers, **case.fixed)
    with jax.disable_jit():
        plain = case.loss(*args, **case.numbers, **case.fixed)
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


@every
def test_gradient_is_the_finite_difference(case: Case, x64):
    """Along random directions, by the rows, the table and every number."""
    if case.held:
        pytest.skip("the paper holds some weights constant")
    where, weights = masks()
    rng = np.random.default_rng(7)
    x, owned, h = rows(2), table(case), 1e-6
    reduction = inspect.signature(case.loss).parameters["reduction"].default
    numbers = dict(case.numbers)

    def value(step: float, dx, dt, dn) -> float:
        moved = None if owned is None else owned + step * dt
        shifted = {k: v + step * dn[k] for k, v in numbers.items()}
        options = {"owned": moved, "numbers": shifted, "where": where, "weights": weights}
        return float(run(case, x + step * dx, **options).values[reduction])

    got = run(case, x, owned=owned, where=where, weights=weights)
    none = dict.fromkeys(numbers, 0.0)
    dx, dt = rng.normal(size=x.shape), 0.0 if owned is None else rng.normal(size=owned.shape)
    checks = [(dx, 0.0, none, (np.asarray(got.gradient) * dx).sum())]
    if owned is not None:
        checks.append((0.0, dt, none, (np.asarray(got.table_gradient) * dt).sum()))
    for name in numbers:
        checks.append((0.0, 0.0, {**none, name: 1.0}, float(got.number_gradients[name])))
    for dx, dt, dn, slope in checks:
        measured = (value(h, dx, dt, dn) - value(-h, dx, dt, dn)) / (2 * h)
        np.testing.assert_allclose(slope, measured, rtol=1e-5, atol=1e-8)


@one_each
def test_bfloat16_rows_give_a_float32_value(case: Case):
    """As near to the truth as the rounded input allows: everything inside is float32."""
    x = np.asarray(jnp.asarray(rows(0), jnp.bfloat16), np.float64)
    owned = table(case)
    if owned is not None:
        owned = np.asarray(jnp.asarray(owned, jnp.bfloat16), np.float64)
    got = run(case, x, owned=owned, dtype=jnp.bfloat16)
    assert all(v.dtype == jnp.float32 for v in got.values.values())
    assert got.gradient.dtype == jnp.bfloat16
    check_values(case, got, owned=owned, x=x, y=LABELS)


# ---------------------------------------------------------------- rows


@every
def test_order_of_the_batch_changes_nothing(case: Case):
    if case.ordered:
        pytest.skip("its numbers are drawn by place")
    x, order = rows(0), np.random.default_rng(1).permutation(B)
    plain, mixed = run(case, x), run(case, x[order], LABELS[order])
    for reduction in ("mean", "sum"):
        np.testing.assert_allclose(mixed.values[reduction], plain.values[reduction], rtol=1e-5)
    np.testing.assert_allclose(mixed.gradient, plain.gradient[order], rtol=1e-4, atol=1e-6)


@every_pair
def test_names_of_classes_change_nothing(case: Case):
    if case.continuous:
        pytest.skip("its labels are numbers")
    x, names = rows(0), np.array([40, 7, 2_000_000_011, 0, 5, 16_777_217, 16_777_216])
    plain, renamed = run(case, x), run(case, x, names[LABELS])
    np.testing.assert_allclose(renamed.values["mean"], plain.values["mean"], rtol=1e-6)
    np.testing.assert_allclose(renamed.gradient, plain.gradient, rtol=1e-5, atol=1e-7)


@every
@pytest.mark.parametrize("how", ["where", "negative label"])
def test_a_masked_row_is_a_dropped_row(case: Case, how: str):
    """Even one that holds NaN: it reaches neither value nor gradient."""
    if case.ordered:
        pytest.skip("its numbers are drawn by place")
    x, (where, _) = rows(0), masks()
    if case.continuous and how == "negative label":
        pytest.skip("its labels are numbers")
    kept = np.flatnonzero(where)
    holed = np.where(where[:, None], x, np.nan)
    if how == "where":
        got = run(case, holed, where=where)
    else:
        got = run(case, holed, np.where(where, LABELS, -1))
    for reduction in ("mean", "mean_active", "sum"):
        expected = case.expected(reduction, x[kept], LABELS[kept], table=table(case))
        np.testing.assert_allclose(got.values[reduction], expected, **tolerance())
    assert np.isfinite(got.gradient).all()
    assert not np.asarray(got.gradient)[~where].any()


@every_table
def test_an_integer_weight_is_a_repeated_row(case: Case):
    if case.ordered:
        pytest.skip("its numbers are drawn by place")
    x, (_, weights) = rows(0), masks()
    times = weights.astype(int)
    got = run(case, x, weights=weights)
    for reduction in ("mean", "sum"):
        again = case.expected(
            reduction, x.repeat(times, 0), LABELS.repeat(times), table=table(case)
        )
        np.testing.assert_allclose(got.values[reduction], again, **tolerance())


@every
def test_nothing_valid_gives_zero_and_a_zero_gradient(case: Case):
    got = run(case, rows(0), where=np.zeros(B, bool))
    assert all(not np.any(v) for v in got.values.values())
    leaves = jax.tree.leaves((got.gradient, got.table_gradient, got.number_gradients))
    assert all(not np.any(leaf) for leaf in leaves)


@every
@pytest.mark.parametrize(
    "x",
    [
        np.zeros((B, 5)),
        np.ones((B, 5)),
        np.tile(rows(0)[:1], (B, 1)),
        np.where(np.arange(B)[:, None] % 2, 1.0, -1.0) * rows(0)[:1],
        np.where(np.arange(B)[:, None] < 4, rows(0)[:1], rows(0)),
        1e-20 * rows(0),
        1e4 * rows(0),
    ],
    ids=["zero", "ones", "collapsed", "opposite", "duplicates", "tiny", "large"],
)
def test_degenerate_rows_stay_finite(case: Case, x: np.ndarray):
    got = run(case, x)
    assert all(np.isfinite(v).all() for v in got.values.values())
    assert np.isfinite(got.gradient).all()


@every
def test_a_real_nan_is_not_hidden(case: Case):
    x = rows(0)
    x[0, 0] = np.nan
    got = run(case, x)
    assert all(np.isnan(got.values[r]) for r in ("mean", "mean_active", "sum"))


@every_pair
@pytest.mark.parametrize("labels", [np.arange(B), np.zeros(B, int)], ids=["distinct", "equal"])
def test_without_positives_or_negatives_the_value_is_the_reference(case: Case, labels, x64):
    """Faults A2 to A5: 0 where nothing is left to compare, never NaN, nor a loss of nothing."""
    x = rows(0)
    got = run(case, x, labels)
    check_values(case, got, x=x, y=labels)
    assert np.isfinite(got.gradient).all()


@every
def test_sum_of_none_is_sum(case: Case):
    got = run(case, rows(0))
    np.testing.assert_allclose(got.values["none"].sum(), got.values["sum"], rtol=1e-5)
    assert got.values["none"].shape == ((C,) if case.by_proxy else (B,))


# ---------------------------------------------------------------- tables


@every_table
def test_rows_on_and_opposite_their_class_stay_finite(case: Case):
    owned = table(case)
    first = owned if owned.ndim == 2 else owned[:, 0]
    signs = np.where(np.arange(B) % 2, 1.0, -1.0)[:, None]
    got = run(case, signs * first[LABELS])
    assert all(np.isfinite(v).all() for v in got.values.values())
    assert np.isfinite(got.gradient).all()
    assert np.isfinite(got.table_gradient).all()


@every_table
def test_a_class_without_a_row_does_not_count(case: Case):
    """A sampled table: the batch's classes and some others, in any order."""
    if case.name == "adacos":
        pytest.skip("its scale follows from the number of classes in the table")
    if case.by_proxy:
        pytest.skip("a row without a proxy is still pushed from all proxies")
    x, owned = rows(0), table(case)
    ids = np.array([4, 0, 6, 1])
    options = {**case.numbers, **case.fixed, "reduction": "none"}
    got = case.loss(
        jnp.asarray(x, jnp.float32), LABELS, jnp.asarray(owned[ids], jnp.float32),
        proxy_labels=ids, **options,
    )  # fmt: skip
    expected = case.expected("none", x, LABELS, table=owned[ids], proxy_labels=ids)
    np.testing.assert_allclose(got, expected, **tolerance())
    assert not np.asarray(got)[~np.isin(LABELS, ids)].any()


@every_table
def test_a_label_beyond_the_table_is_refused(case: Case):
    x, owned = jnp.asarray(rows(0), jnp.float32), jnp.asarray(table(case), jnp.float32)
    with pytest.raises(ValueError, match=f"labels: got class {C}, expected 0 to {C - 1}"):
        case.loss(x, LABELS.clip(1) + C - 5, owned, **case.numbers, **case.fixed)


# ---------------------------------------------------------------- calls


@every
def test_the_signature_is_the_convention(case: Case):
    parameters = list(inspect.signature(case.loss).parameters.values())
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert positional[:2] == ["embeddings", "labels"]
    assert positional[2:] in ([], ["proxies"], ["centers"])
    shared = {"where", "weights", "reduction", "axis_name", "block_size"}
    shared |= {"proxy_labels", "class_axis_name"} if case.table else {"refs", "miner"}
    assert shared <= {p.name for p in parameters}


@one_each
def test_new_numbers_do_not_compile_again(case: Case):
    args = [jnp.asarray(rows(0), jnp.float32), jnp.asarray(LABELS)]
    if case.table:
        args.append(jnp.asarray(table(case), jnp.float32))
    case.loss(*args, **case.numbers, **case.fixed)
    before = case.loss.jitted._cache_size()
    for factor in (1.01, 1.02):
        case.loss(*args, **{k: v * factor for k, v in case.numbers.items()}, **case.fixed)
    assert case.loss.jitted._cache_size() == before


@every
def test_a_misspelt_keyword_is_named(case: Case):
    args = (np.zeros((2, 3)), [0, 1], np.zeros((2, 3)))[: 3 if case.table else 2]
    with pytest.raises(TypeError, match="has no keyword 'reductoin'; did you mean 'reduction'"):
        case.loss(*args, reductoin="mean")


def test_every_public_loss_is_in_the_table():
    assert {case.loss.__name__ for case in CASES} == set(losses.__all__)


# ---------------------------------------------------------------- blocks


@every
def test_blocks_change_nothing(case: Case):
    """Value, every gradient and per-anchor sums, with rows left over in the last block."""
    x, (where, weights) = rows(0), masks()
    whole = run(case, x, where=where, weights=weights, block_size=None)
    cut = run(case, x, where=where, weights=weights, block_size=4)
    whole = whole._replace(values={r: whole.values[r] for r in cut.values})
    for a, b in zip(jax.tree.leaves(cut), jax.tree.leaves(whole)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
