"""Proxy losses: rows against a few learned representatives of each class."""

from __future__ import annotations

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax

from jdml import distances, regularizers
from jdml._core import checks
from jdml._core.compile import loss
from jdml._core.devices import gather
from jdml._core.maths import inner_products
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
    published, the own proxy is not in the denominator, and the loss may be negative. ProxyNCA++
    is `own="kept", scale=9`: the own proxy in the denominator, a temperature of 1/9. The rest of
    its recipe is not in the loss: max pooling, a layer normalisation before the embedding, few
    classes a batch (8 of 4 rows), a far higher learning rate for the proxies.

        -log(exp(-scale |u - p_y|^2) / sum_{c != y} exp(-scale |u - p_c|^2)),  unit rows

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, D]; brought to unit length here. They want a far higher learning rate than the
        encoder.
      scale: inverse temperature of squared distances; 1 in the paper, 9 in ProxyNCA++.
      own: "left_out" of the denominator, or "kept" in it.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[1.0, 0.0]]), jnp.eye(2)
      >>> print(proxy_nca(rows, jnp.array([0]), proxies))  # -2: the other proxy at 2
      -2.0
      >>> print(proxy_nca(rows, jnp.array([1]), proxies, own="kept", scale=9.0))  # log(1 + e^18)
      18.0

    Note:
      ProxyNCA++ is often written with rows and proxies of length 3 in place of the scale: their
      squared distances are 9 times those of unit rows.

    Reference:
      Movshovitz-Attias et al.: No Fuss Distance Metric Learning using Proxies, ICCV 2017; Teh,
      DeVries, Taylor: ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component
      Analysis, ECCV 2020.
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
    spread_weight: Number = 0.2,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls a row to a soft choice among the K centers of its class.

    A softmax over classes that have several centers each, for classes with modes (poses, colours,
    typefaces). The soft choice lets all near centers learn. Start with more centers than a class
    has modes: the price of the spread merges those that it does not need.

        -log softmax of scale S_c, with scale (S_y - margin) for the own class,
        S_c = sum_k softmax_k(cos(e, p_ck) / gamma) cos(e, p_ck)
        + spread_weight / (C K (K - 1)) sum over classes and pairs of centers |p_cs - p_ct|

    Args:
      embeddings: [B, D] rows; brought to unit length here.
      labels: [B] integer classes.
      proxies: [C, K, D], K centers a class; brought to unit length here.
      scale: lambda in the paper, 20.
      gamma: temperature of the choice among centers.
      margin: delta in the paper, taken off the own similarity.
      spread_weight: tau in the paper, 0.2; 0 for classes that should keep all their centers.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> proxies = jnp.array([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [0.0, -1.0]]])
      >>> rows = jnp.array([[-4.0, 0.0]])
      >>> loss = soft_triple(rows, jnp.array([0]), proxies, scale=1.0, gamma=0.01, margin=0.0)
      >>> print(f"{loss:.5f}")  # log(1 + exp(-1)), and 0.2 as all centers are 2 apart
      0.51326

    Note:
      Each row pays for the spread, so that the mean pays for it once. One center a class has no
      spread; centers that coincide have none between them, and no gradient from it.

    Reference:
      Qian et al.: SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV 2019.
    """
    checks.expect(proxies.ndim == 3, "proxies", proxies, "K centers a class, [C, K, D]")

    classes = options.get("proxy_labels")
    spread = regularizers.sparse_centers(
        proxies.astype(embeddings.dtype),
        where=None if classes is None else classes >= 0,
        axis_name=options.get("class_axis_name"),
    )

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - scale * (row.target - margin)) + spread_weight * spread

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return scale * cosines

    def pool(cosines: Array) -> Array:
        return (jax.nn.softmax(cosines / gamma, axis=-1) * cosines).sum(axis=-1)

    return over_table(formula, embeddings, labels, proxies, logits=logits, pool=pool, **options)


@loss(reduction="mean")
def p2s_grad(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls the cosine to the own class to 1 and those to all other classes to 0.

    Cosines are what a search compares, so they are trained as they are: no softmax, hence no
    scale, no margin and nothing to tune. A step is as long as the cosine is wrong, which stays so
    late in training, where the probabilities of a softmax have saturated.

        1/2 sum_c (cos(theta_c) - [c = y])^2

    Args:
      embeddings: [B, D] rows; brought to unit length here. A row of zeros has all cosines 0.
      labels: [B] integer classes.
      proxies: [C, D] class directions; brought to unit length here.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> rows, proxies = jnp.array([[3.0, 4.0]]), jnp.eye(2)
      >>> print(f"{p2s_grad(rows, jnp.array([0]), proxies):.2f}")  # ((0.6 - 1)^2 + 0.8^2) / 2
      0.40

    Note:
      The paper gives the gradient, (cos(theta_c) - [c = y]) by each cosine, and no loss; this is
      the loss with that gradient. Some libraries take the mean square over classes: that is
      2 / C times this value.

    Reference:
      Zhang, Zhao, Yan, Gao, Qiao, Wang, Li: P2SGrad: Refined Gradients for Optimizing Deep Face
      Models, CVPR 2019.
    """
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")

    def formula(row: Row) -> Array:
        return 0.5 * ((1.0 - row.target) ** 2 + row.others)

    def logits(cosines: Array, norm: Array) -> Array:
        del norm
        return cosines**2

    return over_table(formula, embeddings, labels, proxies, logits=logits, fold="sum", **options)


@loss(reduction="mean")
def instance(
    embeddings: Array,
    labels: Array,
    proxies: Array,
    *,
    scale: Number = 1.0,
    normalized: bool = False,
    **options: Unpack[TableOptions],
) -> Array:
    """Pulls all views of an item to the item's own row of a table that the modalities share.

    Each item of the training set (an image with its captions) is a class of its own. Since the
    images and the texts are classified by one table, both land where their item's row points. It
    says more about a single item than a ranking loss, needs no negatives in the batch, and is
    meant as a first stage before one; for millions of items sample the table (`proxy_labels`).

        -log softmax of scale (w_c . e)

    Args:
      embeddings: [B, D] rows of any modality; concatenate the modalities, or add one call each.
      labels: [B] integer items.
      proxies: [C, D], one row an item.
      scale: inverse temperature; 1 in the paper, where rows keep their length. 16 to 64 for
        unit rows.
      normalized: whether rows and table are brought to unit length first.
      **options: the shared keywords of table losses.

    Returns:
      A float32 scalar (or [B] for the reduction "none").

    Example:
      >>> images, texts, table = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 2.0]]), jnp.eye(2)
      >>> rows, items = jnp.concatenate([images, texts]), jnp.array([0, 0])
      >>> print(f"{instance(rows, items, table):.5f}")  # log(1 + exp(-1)), twice
      0.31326

    Note:
      Items are those of the data set, numbered once, not classes of the batch. With the batch
      itself as the table and each row an item, `labels=jnp.arange(B), proxies=rows,
      normalized=True, scale=64`, it tells the rows of a batch apart. Items that come again need a
      table in which each has one row.

    Reference:
      Zheng, Zheng, Garrett, Yang, Xu, Shen: Dual-Path Convolutional Image-Text Embeddings with
      Instance Loss, ACM TOMM 2020.
    """
    checks.expect(proxies.ndim == 2, "proxies", proxies, "a table [C, D]")

    def formula(row: Row) -> Array:
        return jax.nn.softplus(row.others - scale * row.target)

    def logits(similarities: Array, norm: Array) -> Array:
        del norm
        return scale * similarities

    score = None if normalized else inner_products
    return over_table(formula, embeddings, labels, proxies, logits=logits, score=score, **options)
