"""Miners in a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jdml._core.choices import function
from jdml._core.options import Miner, Pairs
from jdml._core.selection import Count


@dataclasses.dataclass(frozen=True, init=False)
class Chain:
    """Miners one after the other, each on what the one before has left.

    Args:
      *miners: in the order in which they are applied. One that picks a single row comes after
        those that look at all rows of an anchor.

    Example:
      >>> from jdml import losses, miners
      >>> rows = jnp.array([[0.0], [0.25], [1.0], [4.0]])
      >>> miner = Chain(miners.PairMargin(0.5, 9.0), miners.BatchHard())
      >>> loss = losses.triplet(rows, jnp.array([0, 0, 0, 1]), margin=3.0, miner=miner)
      >>> print(f"{loss:.5f}")  # anchor 1: 0.75 - 3.75 + 3 = 0; anchor 2: 1 - 3 + 3; 0: 1 - 4 + 3
      1.00000
    """

    miners: tuple[Miner, ...]

    def __init__(self, *miners: Miner) -> None:
        for miner in miners:
            function("miners", miner, "miners.SemiHard()", "Pairs")
        object.__setattr__(self, "miners", miners)

    @property
    def cube(self) -> bool:
        """Whether any of the miners makes arrays [b, P, N]."""
        return any(getattr(miner, "cube", False) for miner in self.miners)

    @property
    def between(self) -> bool:
        """Whether any of the miners reads the distances between references."""
        return any(getattr(miner, "between", False) for miner in self.miners)

    @property
    def survey(self) -> Callable[[Count], Any]:
        """What the miners find out beforehand: each about what the ones before it leave.

        Raises:
          AttributeError: none of them has a survey.
        """
        if not any(hasattr(miner, "survey") for miner in self.miners):
            raise AttributeError("none of the miners has a survey")
        return self._survey

    def _survey(self, count: Count) -> tuple[Any, ...]:
        bounds: list[Any] = []
        for i, miner in enumerate(self.miners):
            if not hasattr(miner, "survey"):
                bounds.append(None)
                continue
            before, found = self.miners[:i], tuple(bounds)
            left = lambda fn, b=before, f=found: count(lambda pairs: fn(_apply(b, f, pairs)))
            bounds.append(miner.survey(left))  # type: ignore[attr-defined]
        return tuple(bounds)

    def __call__(self, pairs: Pairs) -> Pairs:
        bounds = pairs.bounds
        if bounds is None:
            bounds = (None,) * len(self.miners)
        return _apply(self.miners, bounds, pairs)._replace(bounds=pairs.bounds)


def _apply(miners: tuple[Miner, ...], bounds: tuple[Any, ...], pairs: Pairs) -> Pairs:
    for miner, own in zip(miners, bounds):
        pairs = miner(pairs._replace(bounds=own))
    return pairs


def _from_leaves(_: None, miners: Any) -> Chain:
    chain = object.__new__(Chain)  # leaves may be anything here, so nothing is checked
    object.__setattr__(chain, "miners", tuple(miners))
    return chain


# A tree, so that a loss finds the random keys of its miners.
jax.tree_util.register_pytree_node(Chain, lambda chain: (chain.miners, None), _from_leaves)
