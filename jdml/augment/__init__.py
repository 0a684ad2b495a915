"""Random changes of pictures: `f(keys [B], images [B, H, W, C]) -> images`, jitted or not.

Each is a frozen dataclass that a train step takes as its `augment`, alone or in a `Chain`. What
happens to a picture depends on its own key alone, so that it is the same on any number of devices:
`keys` makes them of a seed, the step and the item. Integers to 255 become floats from 0 to 1, and
floats stay in that range.

* `RandomResizedCrop`, `Flip`, `Warp`: where pixels come from. `boxes` draws the boxes of crops on
  the host, to decode no more than what is used.
* `ColourJitter`, `Greyscale`, `GaussianBlur`, `Cutout`: what they hold.
* `mix`: pictures or embeddings made of two, with the degree to which they are pairs.
"""

from jdml.augment.chain import Chain, keys
from jdml.augment.colour import ColourJitter, Greyscale
from jdml.augment.geometry import Flip, RandomResizedCrop, boxes
from jdml.augment.local import Cutout, GaussianBlur
from jdml.augment.mixing import Mixed, mix
from jdml.augment.warp import Warp

__all__ = [
    "Chain",
    "ColourJitter",
    "Cutout",
    "Flip",
    "GaussianBlur",
    "Greyscale",
    "Mixed",
    "RandomResizedCrop",
    "Warp",
    "boxes",
    "keys",
    "mix",
]
