"""Measure what reaches the screen: delays, gaps, and pixels that must equal the source's."""

from __future__ import annotations

import json
import time
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, TextIO

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.overlay import Drawing, paint
from vmkla.video.latency import LatencyStats
from vmkla.video.live.frame import AiState, LiveFrame
from vmkla.video.live.screen import Screen, Shown
from vmkla.video.live.status_strip import DisplayBuffer

_REMEMBERED = 600
"""Number of frames whose capture time is kept: a marker is never nearly as old."""


@dataclass
class Measured:
    """Measurements of the screen in one phase.

    Attributes:
        video_delay_ms: time from a frame being complete in memory to the screen having taken it.
        marker_delay_ms: time from a frame being complete in memory to the screen having taken the first frame
            with its marker.
        first_video_delay_ms, first_marker_delay_ms: the first of each; None without one.
        shown: number of the source's frames.
        replaced: number of black frames, with words at most, in place of a lost signal.
        marked: number of shown frames with a marker.
        ai_on: number of shown frames while the AI was on.
        gap_ms: time between two frames of the source.
        wrong_pictures: number of shown frames that differ from the source's in other than a marker's pixels.
        wrong_pixels: number of such pixels.
        strangers: number of frames that the source does not have, where its frames are known.
        disordered: number of frames that came after a later one, or twice.
    """

    video_delay_ms: LatencyStats = field(default_factory=LatencyStats)
    marker_delay_ms: LatencyStats = field(default_factory=LatencyStats)
    gap_ms: LatencyStats = field(default_factory=LatencyStats)
    first_video_delay_ms: float | None = None
    first_marker_delay_ms: float | None = None
    shown: int = 0
    replaced: int = 0
    marked: int = 0
    ai_on: int = 0
    wrong_pictures: int = 0
    wrong_pixels: int = 0
    strangers: int = 0
    disordered: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        stats = ("video_delay_ms", "marker_delay_ms", "gap_ms")
        values = {name: value for name, value in vars(self).items() if name not in stats}
        first = ("first_video_delay_ms", "first_marker_delay_ms")
        values.update({name: None if values[name] is None else round(values[name], 3) for name in first})
        return {**{name: getattr(self, name).to_dict() for name in stats}, **values}


class MeasuringScreen:
    """A screen that measures: it composes the display buffer as a window does, then checks its content.

    It relies on no part of live mode: it compares what is shown with the frame as captured, and that with
    ``known``, where the source can be read beforehand. Pixels outside the marker must be the source's, and
    those inside what painting the marker into the source gives.

    Args:
        window: screen that shows the frames; None only composes the buffer.
        phase: name of the first phase; assign ``phase`` to begin another.
        known: crc32 of every frame of the source; None leaves that check out.
        log: file for a JSON line per frame, flushed, so that it survives this process.
    """

    def __init__(
        self,
        window: Screen | None = None,
        *,
        phase: str = "all",
        known: frozenset[int] | None = None,
        log: TextIO | None = None,
    ) -> None:
        self.phase = phase
        self.phases: dict[str, Measured] = {}
        self.handed_over_s = 0.0
        self._window = window
        self._known = known
        self._log = log
        self._buffer = DisplayBuffer()
        self._captured: OrderedDict[int, float] = OrderedDict()  # sequence -> captured_s
        self._markers_seen: OrderedDict[int, None] = OrderedDict()
        self._newest = 0
        self._last: tuple[str, float] | None = None  # phase and time of the last frame of the source

    @property
    def closed(self) -> bool:
        """Whether the user closed the window, where there is one."""
        return self._window is not None and self._window.closed

    def close(self) -> None:
        """Close the window, where there is one."""
        if self._window is not None:
            self._window.close()

    def show(self, shown: Shown) -> None:
        """Hand the frame over, then measure, so that measuring adds nothing to its delay."""
        if self._window is not None:
            self._window.show(shown)
            self.handed_over_s = self._window.handed_over_s
        pixels = self._buffer.compose(shown.rgb, shown.status)
        if self._window is None:
            self.handed_over_s = time.monotonic()
        measured = self.phases.setdefault(self.phase, Measured())
        rows, source = pixels[: shown.rgb.shape[0]], shown.frame
        crc = None
        if source is None:
            measured.replaced += 1
            wrong = _not_blank(rows)
        else:
            if not shown.again:
                self._time(measured, shown, source)
                measured.ai_on += shown.status.ai is AiState.ON
            drawing = None if shown.marker is None else shown.marker.drawing
            marked = drawing is not None and bool(drawing.layers)
            wrong = wrong_pixels(rows, source.rgb, drawing)
            crc = zlib.crc32(np.ascontiguousarray(source.rgb).data)
            measured.strangers += self._known is not None and crc not in self._known
            measured.marked += marked and not shown.again
        measured.wrong_pixels += wrong
        measured.wrong_pictures += wrong > 0
        if self._log is not None:
            self._write(shown, wrong, crc)

    def _time(self, measured: Measured, shown: Shown, source: LiveFrame) -> None:
        now_s = self.handed_over_s
        if source.sequence <= self._newest:
            measured.disordered += 1
            return
        self._newest = source.sequence
        _remember(self._captured, source.sequence, source.captured_s)
        measured.shown += 1
        delay_ms = (now_s - source.captured_s) * 1e3
        measured.video_delay_ms.add(delay_ms)
        if measured.first_video_delay_ms is None:
            measured.first_video_delay_ms = delay_ms
        if self._last is not None and self._last[0] == self.phase:
            measured.gap_ms.add((now_s - self._last[1]) * 1e3)
        self._last = (self.phase, now_s)
        marker = shown.marker_sequence
        if marker is None:
            return
        captured_s = self._captured.get(marker)
        if marker in self._markers_seen or captured_s is None:
            return
        _remember(self._markers_seen, marker, None)
        delay_ms = (now_s - captured_s) * 1e3
        measured.marker_delay_ms.add(delay_ms)
        if measured.first_marker_delay_ms is None:
            measured.first_marker_delay_ms = delay_ms

    def _write(self, shown: Shown, wrong: int, crc: int | None) -> None:
        assert self._log is not None
        line = {
            "sequence": shown.sequence,
            "shown_s": self.handed_over_s,
            "wall_s": time.time(),
            "captured_s": None if shown.frame is None else shown.frame.captured_s,
            "again": shown.again,
            "ai": shown.status.ai.value,
            "reason": shown.status.ai_reason,
            "signal": shown.status.signal.value,
            "recording": shown.status.recording,
            "marker_sequence": shown.marker_sequence,
            "marker_age_ms": shown.marker_age_ms,
            "wrong_pixels": wrong,
            "crc32": crc,
            "size_hw": list(shown.rgb.shape[:2]),
        }
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()


def wrong_pixels(
    shown_rgb: npt.NDArray[np.uint8], source_rgb: npt.NDArray[np.uint8], drawing: Drawing | None
) -> int:
    """Count pixels that differ from the source and are not the marker's.

    Args:
        shown_rgb: (H, W, 3) uint8, as given to the screen.
        source_rgb: (H, W, 3) uint8, as captured.
        drawing: the marker; without one no pixel may differ.
    """
    if shown_rgb is source_rgb:
        return 0
    if shown_rgb.shape != source_rgb.shape:
        return int(shown_rgb.shape[0] * shown_rgb.shape[1])
    expected = source_rgb
    if drawing is not None and drawing.layers and drawing.frame_hw == source_rgb.shape[:2]:
        # Measuring shares the display's thread: NumPy's selection by a mask would take 20 ms at 1080p.
        covered = drawing.covered().view(np.uint8)
        expected = np.asarray(cv2.copyTo(paint(source_rgb, drawing), covered, source_rgb.copy()))
    flat = (source_rgb.shape[0], source_rgb.shape[1] * 3)
    difference = cv2.absdiff(shown_rgb.reshape(flat), np.ascontiguousarray(expected).reshape(flat))
    if not cv2.countNonZero(difference):
        return 0
    return int(np.count_nonzero(difference.reshape(shown_rgb.shape).any(axis=2)))


def _not_blank(rgb: npt.NDArray[np.uint8]) -> int:
    """Count pixels of the frame for a lost signal that are not grey words on black."""
    grey = (rgb[..., 0] == rgb[..., 1]) & (rgb[..., 1] == rgb[..., 2])
    black = int(np.count_nonzero(~rgb.any(axis=2)))
    return int(np.count_nonzero(~grey)) if black > rgb.shape[0] * rgb.shape[1] // 2 else grey.size


def _remember(memory: OrderedDict[int, Any], key: int, value: Any) -> None:
    memory[key] = value
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
