"""The embedded data set `hangul`: 1,000 syllables, each in 20 typefaces, 28 x 28, grey.

These are pictures of rendered type, drawn by `render_hangul` from open fonts with a small random
turn, shear, weight and blur. They are neither scans of handwriting nor photographs, and scores on
them say how losses compare, not how a model reads Korean.

A class is a syllable. Splits are by syllable, 500 / 200 / 300, and full of look-alikes that differ
by one stroke or by the last consonant. Four of the typefaces are kept out of `hangul/seen_faces`;
`hangul/unseen_faces` has the same training pictures and tests the unseen syllables in those four.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jdml.datasets.prepared import prepared, read_all
from jdml.datasets.splits import Split, Splits, check_counts

HELD_OUT = ("BM DoHyeon", "BM KIRANGHAERANG", "Baekmuk Gulim", "Noto Serif CJK KR")
"""Typefaces of `hangul/unseen_faces`: display, handwriting, sans and serif."""

COUNTS = {"train": 500, "validation": 200, "test": 300}
_SCALE = 17  # 16 levels of grey to 0 .. 255


@functools.cache
def _packed() -> dict[str, np.ndarray]:
    """The arrays that the package carries."""
    with (
        resources.files("jdml.datasets").joinpath("hangul.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return dict(arrays)


class Hangul(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder that prepares from the package: no network, no TensorFlow."""

    VERSION = tfds.core.Version("1.1.0")  # 1.1.0: names of the classes, text of the syllable
    BUILDER_CONFIGS = (  # the first is the default
        tfds.core.BuilderConfig(
            name="seen_faces", description="Unseen syllables in typefaces that training saw."
        ),
        tfds.core.BuilderConfig(
            name="unseen_faces",
            description="Unseen syllables in typefaces that training never saw.",
        ),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        side = _packed()["images"].shape[-1]
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(side, side, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=_packed()["syllables"].tolist()),
                    "typeface": tfds.features.ClassLabel(names=_packed()["typefaces"].tolist()),
                    "syllable": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            license="Renderings of open typefaces; see hangul_fonts.md.",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        held = np.isin(_packed()["typefaces"], HELD_OUT)
        tested = held if self.builder_config_name == "unseen_faces" else ~held
        faces = {"train": ~held, "validation": ~held, "test": tested}
        return {part: self._generate_examples(part, faces[part]) for part in COUNTS}

    def _generate_examples(self, part: str, faces: np.ndarray) -> Iterator[tuple[int, Any]]:
        packed = _packed()
        for label in np.flatnonzero(packed["splits"] == part):
            for face in np.flatnonzero(faces):
                image = packed["images"][label, face, :, :, None] * np.uint8(_SCALE)
                key = int(label) * len(faces) + int(face)
                syllable = str(packed["syllables"][label])
                yield (
                    key,
                    {
                        "image": image,
                        "label": int(label),
                        "typeface": int(face),
                        "syllable": syllable,
                    },
                )


def load(config: str, data_dir: str | None) -> Splits:
    """The splits of a configuration, prepared on first use."""
    make = lambda: Hangul(config=config, data_dir=data_dir, file_format="array_record")
    builder = prepared(make, silently=True)
    packed = _packed()
    names = tuple(str(syllable) for syllable in packed["syllables"])
    seen = len(packed["typefaces"]) - len(HELD_OUT)
    faces = {"train": seen, "validation": seen, "test": seen}
    if config == "unseen_faces":
        faces["test"] = len(HELD_OUT)
    splits = {}
    for part, classes in COUNTS.items():
        columns = read_all(builder, part)
        splits[part] = Split(
            f"hangul/{config}/{part}", columns["image"], columns["label"], class_names=names
        )
        check_counts(splits[part], images=classes * faces[part], classes=classes)
    return Splits(**splits)
