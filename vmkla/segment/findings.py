"""Findings: the regions of a probability map that count, at the frame's own pixels.

OpenCV is imported where regions are labelled, so that runners are loaded without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmkla.errors import VmklaError
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect, restore

Mask = npt.NDArray[np.uint8]
Probability = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """A connected region (8-neighbourhood) of one class.

    Attributes:
        box: bounding box, px of the frame.
        area_px: number of pixels of the frame.
        class_index: class of its pixels, at least 1; 1 with one output channel.
        probability: largest probability of that class inside it, interpolated to the frame, 0 to 1.
        peak: largest probability of that class among the network's own pixels under it, 0 to 1.
    """

    box: Rect
    area_px: int
    class_index: int
    probability: float
    peak: float


@dataclass(frozen=True, eq=False)
class Findings:
    """The regions that the network found in one frame.

    Attributes:
        mask: (H, W) uint8, the class of each pixel: 0 is background. With one output channel a finding is 1.
        regions: the connected regions of the mask, largest first.
        max_probability: largest probability of any class that is not background, anywhere in the frame.
        probability: (classes, h, w) float32, the network's own output; None where only the mask is known.
    """

    mask: Mask
    regions: tuple[Region, ...] = ()
    max_probability: float = 0.0
    probability: Probability | None = None

    @property
    def any(self) -> bool:
        """Whether there is a finding."""
        return bool(self.regions)

    @property
    def area_px(self) -> int:
        """Number of pixels that are not background."""
        return sum(region.area_px for region in self.regions)

    def counted(self, point: OperatingPoint, field: Rect) -> tuple[Region, ...]:
        """Return the regions that also meet another operating point of the same threshold.

        Args:
            point: its peak and area decide.
            field: the field of view, px of the frame.
        """
        field_px = field.w * field.h
        return tuple(
            region for region in self.regions if point.accepts(region.area_px, region.peak, field_px)
        )

    def pixels_of(self, region: Region) -> Mask:
        """Return the pixels of one of the regions in its box, (box.h, box.w) uint8, 1 inside the region.

        Other regions may reach into the box; they are left out.
        """
        box = region.box
        window = self.mask[box.y : box.y + box.h, box.x : box.x + box.w] == region.class_index
        if np.count_nonzero(window) == region.area_px:
            return np.asarray(window, np.uint8)
        import cv2

        _, labels, stats, _ = cv2.connectedComponentsWithStats(window.view(np.uint8), connectivity=8)
        # Only one connected region can reach all four sides of a box.
        spans = (stats[1:, :4] == (0, 0, box.w, box.h)).all(axis=1)
        return np.asarray(labels == 1 + int(spans.argmax()), np.uint8)

    @property
    def area_fraction(self) -> float:
        """Share of the frame's pixels that are not background, 0 to 1."""
        return self.area_px / self.mask.size


def find(probability: Probability, rect: Rect, frame_hw: tuple[int, int], point: OperatingPoint) -> Findings:
    """Bring a probability map back to the frame and read the findings from it.

    One channel: a pixel belongs to a region when its probability, interpolated to the frame, is at least the
    threshold. Several channels: a pixel belongs to its most probable class, and the threshold has no effect.
    A region is a finding when it also reaches the point's peak and area.

    Args:
        probability: (classes, h, w) float32, from the runner.
        rect: the field of view that the network saw, px of the frame.
        frame_hw: height and width of the frame, px.
        point: the rule by which a region counts.
    Raises:
        VmklaError: the probability holds NaN or infinity.
    """
    foreground = probability if len(probability) == 1 else probability[1:]
    max_probability = float(foreground.max())
    if not np.isfinite(float(probability.sum())):
        raise VmklaError(
            "the model's probability holds NaN or infinity, expected 0 to 1",
            hint="Export again with --frames of such frames, or with --precision fp32.",
        )
    if len(probability) == 1 and max_probability < point.least:
        # Interpolation never exceeds its inputs, so most frames end here.
        return Findings(np.zeros(frame_hw, np.uint8), (), max_probability, probability)
    restored = restore(probability, rect, frame_hw)  # (classes, H, W)
    mask = class_mask(restored, point.threshold)
    if len(restored) == 1:
        classes = [1] if mask.any() else []
    else:
        classes = [int(value) for value in np.flatnonzero(np.bincount(mask.ravel())) if value]
    regions: list[Region] = []
    for value in classes:
        channel = value if len(restored) > 1 else 0
        regions += _regions(mask, value, restored[channel], probability[channel], rect, point)
    regions.sort(key=lambda region: (-region.area_px, region.box, region.class_index))
    return Findings(mask, tuple(regions), max_probability, probability)


def class_mask(probability: Probability, threshold: float) -> Mask:
    """Return the class of each pixel, (H, W) uint8; 0 is background.

    Args:
        probability: (classes, H, W). One channel: a pixel is 1 at and above the threshold. Several channels:
            a pixel belongs to its most probable class.
        threshold: 0 to 1; without effect for several channels.
    """
    if len(probability) == 1:
        return np.asarray(probability[0] >= np.float32(threshold)).view(np.uint8)
    return np.asarray(np.argmax(probability, axis=0), np.uint8)


def _regions(
    mask: Mask, value: int, restored: Probability, own: Probability, rect: Rect, point: OperatingPoint
) -> list[Region]:
    """Return the findings of one class; the regions that are none are cleared from the mask.

    Args:
        mask: (H, W) uint8, changed in place.
        value: the class.
        restored: (H, W), its probability at the frame's pixels.
        own: (h, w), the same at the network's pixels.
        rect: the field of view, px of the frame.
        point: the rule by which a region counts.
    """
    import cv2

    of_class = (mask == value).view(np.uint8)
    left, top, width, height = cv2.boundingRect(of_class)  # labelling the whole frame takes ten times as long
    window = of_class[top : top + height, left : left + width]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=8)
    regions = []
    for label, (x, y, w, h, area_px) in enumerate(stats.tolist()[1:], start=1):
        box = Rect(left + x, top + y, w, h)
        inside = labels[y : y + h, x : x + w] == label
        peak = _peak(inside, box, own, rect)
        if not point.accepts(area_px, peak, rect.w * rect.h):
            mask[box.y : box.y + h, box.x : box.x + w][inside] = 0
            continue
        largest = restored[box.y : box.y + h, box.x : box.x + w].max(where=inside, initial=0.0)
        regions.append(Region(box, area_px, value, min(1.0, float(largest)), min(1.0, peak)))
    return regions


def _peak(inside: npt.NDArray[np.bool_], box: Rect, own: Probability, rect: Rect) -> float:
    """Return the largest probability among the network's own pixels under a region.

    A pixel of the network lies under the region when its centre does. A region that covers no centre (the
    frame may have fewer pixels than the network) takes the pixels of the network under its own pixels.

    Args:
        inside: (box.h, box.w), the region.
        box: where it is, px of the frame.
        own: (h, w), the network's probability of its class.
        rect: the field of view, px of the frame.
    """
    rows, columns = (
        _centres(side, start, length, begin, size)
        for side, start, length, begin, size in (
            (own.shape[0], rect.y, rect.h, box.y, box.h),
            (own.shape[1], rect.x, rect.w, box.x, box.w),
        )
    )
    under = inside[np.ix_(rows[1], columns[1])]
    if under.any():
        return float(own[np.ix_(rows[0], columns[0])].max(where=under, initial=0.0))
    y, x = np.nonzero(inside)
    own_y = (2 * (y + box.y - rect.y) + 1) * own.shape[0] // (2 * rect.h)
    own_x = (2 * (x + box.x - rect.x) + 1) * own.shape[1] // (2 * rect.w)
    return float(own[own_y, own_x].max())


def _centres(
    side: int, start: int, length: int, begin: int, size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the network's pixels whose centres lie in a box, along one side.

    Args:
        side: pixels of the network along the side.
        start, length: field of view, px of the frame.
        begin, size: box, px of the frame.
    Returns:
        Their indices, and their centres' places inside the box, px.
    """
    index = np.arange(side)
    place = start + (2 * index + 1) * length // (2 * side) - begin
    within = (place >= 0) & (place < size)
    return index[within], place[within]
