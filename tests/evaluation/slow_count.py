"""Lesions, findings and false regions counted in plain Python, pixel by pixel and pair by pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.segment.operating_point import OperatingPoint

Pixels = set[tuple[int, int]]


@dataclass(frozen=True)
class SlowRegion:
    """A region that a network marked: its pixels, and the largest probability of its class on them."""

    pixels: Pixels
    peak: float


@dataclass(frozen=True)
class SlowImage:
    """Lesions and regions of one image whose size is the network's, by class.

    Attributes:
        pixels: number of the image's pixels.
        lesions: connected regions of the truth.
        regions: connected regions of the network's mask.
    """

    pixels: int
    lesions: dict[int, list[Pixels]]
    regions: dict[int, list[SlowRegion]]

    def findings(self, value: int, point: OperatingPoint) -> list[Pixels]:
        """Return the findings of one class."""
        return [
            region.pixels
            for region in self.regions[value]
            if len(region.pixels) >= point.min_fraction * self.pixels
            and (point.peak <= point.threshold or region.peak >= np.float32(point.peak))
        ]


@dataclass
class Count:
    """What was counted over all images, or over the lesions and false regions of one size or class."""

    lesions: int = 0
    found: int = 0
    images_with: int = 0
    images_found: int = 0
    false_regions: int = 0
    images_without: int = 0
    alarms: int = 0


def flood(marked: npt.NDArray[np.bool_]) -> list[Pixels]:
    """Return the connected regions (8-neighbourhood), each as its pixels."""
    left = {(y, x) for y in range(marked.shape[0]) for x in range(marked.shape[1]) if marked[y, x]}
    regions = []
    while left:
        border = [left.pop()]
        region: Pixels = set(border)
        while border:
            y, x = border.pop()
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    region.add(near)
                    border.append(near)
        regions.append(region)
    return regions


def slow_image(
    truth: npt.NDArray[np.uint8], probability: npt.NDArray[np.float32], threshold: float
) -> SlowImage:
    """Search one image.

    Args:
        truth: (H, W), class indices.
        probability: (classes, H, W), as the network gives it.
        threshold: of a network of one class.
    """
    lesions, regions = {}, {}
    for value in range(1, max(2, len(probability))):
        own = probability[value if len(probability) > 1 else 0]
        marked = own >= np.float32(threshold) if len(probability) == 1 else probability.argmax(0) == value
        lesions[value] = flood(truth == value)
        regions[value] = [
            SlowRegion(pixels, max(float(own[pixel]) for pixel in pixels)) for pixels in flood(marked)
        ]
    return SlowImage(truth.size, lesions, regions)


def size_name(pixels: Pixels, image: SlowImage) -> str:
    """Return small, medium or large."""
    share = len(pixels) / image.pixels
    return "small" if share < 0.05 else "medium" if share < 0.15 else "large"


def slow_count(
    images: list[SlowImage], point: OperatingPoint, size: str = "", of_class: int | None = None
) -> Count:
    """Count lesions and false regions of one size and class; every one by default."""
    count = Count()
    for image in images:
        with_lesion = found_here = alarm = False
        for value, lesions in image.lesions.items():
            if of_class not in (None, value):
                continue
            findings = image.findings(value, point)
            for lesion in lesions:
                if size in ("", size_name(lesion, image)):
                    found = any(pixel in finding for finding in findings for pixel in lesion)
                    count.lesions += 1
                    count.found += found
                    with_lesion, found_here = True, found_here or found
            for finding in findings:
                if size in ("", size_name(finding, image)):
                    false = not any(pixel in finding for lesion in lesions for pixel in lesion)
                    count.false_regions += false
                    alarm = alarm or false
        count.images_with += with_lesion
        count.images_found += found_here
        empty = not any(image.lesions.values())
        count.images_without += empty
        count.alarms += alarm and empty
    return count
