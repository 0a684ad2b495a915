"""One comparison: two trainings from the same start, on the same batches, by the same rule."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import augment
from experiments.data import Images
from experiments.scores import score_rows
from experiments.settings import Settings
from experiments.sweep_losses import Contender, Number
from experiments.sweep_train import Sets, Trainer
from jdml import distances, miners

WARM_UP = 5  # steps that no time is taken of
# Steps of a side in a row. The threads of PyTorch go on spinning for a while after a step, so that
# a step of the other side right after it would pay for them.
_TURN = 10
_TOLERANCE = 1e-4  # of features at the start, relative to the largest
_TOLERANCE_OF_LOSS = 1e-3  # relative
_SEEN = 256  # images whose features are held against each other at the start


class Row(NamedTuple):
    """A line of the comparison.

    Attributes:
      theirs: of `peer_torch.MAKERS`.
      contender: jdml's side; both take its defaults.
      same: the two losses are one function; False where the definitions differ.
    """

    theirs: str
    contender: Contender
    same: bool = True


def _fixed(**numbers: float) -> dict[str, Number]:
    return {name: Number(value, value, value) for name, value in numbers.items()}


_UNIT = {"distance": distances.normalized(distances.euclidean)}
_TRIPLET = _fixed(learning_rate=3e-3, margin=0.2)
_TABLE = {"learning_rate": 3e-3, "table_multiplier": 3.0}
_PROXIES = {"learning_rate": 3e-3, "table_multiplier": 0.3}

ROWS: dict[str, Row] = {
    "contrastive": Row(
        "contrastive",
        Contender("contrastive", _fixed(learning_rate=3e-3, negative_margin=0.9), _UNIT),
    ),
    "triplet, all semi-hard": Row(
        "triplet",
        Contender("triplet", _TRIPLET, {**_UNIT, "miner": miners.TripletMargin(0.2, "semihard")}),
    ),
    "multi_similarity": Row(
        "multi_similarity",
        Contender(
            "multi_similarity",
            _fixed(learning_rate=3e-3, alpha=2.0, beta=50.0, base=0.5),
            {"miner": miners.MultiSimilarity(0.1)},
        ),
    ),
    "arcface": Row("arcface", Contender("arcface", _fixed(**_TABLE, margin=0.2, scale=30.0))),
    "proxy_anchor": Row(
        "proxy_anchor", Contender("proxy_anchor", _fixed(**_PROXIES, margin=0.1, alpha=32.0))
    ),
    # FaceNet's choice, which the peer does not offer: the nearest of these negatives alone.
    "triplet, nearest semi-hard": Row(
        "triplet", Contender("triplet", _TRIPLET, {**_UNIT, "miner": miners.SemiHard()}), same=False
    ),
}


class Comparison:
    """The two sides of a row, compiled once for all seeds.

    Args:
      row: of `ROWS`.
      settings: of the encoder, the batches and the schedule.
      data: to train on and to search.
    """

    def __init__(self, row: Row, settings: Settings, data: Sets):
        self._row, self._data = row, data
        self._settings = dataclasses.replace(settings, warp=0.0)  # batches come warped
        self._trainer = Trainer(self._settings, row.contender, data.final)
        warp = augment.scaled(settings.warp)
        self._warp = jax.jit(
            lambda key, images: warp(jax.random.split(key, images.shape[0]), images)
        )

    def run(self, seed: int, *, tests: bool = True) -> dict[str, Any]:
        """Trains both.

        Args:
          seed: of parameters, batches and warps.
          tests: search the test set at the end.

        Returns:
          {"ours", "theirs": {"scores", "losses", "seconds_a_step"}, "features_apart"}.

        Raises:
          RuntimeError: the sides do not start at the same place.
        """
        from experiments.peer_torch import Peer

        numbers, data = self._row.contender.defaults(), self._data.final
        key = jax.random.key(seed)
        state = self._trainer.start(key)
        params = jax.tree.map(np.asarray, state.params)
        peer = Peer(self._row.theirs, numbers, self._settings, params, data.num_classes)
        test: Images = self._data.tests["test"]
        apart = self._features_apart(state, peer, test)
        traced = {name: np.float32(value) for name, value in numbers.items()}
        seen: dict[str, list[float]] = {"ours": [], "theirs": []}
        spent: dict[str, list[float]] = {"ours": [], "theirs": []}
        for first in range(0, self._settings.steps, _TURN):
            batches = self._batches(first, seed)
            for batch in batches:
                began = time.perf_counter()
                state, measured = self._trainer.step(state, batch, traced)
                seen["ours"].append(float(measured["loss"]))
                spent["ours"].append(time.perf_counter() - began)
            for batch in batches:
                began = time.perf_counter()
                seen["theirs"].append(peer.step(batch["images"], batch["labels"]))
                spent["theirs"].append(time.perf_counter() - began)
            if first == 0:
                self._check_loss(seen)
        found: dict[str, Any] = {"features_apart": apart}
        for side, times in spent.items():
            found[side] = {
                "losses": [round(x, 5) for x in _some(seen[side])],
                "seconds_a_step": round(statistics.median(times[WARM_UP:] or times), 5),
            }
        if tests:
            found["ours"]["scores"] = self._trainer.score(state, test)
            gallery = None if test.gallery is None else peer.embed(test.gallery.images)
            found["theirs"]["scores"] = score_rows(peer.embed(test.images), test, gallery, (1,))
        return found

    def _batches(self, first: int, seed: int) -> list[dict[str, np.ndarray]]:
        """The batches of one turn, warped once for both sides."""
        sampler = dataclasses.replace(self._data.final.sampler, seed=seed)
        data, key = self._data.final._replace(sampler=sampler), jax.random.key(seed)
        batches = []
        for number in range(first, min(first + _TURN, self._settings.steps)):
            batch = data.batch(number)
            images = self._warp(jax.random.fold_in(key, number), batch["images"])
            batches.append({"images": np.array(images), "labels": batch["labels"]})
        return batches

    def _features_apart(self, state: Any, peer: Any, test: Images) -> float:
        images = np.asarray(test.images[:_SEEN])
        ours, theirs = self._trainer.embed(state, images), peer.embed(images)
        apart = float(np.abs(ours - theirs).max() / np.abs(ours).max())
        if not apart < _TOLERANCE:
            raise RuntimeError(f"features are {apart:.2g} apart before the first step")
        return apart

    def _check_loss(self, seen: dict[str, list[float]]) -> None:
        ours, theirs = seen["ours"][0], seen["theirs"][0]
        if self._row.same and abs(ours - theirs) > _TOLERANCE_OF_LOSS * abs(theirs):
            raise RuntimeError(f"losses are {ours:.6g} and {theirs:.6g} before the first step")


def _some(values: list[float]) -> list[float]:
    """The values of steps 1, 2, 5, 10, 20, 50 ... and the last, to see where they part."""
    steps = {scale * digit for scale in (1, 10, 100, 1000) for digit in (1, 2, 5)}
    return [x for i, x in enumerate(values, 1) if i in steps or i == len(values)]
