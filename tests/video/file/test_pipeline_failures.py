"""The file pipeline when something goes wrong: its own error, no hang, and outputs that can be used."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests import FIND_TESTS
from vmkla import files
from vmkla.errors import BadInputError, StoppedError, VmklaError
from vmkla.video.cancellation import Cancellation
from vmkla.video.file import writer
from vmkla.video.file.pipeline import Progress, SegmentOptions, segment
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.images import write_png
from vmkla.video.media.sinks import JsonlSink, VideoSink

Image = npt.NDArray[np.uint8]
WriteClip = Callable[..., Path]
MakeFrames = Callable[..., list[Image]]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]

FRAMES = 60
LIMIT_S = 20.0


@pytest.fixture
def clip(write_clip: WriteClip, make_frames: MakeFrames) -> Path:
    return write_clip("in.mp4", make_frames(FRAMES, 48, 64))


def in_time(work: Callable[[], Any]) -> BaseException | None:
    """Run on a thread of its own, so that a hang is a failure and not a suite that never ends."""
    caught: list[BaseException | None] = [None]

    def target() -> None:
        try:
            work()
        except BaseException as error:
            caught[0] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "the run hangs"
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("vmkla-")]
    assert left == [], "a stage's thread is left running"
    return caught[0]


def check_playable(out: Path, read_back: ReadBack, *, at_least: int, outcome: str) -> dict[str, Any]:
    """Video, rows and report agree, and nothing temporary is left."""
    images, times, _ = read_back(out / "overlay.mp4")
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text("utf-8").splitlines()]
    report: dict[str, Any] = json.loads((out / "report.json").read_text("utf-8"))
    assert at_least <= len(images) < FRAMES and abs(len(images) - len(rows)) <= 1
    assert times == [Fraction(index, 25) for index in range(len(images))]
    assert report["outcome"] == outcome and report["counts"]["frames"] == len(rows)
    assert not [path.name for path in out.rglob("*") if "partial" in path.name]
    return report


class TestStages:
    def test_runner_fails(self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path) -> None:
        runner = make_runner()
        runner.fail_at = 20
        error = in_time(lambda: segment(runner, clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, RuntimeError) and "fell off the bus" in str(error)
        report = check_playable(tmp_path / "out", read_back, at_least=20, outcome="failed")
        assert report["exit_status"] == 1 and "fell off the bus" in report["message"]
        assert report["counts"]["frames"] == 20

    def test_runner_fails_at_once(self, clip: Path, make_runner: Any, tmp_path: Path) -> None:
        runner = make_runner()
        runner.fail_at = 0
        error = in_time(lambda: segment(runner, clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, RuntimeError)
        assert not (tmp_path / "out").exists()

    def test_runner_gives_nan(
        self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path
    ) -> None:
        runner = make_runner()
        plain = runner.infer

        def infer(frames_rgb: Image) -> npt.NDArray[np.float32]:
            probability: npt.NDArray[np.float32] = plain(frames_rgb)
            if runner.calls == 20:
                probability[0, 0, 0, 0] = np.nan
            return probability

        runner.infer = infer
        error = in_time(lambda: segment(runner, clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, VmklaError) and "NaN" in str(error)
        check_playable(tmp_path / "out", read_back, at_least=19, outcome="failed")

    def test_decoder_fails(
        self,
        clip: Path,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plain = VideoSource.frames

        def frames(self: VideoSource) -> Any:
            for frame in plain(self):
                if frame.index == 30:
                    raise OSError(errno.EIO, "the disk is dying")
                yield frame

        monkeypatch.setattr(VideoSource, "frames", frames)
        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, OSError) and "dying" in str(error)
        report = check_playable(tmp_path / "out", read_back, at_least=30, outcome="failed")
        assert report["counts"]["frames"] == 30  # all that was decoded before went through

    def test_drawing_fails(
        self,
        clip: Path,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        calls = [0]
        plain = writer.draw

        def draw(*arguments: Any) -> Image:
            calls[0] += 1
            if calls[0] == 25:
                raise ValueError("the crayon broke")
            return plain(*arguments)

        monkeypatch.setattr(writer, "draw", draw)
        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, ValueError) and "crayon" in str(error)
        check_playable(tmp_path / "out", read_back, at_least=24, outcome="failed")

    def test_encoder_fails(
        self,
        clip: Path,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plain = VideoSink.write

        def write(self: VideoSink, frame_rgb: Image, pts: int) -> None:
            if self.written == 12:
                raise RuntimeError("no more tape")
            plain(self, frame_rgb, pts)

        monkeypatch.setattr(VideoSink, "write", write)
        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, RuntimeError) and "tape" in str(error)
        check_playable(tmp_path / "out", read_back, at_least=12, outcome="failed")

    @pytest.mark.parametrize("at", [1, 20, FRAMES + 1])
    def test_callback_fails(
        self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path, at: int
    ) -> None:
        calls = [0]

        def progress(_: Progress) -> None:
            calls[0] += 1
            if calls[0] == at:
                raise KeyError("the bar fell over")

        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), progress))
        assert isinstance(error, KeyError)
        images, _, _ = read_back(tmp_path / "out" / "overlay.mp4")
        assert len(images) >= min(at, FRAMES)
        report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
        assert report["outcome"] == "failed" and "fell over" in report["message"]


class TestDisk:
    def test_rows_cannot_be_written(
        self,
        clip: Path,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        plain = JsonlSink.write

        def write(self: JsonlSink, row: dict[str, Any]) -> None:
            if self.rows == 15:
                raise BadInputError(f"cannot write {self.path}: {os.strerror(errno.ENOSPC)}")
            plain(self, row)

        monkeypatch.setattr(JsonlSink, "write", write)
        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, BadInputError) and error.exit_status == 3 and "No space left" in str(error)
        report = check_playable(tmp_path / "out", read_back, at_least=15, outcome="failed")
        assert report["exit_status"] == 3

    def test_video_meets_a_full_disk(
        self,
        write_clip: WriteClip,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Every write fails while the reserve is there, from 100 kB on: the run ends, the video plays."""
        noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3)).astype(np.uint8)
        clip = write_clip("noise.mp4", list(noise))
        out = tmp_path / "out"
        real_write, written = os.write, [0]

        def limited(fd: int, data: bytes) -> int:
            if written[0] > 100_000 and (out / ".reserve.partial").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written[0] += len(data)
            return real_write(fd, data)

        monkeypatch.setattr(os, "write", limited)
        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(out)))
        monkeypatch.undo()
        assert isinstance(error, BadInputError) and "No space left on device" in str(error)
        check_playable(out, read_back, at_least=5, outcome="failed")

    def test_images_meet_a_full_disk(
        self, make_runner: Any, make_frames: MakeFrames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for index, frame in enumerate(make_frames(6, 48, 64)):
            write_png(tmp_path / "in" / f"{index}.png", frame)
        plain = files.create_file

        def limited(path: Path, **how: bool) -> int:
            descriptor = plain(path, **how)
            if len(list((tmp_path / "out" / "overlay").glob("*.png"))) == 3 and "overlay" in str(path):
                os.write(descriptor, bytes(50))
                os.close(descriptor)
                return os.open("/dev/full", os.O_WRONLY)
            return descriptor

        monkeypatch.setattr(files, "create_file", limited)
        error = in_time(lambda: segment(make_runner(), tmp_path / "in", SegmentOptions(tmp_path / "out")))
        monkeypatch.undo()
        assert isinstance(error, BadInputError) and "No space left" in str(error)
        names = sorted(path.name for path in (tmp_path / "out" / "overlay").iterdir())
        assert names == ["0.png", "1.png", "2.png"]
        runner = make_runner()
        segment(runner, tmp_path / "in", SegmentOptions(tmp_path / "out", resume=True))
        assert runner.calls == 3

    def test_output_under_a_file(self, clip: Path, make_runner: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        for out in (tmp_path / "file", tmp_path / "file" / "out"):
            error = in_time(lambda out=out: segment(make_runner(), clip, SegmentOptions(out)))  # type: ignore[misc]
            assert isinstance(error, BadInputError) and "cannot write" in str(error)
        assert (tmp_path / "file").read_text() == "in the way"

    def test_no_permission(
        self, clip: Path, make_runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Simulated, since root may write anywhere."""

        def mkdir(self: Path, *arguments: Any, **options: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

        monkeypatch.setattr(Path, "mkdir", mkdir)
        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out")))
        assert isinstance(error, BadInputError) and "Permission denied" in str(error)
        assert error.exit_status == 3


class TestStopping:
    def test_cancel_without_a_signal(
        self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path
    ) -> None:
        cancel = threading.Event()

        def progress(state: Progress) -> None:
            if state.done >= 10:
                cancel.set()

        result = segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), progress, cancel)
        assert result.outcome == "interrupted"
        check_playable(tmp_path / "out", read_back, at_least=10, outcome="interrupted")

    def test_cancel_before_the_first_frame(self, clip: Path, make_runner: Any, tmp_path: Path) -> None:
        cancel = Cancellation()
        cancel.stop(signal.SIGINT)
        with pytest.raises(StoppedError) as caught:
            segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), cancel=cancel)
        assert caught.value.exit_status == 130
        assert not (tmp_path / "out" / "procedure.html").exists()

    @pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_cancel_by_a_signal(
        self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path, signum: int, status: int
    ) -> None:
        cancel = Cancellation()

        def progress(state: Progress) -> None:
            if state.done >= 10:
                cancel.stop(signum)

        with pytest.raises(StoppedError) as caught:
            segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), progress, cancel)
        assert caught.value.exit_status == status
        report = check_playable(tmp_path / "out", read_back, at_least=10, outcome="interrupted")
        assert report["exit_status"] == status

    @pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_real_signals(
        self, clip: Path, read_back: ReadBack, tmp_path: Path, signum: int, status: int
    ) -> None:
        """A process of its own is sent the signal in the middle of a slow run."""
        script = """
import sys, time
from tests.video.red_runner import RedRunner
from pathlib import Path
from vmkla.errors import VmklaError
from vmkla.video.cancellation import stop_on_signals
from vmkla.video.file.pipeline import SegmentOptions, segment

class SlowRunner(RedRunner):
    def infer(self, frames_rgb):
        time.sleep(0.1)
        return super().infer(frames_rgb)

def progress(state):
    print(state.done, flush=True)

try:
    with stop_on_signals() as cancel:
        segment(SlowRunner(), sys.argv[1], SegmentOptions(Path(sys.argv[2])), progress, cancel)
except VmklaError as error:
    sys.exit(error.exit_status)
"""
        out = tmp_path / "out"
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", FIND_TESTS + script, str(clip), str(out)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 5:
                break
        sent = time.monotonic()
        process.send_signal(signum)
        assert process.wait(LIMIT_S) == status
        assert time.monotonic() - sent < 5
        check_playable(out, read_back, at_least=5, outcome="interrupted")

    def test_keyboard_interrupt_without_handlers(
        self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path
    ) -> None:
        def progress(state: Progress) -> None:
            if state.done >= 10:
                raise KeyboardInterrupt

        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), progress))
        assert isinstance(error, KeyboardInterrupt)
        report = check_playable(tmp_path / "out", read_back, at_least=10, outcome="interrupted")
        assert report["exit_status"] == 130

    def test_a_second_signal_ends_the_process_and_the_report_has_its_status(
        self, clip: Path, make_runner: Any, read_back: ReadBack, tmp_path: Path
    ) -> None:
        def progress(state: Progress) -> None:
            if state.done >= 10:
                raise SystemExit(143)  # what the command line makes of SIGTERM

        error = in_time(lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), progress))
        assert isinstance(error, SystemExit)
        report = check_playable(tmp_path / "out", read_back, at_least=10, outcome="interrupted")
        assert report["exit_status"] == 143

    def test_a_second_ctrl_c_while_the_writer_is_waited_for(
        self,
        clip: Path,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The video is closed only when the writing thread has left it."""
        plain_write, plain_join = VideoSink.write, writer.FrameWriter.join
        joins = [0]

        def slow(self: VideoSink, frame_rgb: Image, pts: int) -> None:
            time.sleep(0.02)
            plain_write(self, frame_rgb, pts)

        def join(self: writer.FrameWriter) -> None:
            joins[0] += 1
            if joins[0] == 1:
                raise KeyboardInterrupt
            plain_join(self)

        monkeypatch.setattr(VideoSink, "write", slow)
        monkeypatch.setattr(writer.FrameWriter, "join", join)
        cancel = Cancellation()

        def progress(state: Progress) -> None:
            if state.done >= 10:
                cancel.stop()

        error = in_time(
            lambda: segment(make_runner(), clip, SegmentOptions(tmp_path / "out"), progress, cancel)
        )
        assert isinstance(error, KeyboardInterrupt)
        check_playable(tmp_path / "out", read_back, at_least=10, outcome="interrupted")
