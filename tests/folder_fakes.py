"""Folders of pictures as people have them."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

CLASSES = ["class 2", "class 10", "Class 1", "été", "한글", "o'b,c", "x" * 40, "z\u0301"]
SIZE = (20, 24)  # width, height
TINY = "--classes-per-batch 3 --per-class 2 --dim 4 --widths 2 2 --steps 2 --loss contrastive"


def picture(mode="RGB", value=(200, 40, 90), size=SIZE):
    return Image.new(mode, size, value)


def fill(root: pathlib.Path, classes=CLASSES, each=3) -> pathlib.Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(each):
            pixels = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            pixels[:, :, 0] = 255 * number // len(classes)
            Image.fromarray(pixels).save(root / name / f"Photo {k}.png")
    return root
