"""The InfoNCE family: softmaxes and sigmoids that tell a positive from everything else."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core.compile import loss
from jdml._core.folds import Fold, Folded
from jdml._core.options import (
    Array,
    Distance,
    Number,
    PairOptions,
    Pairs,
    by_anchor,
)
from jdml._core.pairs import over_pairs
from jdml._core.reduce import any_weight, log_sum_exp, safe_divide


def _column(x: Array) -> Array:
    """A number of the anchor [b], or of each of its positives [b, P], as [b, 1 or P]."""
    return x[:, None] if x.ndim == 1 else x


def _or_zero(x: Array) -> Array:
    """0 in the place of the logarithm of an empty sum."""
    return jnp.where(x == -jnp.inf, 0.0, x)


def _check_denominator(denominator: str) -> None:
    if denominator not in ("negatives", "all"):
        raise ValueError(f"denominator: got {denominator!r}, expected 'negatives' or 'all'")


def _log_sum_all(pairs: Pairs, temperature: Number) -> Array:
    """log-sum-exp of -distance / temperature over all pairs of an anchor, [b]."""
    return Fold("all", lambda distance: -distance / temperature, log=True)(pairs)


@loss(reduction="mean")
def ntxent(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.1,
    denominator: str = "negatives",
    distance: Distance = distances.cosine,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive to its anchor against all negatives in a softmax: InfoNCE.

    The loss of contrastive self-supervision: label the views of one item alike. With another
    modality as `refs` it is one direction of CLIP. Small temperatures look at the hardest
    negatives only; large batches help.

        -log(exp(-d(a, p) / t) / (exp(-d(a, p) / t) + sum_n exp(-d(a, n) / t)))

    for every positive pair (a, p).

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      temperature: t, 0.05 to 0.5. Learn its logarithm and bound it, since it tends to 0.
      denominator: "negatives" compares a positive with negatives only; "all" puts the anchor's
        other positives into the sum as well, as SimCLR's code would with more than two views.
      distance: between rows; 1 - cosine in the papers.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = ntxent(rows, jnp.array([0, 0, 1]), temperature=1.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Note:
      Anchors without a positive do not count. Gradients accumulated over parts of a batch leave
      out the negatives between the parts: that is another loss, not a smaller step.

    Reference:
      van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018;
      Chen, Kornblith, Norouzi, Hinton: SimCLR, ICML 2020.
    """
    _check_denominator(denominator)

    def formula(pairs: Pairs):
        positives = -pairs.positives / temperature
        if denominator == "all":
            every = _log_sum_all(by_anchor(pairs, "ntxent with all"), temperature)
            # An anchor without any pair has -inf here, and no weight.
            value = _or_zero(every)[:, None] - positives
        else:
            others = log_sum_exp(-pairs.negatives / temperature, pairs.negative_weights)
            value = jax.nn.softplus(_column(others) - positives)
        return ((value, pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, distance, **options)


@loss(reduction="mean")
def supcon(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.1,
    inside: bool = False,
    distance: Distance = distances.cosine,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls all positives of an anchor out of the softmax over all other rows.

    Supervised contrastive learning: one value an anchor whatever the size of its class, and
    gradients that look after hard positives and hard negatives by themselves. A strong default
    with class-balanced batches.

        -1 / |P| sum_p log(exp(-d(a, p) / t) / sum_r exp(-d(a, r) / t))

    with r every other row.

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer classes.
      temperature: t, 0.05 to 0.2.
      inside: the mean over positives inside the logarithm (L_in), which the authors found weaker.
      distance: between rows; 1 - cosine in the paper.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = supcon(rows, jnp.array([0, 0, 1]), temperature=1.0)
      >>> print(f"{loss:.5f}")  # two anchors with a positive: log(1 + exp(-1))
      0.31326

    Note:
      Anchors without a positive leave the mean; the authors' later code keeps them in it as 0.

    Reference:
      Khosla et al.: Supervised Contrastive Learning, NeurIPS 2020.
    """

    logits = lambda distance: -distance / temperature
    folds = (
        Fold("all", logits, log=True),
        Fold("positives", logits, log=inside),
        Fold("positives", jnp.ones_like),
    )

    def combine(every: Array, pulled: Array, count: Array):
        has = (count != 0).astype(count.dtype)
        if inside:
            pulled = pulled - jnp.log(jnp.where(count == 0, 1.0, count))
        else:
            pulled = safe_divide(pulled, count)
        return ((jnp.where(has == 0, 0.0, every) - jnp.where(has == 0, 0.0, pulled), has),)

    return over_pairs(Folded(folds, combine, "supcon"), embeddings, labels, distance, **options)


@loss(reduction="mean")
def clip(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.07,
    denominator: str = "negatives",
    distance: Distance = distances.cosine,
    **options: Unpack[PairOptions],
) -> Array:
    """Finds for each row its partner in the other modality, and for each partner its row.

    The mean of `ntxent` in both directions, from rows to references and from references to rows.
    Made for two modalities (`refs`), such as images and their texts, with the item as label; the
    temperature is learned through its logarithm and held above 0.01.

        (log(1 + sum_n exp((d(a, p) - d(a, n)) / t)) + log(1 + sum_m exp((d(a, p) - d(m, p)) / t)))
        / 2

    for every positive pair (a, p), with n the references of other items and m the rows of other
    items.

    Args:
      embeddings: [B, D] rows; the default distance brings them to unit length.
      labels: [B] integer items.
      temperature: t; 0.07 at the start in the paper.
      denominator: "negatives", or "all" to put the other positives of a row, and the other rows
        of its partner, into the sums as well; the same where an item has one row of each kind.
      distance: between rows; 1 - cosine in the paper.
      **options: the shared keywords of pair losses; `refs` are the other modality. On many
        devices give each the references of all (`lax.all_gather(refs, axis, tiled=True)`).

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> images, texts = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
      >>> items = jnp.arange(2)
      >>> loss = clip(images, items, refs=texts, ref_labels=items, temperature=1.0)
      >>> print(f"{loss:.5f}")  # (log 2 + (0.31326 + 1.31326) / 2) / 2
      0.75320

    Note:
      An item may have several partners: every positive pair counts once in each direction, with
      the weight of its row. Without `refs` both directions go over the same pairs. A miner chooses
      on each side what a row is compared with; the positives that count are those of the rows.

    Reference:
      Radford et al.: Learning Transferable Visual Models From Natural Language Supervision,
      ICML 2021.
    """
    _check_denominator(denominator)

    def log_sum(pairs: Pairs, rows: Array) -> Array:
        del rows
        pairs = by_anchor(pairs, "clip")
        if denominator == "all":
            return _log_sum_all(pairs, temperature)
        return log_sum_exp(-pairs.negatives / temperature, pairs.negative_weights)

    def formula(pairs: Pairs):
        positives = -pairs.positives / temperature

        def surprise(log_sum: Array) -> Array:
            if denominator == "all":
                return _or_zero(log_sum) - positives
            return jax.nn.softplus(log_sum - positives)

        forth, back = surprise(pairs.anchor_values[:, None]), surprise(pairs.positive_values)
        return ((0.5 * (forth + back), pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, distance, statistic=log_sum, **options)


@loss(reduction="mean")
def decoupled_ntxent(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.1,
    weighted: bool = False,
    concentration: Number = 0.5,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive and pushes all negatives, without one slowing the other.

    `ntxent` without the positive in its denominator: there an easy positive takes gradient away
    from the negatives, which is why it wants large batches. This one does well with small ones.
    It may be negative.

        -w s(a, p) / t + log sum_n exp(s(a, n) / t),
        w = 1, or if weighted 2 - exp(s(a, p) / concentration) / mean exp(s / concentration)

    for every positive pair (a, p), with s the cosine and the mean over all positive pairs that
    count, by their weights.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      temperature: t, 0.05 to 0.5.
      weighted: whether far positives weigh more than near ones (DCLW).
      concentration: sigma of these weights, 0.5 in the paper; 0.1 and above.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> print(decoupled_ntxent(rows, jnp.array([0, 0, 1]), temperature=1.0))  # -1 + log(e^0)
      -1.0

    Note:
      Anchors without a positive or without a negative do not count; the other positives of an
      anchor are not in its sum, as the other views of an item are not in the paper's. The weights
      w are constants for the gradient: through them near positives would be pushed apart.

    Reference:
      Yeh et al.: Decoupled Contrastive Learning, ECCV 2022.
    """
    weigh = lambda pairs: pairs.positive_weights * _has(pairs)
    # exp((s - 1) / concentration) and its mean have the same quotient, and stay in range.
    close = lambda pairs: lax.stop_gradient(jnp.exp(-pairs.positives / concentration))
    mean = jnp.ones((), embeddings.dtype)
    if weighted:
        term = lambda pairs: ((close(pairs), weigh(pairs)),)
        whole = {**options, "reduction": "mean"}
        mean = over_pairs(term, embeddings, labels, distances.cosine, **whole)

    def formula(pairs: Pairs):
        similarity = (1.0 - pairs.positives) / temperature
        if weighted:
            similarity = similarity * (2.0 - safe_divide(close(pairs), lax.stop_gradient(mean)))
        others = log_sum_exp((1.0 - pairs.negatives) / temperature, pairs.negative_weights)
        return ((_or_zero(_column(others)) - similarity, weigh(pairs)),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


@loss(reduction="mean")
def hard_negative_ntxent(
    embeddings: Array,
    labels: Array,
    *,
    temperature: Number = 0.5,
    hardness: Number = 1.0,
    prior: Number = 0.1,
    **options: Unpack[PairOptions],
) -> Array:
    """Pulls each positive to its anchor against negatives that count the more the nearer they are.

    Importance weights stand for sampling hard negatives, and a prior corrects for negatives that
    are of the anchor's unseen class. For self-supervision, where labels name items and not
    classes; with known classes set `prior` to 0. Hardness 0 is the debiased loss, and with
    prior 0 as well it is `ntxent`.

        log(1 + N max((E_n - prior E_p) / (1 - prior), exp(-1 / t)) / exp(s(a, p) / t)),
        E_x = sum_x exp((1 + hardness) s(a, x) / t) / sum_x exp(hardness s(a, x) / t)

    for every positive pair (a, p), with s the cosine, N the number of negatives of a, and E over
    all negatives and over all positives of a. Pairs are counted and summed by their weights.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer items.
      temperature: t, 0.5 in the paper.
      hardness: beta, 0 to 2: how much near negatives are preferred.
      prior: tau+, the chance that a negative is of the anchor's class, from 0 to below 1.
      **options: the shared keywords of pair losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> loss = hard_negative_ntxent(rows, jnp.array([0, 0, 1]), temperature=1.0, prior=0.0)
      >>> print(f"{loss:.5f}")  # one negative: log(1 + exp(-1))
      0.31326

    Note:
      Anchors without a positive do not count; those without a negative count as 0. The authors'
      code has one positive an anchor, for which E_p is exp(s(a, p) / t).

    Reference:
      Robinson, Chuang, Sra, Jegelka: Contrastive Learning with Hard Negative Samples, ICLR 2021;
      Chuang et al.: Debiased Contrastive Learning, NeurIPS 2020.
    """

    def log_mean(logits: Array, weights: Array) -> Array:
        """Of exp(logits), near ones preferred; 0 where there are none."""
        above, below = (1.0 + hardness) * logits, hardness * logits
        mean = _or_zero(log_sum_exp(above, weights)) - _or_zero(log_sum_exp(below, weights))
        return _column(mean)

    def formula(pairs: Pairs):
        positives = (1.0 - pairs.positives) / temperature
        weights = pairs.negative_weights
        near = log_mean((1.0 - pairs.negatives) / temperature, weights)
        own = log_mean(positives, pairs.positive_weights)
        # In units of the larger of the two, so that neither exponential overflows.
        top = lax.stop_gradient(jnp.maximum(near, own))
        rest = jnp.exp(near - top) - prior * jnp.exp(own - top)
        inside, floor = rest > 0, -1.0 / temperature
        log_rest = jnp.log(jnp.where(inside, rest, 1.0) / (1.0 - prior)) + top
        hard = jnp.where(inside, jnp.maximum(log_rest, floor), floor)
        count = _column(weights.sum(axis=-1))
        log_count = jnp.where(count == 0, -jnp.inf, jnp.log(jnp.where(count == 0, 1.0, count)))
        return ((jax.nn.softplus(log_count + hard - positives), pairs.positive_weights),)

    return over_pairs(formula, embeddings, labels, distances.cosine, **options)


def _has(pairs: Pairs) -> Array:
    """1 where there is a negative, of the anchor or of the positive."""
    return _column(any_weight(pairs.negative_weights))
