"""A photograph that a package ships."""

from __future__ import annotations

import matplotlib.cbook
import numpy as np


def grace_hopper() -> np.ndarray:
    """uint8 [1, 224, 224, 3]: the shorter side at 256 pixels, then the middle."""
    from PIL import Image

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 224) // 2, (height - 224) // 2
    return np.asarray(image.crop((left, top, left + 224, top + 224)))[None]
