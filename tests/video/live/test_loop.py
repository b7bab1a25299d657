"""The display loop alone: frames from a list, an AI that says what it is told, a screen that keeps all."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pytest

from vmkla.segment.findings import Findings, Region
from vmkla.segment.preprocess import Rect
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import AiState, FrameLesions, LiveFrame, LiveResult, SignalState
from vmkla.video.live.loop import DisplayLoop
from vmkla.video.live.markers.marker_board import Marker, MarkerBoard
from vmkla.video.live.screen import Shown
from vmkla.video.live.shared_memory.ring import FrameRing
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.tallies import Tallies

SIZE_HW = (90, 120)


@dataclass
class ListedCapture:
    """Gives frames from a list; None in it is a tick without one. Then it has ended."""

    items: deque[LiveFrame | None]
    signal: SignalState = SignalState.GOOD
    ended: bool = False

    def take(self, timeout_s: float) -> LiveFrame | None:
        assert timeout_s < 0.1  # AI OFF must be on the screen within 100 ms
        if not self.items:
            self.ended = True
            return None
        return self.items.popleft()


@dataclass
class ToldAi:
    state: tuple[AiState, str] = (AiState.ON, "")
    marker: Marker | None = None


@dataclass
class KeepingScreen:
    """Keeps what it was shown."""

    frames: list[Shown] = field(default_factory=list)
    handed_over_s: float = 0.0
    closed: bool = False

    def show(self, shown: Shown) -> None:
        self.frames.append(shown)
        self.handed_over_s = time.monotonic()

    def close(self) -> None:
        self.closed = True


def scene(seed: int = 0) -> np.ndarray:
    """A smooth frame; another seed is another scene."""
    import cv2

    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(40, 256, (6, 8, 3), dtype=np.uint8), SIZE_HW[::-1])


def frame(sequence: int, captured_s: float | None = None, rgb: np.ndarray | None = None) -> LiveFrame:
    return LiveFrame(
        sequence, time.monotonic() if captured_s is None else captured_s, scene() if rgb is None else rgb
    )


def result(of: LiveFrame) -> LiveResult:
    """A finding in the middle."""
    height, width = of.rgb.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[30:60, 40:80] = 1
    findings = Findings(mask, (Region(Rect(40, 30, 40, 30), 1200, 1, 0.9, 0.9),), 0.9)
    return LiveResult(of.sequence, of.captured_s, of.captured_s + 0.01, (height, width), findings, {})


class Rig:
    """A loop with all its neighbours."""

    def __init__(self, items: list[LiveFrame | None]) -> None:
        self.capture = ListedCapture(deque(items))
        self.ai = ToldAi()
        self.screen = KeepingScreen()
        self.board = MarkerBoard(max_staleness_s=0.12)
        self.ring, self.shown = FrameRing(4, 1 << 20), FrameRing(4, 1 << 20)
        self.tallies, self.events = Tallies(), EventLog(None)
        self.loop = DisplayLoop(
            cast(Capture, self.capture),
            self.screen,
            self.ai,
            self.ai,
            self.board,
            self.ring,
            self.shown,
            self.tallies,
            self.events,
            max_staleness_s=0.12,
        )

    def run(self) -> list[Shown]:
        assert self.loop.run(lambda: False) == "source ended"
        return self.screen.frames


def test_a_young_result_is_drawn_and_an_old_one_turns_the_ai_off() -> None:
    base = time.monotonic() - 1
    frames = [frame(number, base + 0.05 * number) for number in (1, 2, 3, 4, 5)]
    rig = Rig(list(frames))
    rig.ai.marker = rig.board.prepare(result(frames[0]))
    seen = rig.run()
    assert [shown.status.ai for shown in seen] == [AiState.ON] * 3 + [AiState.OFF] * 2
    assert [shown.marker_sequence for shown in seen] == [1, 1, 1, None, None]
    assert [shown.status.ai_reason for shown in seen[3:]] == ["no result in time"] * 2
    assert seen[1].marker_age_ms == pytest.approx(50) and seen[0].marker_age_ms == 0
    for shown, source in zip(seen, frames, strict=True):
        if shown.marker is None:
            assert shown.rgb is source.rgb
        else:
            outside = ~shown.marker.drawing.covered()
            assert np.array_equal(shown.rgb[outside], source.rgb[outside])
            assert not np.array_equal(shown.rgb, source.rgb)


def test_off_means_untouched_whatever_result_lies_there() -> None:
    source = frame(1)
    for state in (AiState.OFF, AiState.STARTING):
        rig = Rig([source])
        rig.ai.marker, rig.ai.state = rig.board.prepare(result(source)), (state, "worker ended")
        (shown,) = rig.run()
        assert shown.rgb is source.rgb and shown.marker is None
        assert (shown.status.ai, shown.status.ai_reason) == (state, "worker ended")


@pytest.mark.parametrize("asked", [True, False])
def test_a_poor_picture_pauses_the_markers_until_the_next_good_one(asked: bool) -> None:
    base = time.monotonic() - 1
    frames = [frame(number, base + 0.03 * number) for number in (1, 2, 3)]
    rig = Rig(list(frames))
    rig.board = rig.loop._board = MarkerBoard(max_staleness_s=0.12, pause_on_poor=asked)
    markers = deque(
        rig.board.prepare(replace(result(each), lesions=FrameLesions((None,), poor=reason)))
        for each, reason in zip(frames, (None, "blur", None), strict=True)
    )
    take = rig.capture.take

    def take_with_result(timeout_s: float) -> LiveFrame | None:
        if rig.capture.items:
            rig.ai.marker = markers.popleft()
        return take(timeout_s)

    rig.capture.take = take_with_result  # type: ignore[method-assign]
    seen = rig.run()
    paused = (AiState.PAUSED, "poor picture: blur") if asked else (AiState.ON, "")
    states = [(shown.status.ai, shown.status.ai_reason) for shown in seen]
    assert states == [(AiState.ON, ""), paused, (AiState.ON, "")]
    assert [shown.marker is None for shown in seen] == [False, asked, False]
    assert (seen[1].rgb is frames[1].rgb) == asked
    assert (rig.tallies.ai_s[AiState.PAUSED] > 0) == asked and not rig.tallies.off_reasons


@pytest.mark.parametrize("signal", [SignalState.BLACK, SignalState.FROZEN])
def test_a_bad_signal_turns_the_ai_off_and_the_frame_goes_on(signal: SignalState) -> None:
    source = frame(1)
    rig = Rig([source])
    rig.ai.marker, rig.capture.signal = rig.board.prepare(result(source)), signal
    (shown,) = rig.run()
    assert shown.rgb is source.rgb and shown.status.ai is AiState.OFF
    assert shown.status.signal is signal and signal.value in shown.status.ai_reason


def test_a_lost_signal_is_black_and_the_old_marker_never_comes_back() -> None:
    first, after = frame(1), frame(2)
    rig = Rig([first, None, after])
    rig.ai.marker = rig.board.prepare(result(first))
    take = rig.capture.take

    def losing(timeout_s: float) -> LiveFrame | None:
        taken = take(timeout_s)
        rig.capture.signal = SignalState.LOST if taken is None else SignalState.GOOD
        return taken

    rig.capture.take = losing  # type: ignore[method-assign]
    on, black, back = rig.run()
    assert on.marker_sequence == 1
    assert black.sequence == 0 and black.frame is None and black.status.signal is SignalState.LOST
    assert black.status.ai is AiState.OFF and black.rgb.shape == first.rgb.shape
    assert not np.array_equal(black.rgb, first.rgb) and (black.rgb == 0).mean() > 0.8
    assert back.rgb is after.rgb and back.marker is None
    assert rig.tallies.replaced == 1 and rig.tallies.shown == 2


def test_the_ai_going_off_between_two_frames_is_shown_at_once_without_the_marker() -> None:
    first = frame(1)
    rig = Rig([first, None, None, None])
    rig.ai.marker = rig.board.prepare(result(first))
    show = rig.screen.show

    def failing(shown: Shown) -> None:
        show(shown)
        rig.ai.state = (AiState.OFF, "worker ended")

    rig.screen.show = failing  # type: ignore[method-assign]
    on, off = rig.run()
    assert on.marker is not None and not on.again
    assert off.again and off.rgb is first.rgb and off.marker is None and off.status.ai is AiState.OFF
    assert rig.tallies.shown == 1
    assert rig.events.counts == {"screen ai on": 1, "screen ai off": 1}


def test_off_is_not_taken_back_before_the_next_frame() -> None:
    first = frame(1)
    rig = Rig([first, None, None, frame(2)])
    rig.ai.marker = rig.board.prepare(result(first))
    show = rig.screen.show

    def flickering(shown: Shown) -> None:
        show(shown)
        on = len(rig.screen.frames) > 1
        rig.ai.state = (AiState.ON, "") if on else (AiState.OFF, "no result in time")

    rig.screen.show = flickering  # type: ignore[method-assign]
    seen = rig.run()
    assert [(shown.status.ai, shown.again) for shown in seen] == [
        (AiState.ON, False),
        (AiState.OFF, True),
        (AiState.ON, False),
    ]


def test_drawing_that_fails_costs_the_marker_and_not_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    first = frame(1)
    rig = Rig([first, frame(2)])
    rig.ai.marker = rig.board.prepare(result(first))
    monkeypatch.setattr(rig.board, "draw", lambda *_: 1 / 0)
    seen = rig.run()
    assert [shown.rgb is shown.frame.rgb for shown in seen if shown.frame] == [True, True]
    assert {shown.status.ai for shown in seen} == {AiState.OFF}
    assert rig.events.counts["drawing failed"] == 2


def test_frames_go_to_the_others_after_they_were_shown() -> None:
    frames = [frame(number) for number in (1, 2)]
    rig = Rig(list(frames))
    raw, shown_reader = rig.ring.subscribe(), rig.shown.subscribe()
    rig.ai.marker = rig.board.prepare(result(frames[0]))
    order: list[str] = []
    for name, part, call in (("screen", rig.screen, "show"), ("ring", rig.ring, "publish")):
        done = getattr(part, call)
        setattr(part, call, lambda item, done=done, name=name: (order.append(name), done(item)))
    seen = rig.run()
    assert order == ["screen", "ring"] * 2
    for number, shown in enumerate(seen):
        plain, marked = raw.next(), shown_reader.next()
        assert plain is not None and marked is not None
        assert np.array_equal(plain.rgb, frames[number].rgb) and np.array_equal(marked.rgb, shown.rgb)
        assert plain.sequence == marked.sequence == number + 1
    assert not np.array_equal(seen[0].rgb, frames[0].rgb)


def test_a_window_that_is_closed_ends_the_run_and_so_do_time_and_a_stop() -> None:
    rig = Rig([frame(number) for number in range(1, 100)])
    rig.screen.closed = True
    assert rig.loop.run(lambda: False) == "closed" and len(rig.screen.frames) == 1
    rig.screen.closed = False
    assert rig.loop.run(lambda: False, until_s=time.monotonic()) == "time is over"
    assert rig.loop.run(lambda: len(rig.screen.frames) == 10) == "stopped"
    assert len(rig.screen.frames) == 10


def test_figures() -> None:
    base = time.monotonic() - 10
    frames = [frame(number, base + 0.04 * number) for number in range(1, 6)]
    tallies = Tallies(began_s=base)
    rig = Rig([])
    board_marker = rig.board.prepare(result(frames[1]))
    from vmkla.video.live.frame import LiveStatus

    for shown_frame in frames:
        marker = board_marker if shown_frame.sequence >= 3 else None
        status = LiveStatus(AiState.ON) if marker else LiveStatus(AiState.OFF, "too slow")
        shown = Shown(shown_frame.sequence, shown_frame.rgb, shown_frame, status, marker=marker)
        tallies.add(shown, shown_frame.captured_s + 0.002)
    tallies.add(Shown(0, scene(), None, LiveStatus(AiState.OFF, "no signal")), base + 0.5)
    tallies.finish(base + 0.7)
    figures = tallies.to_dict()
    assert (figures["shown"], figures["covered"], figures["replaced"]) == (5, 3, 1)
    assert figures["video_delay_ms"]["p50"] == pytest.approx(2, rel=0.02)
    # Shown first with the third frame, 40 ms after the second, of which it is.
    assert figures["marker_delay_ms"]["max"] == pytest.approx(42, abs=0.1)
    assert tallies.marker_delay_ms.count == 1
    assert figures["longest_gap_ms"] == pytest.approx(40, abs=0.1)
    assert figures["longest_added_gap_ms"] == pytest.approx(0, abs=0.1)
    assert figures["ai_off"] == {"too slow": 1, "no signal": 1}
    assert figures["ai_s"]["off"] == pytest.approx(0.08 + 0.2, abs=1e-3)
    assert figures["ai_s"]["on"] == pytest.approx(0.5 - 0.122, abs=1e-3)
    assert tallies.since_ai_changed_s == pytest.approx(0.2, abs=1e-3)
