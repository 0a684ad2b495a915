"""Renders the pictures of the `hangul` data set from open typefaces: `hangul.npz`.

Only whoever changes the data set needs this: the package carries the result. The typefaces come
from the Debian packages that `hangul_fonts.md` lists; every picture depends on nothing but the
syllable, the typeface and one seed, so that a second run gives the same file, bit for bit, with
the same versions of the typefaces and of Pillow.

    python -m jdml.datasets.render_hangul --output hangul.npz
    python -m jdml.datasets.render_hangul --check          # compare with the file of the package
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

SIZE = 28
"""Side of a picture in pixels, that of the MNIST family, so that one network reads both."""

GREYS = 16
"""Levels of grey: four bits tell as much as a network can use and halve the file."""

PER_SPLIT = {"train": 500, "validation": 200, "test": 300}
"""Syllables of each split."""


class Typeface(NamedTuple):
    """One face of one family, and the file that the Debian package puts on the disk."""

    name: str
    file: str
    index: int = 0


TYPEFACES = (
    Typeface("Nanum Barun Gothic", "truetype/nanum/NanumBarunGothic.ttf"),
    Typeface("Nanum Gothic", "truetype/nanum/NanumGothic.ttf"),
    Typeface("Nanum Myeongjo", "truetype/nanum/NanumMyeongjo.ttf"),
    Typeface("Nanum Square", "truetype/nanum/NanumSquareR.ttf"),
    Typeface("Nanum Barun Pen", "truetype/nanum/NanumBarunpenR.ttf"),
    Typeface("Nanum Brush Script", "truetype/nanum/NanumBrush.ttf"),
    Typeface("Nanum Pen Script", "truetype/nanum/NanumPen.ttf"),
    Typeface("D2Coding", "truetype/naver-d2coding/D2Coding-Ver1.3.2-20180524-all.ttc"),
    Typeface("Noto Sans CJK KR", "opentype/noto/NotoSansCJK-Regular.ttc", 1),
    Typeface("Noto Serif CJK KR", "opentype/noto/NotoSerifCJK-Regular.ttc", 1),
    Typeface("BM DoHyeon", "truetype/woowa-bm/BMDOHYEON_ttf.ttf"),
    Typeface("BM Euljiro 10 years later", "truetype/woowa-bm/BMEuljiro10yearslater.ttf"),
    Typeface("BM HANNA Air", "truetype/woowa-bm/BMHANNAAir_ttf.ttf"),
    Typeface("BM JUA", "truetype/woowa-bm/BMJUA_ttf.ttf"),
    Typeface("BM KIRANGHAERANG", "truetype/woowa-bm/BMKIRANGHAERANG-TTF.ttf"),
    Typeface("BM YEONSUNG", "truetype/woowa-bm/BMYEONSUNG_ttf.ttf"),
    Typeface("Baekmuk Batang", "truetype/baekmuk/batang.ttf"),
    Typeface("Baekmuk Gulim", "truetype/baekmuk/gulim.ttf"),
    Typeface("Baekmuk Dotum", "truetype/baekmuk/dotum.ttf"),
    Typeface("Baekmuk Headline", "truetype/baekmuk/hline.ttf"),
)

# Vowels that differ by a stroke or two: each row is a family of look-alikes.
VOWEL_FAMILIES = ("ㅏㅑㅐㅒ", "ㅓㅕㅔㅖ", "ㅗㅛㅚㅘㅙ", "ㅜㅠㅟㅝㅞ", "ㅡㅣㅢ")
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"

# A consonant and a vowel family together always fall into one split. With this row of ten splits
# every consonant and every vowel family occurs in each of the three over and over.
_TURN = ("train", "validation", "test")
SPLIT_ROW = ("train", *_TURN, *_TURN, "train", "train", "test")


# ------------------------------------------------------------------------------------- syllables


def letters(syllable: str) -> tuple[int, int, int]:
    """The letters of a syllable: numbers of its first consonant, its vowel, its last consonant.

    Example:
        >>> letters("가"), letters("간"), letters("나")
        ((0, 0, 0), (0, 0, 4), (2, 0, 0))
    """
    number = ord(syllable) - ord("가")
    return number // 588, number % 588 // 28, number % 28


def unit(syllable: str) -> tuple[int, int]:
    """The first consonant and the vowel family: what decides the split of a syllable."""
    first, vowel, _ = letters(syllable)
    families = [VOWELS[vowel] in family for family in VOWEL_FAMILIES]
    return first, families.index(True)


def choose_syllables() -> dict[str, list[str]]:
    """The syllables of each split, of the 2,350 of the Korean standard KS X 1001.

    All syllables of one unit (a first consonant with a family of vowels) go to one split, and a
    unit gives those with the most neighbours first, a neighbour being one that differs by a
    single letter. So each split is full of look-alikes, of which most differ by the last
    consonant or by one stroke of the vowel.
    """
    units: dict[tuple[int, int], list[str]] = {}
    for number in range(ord("가"), ord("힣") + 1):
        if len(chr(number).encode("euc-kr", "ignore")) == 2:
            units.setdefault(unit(chr(number)), []).append(chr(number))

    def neighbours(syllable: str) -> int:
        own = letters(syllable)
        others = (letters(other) for other in units[unit(syllable)])
        return sum(sum(a != b for a, b in zip(own, other)) == 1 for other in others)

    queues: dict[str, list[list[str]]] = {split: [] for split in PER_SPLIT}
    for (first, family), members in sorted(units.items()):
        split = SPLIT_ROW[(first + 2 * family) % len(SPLIT_ROW)]
        queues[split].append(sorted(members, key=lambda one: (-neighbours(one), one)))

    chosen: dict[str, list[str]] = {}
    for split, count in PER_SPLIT.items():
        longest = max(map(len, queues[split]))
        in_turn = [row[turn] for turn in range(longest) for row in queues[split] if turn < len(row)]
        chosen[split] = sorted(in_turn[:count])
    return chosen


# -------------------------------------------------------------------------------------- pictures


def render(syllable: str, typeface: int, fonts_dir: Path, seed: int) -> np.ndarray:
    """Draws one syllable, light on black, with its own small turn, shear, size, place and ink.

    Drawn four times larger first, so that turning it blurs nothing.

    Returns:
        uint8 `[SIZE, SIZE]` with values 0 to `GREYS - 1`.
    """
    from PIL import Image, ImageDraw, ImageFilter

    chance = np.random.default_rng([seed, ord(syllable), typeface])
    side = 4 * SIZE
    font = open_font(typeface, fonts_dir, side)
    left, top, right, bottom = font.getbbox(syllable)
    large = Image.new("L", (2 * side, 2 * side), 0)
    corner = (side - (left + right) / 2, side - (top + bottom) / 2)
    ImageDraw.Draw(large).text(corner, syllable, font=font, fill=255)

    weight = int(chance.integers(-1, 2))  # thinner, as it is, or bolder
    if weight:
        large = large.filter((ImageFilter.MaxFilter if weight > 0 else ImageFilter.MinFilter)(3))

    angle, shear = np.deg2rad(chance.uniform(-3, 3)), chance.uniform(-0.05, 0.05)
    size = side * chance.uniform(0.78, 0.86) / max(right - left, bottom - top)
    stretch = size * np.exp(chance.uniform(-0.04, 0.04, size=2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = turn @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(stretch)
    place = side / 2 + side * chance.uniform(-0.025, 0.025, size=2)
    back = np.linalg.inv(forward)  # Pillow asks where a pixel of the result comes from
    offset = side - back @ place
    table = (*back[0], offset[0], *back[1], offset[1])
    drawn = large.transform(
        (side, side), Image.Transform.AFFINE, table, Image.Resampling.BICUBIC
    ).filter(ImageFilter.GaussianBlur(chance.uniform(0, 0.6)))
    small = np.asarray(drawn.resize((SIZE, SIZE), Image.Resampling.BOX), np.float64) / 255
    return np.round(small * chance.uniform(0.85, 1.0) * (GREYS - 1)).astype(np.uint8)


@functools.cache
def open_font(typeface: int, fonts_dir: Path, side: int):
    """Opens a typeface at `side` pixels.

    Raises:
        FileNotFoundError: the file is not there; the message names the list of packages.
    """
    from PIL import ImageFont

    face = TYPEFACES[typeface]
    path = fonts_dir / face.file
    if not path.is_file():
        raise FileNotFoundError(
            f"the typeface {face.name} is not at {path}: install the Debian packages that"
            " jdml/datasets/hangul_fonts.md lists, or name their folder with --fonts"
        )
    return ImageFont.truetype(path, side, index=face.index)


def render_all(fonts_dir: Path, seed: int) -> dict[str, np.ndarray]:
    """All pictures and what belongs to them: the arrays of `hangul.npz`.

    Returns:
        `images` uint8 `[1000, faces, SIZE, SIZE]` (values 0 to 15), `syllables` (text) `[1000]`,
        `splits` (text) `[1000]`, `typefaces` (text) `[faces]`.
    """
    chosen = choose_syllables()
    syllables = [one for members in chosen.values() for one in members]
    images = [
        [render(one, face, fonts_dir, seed) for face in range(len(TYPEFACES))] for one in syllables
    ]
    return {
        "images": np.array(images, np.uint8),
        "syllables": np.array(syllables),
        "splits": np.array([split for split, members in chosen.items() for _ in members]),
        "typefaces": np.array([face.name for face in TYPEFACES]),
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line: renders, then writes or compares."""
    parser = argparse.ArgumentParser(
        prog="python -m jdml.datasets.render_hangul",
        description="Render the pictures of the hangul data set from open typefaces.",
    )
    shipped = Path(__file__).with_name("hangul.npz")
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, help="of the small variations (default 0)")
    parser.add_argument("--output", type=Path, default=shipped, help="default: inside the package")
    parser.add_argument(
        "--check", action="store_true", help="write nothing: compare with the file of the package"
    )
    options = parser.parse_args(arguments)
    try:
        arrays = render_all(options.fonts, options.seed)
    except FileNotFoundError as error:
        parser.exit(1, f"{error}\n")
    if not options.check:
        np.savez_compressed(options.output, allow_pickle=False, **arrays)
        print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")
        return
    with np.load(shipped) as known:
        different = [name for name in arrays if not np.array_equal(arrays[name], known[name])]
    if different:
        parser.exit(1, f"different from {shipped}: {', '.join(different)}\n")
    print(f"the same as {shipped}")


if __name__ == "__main__":
    main()
