"""What the benchmark measures: one entry a loss, with its peer, its sizes and what it should reach.

An entry holds no result. To measure one more loss, add a `Row`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jdml import distances, losses, metrics, miners, retrieval

Set = Literal["quick", "targets", "full"]
Kind = Literal["pairs", "table", "retrieval", "neighbours"]
GIB = 2**30


@dataclass(frozen=True)
class Peer:
    """A loss of pytorch-metric-learning, by name: the table needs no torch.

    Attributes:
      loss: name of its class.
      options: its arguments.
      miner: name of the miner's class, or "".
      miner_options: its arguments.
      differs: why its value is not ours, where the two define the loss differently.
    """

    loss: str
    options: Mapping[str, Any] = field(default_factory=dict)
    miner: str = ""
    miner_options: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""


@dataclass(frozen=True)
class Size:
    """One size of a row.

    Attributes:
      rows: of the batch B, or of the gallery N.
      target: how many times as fast as pytorch-metric-learning it should be.
      faiss_target: the same for faiss.
      per_class: rows of each class (pair losses and retrieval).
      dim: D.
      classes: C of the table.
      quick: belongs to the quick set.
      peer: whether the peer takes part; not where it would need too much memory or time.
      most_bytes: bound on arguments, outputs and temporaries together.
      least_share: of the machine's rate of matrix products, to be reached.
    """

    rows: int
    target: float | None = None
    faiss_target: float | None = None
    per_class: int = 4
    dim: int = 128
    classes: int = 0
    quick: bool = False
    peer: bool = True
    most_bytes: float = math.inf
    least_share: float | None = None

    @property
    def scale(self) -> int:
        """What doubles when the size does."""
        return self.rows * max(self.classes, 1)

    def __str__(self) -> str:
        if self.classes:
            return f"{self.rows:,} x {self.classes:,}, D={self.dim}"
        return f"{self.rows:,}, {self.per_class} a class"


@dataclass(frozen=True)
class Row:
    """One thing to measure.

    Attributes:
      name: shown.
      loss: the public function: a loss, or a function of retrieval.
      options: its keywords.
      peer: what it is compared with.
      sizes: in increasing order.
      kind: which arguments the function takes, and what work it has at least.
      drawn: has a panel in the figure.
      once: each pair of rows is compared once, not from either side.
    """

    name: str
    loss: Callable[..., Any]
    peer: Peer | None
    sizes: Sequence[Size]
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "pairs"
    drawn: bool = False
    once: bool = False

    def __str__(self) -> str:
        return self.name

    def flops(self, size: Size) -> float:
        """Of the matrix products that nobody can avoid, forward and backward."""
        n, d = size.rows, size.dim
        if self.kind == "table":
            return 6.0 * n * size.classes * d
        return (4.0 if self.once else 6.0 if self.kind == "pairs" else 2.0) * n * n * d


UNIT = {"distance": distances.normalized(distances.euclidean)}  # the peer's default distance
MARGIN = {"margin": 0.2, **UNIT}
LARGE = Size(65_536, peer=False, most_bytes=2 * GIB)

ROWS: tuple[Row, ...] = (
    Row(
        "triplet, all",
        losses.triplet,
        Peer("TripletMarginLoss", {"margin": 0.2}),
        (
            Size(128),
            Size(256),
            Size(512, 60, quick=True),
            Size(1024, 100, quick=True),
            Size(2048, peer=False),
            Size(4096, peer=False),
            LARGE,
        ),
        MARGIN,
        drawn=True,
    ),
    Row(
        "triplet, large classes",
        losses.triplet,
        Peer("TripletMarginLoss", {"margin": 0.2}),
        (Size(1024, 120, per_class=64),),
        MARGIN,
    ),
    Row(
        "triplet, semi-hard",
        losses.triplet,
        Peer(
            "TripletMarginLoss",
            {"margin": 0.2},
            miner="TripletMarginMiner",
            miner_options={"margin": 0.2, "type_of_triplets": "semihard"},
            differs="ours takes the nearest semi-hard negative, theirs all of them",
        ),
        (Size(512, 40, quick=True),),
        {**MARGIN, "miner": miners.SemiHard(0.2)},
    ),
    Row(
        "triplet, all semi-hard",
        losses.triplet,
        Peer(
            "TripletMarginLoss",
            {"margin": 0.2},
            miner="TripletMarginMiner",
            miner_options={"margin": 0.2, "type_of_triplets": "semihard"},
        ),
        (Size(512),),
        {**MARGIN, "miner": miners.TripletMargin(0.2, "semihard")},
    ),
    Row(
        "triplet, batch hard",
        losses.triplet,
        Peer("TripletMarginLoss", {"margin": 0.2}, miner="BatchHardMiner"),
        (Size(512, 4, quick=True), Size(2048, 4, quick=True), LARGE),
        {**MARGIN, "miner": miners.BatchHard()},
    ),
    Row(
        "NT-Xent",
        losses.ntxent,
        Peer("NTXentLoss", {"temperature": 0.07}),
        (
            Size(64),
            Size(128, quick=True),
            Size(256, 800, quick=True),
            Size(512, peer=False),
            Size(1024, peer=False),
            Size(4096, peer=False),
            LARGE,
        ),
        {"temperature": 0.07},
        drawn=True,
    ),
    Row(
        "lifted structure",
        losses.lifted_structure,
        Peer("LiftedStructureLoss", {"neg_margin": 1, "pos_margin": 0}),
        (
            Size(64),
            Size(128, quick=True),
            Size(256, 800, quick=True),
            Size(512, peer=False),
            Size(1024, peer=False),
            Size(4096, peer=False),
            LARGE,
        ),
        {"margin": 1.0, **UNIT},
        drawn=True,
    ),
    Row(
        "contrastive",
        losses.contrastive,
        Peer("ContrastiveLoss", {"pos_margin": 0, "neg_margin": 1}),
        (
            Size(256),
            Size(512, 2.5, quick=True),
            Size(1024),
            Size(2048, 4, quick=True),
            Size(4096, 3.5),
            Size(8192),
            LARGE,
        ),
        {"negative_margin": 1.0, **UNIT},
        drawn=True,
        once=True,
    ),
    Row(
        "multi-similarity",
        losses.multi_similarity,
        Peer("MultiSimilarityLoss", {"alpha": 2, "beta": 50, "base": 0.5}),
        (
            Size(256),
            Size(512, 4, quick=True),
            Size(1024),
            Size(2048, 8, quick=True),
            Size(4096, 11),
            Size(8192),
            LARGE,
        ),
        {"alpha": 2.0, "beta": 50.0, "base": 0.5},
        drawn=True,
        once=True,
    ),
    Row(
        "SupCon",
        losses.supcon,
        Peer("SupConLoss", {"temperature": 0.1}),
        (
            Size(256),
            Size(512),
            Size(1024, 6, quick=True),
            Size(2048),
            Size(4096, 12, quick=True),
            Size(8192, 16),
            LARGE,
        ),
        {"temperature": 0.1},
        drawn=True,
        once=True,
    ),
    Row(
        "ArcFace",
        losses.arcface,
        Peer("ArcFaceLoss", {"margin": math.degrees(0.5), "scale": 64}),
        (
            Size(512, 2.6, dim=512, classes=1000, quick=True),
            Size(512, 2.2, dim=512, classes=10_000, quick=True),
            Size(512, 3.3, dim=512, classes=100_000),
        ),
        {"margin": 0.5, "scale": 64.0},
        kind="table",
        drawn=True,
    ),
    Row(
        "ArcFace, 1M classes",
        losses.arcface,
        Peer("ArcFaceLoss", {"margin": math.degrees(0.5), "scale": 64}),
        (
            Size(
                256,
                dim=256,
                classes=10**6,
                peer=False,
                most_bytes=1.3 * 2 * 4 * 256 * 10**6,  # the table and its gradient
            ),
            Size(128, 4.5, dim=512, classes=10**6),
        ),
        {"margin": 0.5, "scale": 64.0},
        kind="table",
    ),
    Row(
        "SmoothAP",
        losses.smooth_ap,
        Peer("SmoothAPLoss", {"temperature": 0.01}, differs="there a query is its own positive"),
        (Size(512, 50, quick=True),),
        {"temperature": 0.01},
    ),
    Row(
        "FastAP",
        losses.fast_ap,
        Peer("FastAPLoss", {"num_bins": 10}),
        (Size(1024, 5, quick=True),),
        {"bins": 10},
    ),
    Row(
        "angular",
        losses.angular,
        Peer("AngularLoss", {"alpha": 45}),
        (Size(512, 5, quick=True),),
        {"angle": math.radians(45)},
    ),
    Row(
        "retrieval",
        metrics.retrieval,
        Peer("AccuracyCalculator"),
        (
            Size(5000, per_class=10, quick=True),
            Size(20_000, 2.8, 1.3, per_class=10, quick=True),
            Size(60_000, 2.4, 1.3, per_class=10),
        ),
        kind="retrieval",
        drawn=True,
    ),
    Row(
        "retrieval, large classes",
        metrics.retrieval,
        Peer("AccuracyCalculator"),
        (Size(20_000, 1.0, per_class=100),),
        kind="retrieval",
    ),
    Row(
        "retrieval, counted",
        metrics.retrieval,
        None,
        (Size(60_000, per_class=10, least_share=0.8),),
        {"ks": (1, 100)},
        kind="retrieval",
    ),
    Row(
        "nearest neighbours",
        retrieval.neighbours,
        None,
        (Size(20_000, per_class=10), Size(60_000, per_class=10)),
        kind="neighbours",
    ),
)


def chosen(rows: Sequence[Row], only: Sequence[str], which: Set) -> Iterator[tuple[Row, Size]]:
    """The rows and sizes to measure.

    Args:
      rows: all of them.
      only: names of functions (`contrastive`) or of rows (`batch hard` finds `triplet, batch
        hard`); all rows if there is none.
      which: "quick" is a few sizes, "targets" also those with something to reach, "full" all. A row
        asked for by name that has none of them gives its first.

    Raises:
      ValueError: a name that no row has.
    """
    wanted = [word.strip() for word in only if word.strip()]
    for word in wanted:
        if not any(_is_named(row, word) for row in rows):
            known = ", ".join(dict.fromkeys(row.loss.__name__ for row in rows))
            raise ValueError(f"only: got {word!r}, expected some of {known}")
    takes: dict[Set, Callable[[Size], bool]] = {
        "full": lambda size: True,
        "targets": lambda size: size.quick or (size.target or size.least_share) is not None,
        "quick": lambda size: size.quick,
    }
    for row in rows:
        if wanted and not any(_is_named(row, word) for word in wanted):
            continue
        some = [size for size in row.sizes if takes[which](size)] or row.sizes[: bool(wanted)]
        yield from ((row, size) for size in some)


def _is_named(row: Row, word: str) -> bool:
    plain = word.lower()
    return plain == row.loss.__name__ or (len(plain) > 3 and plain in row.name.lower())
