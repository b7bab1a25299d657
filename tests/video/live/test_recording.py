"""recording.recorder: a process that may be killed, stopped or starved of disk beside the frame."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests import FIND_TESTS
from vmkla.errors import BadInputError
from vmkla.segment.preprocess import Rect
from vmkla.video.live.events import EventLog
from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.recording.disk_writer import read_index
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.recording.recorder import Recorder
from vmkla.video.live.shared_memory.ring import FrameRing

DEADLINE_S = 30.0


def until(what: str, true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end_s, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.01)


def frames_of(path: Path) -> tuple[list[float], set[tuple[int, int]]]:
    """Times and sizes of the frames that can be played."""
    times, sizes = [], set()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            for frame in container.decode(stream):
                assert frame.pts is not None
                times.append(float(frame.pts * stream.time_base))
                sizes.add((frame.height, frame.width))
    except (av.FFmpegError, IndexError):
        return times, sizes
    return times, sizes


class Feed:
    """A display that shows 30 frames a second, to two rings."""

    def __init__(self) -> None:
        self.raw, self.shown = FrameRing(), FrameRing()
        self.hw = (96, 128)
        self.published: list[tuple[int, float]] = []
        self.longest_publish_s = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(90, 160, (512, 512, 3)).astype(np.uint8)
        while not self._end.wait(1 / 30):
            number = len(self.published) + 1
            rgb = np.resize(noise[: self.hw[0]], (*self.hw, 3))
            rgb[40:50, number % 100 : number % 100 + 10] = 240
            frame = LiveFrame(number, time.monotonic(), rgb)
            marked = rgb.copy()
            marked[60:70, 60:70] = (0, 255, 0)
            self.raw.publish(frame)
            self.shown.publish(LiveFrame(number, frame.captured_s, marked))
            self.longest_publish_s = max(self.longest_publish_s, time.monotonic() - frame.captured_s)
            self.published.append((number, frame.captured_s))

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.raw.close()
        self.shown.close()


@pytest.fixture
def feed() -> Iterator[Feed]:
    feed = Feed()
    feed.start()
    yield feed
    feed.close()


@pytest.fixture
def record(tmp_path: Path, feed: Feed) -> Iterator[Callable[..., tuple[Recorder, EventLog]]]:
    made: list[Recorder] = []

    def start(**options: Any) -> tuple[Recorder, EventLog]:
        events = EventLog(None)
        wanted = RecordOptions(**{"segment_s": 1.0, "min_free_bytes": 0, **options})
        recorder = Recorder(tmp_path / "rec", feed.raw.subscribe(), feed.shown.subscribe(), wanted, events)
        made.append(recorder)
        recorder.start()
        return recorder, events

    yield start
    for recorder in made:
        recorder.close()


def written(recorder: Recorder) -> int:
    return int(recorder.counts["streams"].get("raw", {}).get("written", 0))


def kinds(events: EventLog) -> list[str]:
    return [event.kind for event in events.recent(200)]


def closed_rows(folder: Path, stream: str) -> list[dict[str, Any]]:
    rows = [row for row in read_index(folder) if row["event"] == "closed" and row["stream"] == stream]
    return sorted(rows, key=lambda row: str(row["file"]))


def test_both_streams_with_every_frame_at_its_time(
    tmp_path: Path, feed: Feed, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    before = os.umask(0)
    try:
        recorder, events = record(hide=(Rect(0, 0, 40, 20),))
    finally:
        os.umask(before)
    until("recording", lambda: recorder.state == (True, ""))
    until("two segments", lambda: written(recorder) > 40)
    feed.hw = (144, 192)
    until("another size", lambda: written(recorder) > 70)
    recorder.close()
    assert recorder.state == (False, "ended") and kinds(events)[-1] == "recording off"

    folder = tmp_path / "rec"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    captured = dict(feed.published)
    for stream in ("raw", "overlay"):
        counts = recorder.counts["streams"][stream]
        rows = closed_rows(folder, stream)
        found: dict[int, float] = {}
        for row in rows:
            times, sizes = frames_of(folder / row["file"])
            assert sizes == {(row["height"], row["width"])} and len(times) == row["frames"]
            gone = {n for first, last in row["gaps"] for n in range(first, last + 1)}
            numbers = [n for n in range(row["first_sequence"], row["last_sequence"] + 1) if n not in gone]
            found.update(zip(numbers, (row["first_captured_s"] + time_s for time_s in times), strict=True))
        assert len({row["width"] for row in rows}) == 2 and len(rows) >= 3
        assert len(found) == counts["written"] > 70
        # Each frame from the first on is written or counted as missed.
        assert len(found) + counts["missed"] == max(found) - min(found) + 1
        assert max(abs(captured[n] - time_s) for n, time_s in found.items()) < 1e-6


@pytest.mark.slow
def test_a_stopped_recorder_holds_up_nobody_and_what_it_missed_is_counted(
    feed: Feed, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    recorder, events = record()
    until("recording", lambda: written(recorder) > 5)
    assert recorder.pid is not None
    os.kill(recorder.pid, signal.SIGSTOP)
    before = len(feed.published)
    until("the silence is noticed", lambda: recorder.state == (False, "the recorder does not answer"))
    until("pictures go on", lambda: len(feed.published) > before + 30)
    os.kill(recorder.pid, signal.SIGCONT)
    until("it goes on too", lambda: recorder.state == (True, ""))
    goes_on = written(recorder)
    until("pictures are written", lambda: written(recorder) > goes_on + 5)
    recorder.close()
    for counts in recorder.counts["streams"].values():
        assert counts["missed"] >= 20
    assert recorder.restarts == 0 and "recording missed" in kinds(events)
    assert feed.longest_publish_s < 2


@pytest.mark.slow
def test_a_killed_recorder_is_started_anew_and_overwrites_nothing(
    tmp_path: Path, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    recorder, events = record()
    until("the second segment", lambda: len(list((tmp_path / "rec").glob("raw-*"))) >= 2)
    written_before = written(recorder)
    assert recorder.pid is not None
    os.kill(recorder.pid, signal.SIGKILL)
    until("it is known", lambda: not recorder.state[0])
    earlier = {path: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "rec").glob("*.mp4")}
    until("it records again", lambda: recorder.state[0] and written(recorder) > written_before + 20)
    recorder.close()
    assert recorder.restarts == 1 and kinds(events).count("recorder died") == 1
    for path, digest in earlier.items():
        assert hashlib.sha256(path.read_bytes()).digest() == digest
    later = [path for path in (tmp_path / "rec").glob("*.mp4") if path not in earlier]
    assert later and min(path.name[-10:] for path in later) > max(path.name[-10:] for path in earlier)
    # At the time of the kill at most the frame in hand was not in the open files.
    playable = sum(len(frames_of(path)[0]) for path in earlier if path.name.startswith("raw"))
    assert playable >= written_before - 2
    counts = recorder.counts["streams"]["raw"]
    assert counts["missed"] >= 10  # of the half second before the new process, and of its start


ALONE = """
import sys, threading, time
from pathlib import Path
from tests.video.live.test_recording import Feed
from vmkla.video.live.events import EventLog
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.recording.recorder import Recorder

if __name__ == "__main__":
    feed = Feed()
    feed.start()
    options = RecordOptions(segment_s=1.0, min_free_bytes=0)
    readers = feed.raw.subscribe(), feed.shown.subscribe()
    recorder = Recorder(Path(sys.argv[1]), *readers, options, EventLog(None))
    recorder.start()
    while recorder.counts["streams"].get("raw", {}).get("written", 0) < 75:
        time.sleep(0.01)
    print(recorder.pid, len(feed.published), flush=True)
    while True:
        time.sleep(0.01)
        print(len(feed.published), flush=True)
"""


def start_alone(folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A display process of its own; it and the recorder's number, once two segments are closed."""
    script = folder.parent / "alone.py"
    script.write_text(FIND_TESTS + ALONE)
    display = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert display.stdout is not None
    return display, int(display.stdout.readline().split()[0])


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@pytest.mark.slow
def test_kill_of_everything_loses_no_whole_segment_and_one_frame_of_the_open_one(tmp_path: Path) -> None:
    display, recorder = start_alone(tmp_path / "rec")
    os.kill(recorder, signal.SIGKILL)
    display.kill()
    display.communicate()
    for stream in ("raw", "overlay"):
        rows = closed_rows(tmp_path / "rec", stream)
        assert len(rows) >= 2
        whole = 0
        for row in rows:
            times, _ = frames_of(tmp_path / "rec" / row["file"])
            assert len(times) == row["frames"]
            whole += len(times)
        files = sorted((tmp_path / "rec").glob(f"{stream}-*.mp4"))
        cut = [path for path in files if path.name not in {row["file"] for row in rows}]
        assert len(cut) <= 1
        whole += sum(len(frames_of(path)[0]) for path in cut)
        assert whole >= 75 - 12  # 75 of the raw ones were encoded; the other stream may be a ring behind


@pytest.mark.slow
def test_the_recorder_finishes_when_the_display_is_killed(tmp_path: Path) -> None:
    display, recorder = start_alone(tmp_path / "rec")
    display.kill()
    display.communicate()
    until("the recorder ends", lambda: gone(recorder))
    for stream in ("raw", "overlay"):
        rows = closed_rows(tmp_path / "rec", stream)
        files = {path.name for path in (tmp_path / "rec").glob(f"{stream}-*.mp4")}
        assert files == {row["file"] for row in rows}
        for row in rows:
            assert len(frames_of(tmp_path / "rec" / row["file"])[0]) == row["frames"]


def test_a_disk_that_takes_no_more_ends_recording_and_nothing_else(
    tmp_path: Path, feed: Feed, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    """A limit of the account stands in for the disk: files of the recorder end at 60 kB, in a frame."""
    recorder, events = record(segment_s=60.0)
    assert recorder.pid is not None
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    until("recording ends", lambda: recorder.state == (False, "disk: File too large"))
    shown = len(feed.published)
    until("pictures go on", lambda: len(feed.published) > shown + 10)
    until("the process ends", lambda: recorder.pid is None or gone(recorder.pid))
    assert recorder.restarts == 0 and "recorder died" not in kinds(events)
    recorder.close()
    assert recorder.state == (False, "disk: File too large")
    rows = {row["file"]: row for row in read_index(tmp_path / "rec") if row["event"] == "closed"}
    assert set(rows) == {"raw-000001.mp4", "overlay-000001.mp4"}
    for name, row in rows.items():
        path = tmp_path / "rec" / name
        assert path.stat().st_size == row["bytes"] <= 60_000
        assert len(frames_of(path)[0]) == row["frames"]
    assert max(row["frames"] for row in rows.values()) >= 2


def test_too_little_space_is_said_before_anything_starts(
    record: Callable[..., tuple[Recorder, EventLog]], tmp_path: Path
) -> None:
    free = os.statvfs(tmp_path)
    with pytest.raises(BadInputError, match="MB free, and recording keeps"):
        record(min_free_bytes=2 * free.f_bavail * free.f_frsize + (1 << 30))


def test_a_region_that_is_not_in_the_frame_ends_recording(
    tmp_path: Path, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    recorder, events = record(hide=(Rect(900, 10, 20, 20),))
    wanted = (False, "rectangle 900,10,20,20 is not in the frame of 128x96")
    until("it is said", lambda: recorder.state == wanted)
    until("the process ends", lambda: recorder.pid is None or gone(recorder.pid))
    assert not list((tmp_path / "rec").glob("*.mp4")) and recorder.restarts == 0


def test_an_error_that_nobody_expected_is_logged_and_outlived(
    feed: Feed, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    """The encoder refuses frames of more than 16384 columns."""
    recorder, events = record()
    until("recording", lambda: written(recorder) > 3)
    feed.hw = (2, 20_000)  # every frame from now on: the recorder takes the newest, and may miss a single one
    until("it died", lambda: "recorder died" in kinds(events))
    died = next(event for event in events.recent(200) if event.kind == "recorder died")
    assert "SegmentMp4" in died.facts["trace"] and "/" not in died.detail
    feed.hw = (96, 128)
    until("it records again", lambda: recorder.restarts >= 1 and recorder.state == (True, ""))


def test_told_to_end_it_finishes_and_stays_away(
    tmp_path: Path, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    recorder, _ = record()
    until("recording", lambda: written(recorder) > 5)
    assert recorder.pid is not None
    os.kill(recorder.pid, signal.SIGINT)  # Ctrl-C is the display's
    os.kill(recorder.pid, signal.SIGTERM)
    until("it is over", lambda: recorder.state == (False, "the recorder was told to end"))
    files = {path.name for path in (tmp_path / "rec").glob("*.mp4")}
    rows = [*closed_rows(tmp_path / "rec", "raw"), *closed_rows(tmp_path / "rec", "overlay")]
    assert files == {row["file"] for row in rows} and files
    assert recorder.restarts == 0


@pytest.mark.slow
def test_segments_of_both_streams_cover_the_same_time(
    tmp_path: Path, record: Callable[..., tuple[Recorder, EventLog]]
) -> None:
    recorder, _ = record(segment_s=0.5)
    until("several segments", lambda: written(recorder) > 75)
    recorder.close()
    raw, overlay = closed_rows(tmp_path / "rec", "raw"), closed_rows(tmp_path / "rec", "overlay")
    assert len(raw) >= 4
    for one, other in zip(raw[1:-1], overlay[1:-1], strict=False):
        assert one["file"][-10:] == other["file"][-10:]
        assert abs(Fraction(one["first_captured_s"]) - Fraction(other["first_captured_s"])) < Fraction(1, 2)
