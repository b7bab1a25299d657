"""What a live run is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmkla.errors import UsageError
from vmkla.segment.overlay import OverlayStyle
from vmkla.segment.preprocess import Rect
from vmkla.video.file.options import check_drawing
from vmkla.video.media.interlace import Deinterlace, check_deinterlace

if TYPE_CHECKING:
    from vmkla.video.live.network.temporal import TemporalOptions

MAX_STALENESS_MS = 120.0
"""What regulators accept as marker delay (FDA De Novo DEN200055)."""


@dataclass(frozen=True)
class LiveOptions:
    """Settings of one live run.

    Attributes:
        out_dir: folder of the log, the report and recordings; made readable by its owner only.
        threshold: above 0, at most 1; None takes the model's own.
        overlay: how findings are drawn.
        alpha: opacity of what is drawn, 0 to 1; None takes the style's default.
        roi: field of view, in place of the model's own: ``"auto"``, ``"none"`` or a ``Rect``.
        max_staleness_ms: a marker is drawn on frames captured at most so much later than the one that it
            was computed from; 0 draws it on that one alone.
        motion: move markers along with what they mark.
        temporal: hysteresis, least size and least age of findings; None uses none of them.
        record: write the frames, raw and with markers.
        segment_s: length of a recorded file.
        hide: rectangles with burned-in text that recordings do not get, in pixels of the frame.
        monitor: host and port of the monitor page; None serves none.
        monitor_token: what a reader of the page must give; needed off the loopback interface.
        loop: begin a file anew when it ends.
        duration_s: end after so long; None runs until the source ends or somebody stops it.
        drop_budget: fraction of the received frames that may be dropped before the run counts as degraded.
        exist_ok: replace the outputs of an earlier run in ``out_dir``.
        deinterlace: ``"auto"`` has the network see one field of frames that look interlaced; ``"yes"`` and
            ``"no"`` settle it. What is shown and recorded stays as it is.
    Raises:
        UsageError: a value makes no sense.
    """

    out_dir: Path
    threshold: float | None = None
    overlay: OverlayStyle = "contour"
    alpha: float | None = None
    roi: str | Rect | None = None
    max_staleness_ms: float = MAX_STALENESS_MS
    motion: bool = True
    temporal: TemporalOptions | None = None
    record: bool = False
    segment_s: float = 10.0
    hide: tuple[Rect, ...] = ()
    monitor: tuple[str, int] | None = None
    monitor_token: str | None = None
    loop: bool = False
    duration_s: float | None = None
    drop_budget: float = 0.01
    exist_ok: bool = False
    deinterlace: Deinterlace = "auto"

    def __post_init__(self) -> None:
        check_drawing(self.threshold, self.overlay, self.alpha, self.roi)
        check_deinterlace(self.deinterlace)
        if not 0 <= self.max_staleness_ms <= 1000:
            raise UsageError(
                f"max staleness is {self.max_staleness_ms:g} ms, expected 0 to 1000",
                hint=f"For instance: --max-staleness-ms {MAX_STALENESS_MS:g}",
            )
        if not 1 <= self.segment_s <= 3600:
            raise UsageError(f"a segment of {self.segment_s:g} s was asked for, expected 1 to 3600")
        if self.duration_s is not None and not (self.duration_s > 0 and math.isfinite(self.duration_s)):
            raise UsageError(f"duration is {self.duration_s:g} s, expected more than 0")
        if not 0 <= self.drop_budget <= 1:
            raise UsageError(f"the budget of dropped frames is {self.drop_budget:g}, expected 0 to 1")
        for rect in self.hide:
            if rect.w < 1 or rect.h < 1 or rect.x < 0 or rect.y < 0:
                raise UsageError(
                    f"a rectangle to hide is {rect.x},{rect.y},{rect.w},{rect.h}, expected X,Y,W,H in pixels "
                    "of the frame",
                    hint="For instance: --hide 0,0,160,40",
                )
        if self.hide and not self.record:
            raise UsageError(
                "rectangles to hide are of recordings, and nothing is recorded", hint="Add --record."
            )

    @property
    def max_staleness_s(self) -> float:
        """``max_staleness_ms`` in seconds."""
        return self.max_staleness_ms / 1e3
