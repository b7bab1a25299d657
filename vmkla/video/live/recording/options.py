"""Options of a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vmkla.errors import UsageError
from vmkla.segment.preprocess import Rect
from vmkla.video.hiding import check_hide

MIN_FREE_BYTES = 1 << 30
"""Space that recording leaves for the run's log and report, and for whoever else writes to that disk."""


@dataclass(frozen=True)
class RecordOptions:
    """Options of a recording.

    Attributes:
        segment_s: length of a file, seconds.
        hide: rectangles with burned-in text, filled with black in both streams; in pixels of the first frame.
        min_free_bytes: free space of the disk below which recording stops, bytes.
        sync_s: longest part of the open segment that a power cut can destroy, seconds.
    Raises:
        UsageError: a value is out of range.
    """

    segment_s: float = 10.0
    hide: tuple[Rect, ...] = ()
    min_free_bytes: int = MIN_FREE_BYTES
    sync_s: float = 2.0

    def __post_init__(self) -> None:
        for name, value in (("segment_s", self.segment_s), ("sync_s", self.sync_s)):
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name} is {value:g}, expected more than 0 seconds")
        if self.min_free_bytes < 0:
            raise UsageError(f"min_free_bytes is {self.min_free_bytes}, expected 0 or more")
        check_hide(self.hide)
