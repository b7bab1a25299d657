"""Match the lesions of a truth with the regions that a network marked, in one image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.findings import Region
from vmkla.segment.operating_point import OperatingPoint

SIZE_LIMITS = (0.05, 0.15)
"""A lesion is small below the first limit and large from the second on, shares of the image."""
SIZES = ("small", "medium", "large")

Mask = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Lesion:
    """A connected region (8-neighbourhood) of one class of the truth.

    Attributes:
        class_index: class of its pixels, at least 1.
        fraction: its share of the image's pixels, above 0 to 1.
        found: whether a finding of its class shares a pixel with it.
        peak: largest peak among the regions of its class that share a pixel with it and are large enough for
            a finding, 0 to 1; None without such a region.
    """

    class_index: int
    fraction: float
    found: bool
    peak: float | None


@dataclass(frozen=True)
class FalseRegion:
    """A region, large enough for a finding, that shares no pixel with a lesion of its class.

    Attributes:
        class_index: class of its pixels, at least 1.
        fraction: its share of the image's pixels, above 0 to 1.
        peak: largest probability of its class among the network's own pixels under it, 0 to 1.
        is_finding: whether it also reaches the operating point's peak.
    """

    class_index: int
    fraction: float
    peak: float
    is_finding: bool


@dataclass(frozen=True)
class LesionMatch:
    """Lesions and false regions of one image.

    A finding over several lesions finds each of them. Several findings on one lesion find it once, and none
    of them is false.

    Attributes:
        lesions: every lesion of the truth.
        false_regions: every false region that is large enough for a finding, whatever its peak.
    """

    lesions: tuple[Lesion, ...] = ()
    false_regions: tuple[FalseRegion, ...] = ()

    @property
    def found(self) -> int:
        """Number of lesions that a finding shares a pixel with."""
        return sum(lesion.found for lesion in self.lesions)

    @property
    def false_findings(self) -> tuple[FalseRegion, ...]:
        """The false regions that are findings."""
        return tuple(region for region in self.false_regions if region.is_finding)

    @property
    def highest_false(self) -> FalseRegion | None:
        """The false finding of the highest peak, the larger one of equal peaks; None without one."""
        return max(self.false_findings, key=lambda region: (region.peak, region.fraction), default=None)


def size_of(fraction: float) -> str:
    """Return the size of a lesion, ``small``, ``medium`` or ``large``; empty without a lesion.

    Args:
        fraction: its share of the image, 0 to 1.
    """
    if fraction <= 0:
        return ""
    return SIZES[sum(fraction >= limit for limit in SIZE_LIMITS)]


def match(
    truth: Mask, mask: Mask, regions: Sequence[Region], point: OperatingPoint, field_px: int
) -> LesionMatch:
    """Match the lesions of one image with its regions, class by class.

    Args:
        truth: (H, W) uint8, class indices.
        mask: (H, W) uint8, the raw mask at the point's threshold.
        regions: every connected region of the raw mask.
        point: its area and peak decide which regions are findings.
        field_px: number of pixels of the field of view.
    """
    lowest = replace(point, peak=point.threshold)
    large = [region for region in regions if lowest.accepts(region.area_px, region.peak, field_px)]
    lesions: list[Lesion] = []
    false_regions: list[FalseRegion] = []
    for value in sorted({*np.unique(truth).tolist(), *(region.class_index for region in large)} - {0}):
        of_class = [region for region in large if region.class_index == value]
        is_finding = [point.accepts(region.area_px, region.peak, field_px) for region in of_class]
        true: set[int] = set()
        for area_px, touching in overlaps(truth == value, _numbered(mask == value, of_class)):
            found = any(is_finding[number - 1] for number in touching)
            peak = max((of_class[number - 1].peak for number in touching), default=None)
            lesions.append(Lesion(value, area_px / truth.size, found, peak))
            true |= touching
        false_regions += [
            FalseRegion(value, region.area_px / truth.size, region.peak, finding)
            for number, (region, finding) in enumerate(zip(of_class, is_finding, strict=True), start=1)
            if number not in true
        ]
    return LesionMatch(tuple(lesions), tuple(false_regions))


def only(mask: Mask, regions: Collection[Region]) -> Mask:
    """Return a mask that keeps some regions and is background elsewhere.

    Args:
        mask: (H, W) uint8, class indices.
        regions: the connected regions to keep, such as the findings.
    """
    kept = np.zeros_like(mask)
    for value in {region.class_index for region in regions}:
        of_class = [region for region in regions if region.class_index == value]
        kept[_numbered(mask == value, of_class) > 0] = value
    return kept


def overlaps(truth: npt.NDArray[np.bool_], numbers: npt.NDArray[Any]) -> Iterator[tuple[int, set[int]]]:
    """Yield the lesions of one class, and which regions share a pixel with each.

    Args:
        truth: (H, W) bool.
        numbers: (H, W) integers, the region that each pixel belongs to, from 1; 0 where there is none.
    Yields:
        Number of pixels of the lesion, and the numbers of its regions.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(truth.view(np.uint8), connectivity=8)
    touched: list[set[int]] = [set() for _ in range(count)]
    both = truth & (numbers > 0)
    base = int(numbers.max(initial=0)) + 1
    for pair in np.unique(labels[both].astype(np.int64) * base + numbers[both]).tolist():
        touched[pair // base].add(pair % base)
    yield from list(zip(stats[:, cv2.CC_STAT_AREA].tolist(), touched, strict=True))[1:]


def _numbered(mask: npt.NDArray[np.bool_], regions: Sequence[Region]) -> Labels:
    """Return which of some regions of one class each pixel belongs to.

    Returns:
        (H, W): 1 for the first region, and so on; 0 elsewhere.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    # Two regions of a class never share a bounding box: each would reach all four sides and touch the other.
    label_of = {tuple(box): label for label, box in enumerate(stats[:, :4].tolist()) if label}
    numbers = np.zeros(count, np.int32)
    for number, region in enumerate(regions, start=1):
        numbers[label_of[tuple(region.box)]] = number
    return np.asarray(numbers[labels], np.int32)
