"""The same encoder, optimizer and losses in PyTorch, with pytorch-metric-learning's losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from pytorch_metric_learning import losses, miners  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from experiments.settings import Settings
from jdml import training

_CLIP = 1.0  # of the gradient of everything, as in jdml.training.optimizer


class ConvNet(torch.nn.Module):
    """`encoders.ConvNet` with the pooling "grid", in PyTorch.

    Args:
      params: of the Flax module, whose values it starts with.
      strides: of each block.
    """

    def __init__(self, params: Mapping[str, Any], strides: tuple[int, ...]):
        super().__init__()
        self._strides = strides
        blocks = range(len(strides))
        self.convolutions = torch.nn.ParameterList(
            _parameter(params[f"Conv_{i}"]["kernel"], (3, 2, 0, 1)) for i in blocks
        )
        self.norms = torch.nn.ModuleList(_norm(params[f"BatchNorm_{i}"]) for i in blocks)
        neck = next(tree for name, tree in params.items() if name.lower().startswith("neck"))
        self.kernel = _parameter(neck["Dense_0"]["kernel"], (1, 0))
        self.bias = _parameter(neck["Dense_0"]["bias"], (0,))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, H, W, C], floats of 0 to 1, to embeddings [B, D]."""
        x = images.permute(0, 3, 1, 2)
        x = x - x.mean((1, 2, 3), keepdim=True)
        x = x / torch.sqrt((x * x).mean((1, 2, 3), keepdim=True) + 1e-6)
        for kernel, norm, stride in zip(self.convolutions, self.norms, self._strides):
            x = functional.pad(x, _same(x.shape[2:], stride))
            x = functional.relu(norm(functional.conv2d(x, kernel, stride=stride)))
        rows = x.permute(0, 2, 3, 1).reshape(len(x), -1)  # places before features, as in Flax
        return functional.linear(rows, self.kernel, self.bias)


def _parameter(value: Any, axes: tuple[int, ...]) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.from_numpy(np.array(value).transpose(axes).copy()))


def _norm(params: Mapping[str, Any]) -> torch.nn.BatchNorm2d:
    norm = torch.nn.BatchNorm2d(len(params["scale"]), eps=1e-5, momentum=0.1)
    norm.weight, norm.bias = (_parameter(params[name], (0,)) for name in ("scale", "bias"))
    return norm


def _same(sides: Any, stride: int) -> list[int]:
    """XLA's padding "SAME" of a kernel of 3: what is odd goes to the end."""
    padding = []
    for side in reversed(sides):
        whole = max((math.ceil(side / stride) - 1) * stride + 3 - side, 0)
        padding += [whole // 2, whole - whole // 2]
    return padding


# ---------------------------------------------------------------- losses


class Theirs(NamedTuple):
    """A loss of the peer.

    Attributes:
      loss: a module.
      miner: or None.
      table: name of the parameter that is the class table, "" without.
      columns: its classes are columns.
    """

    loss: Any
    miner: Any = None
    table: str = ""
    columns: bool = False


def _contrastive(numbers: Mapping[str, Any], classes: int, dim: int) -> Theirs:
    del classes, dim
    return Theirs(losses.ContrastiveLoss(neg_margin=numbers["negative_margin"]))


def _triplet(numbers: Mapping[str, Any], classes: int, dim: int) -> Theirs:
    del classes, dim
    margin = numbers["margin"]
    miner = miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard")
    return Theirs(losses.TripletMarginLoss(margin=margin), miner)


def _multi_similarity(numbers: Mapping[str, Any], classes: int, dim: int) -> Theirs:
    del classes, dim
    options = {name: numbers[name] for name in ("alpha", "beta", "base")}
    return Theirs(losses.MultiSimilarityLoss(**options), miners.MultiSimilarityMiner(epsilon=0.1))


def _arcface(numbers: Mapping[str, Any], classes: int, dim: int) -> Theirs:
    margin = math.degrees(numbers["margin"])
    loss = losses.ArcFaceLoss(classes, dim, margin=margin, scale=numbers["scale"])
    return Theirs(loss, table="W", columns=True)


def _proxy_anchor(numbers: Mapping[str, Any], classes: int, dim: int) -> Theirs:
    options = {name: numbers[name] for name in ("alpha", "margin")}
    return Theirs(losses.ProxyAnchorLoss(classes, dim, **options), table="proxies")


MAKERS: dict[str, Callable[[Mapping[str, float], int, int], Theirs]] = {
    "contrastive": _contrastive,
    "triplet": _triplet,
    "multi_similarity": _multi_similarity,
    "arcface": _arcface,
    "proxy_anchor": _proxy_anchor,
}


# ---------------------------------------------------------------- training


class Peer:
    """A training in PyTorch that starts where one of jdml does.

    Args:
      loss: of `MAKERS`.
      numbers: of the loss, and the rates.
      settings: strides, steps and weight decay.
      params: of jdml's state: {"encoder": ..., "objective": ...}.
      classes: C.
    """

    def __init__(
        self,
        loss: str,
        numbers: Mapping[str, float],
        settings: Settings,
        params: Mapping[str, Any],
        classes: int,
    ):
        strides = tuple(2 if block < 3 else 1 for block in range(len(settings.widths)))
        self.network = ConvNet(params["encoder"], strides)
        self.theirs = MAKERS[loss](numbers, classes, settings.dim)
        if self.theirs.table:
            axes = (1, 0) if self.theirs.columns else (0, 1)
            table = _parameter(params["objective"]["proxies"], axes)
            getattr(self.theirs.loss, self.theirs.table).data.copy_(table.data)
        own = {id(p) for p in (*self.network.convolutions, self.network.kernel)}
        kernels = [p for p in self.network.parameters() if id(p) in own]
        rest = [p for p in self.network.parameters() if id(p) not in own]
        tables = list(self.theirs.loss.parameters())
        self._all = [*kernels, *rest, *tables]
        groups = [{"params": kernels, "weight_decay": settings.weight_decay}, {"params": rest}]
        groups += [{"params": tables}] if tables else []
        self._factors = (1.0, 1.0, numbers.get("table_multiplier", 1.0))
        self._optimizer = torch.optim.AdamW(groups, eps=1e-8, weight_decay=0.0)
        rate = training.schedule(numbers["learning_rate"], steps=settings.steps)
        self._rates = np.asarray(rate(np.arange(settings.steps)), np.float64)
        self._step = 0

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """One step.

        Args:
          images: float32 [B, H, W, C], of 0 to 1.
          labels: int [B].

        Returns:
          The loss before it.
        """
        self.network.train()
        classes = torch.from_numpy(labels.astype(np.int64))
        for group, factor in zip(self._optimizer.param_groups, self._factors):
            group["lr"] = self._rates[self._step] * factor
        self._optimizer.zero_grad()
        rows = self.network(torch.from_numpy(images))
        mined = None if self.theirs.miner is None else self.theirs.miner(rows, classes)
        loss = self.theirs.loss(rows, classes, mined)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._all, _CLIP)
        self._optimizer.step()
        self._step += 1
        return float(loss.detach())

    def embed(self, images: np.ndarray, at_a_time: int = 256) -> np.ndarray:
        """The embeddings of images, by the running statistics.

        Args:
          images: uint8 [N, H, W, C].
          at_a_time: images of a block.

        Returns:
          [N, D].
        """
        self.network.eval()
        with torch.no_grad():
            starts = range(0, len(images), at_a_time)
            floats = (images[i : i + at_a_time].astype(np.float32) / 255.0 for i in starts)
            return np.concatenate([self.network(torch.from_numpy(x)).numpy() for x in floats])
