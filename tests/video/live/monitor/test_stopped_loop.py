"""A display loop that hangs, while the thread that writes the status goes on, is not shown as live."""

from __future__ import annotations

import json
import time

from tests.video.live.monitor.displays import wait_for
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import AiState, LiveStatus
from vmkla.video.live.monitor.feeds import StatusFeed
from vmkla.video.live.monitor.status import STATUS_CAPACITY_BYTES
from vmkla.video.live.monitor.status_writer import StatusWriter
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.tallies import Tallies
from vmkla.video.media.address import parse_address


def test_a_display_loop_that_hangs_is_not_shown_as_live() -> None:
    board = Board(STATUS_CAPACITY_BYTES)
    feed = StatusFeed(board)
    events = EventLog(None)
    tallies = Tallies(status=LiveStatus(AiState.ON))
    writer = StatusWriter(
        board,
        Capture(parse_address("sample://"), events),
        tallies,
        events,
        restarts=lambda: 0,
        recording=lambda: (None, ""),
        names=(),
    )
    writer.start()
    try:
        tallies.looped_s = time.monotonic()
        wait_for("a live status", lambda: json.loads(feed.answer())["live"])
        assert json.loads(feed.answer())["status"]["ai"] == "on"
        # Nobody turns any more, and the writer goes on.
        wait_for("the end of it", lambda: not json.loads(feed.answer())["live"])
        assert writer.is_alive() and b'"on"' not in feed.answer()
    finally:
        writer.close()
        board.close()
        events.close()
