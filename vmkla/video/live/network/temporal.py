"""Filter findings over time: hysteresis and a minimum age of lesions. Both are off by default."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.procedures.scene import CHANGE_LIMIT, Thumbnail, change
from vmkla.segment.findings import class_mask, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.live.network.options import TemporalOptions

RESET_AFTER_S = 0.5
"""Gap between frames after which the filter starts again, seconds."""
_REACH_PER_SIDE = 1 / 32
"""Largest movement of a lesion between two frames, as a share of the longer side."""
_NONE = -1.0  # age of a pixel without a lesion

Floats = npt.NDArray[np.float32]


class TemporalFilter:
    """Filters the probabilities of one stream over time, at the model's resolution.

    Args:
        options: options of the filter.
        point: the rule by which a region counts as a finding.
    Raises:
        UsageError: the lower threshold of the hysteresis is not below the threshold.
    """

    def __init__(self, options: TemporalOptions, point: OperatingPoint) -> None:
        low = options.hysteresis_low
        if low is not None and not low < point.threshold:
            raise UsageError(
                f"hysteresis {low} is not below the threshold, which is {point.threshold}",
                hint="Give a lower --hysteresis, or a higher --threshold.",
            )
        self._options = options
        self._point = point
        self._threshold = np.float32(point.threshold)
        self.reset()

    def reset(self) -> None:
        """Forget the frames so far."""
        self._last_s: float | None = None
        self._last_thumbnail: Thumbnail | None = None
        self._classes: npt.NDArray[np.uint8] | None = None  # (h, w) findings in the last frame
        self._age_s: Floats | None = None  # (h, w) how long the lesion at a pixel has been seen

    def apply(
        self, probability: Floats, captured_s: float, frame_thumbnail: Thumbnail | None = None
    ) -> Floats:
        """Filter the probability of the next frame.

        Args:
            probability: (classes, h, w) float32, from the runner; not changed.
            captured_s: capture time of the frame, seconds of ``time.monotonic()``.
            frame_thumbnail: thumbnail of the frame, to detect a cut; None detects gaps in time only.
        Returns:
            (classes, h, w) float32, 0 to 1: at least the peak where a finding is kept, below the threshold
            where one is dropped.
        """
        gap_s = self._gap_s(captured_s, frame_thumbnail)
        if self._classes is not None and self._classes.shape != probability.shape[1:]:
            self.reset()
        self._last_s, self._last_thumbnail = captured_s, frame_thumbnail
        steady = self._kept(probability)
        size_hw = (steady.shape[1], steady.shape[2])
        classes = find(steady, Rect(0, 0, size_hw[1], size_hw[0]), size_hw, self._point).mask
        dropped = self._too_young(classes, gap_s)
        if not dropped.any():
            return steady
        steady = steady.copy()
        if len(steady) == 1:
            below = np.nextafter(self._threshold, np.float32(0))
            steady[0][dropped] = np.minimum(steady[0][dropped], below)
        else:
            steady[:, dropped] = 0
            steady[0][dropped] = 1
        return np.asarray(steady, np.float32)

    def _gap_s(self, captured_s: float, frame_thumbnail: Thumbnail | None) -> float:
        """Return the time since the last frame, seconds; reset the filter after a cut or a gap."""
        gap_s = 0.0 if self._last_s is None else captured_s - self._last_s
        before = self._last_thumbnail
        cut = False
        if before is not None and frame_thumbnail is not None:
            cut = change(before, frame_thumbnail) > CHANGE_LIMIT
        if cut or not 0 <= gap_s <= RESET_AFTER_S:
            self.reset()
            return 0.0
        return gap_s

    def _kept(self, probability: Floats) -> Floats:
        """Apply hysteresis: where a finding was, use the lower threshold."""
        low, before = self._options.hysteresis_low, self._classes
        if low is None or before is None or not before.any():
            return probability
        high = self._threshold
        if len(probability) > 1:
            # The class that a pixel had needs less than the others to stay the most probable one.
            steady = probability.copy()
            for value in range(1, len(probability)):
                steady[value][before == value] += high - np.float32(low)
            steady /= steady.sum(axis=0)
        else:
            # Lifted by the same amount on both sides of the edge, so that interpolation to the frame finds
            # the edge of the lower threshold; limited, so that a kept finding does not look certain.
            lifted = np.minimum(probability + (high - np.float32(low)), (1 + high) / 2)
            steady = np.where(before > 0, np.maximum(lifted, probability), probability)
        if self._point.peak > self._point.threshold:
            stays = np.where(class_mask(steady, self._point.threshold) == before, before, 0)
            for value in np.unique(stays[stays > 0]):
                channel = steady[value if len(steady) > 1 else 0]
                channel[stays == value] = np.maximum(channel[stays == value], self._point.least)
        return np.asarray(steady, np.float32)

    def _too_young(self, classes: npt.NDArray[np.uint8], gap_s: float) -> npt.NDArray[np.bool_]:
        """Return (h, w), the pixels of regions that are too young, and remember this frame's lesions."""
        age_s = np.full(classes.shape, _NONE, np.float32)
        earlier_s = self._reachable_age(gap_s)
        for value in np.unique(classes[classes > 0]):
            count, labels = cv2.connectedComponents((classes == value).view(np.uint8))
            for label in range(1, count):
                region = labels == label
                age_s[region] = 0.0 if earlier_s is None else max(0.0, float(earlier_s[region].max()))
        self._classes, self._age_s = classes, age_s
        # Half a microsecond: intervals of a steady rate add up to a hair less than their sum.
        return (age_s >= 0) & (age_s + 5e-7 < self._options.min_lesion_age_ms * 1e-3)

    def _reachable_age(self, gap_s: float) -> Floats | None:
        """Return (h, w), the greatest age by now of a lesion that may have moved to a pixel, seconds."""
        if self._age_s is None:
            return None
        reach_px = max(1, round(max(self._age_s.shape) * _REACH_PER_SIDE))
        aged = np.where(self._age_s >= 0, self._age_s + np.float32(gap_s), np.float32(_NONE))
        return np.asarray(cv2.dilate(aged, np.ones((2 * reach_px + 1,) * 2, np.uint8)), np.float32)
