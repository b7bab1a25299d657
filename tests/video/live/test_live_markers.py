"""markers.live_markers: each accepted result becomes the newest marker, and is counted."""

from __future__ import annotations

import numpy as np
import pytest

from vmkla.segment.findings import Findings, Region
from vmkla.segment.preprocess import Rect
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import LiveResult
from vmkla.video.live.markers.live_markers import LiveMarkers
from vmkla.video.live.markers.marker_board import MarkerBoard


def result(sequence: int, *, deinterlaced: bool = False) -> LiveResult:
    """A finding in the middle of a frame, 20 ms after its capture."""
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 30:50] = 1
    findings = Findings(mask, (Region(Rect(30, 20, 20, 20), 400, 1, 0.9, 0.9),), 0.9)
    latency_ms = {"preprocess": 1.0, "inference": 15.0, "postprocess": 2.0, "track": 1.0, "other": 7.0}
    return LiveResult(
        sequence, sequence / 30, sequence / 30 + 0.02, (60, 80), findings, latency_ms, deinterlaced
    )


def test_the_newest_result_is_the_marker() -> None:
    events = EventLog(None)
    markers = LiveMarkers(MarkerBoard(), events)
    assert markers.marker is None
    for one in (result(1), result(2, deinterlaced=True), result(3, deinterlaced=True), result(4)):
        markers.take(one)
        assert markers.marker is not None and markers.marker.sequence == one.sequence
        assert markers.marker.box == Rect(30, 20, 20, 20)
    assert (markers.results, markers.deinterlaced) == (4, 2)
    assert [event.detail for event in events.recent(9)] == [
        "the network sees one field",
        "the network sees whole frames",
    ]
    assert set(markers.latency_ms) == {"preprocess", "inference", "postprocess", "track", "worker"}
    assert markers.latency_ms["inference"].count == 4
    assert markers.latency_ms["worker"].percentile_ms(50) == pytest.approx(20, rel=0.01)


def test_a_result_that_cannot_be_drawn_leaves_no_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    events, board = EventLog(None), MarkerBoard()
    markers = LiveMarkers(board, events)
    markers.take(result(1))

    def fail(result: LiveResult) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(board, "prepare", fail)
    markers.take(result(2))
    assert markers.marker is None and markers.results == 1
    assert events.counts == {"drawing failed": 1}
