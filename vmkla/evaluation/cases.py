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
from vmkla.evaluation.lesions import only
from vmkla.segment.overlay import PALETTE_RGB

TRUTH_RGB, PREDICTION_RGB, REST_RGB = (255, 230, 0), (0, 230, 255), (70, 110, 255)
"""Yellow, cyan and blue: tissue has none of these, and colour-blind people can tell them apart. The rest is
what the raw mask marks beside the findings."""
CLASS_RGB = (*PALETTE_RGB, (255, 72, 72), (255, 255, 255))
"""Colours of the classes that are not background, in order; Synapse has eight."""
LONGER_SIDE_PX = 400
SHOWN_BEST, SHOWN_MEDIAN, SHOWN_WORST, SHOWN_ALARMS = 4, 4, 8, 4
_JPEG_QUALITY = 88
_LINE_PX, _THIN_PX = 2, 1

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
        """Draw an image and keep the drawing.

        Args:
            result: its figures.
            sample: image and truth.
            prediction: (H, W) uint8, the raw mask.
        """
        draw = draw_classes if len(result.native.confusions) > 1 else draw_contours
        findings = only(prediction, result.native.findings)
        picture = draw(sample.image_rgb, sample.mask, prediction, findings)
        data = encode_jpeg(picture)
        self._places.append((self._file.seek(0, 2), len(data)))
        self._file.write(data)

    def choose(self, results: Sequence[ImageResult]) -> dict[str, list[Case]]:
        """Choose the best, median and worst images with a lesion by native Dice of the raw mask, and the
        images whose false findings have the highest peak.

        Args:
            results: results of the images that were added, in order.
        Returns:
            Heading -> cases; without the headings that have no case.
        """
        lesions = [index for index, result in enumerate(results) if result.native.has_polyp]
        lesions.sort(key=lambda index: (-results[index].native.measures()["dice"], results[index].name))
        first = max(0, (len(lesions) - SHOWN_MEDIAN) // 2)
        false = {
            index: (-worst.peak, -worst.fraction)
            for index, result in enumerate(results)
            if (worst := result.lesions.highest_false) is not None
        }
        alarms = sorted(false, key=lambda index: false[index])
        chosen = {
            "Best": lesions[:SHOWN_BEST],
            "Median": lesions[first : first + SHOWN_MEDIAN],
            "Worst": lesions[::-1][:SHOWN_WORST],
            "Worst false alarms: images without a lesion, highest peak first": [
                index for index in alarms if not results[index].native.has_polyp
            ][:SHOWN_ALARMS],
            "Worst false regions beside a lesion, highest peak first": [
                index for index in alarms if results[index].native.has_polyp
            ][:SHOWN_ALARMS],
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


def draw_contours(image_rgb: Rgb, truth: Mask, prediction: Mask, findings: Mask | None = None) -> Rgb:
    """Draw the outlines of truth (yellow) and prediction (cyan) into one image.

    Args:
        image_rgb: (H, W, 3) uint8.
        truth, prediction: (H, W) uint8, class indices.
        findings: (H, W) uint8, the part of the prediction that is a finding: the rest of it is drawn blue.
            None draws all of it as findings.
    """
    picture = _shrunk(image_rgb)
    found, rest = _parts(prediction, findings)
    _outline(picture, truth > 0, TRUTH_RGB)
    _outline(picture, rest > 0, REST_RGB)
    _outline(picture, found > 0, PREDICTION_RGB)
    return picture


def draw_classes(image_rgb: Rgb, truth: Mask, prediction: Mask, findings: Mask | None = None) -> Rgb:
    """Draw truth (left) and prediction (right) side by side, each class in its own colour.

    Args:
        image_rgb, truth, prediction, findings: see ``draw_contours``; what is not a finding is drawn thin.
    """
    found, rest = _parts(prediction, findings)
    sides = []
    for layers in (((truth, _LINE_PX),), ((rest, _THIN_PX), (found, _LINE_PX))):
        side = _shrunk(image_rgb)
        for mask, line_px in layers:
            for value in np.unique(mask[mask > 0]):
                _outline(side, mask == value, CLASS_RGB[(int(value) - 1) % len(CLASS_RGB)], line_px)
        sides.append(side)
    return np.concatenate(sides, axis=1)


def _parts(prediction: Mask, findings: Mask | None) -> tuple[Mask, Mask]:
    """Split a prediction into its findings and the rest."""
    if findings is None:
        return prediction, np.zeros_like(prediction)
    return findings, np.where(findings > 0, np.uint8(0), prediction)


def encode_jpeg(picture: Rgb) -> bytes:
    """Encode (H, W, 3) uint8 RGB for a page."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _shrunk(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Copy an image, shrunk by area so that its longer side is at most ``LONGER_SIDE_PX``."""
    height_px, width_px = image.shape[:2]
    scale = LONGER_SIDE_PX / max(height_px, width_px)
    if scale >= 1:
        return np.array(image)
    size_wh = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA))


def _outline(
    picture: Rgb, region: npt.NDArray[np.bool_], colour: tuple[int, int, int], line_px: int = _LINE_PX
) -> None:
    """Draw the outline of a region of the whole image into its shrunk picture."""
    small = _shrunk(region.astype(np.float32)) > 0  # any pixel counts: a speck must not vanish
    contours, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, line_px, cv2.LINE_8)
