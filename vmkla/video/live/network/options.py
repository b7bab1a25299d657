"""Options of the worker: what the network sees of a frame, and which findings count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vmkla.errors import UsageError
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.media.interlace import Deinterlace, check_deinterlace
from vmkla.video.option_checks import check_detection


@dataclass(frozen=True)
class TemporalOptions:
    """Options of the filter over time. The defaults change nothing.

    Attributes:
        hysteresis_low: probability, above 0 and below the threshold, down to which a pixel that was a finding
            in the frame before stays one. None uses the threshold only.
        min_lesion_age_ms: time, at least 0, for which a lesion must have been seen without a break before it
            counts.
    Raises:
        UsageError: a value is out of range.
    """

    hysteresis_low: float | None = None
    min_lesion_age_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.hysteresis_low is not None and not 0 < self.hysteresis_low < 1:
            raise UsageError(f"hysteresis must be between 0 and 1, got {self.hysteresis_low}")
        if not 0 <= self.min_lesion_age_ms < float("inf"):
            raise UsageError(f"the least age of a lesion must be 0 ms or more, got {self.min_lesion_age_ms}")

    @property
    def any(self) -> bool:
        """Whether anything is to be filtered."""
        return self.hysteresis_low is not None or self.min_lesion_age_ms > 0


@dataclass(frozen=True)
class WorkerOptions:
    """Options of the worker process.

    Attributes:
        threshold: probability, above 0 and at most 1, from which a pixel counts; None uses the model's own.
        min_fraction: smallest area of a finding as a share of the field of view, at least 0 and below 1; None
            uses the model's own.
        roi: field of view: ``"auto"``, ``"none"`` or a ``Rect``; None uses the model's own.
        temporal: options of the filter over time; None leaves it out.
        deinterlace: ``"auto"`` shows the network one field of frames that look interlaced; ``"yes"`` and
            ``"no"`` decide it. What is shown and recorded stays as it is.
        niceness: number added to the worker's niceness, so that it gives way to the display process.
        idle_test_s: interval of self-tests while no frame comes, seconds: the first frame after a gap then
            meets a network that is warm and was tested a moment ago.
    Raises:
        UsageError: a value is out of range.
    """

    threshold: float | None = None
    min_fraction: float | None = None
    roi: str | Rect | None = None
    temporal: TemporalOptions | None = None
    deinterlace: Deinterlace = "auto"
    niceness: int = 1
    idle_test_s: float = 2.0

    def __post_init__(self) -> None:
        check_detection(self.threshold, self.roi)
        check_deinterlace(self.deinterlace)
        self.point_of(OperatingPoint())

    def point_of(self, own: OperatingPoint) -> OperatingPoint:
        """Return a model's operating point with the smallest area that these options ask for."""
        return own if self.min_fraction is None else replace(own, min_fraction=self.min_fraction)

    def calmer(self) -> dict[str, Any] | None:
        """Return the options that make markers calmer as plain values; None when there are none."""
        if self.temporal is None and self.min_fraction is None:
            return None
        temporal = self.temporal or TemporalOptions()
        return {
            "hysteresis_low": temporal.hysteresis_low,
            "min_lesion_fraction": self.min_fraction or 0.0,
            "min_lesion_age_ms": temporal.min_lesion_age_ms,
        }
