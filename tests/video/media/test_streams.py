"""vmkla.video.media.streams and tracks: what is opened, which track is read, and what is refused."""

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

from tests.video.small_videos import set_disposition, write_tracks
from vmkla.errors import BadInputError, UsageError
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.h264 import H264Encoder
from vmkla.video.media.streams import OpenVideo

Image = npt.NDArray[np.uint8]
WriteClip = Callable[..., Path]
MakeFrames = Callable[..., list[Image]]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]


def grey_of(source: VideoSource) -> int:
    return round(float(np.mean([frame.rgb.mean() for frame in source.frames()])) / 50)


class TestTracks:
    def test_the_largest_is_read_and_the_others_are_told(self, tmp_path: Path) -> None:
        source = VideoSource(write_tracks(tmp_path / "a.mkv", [(64, 48), (192, 144), (96, 64)]))
        frames = list(source.frames())
        assert [frame.rgb.shape for frame in frames] == [(144, 192, 3)] * 5 and grey_of(source) == 2
        assert source.track.number == 2 and source.describe()["track"] == 2
        assert [track["size_wh"] for track in source.describe()["tracks"]] == [[64, 48], [192, 144], [96, 64]]
        (note,) = source.notes()
        assert (
            "track 2 (192x144, h264)" in note
            and "track 1 (64x48, h264)" in note
            and "infer --track N" in note
        )

    @pytest.mark.parametrize(("default", "wanted"), [(None, 1), (1, 1), (2, 2)])
    def test_of_equal_ones_the_default_or_the_first(
        self, tmp_path: Path, default: int | None, wanted: int
    ) -> None:
        path = write_tracks(tmp_path / "a.mkv", [(64, 48), (64, 48)], default=default)
        source = VideoSource(path)
        assert source.track.number == wanted and grey_of(source) == wanted

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_any_can_be_asked_for(self, tmp_path: Path, number: int) -> None:
        path = write_tracks(tmp_path / "a.mp4", [(64, 48), (192, 144), (96, 64)])
        assert grey_of(VideoSource(path, track=number)) == number

    @pytest.mark.parametrize("number", [0, -1, 4])
    def test_one_that_is_not_there_is_refused(self, tmp_path: Path, number: int) -> None:
        path = write_tracks(tmp_path / "a.mp4", [(64, 48), (192, 144), (96, 64)])
        with pytest.raises(UsageError, match=rf"no video track {number}, .*track 3 \(96x64, h264\)"):
            VideoSource(path, track=number)

    def test_an_attached_picture_is_no_track(self, tmp_path: Path) -> None:
        """A cover of more pixels than the video."""
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            cover: Any = container.add_stream("mjpeg", rate=25)
            cover.width, cover.height, cover.pix_fmt = 192, 144, "yuvj420p"
            set_disposition(cover, Disposition.attached_pic)
            video: Any = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            image = av.VideoFrame.from_ndarray(np.full((144, 192, 3), 9, np.uint8), format="rgb24")
            picture = image.reformat(format="yuvj420p")
            picture.pts = 0
            container.mux(cover.encode(picture))
            container.mux(cover.encode(None))
            for _ in range(3):
                grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 50, np.uint8), format="rgb24")
                container.mux(video.encode(grey.reformat(format="yuv420p")))
            container.mux(video.encode(None))
        source = VideoSource(path)
        assert source.track.size_wh == (64, 48) and len(source.tracks) == 1 and source.notes() == []


def with_tag(path: Path, tag: bytes, number: int = 1) -> Path:
    """Give the number-th video track of an MP4 another codec tag."""
    data = bytearray(path.read_bytes())
    place = -1
    for _ in range(number):
        place = data.index(b"avc1", data.index(b"stsd", place + 1))
    data[place : place + 4] = tag
    # Without the box that describes H.264 nothing else states what it was.
    data[data.index(b"avcC", place) : data.index(b"avcC", place) + 4] = b"free"
    path.write_bytes(data)
    return path


class TestCodecs:
    def test_a_codec_that_ffmpeg_does_not_know(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        path = with_tag(write_clip("a.mp4", make_frames(3, 48, 64)), b"Zq9x")
        with pytest.raises(
            BadInputError, match=r"does not know the codec.*'Zq9x', 0x78397A71|'Zq9x'"
        ) as caught:
            VideoSource(path)
        assert caught.value.exit_status == 3

    def test_one_of_two_tracks_is_unknown(self, tmp_path: Path) -> None:
        """It may be the recording: the other one is read only when it is asked for."""
        path = with_tag(write_tracks(tmp_path / "a.mp4", [(192, 144), (64, 48)]), b"Zq9x")
        with pytest.raises(BadInputError, match="Zq9x") as caught:
            VideoSource(path)
        assert "--track 2" in str(caught.value)
        assert grey_of(VideoSource(path, track=2)) == 2
        with pytest.raises(BadInputError, match="Zq9x"):
            VideoSource(path, track=1)

    def test_no_name_at_all(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        path = write_clip("a.mp4", make_frames(3, 48, 64))
        path.write_bytes(path.read_bytes().replace(b"stsd", b"free", 1))
        with pytest.raises(BadInputError, match="the file names none"):
            VideoSource(path)

    def test_frames_that_no_decoder_takes_name_the_codec_and_the_cause(
        self, write_clip: WriteClip, make_frames: MakeFrames
    ) -> None:
        path = with_tag(write_clip("a.mp4", make_frames(4, 48, 64)), b"apcn")
        with pytest.raises(BadInputError, match=r"prores.*not one frame.*packet 1 cannot be decoded: \w"):
            list(VideoSource(path).frames())


class TestOtherFiles:
    @pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list"])
    def test_a_playlist_does_not_read_its_files(
        self, write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path, name: str
    ) -> None:
        write_clip("part.ts", make_frames(5, 48, 64))
        path = tmp_path / name
        path.write_text(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(BadInputError, match="is a playlist") as caught:
            VideoSource(path)
        assert caught.value.exit_status == 3

    @pytest.mark.parametrize("name", ["list.ffconcat", "list.mp4"])
    def test_nor_does_a_concat_script(
        self, write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path, name: str
    ) -> None:
        write_clip("part.mp4", make_frames(5, 48, 64))
        path = tmp_path / name
        path.write_text("ffconcat version 1.0\nfile part.mp4\nfile part.mp4\n")
        with pytest.raises(BadInputError, match="is a playlist"):
            VideoSource(path)

    @pytest.mark.parametrize(
        "text",
        [
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
            "a=rtpmap:96 H264/90000\n",
            '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="a"></MPD>\n',
            "[playlist]\nFile1=part.mp4\nNumberOfEntries=1\n",
        ],
        ids=["sdp", "dash", "pls"],
    )
    def test_nor_do_descriptions_of_streams(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "a.mp4"
        path.write_text(text)
        with pytest.raises(BadInputError, match="is a playlist"):
            VideoSource(path)

    def test_a_second_file_behind_an_mp4_is_not_opened(
        self, write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path
    ) -> None:
        """A movie whose data reference names another file."""
        path = write_clip("a.mp4", make_frames(5, 48, 64))
        data = path.read_bytes()
        place = data.index(b"url ", data.index(b"dref"))
        (tmp_path / "other.mp4").write_bytes(data)
        path.write_bytes(data[:place] + b"alis" + data[place + 4 :])
        shown = len(list(VideoSource(path).frames()))
        assert shown in (0, 5)  # FFmpeg reads the file itself, or nothing


class TestSizes:
    @pytest.mark.parametrize("size_wh", [(16386, 16), (16, 16386)])
    def test_larger_frames_are_refused_before_they_are_decoded(
        self, tmp_path: Path, size_wh: tuple[int, int]
    ) -> None:
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size_wh, "yuv420p"
            container.mux(stream.encode(av.VideoFrame(*size_wh, "yuv420p")))
            container.mux(stream.encode(None))
        with pytest.raises(BadInputError, match=f"{size_wh[0]}x{size_wh[1]}.*16384"):
            VideoSource(path)

    def test_the_encoder_refuses_them_too(self) -> None:
        from vmkla.video.media.frames import VideoTraits

        traits = VideoTraits(Fraction(1, 25), Fraction(25))
        with pytest.raises(BadInputError, match="16384"):
            H264Encoder(traits, (32, 16386), preset="ultrafast", crf="18")


class TestTimes:
    @pytest.mark.parametrize("skipped", [0, 3, 5])
    def test_an_edit_list_that_leaves_frames_out(
        self, write_clip: WriteClip, make_frames: MakeFrames, read_back: ReadBack, skipped: int
    ) -> None:
        path = write_clip("a.mp4", make_frames(12, 48, 64), options={"bf": "0"})
        data = bytearray(path.read_bytes())
        place = data.index(b"elst") + 16  # version and flags, count, duration, then where the media begins
        data[place : place + 4] = struct.pack(">i", skipped * 512)
        path.write_bytes(data)
        source = VideoSource(path)
        found = [frame.pts_s for frame in source.frames()]
        assert found == pytest.approx([index / 25 for index in range(12 - skipped)])
        assert found == pytest.approx([float(time) for time in read_back(path)[1]])

    def test_an_edit_list_that_begins_late(self, write_clip: WriteClip, make_frames: MakeFrames) -> None:
        pts = [5120 + 512 * index for index in range(9)]
        path = write_clip("a.mp4", make_frames(9, 48, 64), pts=pts, options={"bf": "2"})
        assert b"elst" in path.read_bytes()
        assert [frame.pts for frame in VideoSource(path).frames()] == pts

    @pytest.mark.parametrize("count", [2, 8, 30])
    @pytest.mark.parametrize("later_s", [0, 7200])
    def test_joined_transport_streams(
        self, write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path, count: int, later_s: int
    ) -> None:
        """The second part begins at zero again, or hours later, which is kept. A part keeps its pace."""
        ticks = [3600 * index for index in range(count)]
        how = {"time_base": Fraction(1, 90000), "options": {"bf": "0"}}
        first = write_clip("a.ts", make_frames(count, 48, 64), pts=ticks, **how)
        moved = [tick + 90000 * later_s for tick in ticks]
        second = write_clip("b.ts", make_frames(count, 48, 64, seed=1), pts=moved, **how)
        joined = tmp_path / "joined.ts"
        joined.write_bytes(first.read_bytes() + second.read_bytes())
        source = VideoSource(joined)
        found = [frame.pts for frame in source.frames() if frame.pts is not None]
        assert len(found) == 2 * count and source.repaired_timestamps == 0
        for part in (found[:count], found[count:]):
            assert [pts - part[0] for pts in part] == ticks
        assert source.timestamp_jumps == (0 if later_s else 1)
        assert found[count] - found[0] == (90000 * later_s or 3600 * count)

    def test_an_open_file_is_closed_when_it_is_refused(self, tmp_path: Path) -> None:
        path = write_tracks(tmp_path / "a.mp4", [(64, 48)])
        with OpenVideo(path) as video:
            container = video.container
            assert video.total == 5
        with pytest.raises((AssertionError, ValueError, AttributeError)):
            next(container.demux(video=0))
