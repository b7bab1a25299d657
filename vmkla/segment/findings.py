"""From probability to what is reported: mask, area, boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import VmklaError
from vmkla.segment.preprocess import Rect, restore


@dataclass(frozen=True, eq=False)
class Findings:
    """What the network found in one frame.

    Attributes:
        mask: (H, W) uint8, the class of each pixel: 0 is background. With one output channel a finding is 1.
        area_px: pixels that are not background.
        area_fraction: the same over all pixels of the frame.
        boxes: one per connected region (8-neighbourhood) of one class, largest first.
        box_classes: the class of each box.
        box_probabilities: the largest probability of that class in each box's region, 0 to 1.
        max_probability: the largest probability of any finding class anywhere in the frame.
    """

    mask: npt.NDArray[np.uint8]
    area_px: int
    area_fraction: float
    boxes: tuple[Rect, ...]
    box_classes: tuple[int, ...]
    box_probabilities: tuple[float, ...]
    max_probability: float

    @property
    def any(self) -> bool:
        """Something was found."""
        return self.area_px > 0


def find(
    probability: npt.NDArray[np.float32], rect: Rect, frame_hw: tuple[int, int], threshold: float
) -> Findings:
    """Bring a probability back to the frame and read the findings from it.

    One channel: a pixel is a finding when its probability, interpolated to the frame, is at least the
    threshold. Several channels: a pixel belongs to its most probable class, and the threshold plays no part.

    Args:
        probability: (classes, h, w) float32, from the runner.
        rect: the field of view that the network saw.
        frame_hw: height and width of the frame, px.
        threshold: 0 to 1.
    Raises:
        VmklaError: the probability holds a NaN.
    """
    finding = probability if probability.shape[0] == 1 else probability[1:]
    max_probability = float(finding.max())
    if not np.isfinite(float(probability.sum())):
        raise VmklaError(
            "the model's probability holds NaN or infinity, expected 0 to 1",
            hint="Export again with --frames of such pictures, or with --precision fp32.",
        )
    if probability.shape[0] == 1 and max_probability < np.float32(threshold):
        # Interpolation never exceeds its inputs, so most frames end here.
        return Findings(np.zeros(frame_hw, np.uint8), 0, 0.0, (), (), (), max_probability)
    restored = restore(probability, rect, frame_hw)  # (classes, H, W)
    if restored.shape[0] == 1:
        mask = (restored[0] >= np.float32(threshold)).view(np.uint8)
        of_class = {1: restored[0]}
    else:
        mask = np.argmax(restored, axis=0).astype(np.uint8)
        present = np.flatnonzero(np.bincount(mask.ravel()))
        of_class = {int(value): restored[value] for value in present if value}
    area_px = int(cv2.countNonZero(mask))
    regions = [
        region for value, plane in of_class.items() if area_px for region in _regions(mask, value, plane)
    ]
    regions.sort(key=lambda region: (-region.area_px, region.box, region.value))
    return Findings(
        mask=mask,
        area_px=area_px,
        area_fraction=area_px / mask.size,
        boxes=tuple(region.box for region in regions),
        box_classes=tuple(region.value for region in regions),
        box_probabilities=tuple(region.probability for region in regions),
        max_probability=max_probability,
    )


class _Region(NamedTuple):
    area_px: int
    box: Rect
    value: int  # the class
    probability: float


def _regions(mask: npt.NDArray[np.uint8], value: int, probability: npt.NDArray[np.float32]) -> list[_Region]:
    """The connected regions of one class, given its probability (H, W)."""
    of_class = (mask == value).view(np.uint8)
    left, top, width, height = cv2.boundingRect(of_class)  # labelling the whole frame takes ten times as long
    window = of_class[top : top + height, left : left + width]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8)
    regions = []
    for label, (x, y, w, h, area_px) in enumerate(stats.tolist()[1:], start=1):
        box = Rect(left + x, top + y, w, h)
        inside = labels[y : y + h, x : x + w] == label
        largest = probability[box.y : box.y + h, box.x : box.x + w].max(where=inside, initial=0.0)
        regions.append(_Region(area_px, box, value, min(1.0, float(largest))))
    return regions
