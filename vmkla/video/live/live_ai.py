"""From accepted results to markers that are ready to be painted, beside the frame path."""

from __future__ import annotations

import threading
from typing import Protocol

from vmkla.video.latency import LatencyStats
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import AiState, LiveResult
from vmkla.video.live.markers.marker_board import Marker, MarkerBoard

_STAGES = ("preprocess", "inference", "postprocess")


class _Results(Protocol):
    @property
    def state(self) -> tuple[AiState, str]: ...


class LiveAi:
    """What the display loop knows of the network: plain attributes, replaced by another thread.

    Args:
        board: makes markers of results.
        events: is told when it cannot.

    Attributes:
        marker: of the newest result; None before the first, and after one that cannot be drawn.
        results: how many were made into markers.
        deinterlaced: of these, the ones for which the network saw one field of the frame.
        latency_ms: of the worker, by stage, and ``worker``: from a frame's capture to its result.
    """

    def __init__(self, board: MarkerBoard, events: EventLog) -> None:
        self._board = board
        self._events = events
        self._source: _Results | None = None
        self.marker: Marker | None = None
        self.results = self.deinterlaced = 0
        self._fields = False
        self.latency_ms = {stage: LatencyStats() for stage in (*_STAGES, "worker")}
        self._lock = threading.Lock()

    def follow(self, source: _Results) -> None:
        """Take the state from here on from ``source``."""
        self._source = source

    @property
    def state(self) -> tuple[AiState, str]:
        """Whether results may be believed, and why not."""
        return (AiState.STARTING, "") if self._source is None else self._source.state

    def take(self, result: LiveResult) -> None:
        """Make the marker of a newly accepted result. Any thread but the display loop's."""
        with self._lock:
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
            for stage, value_ms in result.latency_ms.items():
                if stage in self.latency_ms:
                    self.latency_ms[stage].add(value_ms)
            self.latency_ms["worker"].add(max(0.0, result.finished_s - result.captured_s) * 1e3)
