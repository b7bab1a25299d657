"""What the display tells the monitor: whole, small, true, and without names."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.errors import BadInputError
from vmkla.video.live.frame import AiState, SignalState
from vmkla.video.live.monitor.status import (
    MARKER_DELAY_EDGES_MS,
    MAX_EVENTS,
    STATUS_CAPACITY_BYTES,
    VIDEO_DELAY_EDGES_MS,
    VIDEO_DELAY_LIMIT_MS,
    WITHHELD,
    DelayWindow,
    MonitorStatus,
    StatusEvent,
    plain_kind,
    plain_text,
    read_status,
)

DELAYS = DelayWindow.of_video().summary(0.0)
STATUS = MonitorStatus(12.5, 60.0, AiState.ON, "", SignalState.GOOD, 30.0, 10, 9, DELAYS, DELAYS)


@pytest.mark.parametrize(
    "text",
    [
        "the worker died: signal 9",
        "no picture for 0.5 s",
        "480x360 -> 1920x1080",
        "too slow (240 ms), expected at most 120 ms",
        "self-test passed",
        "disk is nearly full: 98.5% used",
        "exit status -9",
        "",
    ],
)
def test_plain_words_pass(text: str) -> None:
    assert plain_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "cannot read /data/Jane Doe/clip.mp4",
        "cannot read clip.mp4: no such file",
        "rtsp://user:secret@camera.local/stream went away",
        "camera 10.0.0.7 does not answer",
        "no route to fe80::1",
        "host camera-3.ward.example is down",
        "v4l2:///dev/video0",
        "open 'Jane Doe' failed",
        'open "Jane Doe" failed',
        "user=jane",
        "C:\\clips\\a",
        "token 0f3a9c77e1",
        "patient_jane_doe",
        "jane@ward",
        "Zoë Müller",
        "x" * 25,
    ],
)
def test_what_may_be_a_name_is_withheld(text: str) -> None:
    assert plain_text(text) == WITHHELD


def test_a_name_of_plain_words_is_withheld_when_given() -> None:
    assert plain_text("lost Jane Doe now") == "lost Jane Doe now"
    assert plain_text("lost JANE Doe now", names=("jane doe",)) == WITHHELD
    assert plain_text("lost", names=("",)) == "lost", "an empty name is in every text"


@given(st.text(max_size=300))
def test_plain_text_never_lets_signs_of_paths_and_addresses_through(text: str) -> None:
    shown = plain_text(text)
    assert shown.isascii() and len(shown) <= 120
    assert not set(shown) & set('\\@="_<>&?#~*|`$')
    assert all(word == "/" for word in shown.split() if "/" in word)


def test_kinds_are_lower_case_words() -> None:
    assert plain_kind("ai off") == "ai off"
    assert plain_kind("/dev/video0") == plain_kind("Jane") == plain_kind("") == "event"


def test_the_text_holds_no_name_anywhere() -> None:
    secret = "rtsp://jane:pw@10.1.2.3/Jane Doe.mp4"
    status = replace(
        STATUS,
        ai_reason=f"{secret} failed",
        recording_note=f"{secret} is full",
        dropped={secret: 3, "not taken": 1},
        events=(StatusEvent("2026-01-02T03:04:05+00:00", secret, secret),),
    )
    text = status.to_json(names=("jane",)).decode().lower()
    for piece in ("jane", "doe", "10.1.2.3", "rtsp", "mp4", "pw@"):
        assert piece not in text
    assert json.loads(text)["dropped"]["not taken"] == 1


def test_the_largest_status_fits_the_board() -> None:
    word = " ".join(["wordword"] * 100)
    status = replace(
        STATUS,
        ai_reason=word,
        recording_note=word,
        received=2**62,
        shown=2**62,
        dropped={f"{'cause ' * 20}{chr(97 + i % 26)}{chr(97 + i // 26)}": 2**62 - i for i in range(500)},
        events=tuple(StatusEvent("9" * 100, "k" * 40, word) for _ in range(100)),
    )
    text = status.to_json()
    assert len(text) <= STATUS_CAPACITY_BYTES
    document = read_status(text)
    assert len(document["events"]) == MAX_EVENTS


def test_the_newest_events_are_kept_and_in_order() -> None:
    events = tuple(StatusEvent("t", "ai off", str(number)) for number in range(30))
    document = read_status(replace(STATUS, events=events).to_json())
    assert [event["detail"] for event in document["events"]] == [str(number) for number in range(10, 30)]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b'{"ai":"maybe"}', b"\xff\xfe"])
def test_what_is_no_status_is_refused(text: bytes) -> None:
    with pytest.raises(BadInputError, match="is not a status"):
        read_status(text)


def test_delays_are_those_of_the_last_minute() -> None:
    window = DelayWindow.of_markers()
    for second in range(200):
        window.add(500.0 if second < 100 else 10.0, float(second))
    delays = window.summary(199.5)
    assert delays.count == 60 and delays.max == 10.0 and delays.bars[0] == 60 and sum(delays.bars) == 60
    assert window.summary(1e6).count == 0


def test_a_delay_at_the_limit_is_within_it() -> None:
    window = DelayWindow.of_video()
    limit = VIDEO_DELAY_EDGES_MS.index(VIDEO_DELAY_LIMIT_MS)
    window.add(VIDEO_DELAY_LIMIT_MS, 0.0)
    assert window.summary(0.0).bars[limit - 1] == 1
    window.add(VIDEO_DELAY_LIMIT_MS + 0.001, 0.0)
    assert window.summary(0.0).bars[limit] == 1
    assert 120.0 in MARKER_DELAY_EDGES_MS


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=300))
def test_percentiles_and_bars_are_numpys(values_ms: list[float]) -> None:
    window = DelayWindow.of_markers()
    for value_ms in values_ms:
        window.add(value_ms, 5.0)
    delays = window.summary(5.0)
    assert sum(delays.bars) == delays.count == len(values_ms)
    for percent, value in ((50, delays.p50), (95, delays.p95), (99, delays.p99), (100, delays.max)):
        rank = max(1, int(np.ceil(len(values_ms) * percent / 100 - 1e-9)))
        assert value == pytest.approx(sorted(values_ms)[rank - 1], abs=6e-4)
    for index, low in enumerate(MARKER_DELAY_EDGES_MS):
        high = MARKER_DELAY_EDGES_MS[index + 1] if index + 1 < len(MARKER_DELAY_EDGES_MS) else np.inf
        inside = sum(1 for value in values_ms if (low < value or index == 0) and value <= high)
        assert delays.bars[index] == inside
