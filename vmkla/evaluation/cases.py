"""Draw truth and prediction of single images for the report, and choose the images to show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.evaluation.judge import ImageResult, LabelledImage, Mask
from vmkla.segment.overlay import PALETTE_RGB

TRUTH_RGB, PREDICTION_RGB = (255, 230, 0), (0, 230, 255)
"""Yellow and cyan: tissue has neither colour, and colour-blind people can tell them apart."""
CLASS_RGB = (*PALETTE_RGB, (255, 72, 72), (255, 255, 255))
"""Colours of the classes that are not background, in order; Synapse has eight."""
LONGER_SIDE_PX = 400
SHOWN_BEST, SHOWN_MEDIAN, SHOWN_WORST, SHOWN_ALARMS = 4, 4, 8, 4
_JPEG_QUALITY = 88
_LINE_PX = 2

Rgb = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One image of the report.

    Attributes:
        result: the image's figures.
        jpeg: the drawn image, as a JPEG file.
    """

    result: ImageResult
    jpeg: bytes


class CaseBook:
    """Keep a small drawing of every image in a temporary file until the images to show are known."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._places: list[tuple[int, int]] = []

    def __enter__(self) -> CaseBook:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, result: ImageResult, sample: LabelledImage, prediction: Mask) -> None:
        """Draw an image and keep the drawing."""
        several = len(result.native.confusions) > 1
        picture = (draw_classes if several else draw_contours)(sample.image_rgb, sample.mask, prediction)
        data = encode_jpeg(picture)
        self._places.append((self._file.seek(0, 2), len(data)))
        self._file.write(data)

    def choose(self, results: Sequence[ImageResult]) -> dict[str, list[Case]]:
        """Choose the best, median and worst images with a lesion by native Dice, and the largest false
        alarms.

        Args:
            results: results of the images that were added, in order.
        Returns:
            Heading -> cases; without the headings that have no case.
        """
        lesions = [index for index, result in enumerate(results) if result.native.has_polyp]
        lesions.sort(key=lambda index: (-results[index].native.measures()["dice"], results[index].name))
        first = max(0, (len(lesions) - SHOWN_MEDIAN) // 2)
        alarms = [
            index
            for index, result in enumerate(results)
            if not result.native.has_polyp and result.native.findings
        ]
        alarms.sort(key=lambda index: -results[index].native.largest_region)
        chosen = {
            "Best": lesions[:SHOWN_BEST],
            "Median": lesions[first : first + SHOWN_MEDIAN],
            "Worst": lesions[::-1][:SHOWN_WORST],
            "Largest false alarms on frames without a lesion": alarms[:SHOWN_ALARMS],
        }
        return {
            heading: [Case(results[index], self._read(index)) for index in indices]
            for heading, indices in chosen.items()
            if indices
        }

    def _read(self, index: int) -> bytes:
        start, length = self._places[index]
        self._file.seek(start)
        return self._file.read(length)


def draw_contours(image_rgb: Rgb, truth: Mask, prediction: Mask) -> Rgb:
    """Draw the outlines of truth (yellow) and prediction (cyan) into one image.

    Args:
        image_rgb: (H, W, 3) uint8.
        truth, prediction: (H, W) uint8, class indices.
    """
    picture = _shrunk(image_rgb, cv2.INTER_AREA)
    for mask, colour in ((truth, TRUTH_RGB), (prediction, PREDICTION_RGB)):
        _outline(picture, _shrunk(mask, cv2.INTER_NEAREST) > 0, colour)
    return picture


def draw_classes(image_rgb: Rgb, truth: Mask, prediction: Mask) -> Rgb:
    """Draw truth (left) and prediction (right) side by side, each class in its own colour."""
    sides = []
    for mask in (truth, prediction):
        side, small = _shrunk(image_rgb, cv2.INTER_AREA), _shrunk(mask, cv2.INTER_NEAREST)
        for value in np.unique(small[small > 0]):
            _outline(side, small == value, CLASS_RGB[(int(value) - 1) % len(CLASS_RGB)])
        sides.append(side)
    return np.concatenate(sides, axis=1)


def encode_jpeg(picture: Rgb) -> bytes:
    """Encode (H, W, 3) uint8 RGB for a page."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _shrunk(image: npt.NDArray[np.uint8], interpolation: int) -> npt.NDArray[np.uint8]:
    """Copy an image, shrunk so that its longer side is at most ``LONGER_SIDE_PX``."""
    height_px, width_px = image.shape[:2]
    scale = LONGER_SIDE_PX / max(height_px, width_px)
    if scale >= 1:
        return np.array(image, np.uint8)
    size_wh = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), np.uint8)


def _outline(picture: Rgb, region: npt.NDArray[Any], colour: tuple[int, int, int]) -> None:
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, _LINE_PX, cv2.LINE_8)
