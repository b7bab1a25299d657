"""What augmentation does to pixels, by OpenCV, or by Pillow on a machine without OpenCV.

The two differ in rounding and in how they blur, never in what they show: a run repeats exactly on machines
that have the same one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vmkla.errors import MissingDependencyError
from vmkla.imports import require

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


class Ellipse(NamedTuple):
    """A filled ellipse: centre (x, y) and half axes in px, turn in degrees, grey value."""

    centre: tuple[int, int]
    half_axes: tuple[int, int]
    turn_deg: float
    value: int


class Pixels(Protocol):
    """The operations; images are (H, W, 3) or (H, W) uint8."""

    name: str

    def warp(
        self, image: Image, matrix: Matrix, size_hw: tuple[int, int], *, reflect: bool, nearest: bool
    ) -> Image:
        """Map by a (2, 3) matrix from source to result, pixel centres at integers; outside: mirror or 0."""

    def disc(self, size_hw: tuple[int, int], centre: tuple[int, int], radius: int) -> Image:
        """255 inside a disc, 0 outside."""

    def polygon(self, size_hw: tuple[int, int], corners: npt.NDArray[np.int32]) -> Image:
        """255 inside a convex polygon, 0 outside; corners (n, 2) as x, y."""

    def glare(self, image: Image, blobs: Sequence[Ellipse]) -> Image:
        """Add light in soft-edged ellipses."""

    def look_up(self, image: Image, table: Image) -> Image:
        """Replace every value by that of its channel's table, (256, 3)."""

    def recolour(self, image: Image, turn_deg: int, saturation: float) -> Image:
        """Turn the hue and scale the saturation."""

    def blur(self, image: Image, sigma_px: float) -> Image:
        """Gaussian blur."""

    def smear(self, image: Image, length_px: int, ends: Sequence[tuple[int, int]]) -> Image:
        """Motion blur along the line between two cells of a square kernel."""


@functools.cache
def available() -> Pixels:
    """OpenCV's where it is installed, else Pillow's.

    Raises:
        MissingDependencyError: neither is installed.
    """
    try:
        return OpenCVPixels()
    except MissingDependencyError:
        return PillowPixels()


class OpenCVPixels:
    """By OpenCV: the one to have, three times as fast."""

    name = "OpenCV"

    def __init__(self) -> None:
        self._cv2 = require("cv2", extra=None, purpose="augmentation")

    def warp(
        self, image: Image, matrix: Matrix, size_hw: tuple[int, int], *, reflect: bool, nearest: bool
    ) -> Image:
        cv2 = self._cv2
        return _u8(
            cv2.warpAffine(
                image,
                matrix,
                size_hw[::-1],
                flags=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT,
            )
        )

    def disc(self, size_hw: tuple[int, int], centre: tuple[int, int], radius: int) -> Image:
        return _u8(self._cv2.circle(np.zeros(size_hw, np.uint8), centre, radius, 255, -1))

    def polygon(self, size_hw: tuple[int, int], corners: npt.NDArray[np.int32]) -> Image:
        return _u8(self._cv2.fillPoly(np.zeros(size_hw, np.uint8), [corners], 255))

    def glare(self, image: Image, blobs: Sequence[Ellipse]) -> Image:
        cv2 = self._cv2
        light = np.zeros(image.shape[:2], np.uint8)
        for blob in blobs:
            cv2.ellipse(light, blob.centre, blob.half_axes, blob.turn_deg, 0, 360, blob.value, -1)
        light = cv2.GaussianBlur(light, (3, 3), 0)
        return _u8(cv2.add(image, cv2.merge([light, light, light])))

    def look_up(self, image: Image, table: Image) -> Image:
        return _u8(self._cv2.LUT(image, table.reshape(1, 256, 3)))

    def recolour(self, image: Image, turn_deg: int, saturation: float) -> Image:
        cv2 = self._cv2
        values = np.arange(256)
        # OpenCV's hue runs from 0 to 179, two degrees each.
        tables = np.stack(
            [(values + turn_deg // 2) % 180, np.clip(values * saturation + 0.5, 0, 255), values], axis=-1
        ).astype(np.uint8)
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), tables.reshape(1, 256, 3))
        return _u8(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))

    def blur(self, image: Image, sigma_px: float) -> Image:
        return _u8(self._cv2.GaussianBlur(image, (0, 0), sigma_px))

    def smear(self, image: Image, length_px: int, ends: Sequence[tuple[int, int]]) -> Image:
        kernel = np.zeros((length_px, length_px), np.float32)
        self._cv2.line(kernel, ends[0], ends[1], 1.0)
        return _u8(self._cv2.filter2D(image, -1, kernel / kernel.sum()))


class PillowPixels:
    """By Pillow and NumPy, for a training machine that has no OpenCV."""

    name = "Pillow"

    def __init__(self) -> None:
        self._pillow = require("PIL.Image", extra="train", purpose="augmentation")
        self._draw = require("PIL.ImageDraw", extra="train", purpose="augmentation")
        self._filter = require("PIL.ImageFilter", extra="train", purpose="augmentation")

    def warp(
        self, image: Image, matrix: Matrix, size_hw: tuple[int, int], *, reflect: bool, nearest: bool
    ) -> Image:
        back = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2]
        linear, offset = back[:, :2], back[:, 2]
        if reflect:
            image, offset = _mirrored(image, linear, offset, size_hw)
        # Pillow counts from a pixel's corner, the matrix from its centre.
        shift = offset + 0.5 - linear @ (0.5, 0.5)
        data = (*linear[0], shift[0], *linear[1], shift[1])
        kind, filters = self._pillow.Transform.AFFINE, self._pillow.Resampling
        filter_ = filters.NEAREST if nearest else filters.BILINEAR
        return _u8(self._pillow.fromarray(image).transform(size_hw[::-1], kind, data, filter_))

    def disc(self, size_hw: tuple[int, int], centre: tuple[int, int], radius: int) -> Image:
        (x, y), canvas = centre, self._pillow.new("L", size_hw[::-1])
        self._draw.Draw(canvas).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return _u8(canvas)

    def polygon(self, size_hw: tuple[int, int], corners: npt.NDArray[np.int32]) -> Image:
        canvas = self._pillow.new("L", size_hw[::-1])
        self._draw.Draw(canvas).polygon([(int(x), int(y)) for x, y in corners], fill=255)
        return _u8(canvas)

    def glare(self, image: Image, blobs: Sequence[Ellipse]) -> Image:
        canvas = self._pillow.new("L", image.shape[1::-1])
        angles = np.linspace(0.0, 2 * math.pi, 24, endpoint=False)
        for blob in blobs:
            turn = math.radians(blob.turn_deg)
            x, y = blob.half_axes[0] * np.cos(angles), blob.half_axes[1] * np.sin(angles)
            across = blob.centre[0] + x * math.cos(turn) - y * math.sin(turn)
            down = blob.centre[1] + x * math.sin(turn) + y * math.cos(turn)
            corners = [(round(a), round(b)) for a, b in zip(across, down, strict=True)]
            self._draw.Draw(canvas).polygon(corners, fill=blob.value, outline=blob.value)
        soft = self._filter.Kernel((3, 3), (1, 2, 1, 2, 4, 2, 1, 2, 1))
        light = np.asarray(canvas.filter(soft), np.uint16)
        return _u8(np.minimum(image + light[..., None], 255))

    def look_up(self, image: Image, table: Image) -> Image:
        return _u8(self._pillow.fromarray(image).point(table.T.ravel().tolist()))

    def recolour(self, image: Image, turn_deg: int, saturation: float) -> Image:
        values = np.arange(256)
        hue, strength, value = self._pillow.fromarray(image).convert("HSV").split()
        hue = hue.point(((values + round(turn_deg * 256 / 360)) % 256).tolist())
        strength = strength.point(np.clip(values * saturation + 0.5, 0, 255).astype(np.uint8).tolist())
        return _u8(self._pillow.merge("HSV", (hue, strength, value)).convert("RGB"))

    def blur(self, image: Image, sigma_px: float) -> Image:
        return _u8(self._pillow.fromarray(image).filter(self._filter.GaussianBlur(sigma_px)))

    def smear(self, image: Image, length_px: int, ends: Sequence[tuple[int, int]]) -> Image:
        canvas = self._pillow.new("L", (length_px, length_px))
        self._draw.Draw(canvas).line([*ends[0], *ends[1]], fill=1)
        rows, columns = np.nonzero(np.asarray(canvas))
        before, after = length_px // 2, (length_px - 1) // 2
        padded = np.pad(image, ((before, after), (before, after), (0, 0)), mode="reflect").astype(np.uint16)
        height, width = image.shape[:2]
        summed = np.zeros(image.shape, np.uint16)
        for row, column in zip(rows, columns, strict=True):
            summed += padded[row : row + height, column : column + width]
        return ((summed + len(rows) // 2) // len(rows)).astype(np.uint8)


def _mirrored(
    image: Image, linear: Matrix, offset: npt.NDArray[np.float64], size_hw: tuple[int, int]
) -> tuple[Image, npt.NDArray[np.float64]]:
    """A source with as much of its mirror image around it as the result will show, and the new offset."""
    (height, width), (source_h, source_w) = size_hw, image.shape[:2]
    corners = np.array([(x, y) for x in (0, width - 1) for y in (0, height - 1)]) @ linear.T + offset
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    before = np.maximum(1 - low, 0).astype(int)
    after = np.maximum(high + 2 - (source_w, source_h), 0).astype(int)
    pads = [(before[1], after[1]), (before[0], after[0])] + [(0, 0)] * (image.ndim - 2)
    return np.pad(image, pads, mode="reflect"), offset + before


def _u8(array: Any) -> Image:
    """A library's loosely typed result as what it is."""
    result: Image = np.asarray(array, np.uint8)
    return result
