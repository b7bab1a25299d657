"""sources.capture: files and rendered clips at their own speed, pipes, and a source's faults."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video.live.cameras import PipeCamera, grainy, next_frame, take_all, wait_until
from tests.video.small_videos import write_tracks
from vmkla.errors import BadInputError, MissingDependencyError, UsageError
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import SignalState
from vmkla.video.live.sources import playback
from vmkla.video.live.sources.cameras import CameraContext, CaptureLimits
from vmkla.video.live.sources.capture import Capture
from vmkla.video.live.sources.health import HealthLimits
from vmkla.video.media.address import parse_address
from vmkla.video.media.rgb import RgbConverter

LIMITS = CaptureLimits(HealthLimits(stall_s=0.3, black_s=0.1, frozen_s=0.3), retry_s=0.02, retry_max_s=0.1)
Start = Callable[..., Capture]
WriteClip = Callable[..., Path]
MakeFrames = Callable[..., list[np.ndarray]]


@pytest.fixture
def events() -> EventLog:
    return EventLog(None)


@pytest.fixture
def start(events: EventLog) -> Iterator[Start]:
    started: list[Capture] = []

    def begin(address: str | Path, *, loop: bool = False, limits: CaptureLimits = LIMITS) -> Capture:
        capture = Capture(parse_address(str(address)), events, loop=loop, limits=limits)
        started.append(capture)
        capture.start()
        return capture

    yield begin
    for capture in started:
        capture.close()


def details(events: EventLog, kind: str) -> list[str]:
    return [event.detail for event in events.recent(200) if event.kind == kind]


class TestFile:
    def test_every_frame_at_its_own_time(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames, read_back: Callable[..., tuple]
    ) -> None:
        path = write_clip("a.mp4", make_frames(10, 48, 64), rate=Fraction(10))
        capture = start(path)
        frames = take_all(capture)
        expected = read_back(path)[0]
        assert [frame.sequence for frame in frames] == list(range(1, 11))
        for frame, rgb in zip(frames, expected, strict=True):
            assert np.abs(frame.rgb.astype(int) - rgb).mean() < 3 and not frame.rgb.flags.writeable
        span_s = frames[-1].captured_s - frames[0].captured_s
        assert 0.5 < span_s < 9  # nine steps of 0.1 s, give or take what a busy machine adds to one
        assert capture.counts.received == 10 and capture.counts.dropped == {} and capture.error is None

    def test_a_frame_is_given_when_it_is_due_and_not_before(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames
    ) -> None:
        pts = [0, 1, 2, 40]
        path = write_clip("a.mkv", make_frames(4, 48, 64), pts=pts, time_base=Fraction(1, 50))
        begun_s = time.monotonic()
        last = take_all(start(path))[-1]
        assert last.captured_s - begun_s >= 0.8

    def test_the_next_frame_is_made_when_this_one_was_shown(
        self, write_clip: WriteClip, make_frames: MakeFrames, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []

        class Noting(RgbConverter):
            def __call__(self, frame: Any) -> Any:
                order.append("made")
                return super().__call__(frame)

        monkeypatch.setattr(playback, "RgbConverter", Noting)
        context = CameraContext(LIMITS, threading.Event(), lambda *_: None, lambda: order.append("shown"))
        path = write_clip("a.mp4", make_frames(3, 48, 64), rate=Fraction(50))
        for _ in playback.FileCamera(parse_address(str(path)), context, loop=False).shots():
            order.append("given")
        assert order == ["made", "given", "shown"] * 3

    def test_newest_wins_and_the_others_are_counted(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames
    ) -> None:
        capture = start(write_clip("a.mp4", make_frames(12, 48, 64), rate=Fraction(50)))
        wait_until(lambda: capture.counts.received == 12, "all pictures were read")
        frame = capture.take(0)
        assert frame is not None and frame.sequence == 12
        assert capture.counts.dropped == {"not taken": 11}
        wait_until(lambda: capture.ended, "the end")
        assert capture.take(1.0) is None

    def test_a_loop_goes_on_at_the_same_pace(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames
    ) -> None:
        capture = start(write_clip("a.mp4", make_frames(5, 48, 64), rate=Fraction(25)), loop=True)
        frames = [next_frame(capture) for _ in range(17)]
        assert [frame.sequence for frame in frames] == sorted({p.sequence for p in frames})
        steps = frames[-1].sequence - frames[0].sequence
        assert frames[-1].captured_s - frames[0].captured_s > 0.02 * steps
        assert np.array_equal(frames[0].rgb, next(
            p.rgb for p in frames[1:] if (p.sequence - frames[0].sequence) % 5 == 0
        ))  # fmt: skip
        assert not capture.ended and capture.counts.opened == 1

    def test_a_replaced_file_is_seen_at_the_next_beginning(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames, events: EventLog
    ) -> None:
        path = write_clip("a.mp4", make_frames(8, 48, 64))
        other = write_clip("b.mp4", make_frames(8, 64, 96))
        capture = start(path, loop=True)
        assert next_frame(capture).rgb.shape == (48, 64, 3)
        os.replace(other, path)
        wait_until(lambda: next_frame(capture).rgb.shape == (64, 96, 3), "the new file")
        assert details(events, "source format") == ["64x48 became 96x64"]

    def test_a_file_that_goes_away_and_comes_back(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames, events: EventLog
    ) -> None:
        path = write_clip("a.mp4", make_frames(5, 48, 64))
        capture = start(path, loop=True)
        next_frame(capture)
        hidden = path.rename(path.with_name("hidden.mp4"))
        wait_until(lambda: capture.take(0.01) is None and capture.signal is SignalState.LOST, "lost")
        assert capture.trouble and str(path) not in capture.trouble
        shutil.copy(hidden, path)
        next_frame(capture)
        assert capture.signal is SignalState.GOOD and not capture.trouble
        assert details(events, "signal") == ["lost became good", "good became lost", "lost became good"]

    def test_cut_off_and_spoilt_files_are_played_as_far_as_they_go(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames, events: EventLog
    ) -> None:
        path = write_clip("a.ts", make_frames(20, 144, 176), rate=Fraction(50))
        data = bytearray(path.read_bytes())
        for offset in range(len(data) // 2, len(data) // 2 + 3000, 3):
            data[offset] ^= 0xFF
        path.write_bytes(data[: len(data) * 9 // 10])
        capture = start(path)
        frames = take_all(capture)
        assert 5 < len(frames) < 20
        lost = capture.counts.dropped.get("undecodable", 0) + capture.counts.damaged
        assert lost > 0 and capture.error is None

    def test_what_can_never_be_played_is_said_at_once(self, start: Start, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="there is no file"):
            start(tmp_path / "gone.mp4")
        (tmp_path / "text.mp4").write_text("no video")
        with pytest.raises(BadInputError, match="is not a video"):
            start(tmp_path / "text.mp4")
        with pytest.raises(MissingDependencyError, match="GStreamer"):
            start("gst:videotestsrc ! appsink")


class TestSample:
    def test_a_camera_that_never_ends_and_never_cuts(self, start: Start) -> None:
        capture = start("sample://?seed=3&size=64x48&fps=100&seconds=0.1")
        frames = [next_frame(capture) for _ in range(25)]
        assert not capture.ended and frames[0].rgb.shape == (48, 64, 3)
        for before, after in zip(frames, frames[1:], strict=False):
            if after.sequence == before.sequence + 1:
                assert not np.array_equal(before.rgb, after.rgb)
                assert np.abs(before.rgb.astype(int) - after.rgb).mean() < 30

    def test_a_large_one_is_enlarged(self, start: Start) -> None:
        capture = start("sample://?size=1280x720&seconds=0.1&fps=20")
        assert next_frame(capture).rgb.shape == (720, 1280, 3)

    @pytest.mark.parametrize("size", ["16x16", "9000x9000"])
    def test_sizes_that_make_no_sense(self, start: Start, size: str) -> None:
        with pytest.raises(UsageError):
            start(f"sample://?size={size}")


class TestStrangeFiles:
    def test_of_two_tracks_the_largest_is_played(self, start: Start, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mkv", [(64, 48), (192, 144)])
        capture = start(path)
        assert {frame.rgb.shape for frame in take_all(capture)} == {(144, 192, 3)}
        assert capture.describe()["track"] == 2 and len(capture.describe()["tracks"]) == 2

    def test_a_change_of_size_goes_on(
        self, start: Start, write_clip: WriteClip, make_frames: MakeFrames, events: EventLog, tmp_path: Path
    ) -> None:
        parts = [write_clip(f"{w}.h264", make_frames(4, h, w)) for h, w in ((48, 64), (96, 128))]
        both = tmp_path / "both.h264"
        both.write_bytes(b"".join(part.read_bytes() for part in parts))
        shapes = [frame.rgb.shape[:2] for frame in take_all(start(both))]
        assert shapes == [(48, 64)] * 4 + [(96, 128)] * 4
        assert details(events, "source format") == ["64x48 became 128x96"]

    def test_a_playlist_in_a_pipe_opens_no_file(
        self, start: Start, events: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file that it names is a pipe itself: who opens it to read waits there."""
        monkeypatch.chdir(tmp_path)  # a script's names are relative to where the reader stands
        os.mkfifo(tmp_path / "camera")
        os.mkfifo(tmp_path / "part.ts")
        capture = start(tmp_path / "camera")
        with open(tmp_path / "camera", "wb") as pipe:
            pipe.write(b"ffconcat version 1.0\nfile part.ts\n" + b"#\n" * 4096)
        try:
            wait_until(lambda: "source lost" in [event.kind for event in events.recent(50)], "the refusal")
        finally:
            os.close(os.open(tmp_path / "part.ts", os.O_RDWR))  # lets a reader go on
        assert capture.counts.received == 0


class TestPipe:
    @pytest.fixture
    def camera(self, tmp_path: Path) -> PipeCamera:
        return PipeCamera(tmp_path / "camera")

    def test_frames_come_when_they_are_written(self, start: Start, camera: PipeCamera) -> None:
        capture = start(camera.path)
        camera.connect()
        for level in range(30, 90, 5):
            camera.show(grainy(level))
        first = next_frame(capture)
        for level in range(90, 150, 5):
            camera.show(grainy(level))
        wait_until(lambda: next_frame(capture).rgb.mean() > 130, "the newest picture")
        assert first.rgb.mean() < 90

    def test_stall_and_return(self, start: Start, camera: PipeCamera, events: EventLog) -> None:
        capture = start(camera.path)
        camera.connect()
        for level in range(30, 60):
            camera.show(grainy(level))
        next_frame(capture)
        wait_until(lambda: capture.take(0.01) is None and capture.signal is SignalState.LOST, "a stall")
        for level in range(100, 140):
            camera.show(grainy(level))
        wait_until(lambda: next_frame(capture).rgb.mean() > 110, "the picture after it")
        assert capture.signal is SignalState.GOOD and capture.counts.opened == 1
        assert details(events, "signal") == ["lost became good", "good became lost", "lost became good"]

    def test_dies_and_comes_back(self, start: Start, camera: PipeCamera, events: EventLog) -> None:
        capture = start(camera.path)
        for begin in (30, 150):
            camera.connect()
            for level in range(begin, begin + 40):
                camera.show(grainy(level))
            wait_until(lambda begin=begin: next_frame(capture).rgb.mean() > begin + 20, "the camera")
            camera.hang_up()
            wait_until(lambda: capture.take(0.01) is None and capture.signal is SignalState.LOST, "its end")
        assert capture.counts.opened == 2
        assert details(events, "source open") == ["64x48"] * 2
        assert details(events, "source lost")[0] == "the source ended"

    def test_another_size_in_flight(self, start: Start, camera: PipeCamera, events: EventLog) -> None:
        capture = start(camera.path)
        camera.connect()
        for level in range(30, 60):
            camera.show(grainy(level))
        for level in range(60, 90):
            camera.show(grainy(level, (64, 96)))
        wait_until(lambda: next_frame(capture).rgb.shape == (64, 96, 3), "the other size")
        assert details(events, "source format") == ["64x48 became 96x64"] and capture.counts.opened == 1

    def test_black_and_frozen(self, start: Start, camera: PipeCamera) -> None:
        capture = start(camera.path)
        camera.connect()
        for level in range(30, 60):
            camera.show(grainy(level))
        for frame, state in (
            (np.full((48, 64, 3), 2, np.uint8), SignalState.BLACK),
            (grainy(120), SignalState.FROZEN),
        ):

            def shown(frame: np.ndarray = frame, state: SignalState = state) -> bool:
                camera.show(frame)
                capture.take(0.02)
                return capture.signal is state

            wait_until(shown, state.value)
        levels = itertools.cycle(range(100, 200))

        def moving() -> bool:
            camera.show(grainy(next(levels)))
            capture.take(0.02)
            return capture.signal is SignalState.GOOD

        wait_until(moving, "a moving picture")

    def test_rubbish_between_frames(self, start: Start, camera: PipeCamera) -> None:
        capture = start(camera.path)
        camera.connect()
        for level in range(30, 60):
            camera.show(grainy(level))
        next_frame(capture)
        rng = np.random.default_rng(0)
        for level in range(60, 160, 10):
            camera.send(b"\xff\xd8\xff\xdb" + rng.bytes(200))
            camera.show(grainy(level))
        levels = itertools.cycle(range(170, 220))

        def goes_on() -> bool:
            camera.show(grainy(next(levels)))
            frame = capture.take(0.02)
            return frame is not None and frame.rgb.mean() > 160

        wait_until(goes_on, "the pictures after it")
        assert capture.counts.damaged + capture.counts.dropped.get("undecodable", 0) > 0
        assert capture.counts.opened == 1

    def test_closing_does_not_wait_for_a_silent_camera(self, start: Start, camera: PipeCamera) -> None:
        capture = start(camera.path)
        camera.connect()
        camera.show(grainy(30))
        begun_s = time.monotonic()
        capture.close()
        assert time.monotonic() - begun_s < 3
        assert capture.take(0) is None

    def test_a_pipe_that_is_gone_is_said_at_once(self, start: Start, camera: PipeCamera) -> None:
        address = parse_address(str(camera.path))
        camera.path.unlink()
        with pytest.raises(BadInputError, match="cannot be read"):
            Capture(address, EventLog(None)).start()


class TestHanging:
    """A driver that blocks cannot be had from a file, so the camera here is one that does."""

    def test_a_source_that_hangs_is_left_behind(
        self, events: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        capture = Capture(
            parse_address("sample://?size=64x48&seconds=0.1"), events, limits=CaptureLimits(close_s=0.1)
        )
        release = threading.Event()

        def hang() -> Iterator[None]:
            release.wait()
            yield from ()

        monkeypatch.setattr(capture._camera, "shots", hang)
        capture.start()
        assert capture.take(0.05) is None and capture.signal is SignalState.LOST
        begun_s = time.monotonic()
        capture.close()
        assert time.monotonic() - begun_s < 5
        assert details(events, "source left")
        release.set()

    def test_an_unexpected_error_is_a_loss_and_not_the_end(
        self, events: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        capture = Capture(parse_address("sample://?size=64x48&seconds=0.1"), events, limits=LIMITS)
        good, failures = capture._camera.shots, iter([True, True])

        def shots() -> Iterator[object]:
            if next(failures, False):
                raise RuntimeError("driver bug")
            yield from good()

        monkeypatch.setattr(capture._camera, "shots", shots)
        capture.start()
        next_frame(capture)
        capture.close()
        assert details(events, "source lost") == ["unexpected RuntimeError"]
