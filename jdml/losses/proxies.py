"""Proxy losses: rows against a few learned representatives of each class."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances
from jdml._core import checks
from jdml._core.compile import loss
from jdml._core.devices import gather
from jdml._core.options import Array, Number, Pairs, TableOptions
from jdml._core.pairs import over_pairs
from jdml._core.reduce import any_weight, log_sum_exp
from jdml._core.table import Row, check_rows, check_table, over_table, table_labels


@loss(reduction="mean")
def normalized_softmax(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    temperature: Number = 0.05,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the direction of its class in a plain softmax of cosines.

    Classification with unit weights and unit rows: the simplest table loss, and a baseline that
    is hard to beat. It is `cosface` without a margin.

        -log softmax of cos(theta_c) / temperature

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      temperature: 0.03 to 0.1.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[3.0, 0.0]]), jnp.eye(2)
      >>> loss = normalized_softmax(rows, jnp.array([0]), proxies, temperature=1.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Reference:
      Zhai, Wu: Classification is a Strong Baseline for Deep Metric Learning, BMVC 2019.
    """

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - row.target / temperature)

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return cosines / temperature

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


@loss(reduction="mean")
def proxy_nca(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    scale: Number = 1.0,
    own: str = "left_out",
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to the proxy of its class against all other proxies, by squared distance.

    Triplets of a row and two proxies instead of three rows: no sampling, fast convergence. As
    published, the own proxy is not in the denominator, and the loss may be negative; ProxyNCA++
    keeps it and trains better with a larger scale.

        -log(exp(-scale |u - p_y|^2) / sum_{c != y} exp(-scale |u - p_c|^2)),  unit rows

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D]; brought to unit length here. They want a far higher learning rate than the
        encoder.
      scale: inverse temperature; 1 in the paper, 3 (with `own="kept"`, temperature 1/9 on
        squared distances scaled by 9) in ProxyNCA++.
      own: "left_out" of the denominator, or "kept" in it.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> print(proxy_nca(rows, jnp.array([0]), proxies))  # -2: the other proxy at 2
      -2.0

    Reference:
      Movshovitz-Attias et al.: No Fuss Distance Metric Learning using Proxies, ICCV 2017; Teh,
      DeVries, Taylor: ProxyNCA++, ECCV 2020.
    """
    if own not in ("left_out", "kept"):
        raise ValueError(f"own: got {own!r}, expected 'left_out' or 'kept'")

    def formula(row: Row) -> Array:  # |u - p|^2 = 2 - 2 cos: the 2 cancels
        if own == "kept":
            return jax.nn.softplus(row.others - 2.0 * scale * row.target)
        alone = row.others == -jnp.inf  # a table of one class has nothing to push from
        others = jnp.where(alone, 0.0, row.others)
        return jnp.where(alone, 0.0, others - 2.0 * scale * row.target)

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return 2.0 * scale * cosines

    return over_table(formula, embeddings, labels, proxies, logits=logits, **options)


@loss(reduction="mean")
def proxy_anchor(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    alpha: Number = 32.0,
    margin: Number = 0.1,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls the hardest rows of a class to its proxy and pushes the hardest others from it.

    The proxies are the anchors, so rows of a batch see each other through them: the speed of
    proxies with the relations of pairs. A strong choice for CUB, Cars and SOP. Proxies want a
    learning rate a hundred times the encoder's.

        mean over proxies with rows in the batch of log(1 + sum_x exp(-alpha (s(p, x) - margin)))
        + mean over all proxies of log(1 + sum_x' exp(alpha (s(p, x') + margin)))

    with x the rows of the proxy's class, x' all others, s the cosine.

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D]; brought to unit length here.
      alpha: sharpness, 32 in the paper.
      margin: delta in the paper, in units of the cosine.
      **options: the shared keywords of table losses. Rows are weighed inside the sums, and
        `block_size` is that of proxies.

    Returns:
      A float32 scalar (or sums by proxy [C] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> loss = proxy_anchor(rows, jnp.array([0]), proxies, alpha=1.0, margin=0.0)
      >>> print(f"{loss:.5f}")  # log(1 + 1 / e), and (log(1 + 0) + log(1 + e^0)) / 2
      0.65984

    Note:
      Unlike elsewhere, a row whose class has no proxy counts: it is pushed from all proxies.

    Reference:
      Kim, Kim, Cho, Kwak: Proxy Anchor Loss for Deep Metric Learning, CVPR 2020.
    """
    exists, weights = check_rows(embeddings, labels, options.get("where"), options.get("weights"))
    axis_name, class_axis = options.get("axis_name"), options.get("class_axis_name")
    proxy_labels = options.get("proxy_labels")
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")
    check_table(embeddings, proxies, proxy_labels)
    classes = table_labels(proxies, proxy_labels, class_axis)
    rows, row_labels, exists, weights = (
        gather(x, axis_name) for x in (embeddings, labels, exists, weights)
    )

    def formula(pairs: Pairs):
        pull = log_sum_exp(-alpha * (1.0 - pairs.positives - margin), pairs.positive_weights)
        push = log_sum_exp(alpha * (1.0 - pairs.negatives + margin), pairs.negative_weights)
        seen, every = any_weight(pairs.positive_weights), jnp.ones_like(push)
        return (jax.nn.softplus(pull), seen), (jax.nn.softplus(push), every)

    value = over_pairs(
        formula,
        proxies.astype(embeddings.dtype),
        classes,
        distances.cosine,
        refs=rows,
        ref_labels=row_labels,
        ref_where=exists,
        weights=jnp.broadcast_to(weights[None, :], (proxies.shape[0], rows.shape[0])),
        axis_name=class_axis,
        reduction=options.get("reduction", "mean"),
        block_size=options.get("block_size"),
    )
    # Every device has seen all rows: the values are equal already, and this says so.
    return value if axis_name is None else lax.pmean(value, axis_name)


@loss(reduction="mean")
def soft_triple(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    scale: Number = 20.0,
    gamma: Number = 0.1,
    margin: Number = 0.01,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to a soft choice among the K centers of its class.

    A softmax over classes that have several centers each, for classes with modes (poses, colours,
    typefaces). The soft choice lets all near centers learn.

        -log softmax of scale S_c, with scale (S_y - margin) for the own class,
        S_c = sum_k softmax_k(cos(e, p_ck) / gamma) cos(e, p_ck)

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, K, D], K centers a class; brought to unit length here.
      scale: lambda in the paper, 20.
      gamma: temperature of the choice among centers.
      margin: delta in the paper, taken off the own similarity.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> proxies = jnp.array([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])
      >>> rows = jnp.array([[-4.0, 0.0]])
      >>> loss = soft_triple(rows, jnp.array([0]), proxies, scale=1.0, gamma=0.01, margin=0.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1))
      0.31326

    Note:
      The paper's regulariser, which merges centers that are close, is not in it.

    Reference:
      Qian et al.: SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV 2019.
    """
    checks.expect(proxies.ndim == 3, "proxies", proxies, "K centers a class, [C, K, D]")

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - scale * (row.target - margin))

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return scale * cosines

    def pool(cosines: Array) -> Array:
        return (jax.nn.softmax(cosines / gamma, axis=-1) * cosines).sum(axis=-1)

    return over_table(formula, embeddings, labels, proxies, logits=logits, pool=pool, **options)
