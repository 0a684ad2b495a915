"""What a class table costs on many devices: memory and traffic of a step, from the shapes alone.

python -m experiments.scaling        # 10 M classes x 512 on 8, 64, 256 devices
python -m experiments.scaling --classes 1000000 --rows 4096 --devices 8
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Costs(NamedTuple):
    """Bytes of one device and one step. Traffic is what its operations deliver to the device."""

    table: int  # its share of the classes
    optimizer: int  # moments of these
    gradient: int  # of the table
    scores: int  # of rows and classes, alive at once
    rows: int  # all-gather of embeddings over the devices that share a table
    row_gradient: int  # all-reduce of the gradient of these rows, over the same devices
    softmax: int  # all-reduce of the parts of the softmax of these rows, over the same devices
    table_gradient: int  # all-reduce over the copies of a share; 0 with one copy

    @property
    def memory(self) -> int:
        """All that is alive at once."""
        return self.table + self.optimizer + self.gradient + self.scores

    @property
    def traffic(self) -> int:
        """All that is delivered in a step."""
        return self.rows + self.row_gradient + self.softmax + self.table_gradient


def costs(
    *,
    classes: int,
    dim: int,
    rows: int,
    devices: int,
    model: int,
    moments: int = 2,
    number: int = 4,
    block: int | None = None,
) -> Costs:
    """The costs of a margin-softmax head on a mesh of devices / model by model.

    Each device holds classes / model rows of the table and folds them against the rows of its
    batch axis, rows * model / devices. What the encoder costs does not depend on the classes: it
    runs data-parallel over all devices, in front of this.

    Args:
      classes: C; where it does not divide, a table is made that much longer.
      dim: D.
      rows: B, of the batch of all devices.
      devices: of the mesh.
      model: devices that share one table.
      moments: arrays of the optimizer as large as the table: 2 for Adam, 1 for momentum.
      number: bytes of one.
      block: classes compared at once; all of the share by default.

    Returns:
      `Costs`.

    Raises:
      ValueError: numbers that do not divide.

    Example:
      >>> found = costs(classes=1000, dim=10, rows=64, devices=8, model=4)
      >>> found.table, found.rows, found.table_gradient  # 250 x 10, 32 x 10, 250 x 10 numbers
      (10000, 1280, 10000)
    """
    for name, value, by, of in (
        ("model", devices, model, "devices"),
        ("devices", rows, devices, "rows"),
    ):
        if by < 1 or value % by:
            raise ValueError(f"{name}: got {by}, expected a divisor of the {value} {of}")
    copies, share = devices // model, -(-classes // model)
    seen = rows // copies  # rows that a device compares with its classes
    table = share * dim * number
    return Costs(
        table=table,
        optimizer=moments * table,
        gradient=table,
        scores=seen * min(block or share, share) * number,
        rows=seen * dim * number if model > 1 else 0,
        row_gradient=seen * dim * number if model > 1 else 0,
        softmax=4 * seen * number if model > 1 else 0,  # top, mass, target, found
        table_gradient=table if copies > 1 else 0,
    )


def markdown(lines: Sequence[tuple[int, int, Costs]]) -> str:
    """A table, one line a mesh (devices, model, costs)."""
    text = [
        "| devices | mesh | table | Adam | gradient | memory | rows there and back | "
        "table gradient | traffic |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for devices, model, found in lines:
        sizes = (
            found.table,
            found.optimizer,
            found.gradient,
            found.memory,
            found.rows + found.row_gradient + found.softmax,
            found.table_gradient,
            found.traffic,
        )
        cells = " | ".join(_bytes(size) for size in sizes)
        text.append(f"| {devices} | {devices // model} x {model} | {cells} |")
    return "\n".join(text)


def _bytes(size: int) -> str:
    for unit, digits in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {digits}"
    return f"{size} B"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.scaling", description=(__doc__ or "").partition("\n")[0]
    )
    whole = {"type": int, "metavar": "N"}
    parser.add_argument("--classes", default=10_000_000, **whole, help="(10000000)")
    parser.add_argument("--dim", default=512, **whole, help="of the embeddings (512)")
    parser.add_argument("--rows", default=8192, **whole, help="of the whole batch (8192)")
    parser.add_argument("--block", default=8192, **whole, help="classes compared at once (8192)")
    parser.add_argument("--devices", default=[8, 64, 256], nargs="+", **whole, help="(8 64 256)")
    asked = parser.parse_args(argv)
    shapes = {"classes": asked.classes, "dim": asked.dim, "rows": asked.rows, "block": asked.block}
    lines = []
    try:
        for devices in asked.devices:
            for model in sorted({1, min(8, devices), devices}):
                found = costs(**shapes, devices=devices, model=model)
                lines.append((devices, model, found))
    except ValueError as error:
        print(f"python -m experiments.scaling: {error}", file=sys.stderr)
        return 2
    print(markdown(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
