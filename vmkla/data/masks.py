"""Mask files: their levels, which of them mark a lesion, and how the mask lies on its image."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.data.rules import MaskOrientation, MaskValues, ReadRules
from vmkla.errors import BadInputError
from vmkla.video.media.headers import JP2, JPEG, Header, image_header
from vmkla.video.media.images import decode_unchanged, oriented, read_bytes

SPREAD = 32
"""Values so close to 0 and 255 (of 255) count as those: a JPEG cannot hold them exactly."""
MIN_SHARE = 0.001
"""A third level is one that gathers in a connected area of at least this share of the mask."""
_FEW = 16
"""A file without loss and with at most so many values holds labels; with more, noise or soft edges."""
_FLAT = 8
"""Largest difference within 3x3 pixels where a level gathers. A soft edge of up to 60 px is steeper."""
_NAMED = 6
"""Levels that a message names."""

Values = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Level = tuple[int, ...]
"""A grey value, or red, green and blue."""


@dataclass(frozen=True, eq=False)
class StoredMask:
    """A mask as its file stores it.

    Attributes:
        path: of the file.
        header: of the file.
        values: (H, W) grey, or (H, W, 3) RGB where a pixel is coloured; uint8 or uint16.
        lossy: the values may be off by what a JPEG changes.
    """

    path: Path
    header: Header
    values: Values
    lossy: bool

    @property
    def unit(self) -> int:
        """What one of 255 levels is in the file's own depth."""
        return 257 if self.values.dtype == np.uint16 else 1

    def labels(self, declared: MaskValues | None) -> npt.NDArray[np.uint8]:
        """Which pixels are a lesion.

        Args:
            declared: the values that mark one; None takes those above the middle.
        Returns:
            (H, W) uint8 of 0 and 1, as stored.
        Raises:
            BadInputError: nothing is declared and the mask holds other levels than 0 and 255, or what is
                declared cannot be found in a mask of its kind.
        """
        if declared is None:
            if message := self.level_problem():
                raise BadInputError(message)
            grey = self.values if self.values.ndim == 2 else cv2.cvtColor(self.values, cv2.COLOR_RGB2GRAY)
            return (np.asarray(grey) > np.iinfo(self.values.dtype).max // 2).astype(np.uint8)
        wanted = _levels_of(declared, grey=self.values.ndim == 2)
        if not wanted:
            kind = "grey values" if self.values.ndim == 2 else "colours"
            raise BadInputError(f"{self.path}: --mask-values {declared} names no {kind}; {self._contents()}")
        return self._declared(wanted).astype(np.uint8)

    def level_problem(self) -> str:
        """Why a mask's levels are not those of background and lesion; empty when they are, or all is 0."""
        top = int(self.values.max(initial=0))
        if top == 0:
            return ""
        high, white = (255 - SPREAD) * self.unit, 255 * self.unit
        if not _all_channels(self.values >= high).any():
            bits = 8 * self.values.itemsize
            seen = f"the largest value is {top} in a file of {bits} bits"
            if self.values.ndim == 3:
                seen = "nothing is white"
            return (
                f"{self.path}: {seen}, and {white} marks a lesion; {self._contents()}. "
                f"{_advice(level for level, _ in self.counts)}"
            )
        if all(set(level) in ({0}, {white}) for level, _ in self.counts):
            return ""
        third = self._third_levels()
        if not third:
            return ""
        ends = [level for level, _ in self.counts if min(level) >= high]
        named = ", ".join(f"{_named(level)} ({count} px)" for level, count in third[:_NAMED])
        return (
            f"{self.path}: values gather at a third level beside 0 and {white}: {named}. "
            f"{_advice([*(level for level, _ in third), *ends[:1]])}"
        )

    def _third_levels(self) -> list[tuple[Level, int]]:
        """Levels that gather and are neither background nor lesion, and their pixels; the largest first."""
        near, high = SPREAD * self.unit, (255 - SPREAD) * self.unit
        exact = self._exact
        found = _gathered(self.values, self.unit, exact=exact)

        def beside_an_end(level: Level) -> bool:
            # Labels like 0, 1 and 255: exact, so that what is near to an end is not noise around it.
            ends = {0: max(level) <= near, 255 * self.unit: min(level) >= high}
            return any(
                close and set(level) != {end} and any(set(other) == {end} for other in found)
                for end, close in ends.items()
            )

        if exact:  # corners and thin parts count, too
            found = {level: count for level, count in self.counts if level in found}
        third = [
            (level, count)
            for level, count in found.items()
            if (max(level) > near and min(level) < high) or (exact and beside_an_end(level))
        ]
        return sorted(third, key=lambda item: -item[1])

    def _declared(self, wanted: Sequence[tuple[Level, Level]]) -> Flags:
        """Pixels of the levels wanted.

        Ranges and labels are compared exactly. Where there is noise or a soft edge, a pixel takes the nearest
        level, and the others are black, white and what gathers; a level close to black cannot be told from
        noise, and is compared exactly there too.
        """
        channels = self.values.reshape(*self.values.shape[:2], -1)
        equal: Flags = _distance(channels, wanted) == 0
        near = SPREAD * self.unit
        soft = [(low, high) for low, high in wanted if low == high and (max(low) > near or not any(low))]
        if self._exact or not soft:
            return equal
        ends = [(end,) * channels.shape[2] for end in (0, 255 * self.unit)]
        others = [
            (level, level)
            for level in [*ends, *_gathered(self.values, self.unit, exact=False)]
            if _distance(np.array(level).reshape(1, 1, -1), wanted)[0, 0] > 2 * _FLAT * self.unit
        ]
        if not others:
            return equal
        nearer: Flags = _distance(channels, soft) < _distance(channels, others)
        return equal | nearer

    @property
    def _exact(self) -> bool:
        """The file holds labels, each a value of its own: few of them, or none that is not an area."""
        if self.lossy:
            return False
        if len(self.counts) <= _FEW:
            return True
        flat = _flat(self.values, np.ones((2, 2), np.uint8), 0)
        return len(_count(self.values[flat])) == len(self.counts)

    @functools.cached_property
    def counts(self) -> list[tuple[Level, int]]:
        """Every value and its pixels, the most frequent first."""
        pixels = self.values.reshape(-1) if self.values.ndim == 2 else self.values.reshape(-1, 3)
        return sorted(_count(pixels), key=lambda item: -item[1])

    def _contents(self) -> str:
        counts = self.counts
        named = ", ".join(f"{_named(level)} ({count} px)" for level, count in counts[:_NAMED])
        return f"the mask holds {named}{', ...' if len(counts) > _NAMED else ''}"


def read_mask(path: Path, rules: ReadRules) -> StoredMask:
    """Read a mask file.

    Raises:
        BadInputError: it cannot be read or decoded, or what it holds lies in a channel or a kind of number
            that masks do not have.
    """
    data = read_bytes(path, max_megapixels=rules.max_megapixels)
    header = image_header(data, name=str(path), max_megapixels=rules.max_megapixels)
    values = decode_unchanged(data, header, name=str(path))
    if values.dtype not in (np.uint8, np.uint16):
        raise BadInputError(f"{path}: the values are {values.dtype}, expected whole numbers of 8 or 16 bits")
    if values.ndim == 3 and values.shape[2] in (2, 4):
        colours, alpha = values[..., :-1], values[..., -1]
        if colours.min() == colours.max() and alpha.min() != alpha.max():
            raise BadInputError(
                f"{path}: the mask lies in the alpha channel, which is not read; a mask holds 0 and 255 in "
                "8-bit grey"
            )
        values = colours
    lossy = data.startswith((JPEG, JP2)) or (data.startswith(b"RIFF") and b"VP8L" not in data[:4096])
    return StoredMask(path, header, _grey(values), lossy)


def placed(
    labels: npt.NDArray[np.uint8],
    mask: Header,
    image: Header,
    declared: MaskOrientation | None,
) -> npt.NDArray[np.uint8] | None:
    """Turn a mask as its image is turned.

    labelme and CVAT show an image upright and store upright masks; a script that reads with OpenCV's
    ``IMREAD_UNCHANGED`` or Pillow makes masks that lie as the pixels are stored. From orientation 5 on the
    size decides, unless the image is square. A mask's own EXIF orientation settles it when it equals the
    image's: both are then shown turned alike.

    Args:
        labels: (H, W), as the mask's file stores them.
        mask, image: headers of the two files.
        declared: how all masks lie, whatever their own orientation is.
    Returns:
        The mask as the image is shown; None when nothing tells how the mask lies, and it makes a difference.
    """
    if declared is not None:
        return oriented(labels, image.orientation if declared == "stored" else 1)
    stored_hw = (image.height, image.width)
    if image.orientation >= 5 and image.height != image.width and mask.orientation in (1, image.orientation):
        return oriented(labels, image.orientation if labels.shape == stored_hw else 1)
    if mask.orientation == image.orientation:
        return oriented(labels, image.orientation)
    ways = [oriented(labels, way) for way in sorted({1, image.orientation, mask.orientation})]
    return ways[0] if all(np.array_equal(way, ways[0]) for way in ways) else None


def _grey(values: Values) -> Values:
    """Grey where every pixel is, but for what a JPEG changes."""
    if values.ndim == 2:
        return values
    if values.shape[2] == 1:
        return values[..., 0]
    unit = 257 if values.dtype == np.uint16 else 1
    if int((values.max(axis=2) - values.min(axis=2)).max(initial=0)) > SPREAD * unit:
        return np.ascontiguousarray(values)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(values), cv2.COLOR_RGB2GRAY))


def _count(pixels: Values) -> list[tuple[Level, int]]:
    """Every value of (n,) grey or (n, 3) coloured pixels, and how often it occurs."""
    if pixels.ndim == 1:
        numbers = np.bincount(pixels)
        return [((int(value),), int(numbers[value])) for value in np.flatnonzero(numbers)]
    wide = pixels.astype(np.int64)
    codes, counts = np.unique(wide[:, 0] << 32 | wide[:, 1] << 16 | wide[:, 2], return_counts=True)
    return [
        ((int(code >> 32), int(code >> 16 & 0xFFFF), int(code & 0xFFFF)), int(count))
        for code, count in zip(codes, counts, strict=True)
    ]


def _gathered(values: Values, unit: int, *, exact: bool) -> dict[Level, int]:
    """Levels at which values gather in a connected area of ``MIN_SHARE`` or more, and their pixels.

    Args:
        values: (H, W) or (H, W, 3).
        unit: one of 255 levels.
        exact: labels, of which two pixels side by side are an area; else levels apart from both ends, found
            where the values, or their means over 5x5 pixels, hardly change.
    """
    side, reach = (2, 2) if exact else (3, 9)
    kernel = np.ones((side, side), np.uint8)
    if exact:
        band = np.ones(values.shape[:2], bool)
        core = _flat(values, kernel, 0)
    else:
        band = _between(values, unit)
        inside = cv2.blur(band.astype(np.float32), (5, 5)) >= 0.8
        means = np.asarray(cv2.blur(values, (5, 5)))
        core = (_flat(values, kernel, _FLAT * unit) & band) | (
            _flat(means, kernel, _FLAT * unit) & _between(means, unit) & inside
        )
    count, areas, boxes, _ = cv2.connectedComponentsWithStats(core.astype(np.uint8), connectivity=8)
    # Grown back to the pixels that the core stands for; a 2x2 core lies at its lower right.
    anchor = (0, 0) if exact else (-1, -1)
    grown = cv2.dilate(areas.astype(np.float32), np.ones((reach, reach), np.uint8), anchor=anchor)
    sizes = np.bincount(np.asarray(grown)[band].astype(np.int64), minlength=count)
    found: dict[Level, int] = {}
    for number in np.flatnonzero(sizes[1:] >= MIN_SHARE * band.size) + 1:
        x, y, width, height = boxes[number, :4]
        inside_box = areas[y : y + height, x : x + width] == number
        pixels = values[y : y + height, x : x + width][inside_box].reshape(int(inside_box.sum()), -1)
        level = tuple(int(value) for value in np.median(pixels, axis=0))
        alike = 0 if exact else 2 * _FLAT * unit
        same = next((known for known in found if _apart(known, level) <= alike), level)
        found[same] = found.get(same, 0) + int(sizes[number])
    return found


def _flat(values: Values, kernel: npt.NDArray[np.uint8], limit: int) -> Flags:
    """Where values differ by no more than a limit under a kernel that lies wholly on the mask."""
    spread = np.asarray(cv2.dilate(values, kernel)) - np.asarray(cv2.erode(values, kernel))
    flat = _all_channels(spread <= limit)
    before, after = kernel.shape[0] // 2, (kernel.shape[0] - 1) // 2
    inside = np.zeros(flat.shape, bool)
    inside[before : flat.shape[0] - after, before : flat.shape[1] - after] = True
    return flat & inside


def _between(values: Values, unit: int) -> Flags:
    """Where values are apart from both black and white."""
    black = _all_channels(values <= SPREAD * unit)
    white = _all_channels(values >= (255 - SPREAD) * unit)
    return ~(black | white)


def _all_channels(true: Flags) -> Flags:
    return true if true.ndim == 2 else np.asarray(true.all(axis=2))


def _distance(channels: Values, levels: Sequence[tuple[Level, Level]]) -> npt.NDArray[np.int64]:
    """Distance of each pixel of (H, W, channels) to the nearest of some ranges, in its farthest channel."""
    distances = []
    for low, high in levels:
        signed = channels.astype(np.int64)
        outside = np.maximum(np.array(low) - signed, signed - np.array(high))
        distances.append(np.maximum(outside, 0).max(axis=2))
    nearest: npt.NDArray[np.int64] = np.minimum.reduce(distances)
    return nearest


def _levels_of(declared: MaskValues, *, grey: bool) -> list[tuple[Level, Level]]:
    """Declared values as ranges for a grey or a coloured mask; a grey that is a colour serves both."""
    if grey:
        greys: list[tuple[Level, Level]] = [((low,), (high,)) for low, high in declared.greys]
        return greys + [((red,), (red,)) for red, green, blue in declared.colours if red == green == blue]
    coloured: list[tuple[Level, Level]] = [(colour, colour) for colour in declared.colours]
    return coloured + [((low,) * 3, (low,) * 3) for low, high in declared.greys if low == high]


def _apart(first: Level, second: Level) -> int:
    return max(abs(one - other) for one, other in zip(first, second, strict=True))


def _named(level: Level) -> str:
    return str(level[0]) if len(level) == 1 else "{:02x}{:02x}{:02x}".format(*level)


def _advice(levels: Iterable[Level]) -> str:
    """How to declare the levels of a message, the background left out."""
    named = [_named(level) for level in dict.fromkeys(levels) if any(level)][:_NAMED]
    return f"Name those that mark a lesion: --mask-values {','.join(named)}"
