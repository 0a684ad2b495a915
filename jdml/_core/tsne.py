"""t-SNE, exact: a map of some thousand rows in which neighbours stay neighbours."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_STEPS = 500
_EARLY = 125  # steps with exaggerated attraction, in which clusters form
_EXAGGERATION = 12.0


def tsne(rows: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Places rows on a plane so that rows with a high inner product stand close together.

    Time and memory grow with n^2: meant for pictures, up to some thousand rows. It begins at the
    two principal components, so that the seed hardly matters.

    Args:
      rows: [n, D], of norm 1 each, n >= 4.
      perplexity: neighbours that each row attends to; less for a third of that many rows.
      seed: of a small jitter.

    Returns:
      float32 [n, 2].

    Reference:
      van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    rows = np.asarray(rows, np.float32)
    rng = np.random.default_rng(seed)
    centered = rows - rows.mean(axis=0)
    axes = rng.normal(size=(rows.shape[1], 2)).astype(np.float32)
    for _ in range(30):  # the two principal axes, by powers of the covariance
        axes = np.linalg.qr(centered.T @ (centered @ axes))[0]
    components = centered @ axes
    # Jitter tells equal rows apart, and is all there is when all rows are equal.
    start = components / max(float(components.std()), 1e-6) + 0.01 * rng.normal(size=(len(rows), 2))
    attended = jnp.float32(min(perplexity, (len(rows) - 1) / 3))
    return np.asarray(_descend(_affinities(jnp.asarray(rows), attended), jnp.float32(1e-4 * start)))


@jax.jit
def _affinities(rows: jax.Array, perplexity: jax.Array) -> jax.Array:
    """Symmetric neighbour probabilities [n, n]; a row's width is bisected to fit `perplexity`."""
    squared = 2.0 - 2.0 * jnp.matmul(rows, rows.T, precision="highest")
    itself = jnp.eye(len(rows), dtype=bool)
    squared = jnp.where(itself, jnp.inf, squared)
    gaps = jnp.where(itself, jnp.inf, squared - squared.min(axis=1, keepdims=True))

    def probabilities(precision: jax.Array) -> jax.Array:
        return jax.nn.softmax(-precision * gaps, axis=1)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = jnp.sqrt(low * high)
        entropy = jax.scipy.special.entr(probabilities(middle)).sum(axis=1, keepdims=True)
        wide = entropy > jnp.log(perplexity)
        return jnp.where(wide, middle, low), jnp.where(wide, high, middle)

    edge = jnp.ones((len(rows), 1), rows.dtype)
    low, _ = lax.fori_loop(0, 30, halve, (1e-3 * edge, 1e9 * edge))
    p = probabilities(low)
    return (p + p.T) / (2.0 * len(rows))


@jax.jit
def _descend(affinities: jax.Array, places: jax.Array) -> jax.Array:
    """Gradient descent with momentum and gains, from a first guess [n, 2]."""
    size = len(places)
    rate = max(size / (4 * _EXAGGERATION), 50.0)

    def step(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        places, speed, gains = state
        x, y = places[:, :1], places[:, 1:]
        kernel = 1.0 / (1.0 + (x - x.T) ** 2 + (y - y.T) ** 2)
        total = kernel.sum() - size  # without the diagonal, which pulls nowhere
        attraction = jnp.where(i < _EARLY, _EXAGGERATION, 1.0) * affinities
        weights = (attraction - kernel / total) * kernel
        moments = jnp.matmul(weights, jnp.hstack([places, jnp.ones_like(x)]), precision="highest")
        slope = 4.0 * (moments[:, 2:] * places - moments[:, :2])
        gains = jnp.maximum(jnp.where(slope * speed < 0, gains + 0.2, gains * 0.8), 0.01)
        speed = jnp.where(i < _EARLY, 0.5, 0.8) * speed - rate * gains * slope
        return places + speed, speed, gains

    start = places, jnp.zeros_like(places), jnp.ones_like(places)
    return lax.fori_loop(0, _STEPS, step, start)[0]
