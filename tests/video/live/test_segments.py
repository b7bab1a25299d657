"""recording.segments and disk_writer: files that play at any moment, exact times, hidden regions."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.errors import BadInputError, UsageError
from vmkla.segment.preprocess import Rect
from vmkla.video.channel import ChannelClosedError
from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.recording.disk_guard import DiskGuard, RecordingStoppedError
from vmkla.video.live.recording.disk_writer import INDEX, Block, DiskWriter, Index, SegmentFile, read_index
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.recording.segments import (
    SegmentGrid,
    SegmentMp4,
    StreamCounts,
    StreamRecorder,
    last_number,
)

Image = npt.NDArray[np.uint8]
MakeFrames = Callable[..., list[Image]]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]
MICROSECOND = Fraction(1, 1_000_000)


def played(data: bytes) -> list[int]:
    """Times of the frames that a decoder gets out of a file, microseconds."""
    times = []
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            for frame in container.decode(stream):
                assert frame.pts is not None
                times.append(int(frame.pts * stream.time_base / MICROSECOND))
    except (av.FFmpegError, IndexError):
        return times
    return times


def put(data: bytearray, blocks: list[Block]) -> None:
    for at, block in blocks:
        data[at : at + len(block)] = block


def writer(folder: Path, *, min_free_bytes: int = 0, sync_s: float = 2.0) -> DiskWriter:
    guard = DiskGuard(folder, min_free_bytes)
    guard.prepare()
    return DiskWriter(folder, guard, sync_s=sync_s)


def stream_of(disk: DiskWriter, *, segment_s: float = 10.0, rects: tuple[Rect, ...] = ()) -> StreamRecorder:
    return StreamRecorder("raw", disk, SegmentGrid(segment_s), rects, 0, StreamCounts())


class TestMp4:
    @settings(max_examples=15)
    @given(steps=st.lists(st.integers(1, 3_000_000), min_size=0, max_size=20))
    def test_times_are_exact_to_the_microsecond(self, steps: list[int]) -> None:
        times = [sum(steps[:index]) for index in range(len(steps) + 1)]
        mp4, data = SegmentMp4((32, 48)), bytearray()
        for index, pts in enumerate(times):
            put(data, mp4.add(np.full((32, 48, 3), 9 * index % 256, np.uint8), pts))
        assert played(bytes(data)) == times[:-1]  # not closed: all but the last one
        put(data, mp4.close())
        assert played(bytes(data)) == times

    def test_cut_anywhere_it_plays_up_to_the_last_whole_frame(self, make_frames: MakeFrames) -> None:
        frames = make_frames(40, 96, 128)
        mp4, data, ends = SegmentMp4((96, 128)), bytearray(), []
        for index, frame in enumerate(frames):
            put(data, mp4.add(frame, 33_333 * index))
            ends.append(len(data))  # frames up to the one before are in it
        for index in range(1, 40):
            times = [33_333 * n for n in range(index)]
            assert played(bytes(data[: ends[index]])) == times
            assert played(bytes(data[: ends[index] - 7])) == times[:-1]  # within the last frame's pixels

    def test_a_head_cut_in_two_may_cost_the_segment(self, make_frames: MakeFrames) -> None:
        """FFmpeg gives up a file that ends in one of twelve places of a fragment's head of 100 bytes."""
        mp4, data, ends = SegmentMp4((96, 128)), bytearray(), []
        for index, frame in enumerate(make_frames(10, 96, 128)):
            put(data, mp4.add(frame, 33_333 * index))
            ends.append(len(data))
        frames = [len(played(bytes(data[: ends[7] + cut]))) for cut in range(120)]
        assert set(frames) <= {0, 7, 8} and frames.count(0) <= 12

    def test_closing_leaves_it_playable_at_every_step(self, make_frames: MakeFrames) -> None:
        """The table of frames is whole before the head speaks of it, so neither step loses anything."""
        mp4, data = SegmentMp4((96, 128)), bytearray()
        for index, frame in enumerate(make_frames(20, 96, 128)):
            put(data, mp4.add(frame, 40_000 * index))
        (at, tail), (head_at, head) = mp4.close()
        assert at == len(data) and head_at + len(head) < at
        assert len(played(bytes(data))) == 19
        put(data, [(at, tail)])
        assert len(played(bytes(data))) == 20
        put(data, [(head_at, head)])
        assert len(played(bytes(data))) == 20

    def test_closed_it_is_an_ordinary_mp4(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack
    ) -> None:
        mp4, data = SegmentMp4((47, 65)), bytearray()
        frames = [frame // 2 + 60 for frame in make_frames(8, 47, 65)]
        for index, frame in enumerate(frames):
            put(data, mp4.add(frame, 40_000 * index))
        put(data, mp4.close())
        (tmp_path / "a.mp4").write_bytes(data)
        images, times, traits = read_back(tmp_path / "a.mp4")
        assert (traits["codec"], traits["pix_fmt"], traits["size_wh"]) == ("h264", "yuv420p", (66, 48))
        assert times == [index * 40_000 * MICROSECOND for index in range(8)]
        for made, wanted in zip(images, frames, strict=True):
            assert np.abs(made[:47, :65].astype(int) - wanted).mean() < 8
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert container.streams.video[0].frames == 8  # known without reading it all
            container.seek(200_000)
            assert next(container.decode(video=0)).pts is not None


class TestStream:
    def test_cuts_sizes_gaps_and_times(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack
    ) -> None:
        disk = writer(tmp_path / "rec")
        stream, other = stream_of(disk, segment_s=1.0), SegmentGrid(1.0)
        start_s, small, large = time.monotonic(), make_frames(50, 48, 64), make_frames(50, 96, 128)
        rng = np.random.default_rng(3)
        times = start_s + np.cumsum(rng.uniform(0.02, 0.06, 50))
        given_ = []
        for index, captured_s in enumerate(times):
            if index in (10, 11, 30):
                continue
            rgb = large[index] if 20 <= index < 35 else small[index]
            stream.write(LiveFrame(index + 1, float(captured_s), rgb.copy()))
            given_.append((index + 1, float(captured_s), rgb.shape[:2]))
        stream.write(LiveFrame(50, float(times[-1]), small[-1].copy()))  # once more
        stream.close()
        assert disk.close(10)
        assert (stream.counts.written, stream.counts.repeated) == (47, 1)

        rows = read_index(tmp_path / "rec")
        opened = [row for row in rows if row["event"] == "opened"]
        closed = [row for row in rows if row["event"] == "closed"]
        assert [row["file"] for row in closed] == [f"raw-{n:06d}.mp4" for n in range(1, len(closed) + 1)]
        assert len(opened) == len(closed) == stream.counts.segments
        found = []
        for row in closed:
            path = tmp_path / "rec" / row["file"]
            assert path.stat().st_size == row["bytes"]
            images, stamps, _ = read_back(path)
            missing = {n for first, last in row["gaps"] for n in range(first, last + 1)}
            numbers = [n for n in range(row["first_sequence"], row["last_sequence"] + 1) if n not in missing]
            assert len(images) == len(stamps) == row["frames"] == len(numbers)
            assert stamps[0] == 0
            assert {image.shape[:2] for image in images} == {(row["height"], row["width"])}
            cells = {other.cell(row["first_captured_s"] + float(stamp)) for stamp in stamps}
            assert len(cells) == 1
            found += [
                (number, row["first_captured_s"] + float(stamp), image.shape[:2])
                for number, stamp, image in zip(numbers, stamps, images, strict=True)
            ]
        assert [(number, shape) for number, _, shape in found] == [(n, shape) for n, _, shape in given_]
        assert max(abs(a[1] - b[1]) for a, b in zip(found, given_, strict=True)) <= 0.51e-6

    def test_hidden_regions_are_black_in_the_decoded_pixels(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack
    ) -> None:
        rects = (Rect(4, 6, 30, 12), Rect(100, 70, 60, 50))  # the second reaches beyond the frame
        disk = writer(tmp_path / "rec")
        stream = stream_of(disk, rects=rects)
        now_s = time.monotonic()
        small, large = (make_frames(6, 96, 128), make_frames(6, 192, 256))
        for index, frame in enumerate([*small, *large]):
            bright = np.maximum(frame, 90)
            stream.write(LiveFrame(index + 1, now_s + index / 30, bright))
        stream.close()
        assert disk.close(10)
        first = read_back(tmp_path / "rec" / "raw-000001.mp4")[0]
        second = read_back(tmp_path / "rec" / "raw-000002.mp4")[0]
        assert len(first) == len(second) == 6
        for image in first:
            assert image[8:16, 6:32].max() < 24 and image[72:, 102:].max() < 24
            assert image[24:60, 40:90].mean() > 80  # the rest is the frame
        for image in second:  # twice as large: the text may have stayed, or have grown with the frame
            assert image[8:16, 6:32].max() < 24 and image[14:34, 10:66].max() < 24
            assert image[72:118, 102:158].max() < 24 and image[142:, 202:].max() < 24
            assert image[48:66, 80:180].mean() > 80

    def test_nothing_of_a_hidden_region_reaches_the_file(
        self, tmp_path: Path, make_frames: MakeFrames
    ) -> None:
        """With other words under the rectangle the file is the same to the byte."""
        files = []
        rng = np.random.default_rng(5)
        for name in ("one", "other"):
            disk = writer(tmp_path / name)
            stream = stream_of(disk, rects=(Rect(5, 7, 31, 13),))
            for index, frame in enumerate(make_frames(8, 96, 128)):
                frame[7:20, 5:36] = rng.integers(0, 255, (13, 31, 3))
                stream.write(LiveFrame(index + 1, 1000 + index / 32, frame))
            stream.close()
            assert disk.close(10)
            files.append((tmp_path / name / "raw-000001.mp4").read_bytes())
        assert len(files[0]) > 1000 and files[0] == files[1]

    def test_a_rectangle_outside_the_frame_stops_recording(self, tmp_path: Path) -> None:
        disk = writer(tmp_path / "rec")
        stream = stream_of(disk, rects=(Rect(640, 0, 10, 10),))
        with pytest.raises(RecordingStoppedError, match=r"640,0,10,10 is not in the frame of 64x48"):
            stream.write(LiveFrame(1, time.monotonic(), np.zeros((48, 64, 3), np.uint8)))
        assert disk.close(10)
        assert last_number(tmp_path / "rec") == 0

    def test_a_segment_that_nothing_comes_for_is_closed(self, tmp_path: Path) -> None:
        disk = writer(tmp_path / "rec")
        stream = stream_of(disk, segment_s=0.2)
        stream.write(LiveFrame(1, time.monotonic(), np.zeros((48, 64, 3), np.uint8)))
        stream.rest()
        assert [row["event"] for row in _rows(tmp_path / "rec", 1)] == ["opened"]
        time.sleep(0.25)
        stream.rest()
        assert [row["event"] for row in _rows(tmp_path / "rec", 2)] == ["opened", "closed"]
        stream.close()
        assert disk.close(10)
        assert len(read_index(tmp_path / "rec")) == 2

    def test_an_earlier_segment_is_never_written_to(self, tmp_path: Path) -> None:
        for name in ("raw-000007.mp4", "overlay-000012.mp4", "raw-000099.mp4.txt", "report.json"):
            (tmp_path / name).write_bytes(b"of before")
        assert last_number(tmp_path) == 12
        with pytest.raises(FileExistsError):
            SegmentFile(tmp_path / "raw-000007.mp4", {}).create()
        assert (tmp_path / "raw-000007.mp4").read_bytes() == b"of before"


def _rows(folder: Path, count: int) -> list[dict[str, Any]]:
    until_s = time.monotonic() + 10
    while len(rows := read_index(folder)) < count and time.monotonic() < until_s:
        time.sleep(0.01)
    return rows


class TestDisk:
    def test_owner_only_from_the_first_byte(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every file that is made is looked at in the call that makes it."""
        modes: dict[str, int] = {}
        real_open = os.open

        def watched(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            fd = real_open(path, flags, mode, **more)
            if flags & os.O_CREAT:
                modes[Path(path).name] = stat.S_IMODE(os.fstat(fd).st_mode)
            return fd

        monkeypatch.setattr(os, "open", watched)
        before = os.umask(0)
        try:
            disk = writer(tmp_path / "a" / "rec")
            stream = stream_of(disk)
            stream.write(LiveFrame(1, time.monotonic(), np.zeros((48, 64, 3), np.uint8)))
            stream.close()
            assert disk.close(10)
        finally:
            os.umask(before)
        assert modes == {INDEX: 0o600, "raw-000001.mp4": 0o600}
        assert stat.S_IMODE((tmp_path / "a" / "rec").stat().st_mode) == 0o700

    def test_a_folder_that_was_there_keeps_its_mode(self, tmp_path: Path) -> None:
        (tmp_path / "rec").mkdir()
        (tmp_path / "rec").chmod(0o755)
        DiskGuard(tmp_path / "rec", 0).prepare()
        assert stat.S_IMODE((tmp_path / "rec").stat().st_mode) == 0o755

    @pytest.mark.parametrize("fails_after", [0, 1, 7])
    def test_a_full_disk_leaves_whole_frames(
        self,
        tmp_path: Path,
        make_frames: MakeFrames,
        monkeypatch: pytest.MonkeyPatch,
        read_back: ReadBack,
        fails_after: int,
    ) -> None:
        """The disk takes half of a frame and then no more: what it took before is played."""
        disk = writer(tmp_path / "rec")
        stream = stream_of(disk)
        now_s = time.monotonic()
        frames = make_frames(fails_after + 200, 96, 128)
        for index in range(fails_after):
            stream.write(LiveFrame(index + 1, now_s + index / 30, frames[index]))
        while disk.busy_s or disk._jobs._items:
            time.sleep(0.01)
        real_pwrite = os.pwrite

        def half(fd: int, data: Any, at: int) -> int:
            if len(data) > 200:
                return real_pwrite(fd, bytes(data)[: len(data) // 2], at)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(ChannelClosedError):
            for index in range(fails_after, fails_after + 200):
                stream.write(LiveFrame(index + 1, now_s + index / 30, frames[index]))
                time.sleep(0.01)
        disk.close(10)
        assert disk.failure == "disk full"
        path = tmp_path / "rec" / "raw-000001.mp4"
        whole = max(0, fails_after - 1)  # the last frame is written when the next one comes
        assert path.exists() == (whole > 0)  # a file without a frame is removed
        assert len(played(path.read_bytes()) if whole else []) == whole

    def test_the_guard_stops_before_the_disk_is_full(self, tmp_path: Path, make_frames: MakeFrames) -> None:
        """Space runs out under the limit while recording: the open segment is closed, whole."""
        disk = writer(tmp_path / "rec")
        stream = stream_of(disk)
        frames, now_s = make_frames(60, 48, 64), time.monotonic()
        for index in range(10):
            stream.write(LiveFrame(index + 1, now_s + index / 30, frames[index]))
        disk._guard = DiskGuard(tmp_path / "rec", 1 << 62)
        with pytest.raises(ChannelClosedError):
            for index in range(10, 60):
                stream.write(LiveFrame(index + 1, now_s + index / 30, frames[index]))
                time.sleep(0.02)
        disk.close(10)
        assert disk.failure.startswith("disk nearly full: ") and "rec" not in disk.failure
        row = read_index(tmp_path / "rec")[-1]
        assert row["event"] == "closed" and row["frames"] >= 9
        assert len(played((tmp_path / "rec" / "raw-000001.mp4").read_bytes())) == row["frames"]

    def test_too_little_space_is_said_at_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"has \d+ MB free, and recording keeps \d+ MB free"):
            DiskGuard(tmp_path / "rec", 1 << 62).prepare()

    def test_no_folder_can_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(BadInputError, match="cannot write"):
            DiskGuard(tmp_path / "file" / "rec").prepare()

    def test_the_head_is_changed_after_the_rest_is_on_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[tuple[str, int]] = []
        real_pwrite, real_sync = os.pwrite, os.fdatasync

        def pwrite(fd: int, data: Any, at: int) -> int:
            calls.append(("write", at))
            return real_pwrite(fd, data, at)

        def fdatasync(fd: int) -> None:
            calls.append(("sync", 0))
            real_sync(fd)

        file = SegmentFile(tmp_path / "a.mp4", {})
        file.create()
        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        file.write([(0, b"head"), (4, b"frames")], {})
        file.write([(10, b"table"), (2, b"AD")], {})
        file.finish()
        assert calls == [("write", 0), ("write", 4), ("write", 10), ("sync", 0), ("write", 2)]
        assert (tmp_path / "a.mp4").read_bytes() == b"heADframestable"

    def test_a_segment_is_on_the_disk_before_the_index_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        for name in ("fsync", "fdatasync"):
            real = getattr(os, name)

            def sync(fd: int, real: Callable[[int], None] = real) -> None:
                synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
                real(fd)

            monkeypatch.setattr(os, name, sync)
        disk = writer(tmp_path / "rec", sync_s=1000)
        stream = stream_of(disk)
        stream.write(LiveFrame(1, time.monotonic(), np.zeros((48, 64, 3), np.uint8)))
        stream.close()
        assert disk.close(10)
        assert synced == ["rec", INDEX, "raw-000001.mp4", "raw-000001.mp4", INDEX]

    def test_a_torn_row_spoils_no_other(self, tmp_path: Path) -> None:
        (tmp_path / INDEX).write_bytes(b'{"event": "opened", "file": "raw-000001.mp4"}\n{"event": "clo')
        index = Index(tmp_path)
        index.add({"event": "opened", "file": "raw-000002.mp4"})
        index.close()
        assert [row["file"] for row in read_index(tmp_path)] == ["raw-000001.mp4", "raw-000002.mp4"]


@pytest.mark.parametrize(
    "changes",
    [
        {"segment_s": 0},
        {"segment_s": float("nan")},
        {"sync_s": -1},
        {"min_free_bytes": -1},
        {"hide": (Rect(-1, 0, 5, 5),)},
        {"hide": (Rect(0, 0, 0, 5),)},
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected"):
        RecordOptions(**changes)
