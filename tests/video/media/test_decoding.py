"""vmkla.video.media.decoding: every frame, upright, in the right colours, at its own time."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.stream import Disposition

from vmkla.errors import BadInputError
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.rgb import upright

Image = npt.NDArray[np.uint8]
WriteClip = Callable[..., Path]
MakeFrames = Callable[..., list[Image]]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]

SOLID = {"red": (200, 40, 30), "green": (30, 180, 60), "blue": (20, 60, 220)}


def bars(height: int = 48, width: int = 96) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(SOLID.values()):
        image[:, index * width // 3 : (index + 1) * width // 3] = colour
    return image


def times(source: VideoSource) -> list[Fraction]:
    return [
        frame.pts * frame.time_base for frame in source.frames() if frame.pts is not None and frame.time_base
    ]


class TestTimes:
    @pytest.mark.parametrize(
        ("rate", "time_base"),
        [
            (Fraction(25), Fraction(1, 12800)),
            (Fraction(30000, 1001), Fraction(1, 30000)),
            (Fraction(60), Fraction(1, 15360)),
        ],
    )
    def test_constant_rate(
        self, write_clip: WriteClip, make_frames: MakeFrames, rate: Fraction, time_base: Fraction
    ) -> None:
        path = write_clip("a.mp4", make_frames(20, 48, 64), rate=rate, time_base=time_base)
        source = VideoSource(path)
        assert times(source) == [index / rate for index in range(20)]
        assert source.total == 20 and source.problems == () and source.repaired_timestamps == 0

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
    def test_variable_rate(self, write_clip: WriteClip, make_frames: MakeFrames, name: str) -> None:
        pts = [0, 10, 33, 34, 500, 501, 2000, 2040]
        path = write_clip(name, make_frames(8, 48, 64), pts=pts, time_base=Fraction(1, 1000))
        assert times(VideoSource(path)) == [Fraction(tick, 1000) for tick in pts]

    def test_a_late_start_is_kept(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        pts = [126000 + 3600 * index for index in range(8)]
        path = write_clip("a.ts", make_frames(8, 48, 64), pts=pts, time_base=Fraction(1, 90000))
        found = times(VideoSource(path))
        assert found[0] > 1 and np.diff([float(time) for time in found]) == pytest.approx(0.04)

    def test_no_timestamps_at_all(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        """A raw H.264 stream: frames follow at its nominal rate, and the repair is counted."""
        path = write_clip("a.h264", make_frames(8, 48, 64))
        source = VideoSource(path)
        found = times(source)
        assert len(found) == 8 and found[0] == 0
        assert len(set(np.diff([float(time) for time in found]).round(9))) == 1
        assert source.repaired_timestamps > 0

    def test_a_source_can_be_gone_through_again(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        source = VideoSource(write_clip("a.mp4", make_frames(9, 48, 64)))
        first = next(iter(source.frames()))
        again = list(source.frames())
        assert len(again) == 9
        np.testing.assert_array_equal(first.rgb, again[0].rgb)
        assert [frame.name for frame in again[:2]] == ["000000", "000001"]


class TestPixels:
    def test_same_pixels_as_a_plain_loop(
        self, write_clip: WriteClip, make_frames: MakeFrames, read_back: ReadBack
    ) -> None:
        path = write_clip("a.mp4", make_frames(6, 48, 64))
        plain, _, _ = read_back(path)
        for frame, wanted in zip(VideoSource(path).frames(), plain, strict=True):
            assert np.abs(frame.rgb.astype(int) - wanted).max() <= 1

    @pytest.mark.parametrize(
        ("matrix", "tag", "full"),
        [("ITU601", 6, False), ("ITU709", 1, False), ("ITU601", 6, True), ("ITU709", 1, True)],
    )
    def test_colour_tags_are_honoured(self, write_clip: WriteClip, matrix: str, tag: int, full: bool) -> None:
        def colours(context: Any) -> None:
            context.colorspace, context.color_range = tag, 2 if full else 1

        convert = {
            "src_color_range": "JPEG",
            "dst_colorspace": matrix,
            "dst_color_range": "JPEG" if full else "MPEG",
        }
        path = write_clip("a.mp4", [bars()] * 3, colours=colours, convert=convert, options={"crf": "4"})
        frame = next(iter(VideoSource(path).frames()))
        for index, colour in enumerate(SOLID.values()):
            # The wrong matrix or range is off by 10 to 30 in some channel.
            assert frame.rgb[24, 16 + 32 * index].tolist() == pytest.approx(colour, abs=5)
        assert frame.traits is not None
        assert frame.traits.matrix == ("bt709" if tag == 1 else "bt601")

    @pytest.mark.parametrize(("height", "matrix"), [(576, "ITU601"), (720, "ITU709")])
    def test_without_tags_the_height_decides(self, write_clip: WriteClip, height: int, matrix: str) -> None:
        convert = {"src_color_range": "JPEG", "dst_colorspace": matrix, "dst_color_range": "MPEG"}
        path = write_clip("a.mp4", [bars(height, 96)], convert=convert, options={"crf": "4"})
        frame = next(iter(VideoSource(path).frames()))
        for index, colour in enumerate(SOLID.values()):
            assert frame.rgb[height // 2, 16 + 32 * index].tolist() == pytest.approx(colour, abs=5)

    @pytest.mark.parametrize("pix_fmt", ["yuv444p", "gray", "yuv420p10le"])
    def test_other_pixel_formats(self, write_clip: WriteClip, make_frames: MakeFrames, pix_fmt: str) -> None:
        frames = make_frames(4, 48, 64)
        path = write_clip("a.mkv", frames, pix_fmt=pix_fmt, codec="ffv1" if pix_fmt == "gray" else "libx264")
        found = list(VideoSource(path).frames())
        assert [frame.rgb.shape for frame in found] == [(48, 64, 3)] * 4
        assert np.abs(found[0].rgb.mean() - frames[0].mean()) < 8

    def test_odd_sizes(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        path = write_clip("a.mkv", make_frames(4, 47, 63), codec="ffv1", pix_fmt="bgr0")
        assert [frame.rgb.shape for frame in VideoSource(path).frames()] == [(47, 63, 3)] * 4


def display_matrix(quarter_turns: int, mirrored: bool) -> tuple[int, ...]:
    """Elements of an MP4 matrix that mirrors left to right, then turns clockwise."""
    a, b, c, d = 1, 0, 0, 1
    for _ in range(quarter_turns):  # (x, y) -> (-y, x) is a quarter turn clockwise, y pointing down
        a, b, c, d = -b, a, -d, c
    if mirrored:
        a, b = -a, -b
    return (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


class TestRotation:
    @pytest.mark.parametrize("quarter_turns", range(4))
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_matrix(self, quarter_turns: int, mirrored: bool) -> None:
        image = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
        shown, swapped = upright(image, struct.pack("=9i", *display_matrix(quarter_turns, mirrored)))
        wanted = np.rot90(image[:, ::-1] if mirrored else image, -quarter_turns)
        np.testing.assert_array_equal(shown, wanted)
        assert swapped == (quarter_turns % 2 == 1)

    @pytest.mark.parametrize("quarter_turns", [1, 2, 3])
    def test_a_phone_video_is_shown_upright(self, write_clip: WriteClip, quarter_turns: int) -> None:
        """The matrix is written into the file's track header, byte by byte."""
        image = bars()
        image[:10] = 250
        path = write_clip("a.mp4", [image] * 3, options={"crf": "4"})
        data = path.read_bytes()
        identity = struct.pack(">9i", *display_matrix(0, False))
        place = data.index(identity, data.index(b"tkhd"))
        turned = struct.pack(">9i", *display_matrix(quarter_turns, False))
        path.write_bytes(data[:place] + turned + data[place + 36 :])
        wanted = np.rot90(image, -quarter_turns)
        for frame in VideoSource(path).frames():
            assert frame.rgb.shape == wanted.shape
            # 4:2:0 smears the edges of the bars; a wrong turn is off by tens on average.
            assert np.abs(frame.rgb.astype(int) - wanted).mean() < 6

    def test_pixel_shape_turns_along(self, write_clip: WriteClip) -> None:
        def wide(context: Any) -> None:
            context.sample_aspect_ratio = Fraction(4, 3)

        path = write_clip("a.mp4", [bars()] * 2, colours=wide)
        traits = next(iter(VideoSource(path).frames())).traits
        assert traits is not None and traits.sample_aspect_ratio == Fraction(4, 3)
        data = path.read_bytes()
        place = data.index(struct.pack(">9i", *display_matrix(0, False)), data.index(b"tkhd"))
        turned = struct.pack(">9i", *display_matrix(1, False))
        path.write_bytes(data[:place] + turned + data[place + 36 :])
        traits = next(iter(VideoSource(path).frames())).traits
        assert traits is not None and traits.sample_aspect_ratio == Fraction(3, 4)


class TestDamage:
    @pytest.mark.parametrize("bframes", ["0", "3"])
    def test_cut_in_the_middle_of_a_frame(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        cut_at: Callable[[Path, int], Path],
        bframes: str,
    ) -> None:
        """Every frame before the cut is kept, pixel for pixel, and nothing after it is made up."""
        path = write_clip("a.mp4", make_frames(40, 96, 128), options={"bf": bframes, "g": "12"})
        whole = [frame.rgb for frame in VideoSource(path).frames()]
        with av.open(str(path)) as container:
            packets = [
                (packet.pos, packet.size, packet.pts)
                for packet in container.demux(video=0)
                if packet.size and packet.pos is not None
            ]
        position, size, _ = packets[25]
        source = VideoSource(cut_at(path, position + size // 2))
        kept = list(source.frames())
        before = sorted(pts for _, _, pts in packets[:25] if pts is not None)
        assert [frame.pts for frame in kept] == before
        assert source.cut_off and source.lost_packets >= 1
        assert any("cut off" in problem.what for problem in source.problems)
        for frame in kept:
            wanted = whole[round(float(frame.pts_s or 0) * 25)]
            np.testing.assert_array_equal(frame.rgb, wanted)

    def test_damage_in_the_middle_loses_no_other_frame(
        self, write_clip: WriteClip, make_frames: MakeFrames
    ) -> None:
        path = write_clip(
            "a.mp4", make_frames(40, 96, 128), options={"bf": "0", "g": "10", "tune": "zerolatency"}
        )
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            position, size = packets[15].pos, packets[15].size
        assert position is not None
        data = bytearray(path.read_bytes())
        data[position + 4 : position + size] = np.random.default_rng(1).bytes(size - 4)
        path.write_bytes(data)
        source = VideoSource(path)
        frames = list(source.frames())
        assert not source.cut_off
        assert len(frames) + source.lost_packets >= 40
        assert source.lost_packets or any(frame.damaged for frame in frames)
        assert {frame.pts for frame in frames} >= {512 * index for index in range(40) if index // 10 != 1}

    def test_index_lost(
        self, write_clip: WriteClip, make_frames: MakeFrames, cut_at: Callable[[Path, int], Path]
    ) -> None:
        path = write_clip("a.mp4", make_frames(12, 48, 64), movflags=None)
        cut_at(path, path.stat().st_size // 2)
        with pytest.raises(BadInputError, match="without its index"):
            VideoSource(path)

    def test_cut_to_its_header(
        self, write_clip: WriteClip, make_frames: MakeFrames, cut_at: Callable[[Path, int], Path]
    ) -> None:
        path = write_clip("a.mp4", make_frames(12, 48, 64))
        cut_at(path, path.read_bytes().index(b"mdat") + 8)
        with pytest.raises(BadInputError, match="not one frame"):
            list(VideoSource(path).frames())

    def test_zero_frames(self, tmp_path: Path) -> None:
        path = tmp_path / "zero.mp4"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            container.start_encoding()
        with pytest.raises(BadInputError, match="without a single frame"):
            VideoSource(path)

    @pytest.mark.parametrize(
        "text", ["this is a text file\n" * 200, "1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 50, ""]
    )
    def test_text_named_mp4(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "notes.mp4"
        path.write_text(text)
        with pytest.raises(BadInputError, match=r"notes\.mp4"):
            VideoSource(path)

    @pytest.mark.parametrize("cover", [False, True])
    def test_sound_without_a_video(self, tmp_path: Path, cover: bool) -> None:
        path = tmp_path / "sound.mp4"
        with av.open(str(path), "w") as container:
            sound: Any = container.add_stream("aac", rate=8000)
            if cover:
                picture: Any = container.add_stream("mjpeg", rate=25)
                picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
                cover_flag: Any = Disposition.attached_pic
                try:
                    picture.disposition = cover_flag
                except TypeError:  # PyAV before 18
                    picture.disposition = cover_flag.value
                image = av.VideoFrame.from_ndarray(bars(48, 64), format="rgb24").reformat(format="yuvj420p")
                image.pts = 0
                container.mux(picture.encode(image))
                container.mux(picture.encode(None))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        with pytest.raises(BadInputError, match="no video stream"):
            VideoSource(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="there is no file"):
            VideoSource(tmp_path / "gone.mp4")

    def test_size_changes_on_the_way(
        self, write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path
    ) -> None:
        first = write_clip("a.h264", make_frames(6, 48, 64), options={"tune": "zerolatency"})
        second = write_clip("b.h264", make_frames(6, 96, 128), options={"tune": "zerolatency"})
        both = tmp_path / "both.h264"
        both.write_bytes(first.read_bytes() + second.read_bytes())
        source = VideoSource(both)
        frames = list(source.frames())
        assert [frame.rgb.shape for frame in frames] == [(48, 64, 3)] * 6 + [(96, 128, 3)] * 6
        assert source.size_changes == 1
        assert [problem.where for problem in source.problems] == ["frame 6"]
        assert "64x48 to 128x96" in source.problems[0].what


@pytest.mark.parametrize("name", ["a b.mp4", "näme 視頻.mp4", "file:odd.mp4", "100%d.mp4", "[x]*.mp4"])
def test_any_name(write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path, name: str) -> None:
    path = write_clip("plain.mp4", make_frames(3, 48, 64)).rename(tmp_path / name)
    assert len(list(VideoSource(path).frames())) == 3


def test_sound_is_noticed(write_clip: WriteClip, make_frames: MakeFrames) -> None:
    assert not VideoSource(write_clip("a.mp4", make_frames(3, 48, 64))).has_audio
    with_sound = VideoSource(write_clip("b.mp4", make_frames(3, 48, 64), audio=True))
    assert with_sound.has_audio and len(list(with_sound.frames())) == 3
