"""vmkla.video.media.interlace: woven frames are found, and made whole, one out for each one in."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.video.media.woven_clips import woven_frames, write_flagged
from vmkla.errors import UsageError
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.interlace import Deinterlacer, FieldVotes, decide

Image = npt.NDArray[np.uint8]
Woven = tuple[list[Image], list[Image], list[Image]]


@pytest.fixture(scope="module")
def woven() -> Woven:
    return woven_frames(14)


@pytest.fixture(scope="module")
def bottom_first() -> list[Image]:
    return woven_frames(14, bottom_first=True)[0]


def rgb_of(path: Path, **options: Any) -> list[Image]:
    return [frame.rgb for frame in VideoSource(path, **options).frames()]


def error_of(found: list[Image], wanted: list[Image]) -> float:
    """Mean difference, the grain smoothed along the lines; without the lines that have one neighbour only."""
    smooth = [[cv2.blur(image, (9, 1))[2:-2].astype(int) for image in images] for images in (found, wanted)]
    return float(np.mean([np.abs(a - b).mean() for a, b in zip(*smooth, strict=True)]))


class TestDecision:
    def test_woven_frames_without_a_flag_are_found(self, tmp_path: Path, woven: Woven) -> None:
        source = VideoSource(write_flagged(tmp_path / "a.mp4", woven[0]))
        assert (source.fields.deinterlace, source.fields.because) == (True, "content")
        assert (source.fields.order, source.fields.votes.flagged) == ("top first", 0)
        assert "interlaced" in source.fields.note() and "--deinterlace no" in source.fields.note()

    def test_the_field_order_is_found(self, tmp_path: Path, bottom_first: list[Image]) -> None:
        assert VideoSource(write_flagged(tmp_path / "a.mp4", bottom_first)).fields.order == "bottom first"

    @pytest.mark.parametrize("flag", ["tff", "bff"])
    def test_flags_that_the_content_confirms(
        self,
        tmp_path: Path,
        woven: Woven,
        bottom_first: list[Image],
        flag: str,
    ) -> None:
        frames = woven[0] if flag == "tff" else bottom_first
        fields = VideoSource(write_flagged(tmp_path / "a.mp4", frames, flag=flag)).fields
        assert fields.deinterlace and fields.votes.flagged == fields.votes.frames
        assert fields.order == ("top first" if flag == "tff" else "bottom first")

    def test_progressive_frames_with_a_flag_stay_as_they_are(self, tmp_path: Path, woven: Woven) -> None:
        path = write_flagged(tmp_path / "a.mp4", woven[1], flag="tff")
        source = VideoSource(path)
        assert not source.fields.deinterlace and source.fields.votes.flagged == source.fields.votes.frames
        assert "left as they are" in source.fields.note()
        for found, plain in zip(rgb_of(path), rgb_of(path, deinterlace="no"), strict=True):
            np.testing.assert_array_equal(found, plain)

    def test_progressive_frames_without_a_flag_are_no_news(self, tmp_path: Path, woven: Woven) -> None:
        source = VideoSource(write_flagged(tmp_path / "a.mp4", woven[1]))
        assert not source.fields.deinterlace and source.fields.note() == ""

    @pytest.mark.parametrize("flag", ["", "tff"])
    def test_without_motion_the_flags_decide(self, tmp_path: Path, flag: str) -> None:
        still = np.random.default_rng(0).integers(0, 200, (48, 64, 3)).astype(np.uint8)
        fields = VideoSource(write_flagged(tmp_path / "a.mp4", [still] * 12, flag=flag)).fields
        assert (fields.because, fields.deinterlace) == ("flags", bool(flag))

    def test_noise_in_both_orders_is_no_interlace(self) -> None:
        """As measured on a progressive recording in which the camera stands still for a while."""
        votes = FieldVotes(top_first=27, bottom_first=20, progressive=40, frames=100)
        assert not decide("auto", votes).deinterlace
        assert decide("auto", FieldVotes(top_first=42, progressive=9, frames=52)).deinterlace

    def test_few_verdicts_count_in_a_short_clip_only(self) -> None:
        assert decide("auto", FieldVotes(top_first=5, frames=6)).deinterlace
        assert not decide("auto", FieldVotes(top_first=5, frames=200)).deinterlace
        assert decide("auto", FieldVotes(top_first=5, frames=200, flagged=200)).because == "flags"

    @pytest.mark.parametrize("wanted", ["yes", "no"])
    def test_what_is_asked_for_is_done(self, tmp_path: Path, woven: Woven, wanted: Any) -> None:
        fields = VideoSource(write_flagged(tmp_path / "a.mp4", woven[0]), deinterlace=wanted).fields
        assert (fields.deinterlace, fields.because) == (wanted == "yes", "asked")

    def test_another_word_is_refused(self, tmp_path: Path) -> None:
        word: Any = "perhaps"
        with pytest.raises(UsageError, match="perhaps"):
            VideoSource(tmp_path / "a.mp4", deinterlace=word)

    @pytest.mark.needs_data
    def test_a_real_interlaced_recording_is_found(self, shared_data: Path) -> None:
        fields = VideoSource(shared_data / "video" / "polyp_seq1.mp4").fields
        assert fields.deinterlace and fields.votes.flagged == 0 and fields.order == "top first"

    @pytest.mark.needs_data
    def test_a_real_progressive_recording_stays(self, shared_data: Path) -> None:
        assert not VideoSource(shared_data / "video" / "colonoscopy.mp4").fields.deinterlace

    def test_a_still_beginning_is_looked_past(
        self, tmp_path: Path, woven: Woven, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A page with the patient's data, longer than what is looked through where there is motion."""
        monkeypatch.setattr("vmkla.video.media.decoding.PROBE_FRAMES", 20)
        source = VideoSource(write_flagged(tmp_path / "a.mp4", [woven[1][0]] * 40 + woven[0]))
        assert source.fields.deinterlace and source.fields.votes.frames > 40


class TestFrames:
    def test_frames_come_near_to_the_whole_ones(self, tmp_path: Path, woven: Woven) -> None:
        path = write_flagged(tmp_path / "a.mp4", woven[0])
        combed, made = error_of(rgb_of(path, deinterlace="no"), woven[1]), error_of(rgb_of(path), woven[1])
        assert made < 0.65 * combed

    def test_the_lower_field_is_kept_when_it_is_first(
        self, tmp_path: Path, bottom_first: list[Image]
    ) -> None:
        path = write_flagged(tmp_path / "a.mp4", bottom_first)
        plain, made = rgb_of(path, deinterlace="no"), rgb_of(path)
        # Chroma is shared between lines in 4:2:0, so lines are alike, not equal.
        changes = [np.abs(a[2:-2].astype(int) - b[2:-2]) for a, b in zip(plain, made, strict=True)]
        kept = np.mean([change[1::2].mean() for change in changes])
        other = np.mean([change[0::2].mean() for change in changes])
        assert kept < 0.4 * other

    @pytest.mark.parametrize("flag", ["", "tff"])
    def test_one_frame_out_per_frame_in_at_the_same_time(
        self, tmp_path: Path, woven: Woven, flag: str
    ) -> None:
        """The filter holds a frame back until it has seen the next, and its own clock is twice as fine."""
        pts = [0, 1, 2, 7, 8, 20, 21, 22, 40, 41, 42, 43, 90, 91]
        path = write_flagged(tmp_path / "a.mkv", woven[0], flag=flag, pts=pts)
        source = VideoSource(path)
        frames = list(source.frames())
        assert source.fields.deinterlace
        assert [round(frame.pts_s * 25) for frame in frames if frame.pts_s is not None] == pts
        assert [frame.index for frame in frames] == list(range(14))
        plain = [frame.pts for frame in VideoSource(path, deinterlace="no").frames()]
        assert [frame.pts for frame in frames] == plain

    def test_a_single_frame(self, tmp_path: Path, woven: Woven) -> None:
        path = write_flagged(tmp_path / "a.mp4", woven[0][:1], flag="tff")
        assert len(rgb_of(path, deinterlace="yes")) == 1

    @pytest.mark.parametrize("tag", [1, 6])
    def test_colours_and_rotation_survive(self, tmp_path: Path, woven: Woven, tag: int) -> None:
        def colours(context: Any) -> None:
            context.colorspace, context.color_range = tag, 2

        path = write_flagged(tmp_path / "a.mp4", woven[1], colours=colours)
        data = path.read_bytes()
        identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        place = data.index(identity, data.index(b"tkhd"))
        turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        path.write_bytes(data[:place] + turned + data[place + 36 :])
        plain, made = (next(iter(VideoSource(path, deinterlace=how).frames())) for how in ("no", "yes"))
        assert made.rgb.shape == plain.rgb.shape == (192, 144, 3)
        assert made.traits == plain.traits
        # Another matrix or range moves whole areas by more than ten; interpolation touches edges only.
        assert np.abs(made.rgb.mean((0, 1)) - plain.rgb.mean((0, 1))).max() < 1

    @pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p10le", "bgr0", "yuyv422"])
    def test_other_pixel_formats(self, tmp_path: Path, woven: Woven, pix_fmt: str) -> None:
        codec = {"bgr0": "ffv1", "yuyv422": "rawvideo"}.get(pix_fmt, "libx264")
        path = write_flagged(tmp_path / "a.mkv", woven[0], codec=codec, pix_fmt=pix_fmt)
        source = VideoSource(path)
        assert source.fields.deinterlace
        combed, made = error_of(rgb_of(path, deinterlace="no"), woven[1]), error_of(rgb_of(path), woven[1])
        assert made < 0.65 * combed

    def test_a_change_of_size_makes_a_new_graph(self, tmp_path: Path) -> None:
        small, large = woven_frames(5)[0], woven_frames(5, height=192, width=240)[0]
        both = tmp_path / "both.h264"
        parts = [
            write_flagged(tmp_path / f"{index}.h264", frames, flag="tff").read_bytes()
            for index, frames in enumerate((small, large))
        ]
        both.write_bytes(b"".join(parts))
        shapes = [image.shape[:2] for image in rgb_of(both, deinterlace="yes")]
        assert shapes == [(144, 192)] * 5 + [(192, 240)] * 5

    def test_damaged_flags_stay_with_their_frames(self, woven: Woven) -> None:
        """Pairs keep the decoded frame itself, whatever the filter makes of it."""
        import av

        decoded = []
        for index, image in enumerate(woven[0][:5]):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts = None if index == 2 else 1000 - index
            decoded.append(frame)
        pairs = list(Deinterlacer("top first").frames(decoded))
        assert [source is frame for (source, _), frame in zip(pairs, decoded, strict=True)] == [True] * 5
        assert [source.pts for source, _ in pairs] == [1000, 999, None, 997, 996]


class TestLaterParts:
    def test_a_recording_that_becomes_interlaced_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first frames decide; what contradicts them later is a problem of the run, not silence."""
        monkeypatch.setattr("vmkla.video.media.decoding.WATCH_FRAMES", 20)
        monkeypatch.setattr("vmkla.video.media.interlace._ENOUGH", 10)
        woven, whole, _ = woven_frames(24)
        source = VideoSource(write_flagged(tmp_path / "a.mp4", whole + woven))
        frames = list(source.frames())
        assert len(frames) == 48 and not source.fields.deinterlace
        assert [problem.where for problem in source.combed] == ["frames 20 to 39"]
        assert "--deinterlace yes" in source.problems[0].what


def test_the_network_finds_nearer_what_it_finds_in_whole_frames(tmp_path: Path) -> None:
    """Area error of the shipped network on woven frames, and on the same made whole."""
    from vmkla.engines import load_runner
    from vmkla.segment.findings import find
    from vmkla.segment.operating_point import OperatingPoint
    from vmkla.segment.preprocess import PreprocessSpec, field_of_view, prepare

    woven, whole, truth = woven_frames(8, height=360, width=480)
    path = write_flagged(tmp_path / "a.mp4", woven)
    runner = load_runner("nano")
    spec = PreprocessSpec(runner.spec.height, runner.spec.width, runner.spec.metadata.preprocess.roi)

    def masks(images: list[Image]) -> list[Image]:
        found = []
        for rgb in images:
            rect = field_of_view(rgb, spec.roi)
            probability = runner.infer(prepare(rgb, spec, rect)[np.newaxis])[0]
            found.append(
                find(probability, rect, (360, 480), OperatingPoint(runner.spec.metadata.threshold)).mask > 0
            )
        return found

    def wrong_px(images: list[Image]) -> int:
        pairs = zip(masks(images), wanted, strict=True)
        return sum(int(np.count_nonzero(a ^ b)) for a, b in pairs)

    wanted = masks(whole)
    runner_sees_something = sum(int(mask.sum()) for mask in wanted)
    assert runner_sees_something > 0.3 * sum(np.count_nonzero(mask) for mask in truth)
    combed, made = wrong_px(rgb_of(path, deinterlace="no")), wrong_px(rgb_of(path))
    runner.close()
    assert made < 0.5 * combed, f"{made} px wrong after, {combed} px before"


def test_a_run_that_is_stopped_before_its_first_frame_looks_at_nothing(
    tmp_path: Path, woven: Woven, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = VideoSource(write_flagged(tmp_path / "a.mp4", woven[0]))
    monkeypatch.setattr(VideoSource, "_votes", lambda self: pytest.fail("it looked"))
    assert source.describe()["fields"] is None and source.notes() == []
