"""Sinks: timestamps to the tick, files that play, and nothing half-written under a final name."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmkla.errors import BadInputError
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.sinks import DiskReserve, JsonlSink, VideoSink

Image = npt.NDArray[np.uint8]
MakeFrames = Callable[..., list[Image]]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]

TRAITS = VideoTraits(Fraction(1, 12800), Fraction(25))


def write(path: Path, frames: list[Image], pts: list[int], traits: VideoTraits = TRAITS) -> VideoSink:
    sink = VideoSink(path, traits, (frames[0].shape[0], frames[0].shape[1]))
    for frame, tick in zip(frames, pts, strict=True):
        sink.write(frame, tick)
    return sink


class TestVideo:
    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        pts=st.sets(st.integers(0, 4000), min_size=1, max_size=25).map(sorted),
        time_base=st.sampled_from(
            [
                Fraction(1, 1000),
                Fraction(1, 90000),
                Fraction(1, 25),
                Fraction(1001, 30000),
                Fraction(1, 12800),
                Fraction(1, 10**9),
            ]
        ),
        rate=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(1000, 7)]),
    )
    def test_timestamps_come_back_to_the_tick(
        self, pts: list[int], time_base: Fraction, rate: Fraction, tmp_path: Path, read_back: ReadBack
    ) -> None:
        path = tmp_path / "out.mp4"
        frames = [np.full((32, 48, 3), 9 * index % 256, np.uint8) for index in range(len(pts))]
        write(path, frames, pts, VideoTraits(time_base, rate)).close()
        images, times, traits = read_back(path)
        assert times == [tick * time_base for tick in pts]
        assert traits["time_base"].denominator == time_base.denominator
        assert len(images) == len(pts)

    def test_format_plays_everywhere(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack
    ) -> None:
        frames = make_frames(10, 96, 128)
        write(tmp_path / "out.mp4", frames, [512 * index for index in range(10)]).close()
        images, _, traits = read_back(tmp_path / "out.mp4")
        assert (traits["codec"], traits["pix_fmt"], traits["streams"]) == ("h264", "yuv420p", 1)
        assert traits["size_wh"] == (128, 96)
        for made, wanted in zip(images, frames, strict=True):
            assert np.abs(made.astype(float).mean(axis=(0, 1)) - wanted.mean(axis=(0, 1))).max() < 3

    @pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (33, 35), (1, 1), (2, 16)])
    def test_odd_and_tiny_sizes_are_rounded_up(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack, height: int, width: int
    ) -> None:
        frames = [frame // 2 + 60 for frame in make_frames(3, height, width)]
        sink = write(tmp_path / "out.mp4", frames, [0, 512, 1024])
        sink.close()
        images, _, traits = read_back(tmp_path / "out.mp4")
        assert traits["size_wh"] == (width + width % 2, height + height % 2) == sink.size_hw[::-1]
        picture = images[0].astype(int)
        if width % 2:  # the new column repeats its neighbour instead of being black
            assert np.abs(picture[:, -1] - picture[:, -2]).mean() < 25
        assert abs(picture[:height, :width].mean() - frames[0].mean()) < 8

    @pytest.mark.parametrize("matrix", ["bt601", "bt709"])
    def test_colours_survive_with_their_matrix(
        self, tmp_path: Path, matrix: Any, read_back: ReadBack
    ) -> None:
        frame = np.zeros((48, 96, 3), np.uint8)
        colours = ((200, 40, 30), (30, 180, 60), (20, 60, 220))
        for index, colour in enumerate(colours):
            frame[:, 32 * index : 32 * index + 32] = colour
        path = tmp_path / "out.mp4"
        write(
            path, [frame] * 3, [0, 512, 1024], VideoTraits(TRAITS.time_base, TRAITS.frame_rate, None, matrix)
        ).close()
        assert read_back(path)[2]["colorspace"] == (1 if matrix == "bt709" else 6)
        made = next(iter(VideoSource(path).frames()))
        assert made.traits is not None and made.traits.matrix == matrix
        for index, colour in enumerate(colours):
            assert made.rgb[24, 16 + 32 * index].tolist() == pytest.approx(colour, abs=5)

    def test_shape_of_pixels_is_kept(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack
    ) -> None:
        traits = VideoTraits(TRAITS.time_base, TRAITS.frame_rate, Fraction(4, 3))
        write(tmp_path / "out.mp4", make_frames(2, 48, 64), [0, 512], traits).close()
        assert read_back(tmp_path / "out.mp4")[2]["sample_aspect_ratio"] == Fraction(4, 3)

    def test_the_name_comes_last(self, tmp_path: Path, make_frames: MakeFrames) -> None:
        path = tmp_path / "out.mp4"
        sink = write(path, make_frames(3, 48, 64), [0, 512, 1024])
        assert not path.exists() and sink.partial.exists()
        sink.close()
        assert path.exists() and not sink.partial.exists()
        sink.close()

    def test_without_a_frame_nothing_is_left(self, tmp_path: Path) -> None:
        VideoSink(tmp_path / "out.mp4", TRAITS, (48, 64)).close()
        assert list(tmp_path.iterdir()) == []

    def test_unwritable_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(BadInputError, match=r"cannot write .*out\.mp4: Not a directory"):
            VideoSink(tmp_path / "file" / "out.mp4", TRAITS, (48, 64))


class TestFullDisk:
    def test_the_reserve_makes_the_file_playable(
        self, tmp_path: Path, make_frames: MakeFrames, read_back: ReadBack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writing fails from 60 kB on while the reserve exists; its space is enough to close the file."""
        reserve = DiskReserve(tmp_path / ".reserve")
        assert (tmp_path / ".reserve").stat().st_size >= 1 << 20
        real_write, written = os.write, [0]

        def limited(fd: int, data: bytes) -> int:
            if written[0] > 60_000 and (tmp_path / ".reserve").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written[0] += len(data)
            return real_write(fd, data)

        monkeypatch.setattr(os, "write", limited)
        sink = VideoSink(tmp_path / "out.mp4", TRAITS, (96, 128), reserve)
        accepted = 0
        noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3)).astype(np.uint8)
        with pytest.raises(BadInputError, match="No space left on device") as caught:
            for index, frame in enumerate(noise):
                sink.write(frame, 512 * index)
                accepted += 1
        assert caught.value.hint is not None and "--out" in caught.value.hint
        sink.close()
        images, times, _ = read_back(tmp_path / "out.mp4")
        assert 0 < accepted < 40
        assert (
            times == [Fraction(512 * index, 12800) for index in range(accepted)] and len(images) == accepted
        )

    @pytest.mark.parametrize("limit_bytes", [0, 60_000])
    def test_without_any_space_nothing_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int
    ) -> None:
        real_write, written = os.write, [0]

        def full(fd: int, data: bytes) -> int:
            if written[0] + len(data) > limit_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written[0] += len(data)
            return real_write(fd, data)

        monkeypatch.setattr(os, "write", full)
        noise = np.random.default_rng(0).integers(0, 256, (60, 96, 128, 3)).astype(np.uint8)
        sink = None
        with pytest.raises(BadInputError, match="No space left"):
            sink = VideoSink(tmp_path / "out.mp4", TRAITS, (96, 128))
            for index, frame in enumerate(noise):
                sink.write(frame, 512 * index)
        if limit_bytes:
            assert sink is not None
            with contextlib.suppress(BadInputError):  # the first error has been raised already
                sink.close()
        assert list(tmp_path.iterdir()) == []

    def test_a_limit_on_file_size_is_named(self, tmp_path: Path) -> None:
        """A real limit of the operating system, in a process of its own."""
        script = f"""
import resource
import numpy as np
from fractions import Fraction
from pathlib import Path
from vmkla.errors import BadInputError
from vmkla.video.media.frames import VideoTraits
from vmkla.video.media.sinks import VideoSink
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
sink = VideoSink(Path({str(tmp_path)!r}) / "out.mp4", VideoTraits(Fraction(1, 25), Fraction(25)), (96, 128))
noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3)).astype(np.uint8)
try:
    for index, frame in enumerate(noise):
        sink.write(frame, index)
except BadInputError as error:
    print(error)
try:
    sink.close()
except BadInputError as error:
    print("closing:", error)
"""
        done = subprocess.run(
            [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "File too large" in done.stdout and "--out DIR" in done.stdout
        assert not (tmp_path / "out.mp4").exists()

    def test_no_space_for_the_reserve(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int, offset: int, length: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space"):
            DiskReserve(tmp_path / ".reserve")
        assert list(tmp_path.iterdir()) == []

    def test_reserve_where_allocating_is_unknown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(fd: int, offset: int, length: int) -> None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

        monkeypatch.setattr(os, "posix_fallocate", unknown)
        reserve = DiskReserve(tmp_path / ".reserve")
        assert (tmp_path / ".reserve").stat().st_size >= 1 << 20
        assert reserve.release() and not reserve.release()


class TestJsonl:
    def test_rows(self, tmp_path: Path) -> None:
        sink = JsonlSink(tmp_path / "rows.jsonl")
        rows = [{"index": 0, "name": "ü \udcff.png"}, {"index": 1, "boxes": [[1, 2, 3, 4]]}]
        for row in rows:
            sink.write(row)
        assert not (tmp_path / "rows.jsonl").exists()
        sink.close()
        lines = (tmp_path / "rows.jsonl").read_bytes().splitlines()
        assert [json.loads(line) for line in lines] == rows
        assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]

    def test_nan_is_no_json(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="JSON"):
            JsonlSink(tmp_path / "rows.jsonl").write({"value": float("nan")})

    def test_a_full_disk_leaves_whole_rows(self, tmp_path: Path) -> None:
        """A real limit of the operating system tears the row; what was written of it is taken back."""
        script = f"""
import resource
from pathlib import Path
from vmkla.errors import BadInputError
from vmkla.video.media.sinks import JsonlSink
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sink = JsonlSink(Path({str(tmp_path)!r}) / "rows.jsonl")
try:
    for index in range(100):
        sink.write({{"index": index, "padding": "x" * 50}})
except BadInputError as error:
    print(error)
sink.close()
"""
        done = subprocess.run(
            [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=60
        )
        assert "File too large" in done.stdout, done.stderr
        rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_bytes().splitlines()]
        assert [row["index"] for row in rows] == list(range(len(rows))) and len(rows) > 5

    def test_dropped(self, tmp_path: Path) -> None:
        sink = JsonlSink(tmp_path / "rows.jsonl")
        sink.write({"index": 0})
        sink.close(keep=False)
        assert list(tmp_path.iterdir()) == []
