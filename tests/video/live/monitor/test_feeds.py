"""One frame and one status for all who ask, and nothing that is too old to be true."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from vmkla.video.live.frame import AiState, LiveFrame, SignalState
from vmkla.video.live.monitor.feeds import MAX_FRAMES_PER_S, FrameFeed, Jpeg, StatusFeed, encode_jpeg
from vmkla.video.live.monitor.status import STATUS_CAPACITY_BYTES, DelayWindow, MonitorStatus
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import FrameRing

DELAYS = DelayWindow.of_video().summary(0.0)
STATUS = MonitorStatus(0.0, 60.0, AiState.ON, "", SignalState.GOOD, 30.0, 10, 9, DELAYS, DELAYS)


def test_an_old_status_is_not_given_out() -> None:
    board = Board(STATUS_CAPACITY_BYTES)
    feed = StatusFeed(board)
    assert json.loads(feed.answer()) == {"live": False, "age_ms": None, "status": None}
    time.sleep(0.06)
    board.publish(replace(STATUS, written_s=time.monotonic()).to_json())
    fresh = json.loads(feed.answer())
    assert fresh["live"] and fresh["status"]["ai"] == "on" and 0 <= fresh["age_ms"] < 1000
    assert "written_s" not in fresh["status"]
    time.sleep(1.1)  # the display is gone or stopped: nothing new comes
    old = json.loads(feed.answer())
    assert not old["live"] and old["status"] is None and old["age_ms"] > 1000
    assert b'"on"' not in feed.answer()
    board.publish(replace(STATUS, written_s=time.monotonic() - 5).to_json())
    time.sleep(0.06)
    assert not json.loads(feed.answer())["live"], "it was too old when it came"
    board.close()


def test_what_is_no_status_clears_the_one_before() -> None:
    board = Board(STATUS_CAPACITY_BYTES)
    feed = StatusFeed(board)
    board.publish(replace(STATUS, written_s=time.monotonic()).to_json())
    assert json.loads(feed.answer())["live"]
    time.sleep(0.06)
    board.publish(b"{}")
    assert not json.loads(feed.answer())["live"]
    board.close()


def frame(sequence: int, height: int = 60, width: int = 80) -> LiveFrame:
    return LiveFrame(sequence, time.monotonic(), np.full((height, width, 3), sequence % 251, np.uint8))


def test_all_who_ask_get_the_same_encoded_frame() -> None:
    ring = FrameRing()
    feed = FrameFeed(ring.subscribe())
    ring.publish(frame(1))

    async def ask_at_once() -> list[Jpeg | None]:
        return await asyncio.gather(*(feed.newest() for _ in range(50)))

    async def ask_for_a_while() -> set[int]:
        end_s = time.monotonic() + 1.0
        seen = set()
        sequence = 1
        while time.monotonic() < end_s:
            sequence += 1
            ring.publish(frame(sequence))
            found = await feed.newest()
            assert found is not None
            seen.add(found.sequence)
            await asyncio.sleep(0.005)
        return seen

    first = asyncio.run(ask_at_once())
    assert first[0] is not None and all(answer is first[0] for answer in first)
    seen = asyncio.run(ask_for_a_while())
    assert 2 <= len(seen) <= MAX_FRAMES_PER_S + 2, "each was encoded once, and not more often"
    ring.close()


def test_an_old_frame_is_not_given_out() -> None:
    ring = FrameRing()
    feed = FrameFeed(ring.subscribe())
    assert asyncio.run(feed.newest()) is None
    time.sleep(0.11)
    ring.publish(frame(7))
    found = asyncio.run(feed.newest())
    assert found is not None and found.sequence == 7
    time.sleep(1.1)
    assert asyncio.run(feed.newest()) is None
    ring.close()


@pytest.mark.parametrize(("height", "width"), [(360, 480), (1080, 1920), (2160, 3840), (70, 2000), (1, 1)])
def test_the_jpeg_shows_the_frame_at_a_bounded_size(height: int, width: int) -> None:
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    columns = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    rgb = np.stack(np.broadcast_arrays(rows, columns, np.uint8(40)), axis=2)
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(rgb), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    assert max(decoded.shape[:2]) == min(960, max(height, width))
    scaled = cv2.resize(rgb, (decoded.shape[1], decoded.shape[0]), interpolation=cv2.INTER_AREA)
    # A swap of red and blue, or of rows and columns, is off by about 80.
    assert np.abs(decoded.astype(int) - scaled.astype(int)).mean() < 4
