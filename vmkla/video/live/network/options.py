"""Options of the worker: what the network sees of a frame, and which findings count."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vmkla.errors import UsageError
from vmkla.segment.operating_point import OWN_POINT, PointOverrides
from vmkla.segment.preprocess import Rect
from vmkla.video.media.interlace import Deinterlace, check_deinterlace
from vmkla.video.option_checks import check_roi


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
class StillOptions:
    """Options of the stills of lesions.

    Attributes:
        hide: rectangles with burned-in text, filled with black; in pixels of the first frame.
        folder: folder of the run; None is that of the live run.
    """

    hide: tuple[Rect, ...] = ()
    folder: Path | None = None


@dataclass(frozen=True)
class WorkerOptions:
    """Options of the worker process.

    Attributes:
        point: values of the operating point in the place of the model's own.
        roi: field of view: ``"auto"``, ``"none"`` or a ``Rect``; None uses the model's own.
        temporal: options of the filter over time; None leaves it out.
        deinterlace: ``"auto"`` shows the network one field of frames that look interlaced; ``"yes"`` and
            ``"no"`` decide it. What is shown and recorded stays as it is.
        stills: options of the stills of lesions; None keeps none.
        niceness: number added to the worker's niceness, so that it gives way to the display process.
        idle_test_s: interval of self-tests while no frame comes, seconds: the first frame after a gap then
            meets a network that is warm and was tested a moment ago.
    Raises:
        UsageError: a value is out of range.
    """

    point: PointOverrides = OWN_POINT
    roi: str | Rect | None = None
    temporal: TemporalOptions | None = None
    deinterlace: Deinterlace = "auto"
    stills: StillOptions | None = None
    niceness: int = 1
    idle_test_s: float = 2.0

    def __post_init__(self) -> None:
        check_roi(self.roi)
        check_deinterlace(self.deinterlace)

    def in_folder(self, folder: Path) -> WorkerOptions:
        """Return the options with the folder of a run for stills."""
        return self if self.stills is None else replace(self, stills=replace(self.stills, folder=folder))

    def calmer(self) -> dict[str, Any] | None:
        """Return the options that make markers calmer as plain values; None when there are none."""
        return None if self.temporal is None else asdict(self.temporal)
