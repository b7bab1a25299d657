"""Options of a live run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.errors import UsageError
from vmkla.segment.overlay import Label, OverlayStyle
from vmkla.video.live.monitor.access import MonitorOptions
from vmkla.video.live.network.options import StillOptions, WorkerOptions
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.option_checks import check_drawing

MAX_STALENESS_MS = 120.0
"""Marker delay that regulators accept (FDA De Novo DEN200055)."""


@dataclass(frozen=True)
class LiveOptions:
    """Options of one live run.

    Attributes:
        out_dir: folder of the log, the report and recordings; made readable by its owner only.
        worker: options of the network's process.
        overlay: how findings are drawn.
        alpha: opacity of what is drawn, 0 to 1; None uses the style's default.
        label: text beside each region.
        max_staleness_ms: longest time from the capture of a marker's own frame to that of a frame that may
            show it, ms, 0 to 1000; 0 draws it on its own frame only.
        pause_on_poor: draw no markers while the network's newest frame is a poor picture.
        motion: move markers along with what they mark.
        recording: options of the recording; None records nothing.
        monitor: where the monitor page is served; None serves none.
        loop: start a file again when it ends.
        duration_s: length of the run, seconds; None runs until the source ends or somebody stops it.
        drop_budget: fraction of the received frames, 0 to 1, beyond which dropped ones make the run degraded.
        exist_ok: replace the outputs of an earlier run in ``out_dir``.
        service_socket: socket of the service manager, see ``service_reports``; None reports to nobody.
    Raises:
        UsageError: a value is out of range.
    """

    out_dir: Path
    worker: WorkerOptions = field(default_factory=WorkerOptions)
    overlay: OverlayStyle = "contour"
    alpha: float | None = None
    label: Label = "none"
    max_staleness_ms: float = MAX_STALENESS_MS
    pause_on_poor: bool = False
    motion: bool = True
    recording: RecordOptions | None = None
    monitor: MonitorOptions | None = None
    loop: bool = False
    duration_s: float | None = None
    drop_budget: float = 0.01
    exist_ok: bool = False
    service_socket: str | None = None

    def __post_init__(self) -> None:
        check_drawing(self.overlay, self.alpha, self.label)
        if not 0 <= self.max_staleness_ms <= 1000:
            raise UsageError(
                f"max staleness is {self.max_staleness_ms:g} ms, expected 0 to 1000",
                hint=f"For instance: --max-staleness-ms {MAX_STALENESS_MS:g}",
            )
        if self.recording is not None and not 1 <= self.recording.segment_s <= 3600:
            raise UsageError(f"a segment of {self.recording.segment_s:g} s was asked for, expected 1 to 3600")
        if self.duration_s is not None and not (self.duration_s > 0 and math.isfinite(self.duration_s)):
            raise UsageError(f"duration is {self.duration_s:g} s, expected more than 0")
        if not 0 <= self.drop_budget <= 1:
            raise UsageError(f"the budget of dropped frames is {self.drop_budget:g}, expected 0 to 1")

    @property
    def max_staleness_s(self) -> float:
        """``max_staleness_ms`` in seconds."""
        return self.max_staleness_ms / 1e3

    def to_dict(self, point: Mapping[str, float | None]) -> dict[str, Any]:
        """Return the options as plain values, for the report, without the monitor's token.

        Args:
            point: operating point in use; the model's own values are None before the model is loaded.
        """
        worker, recording = self.worker, self.recording or RecordOptions()
        roi = worker.roi
        return {
            **point,
            "overlay": self.overlay,
            "alpha": self.alpha,
            "label": self.label,
            "roi": roi if roi is None or isinstance(roi, str) else list(roi),
            "max_staleness_ms": self.max_staleness_ms,
            "pause_on_poor": self.pause_on_poor,
            "temporal": worker.calmer(),
            "record": self.recording is not None,
            "stills": worker.stills is not None,
            "segment_s": recording.segment_s,
            "hide": [list(rect) for rect in recording.hide or (worker.stills or StillOptions()).hide],
            "monitor": self.monitor is not None,
            "loop": self.loop,
            "duration_s": self.duration_s,
            "drop_budget": self.drop_budget,
            "deinterlace": worker.deinterlace,
        }
