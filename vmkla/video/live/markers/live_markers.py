"""Turn the network's results into markers that are ready to be painted, outside the display thread."""

from __future__ import annotations

from vmkla.video.latency import LatencyStats
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import LiveResult
from vmkla.video.live.markers.marker_board import Marker, MarkerBoard

_STAGES = ("preprocess", "inference", "postprocess", "track")


class LiveMarkers:
    """The newest marker, and figures of the results so far.

    The supervisor's thread calls ``take``; the display thread reads the attributes without a lock.

    Args:
        board: prepares the marker of a result.
        events: log of results that cannot be drawn.

    Attributes:
        marker: marker of the newest result; None before the first, and after one that cannot be drawn.
        results: number of results that became markers.
        deinterlaced: number of those for which the network saw one field of the frame.
        latency_ms: latency of the worker by stage; ``worker``: from a frame's capture to its result.
    """

    def __init__(self, board: MarkerBoard, events: EventLog) -> None:
        self._board = board
        self._events = events
        self.marker: Marker | None = None
        self.results = self.deinterlaced = 0
        self._fields = False
        self._untracked = ""
        self.latency_ms = {stage: LatencyStats() for stage in (*_STAGES, "worker")}

    def take(self, result: LiveResult) -> None:
        """Prepare the marker of a newly accepted result."""
        try:
            self.marker = self._board.prepare(result)
        except Exception as error:  # a result that cannot be drawn marks nothing
            self.marker = None
            self._events.add("drawing failed", type(error).__name__, cause=str(error))
            return
        self.results += 1
        self.deinterlaced += result.deinterlaced
        if result.deinterlaced is not self._fields:
            self._fields = result.deinterlaced
            seen = "one field" if self._fields else "whole frames"
            self._events.add("fields", f"the network sees {seen}")
        failure = result.lesions.failure
        if failure and not self._untracked:  # one that lasts is logged once
            self._events.add("lesions failed", "numbers or stills of lesions are missing", cause=failure)
        self._untracked = failure
        for stage, value_ms in result.latency_ms.items():
            if stage in self.latency_ms:
                self.latency_ms[stage].add(value_ms)
        self.latency_ms["worker"].add(max(0.0, result.finished_s - result.captured_s) * 1e3)
