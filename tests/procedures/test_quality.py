"""Picture quality: measured on frames whose blur, white and dark areas are known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.procedures.quality import FrozenPicture, Quality, measure, small_view, still_score
from vmkla.segment.preprocess import Rect, visible_field
from vmkla.video.media.clip import render_clip

Image = npt.NDArray[np.uint8]
SIZES_HW = [(360, 480), (1080, 1920)]


def whole(frame: Image) -> Rect:
    return Rect(0, 0, frame.shape[1], frame.shape[0])


def quality(frame: Image, rect: Rect | None = None) -> Quality:
    return measure(small_view(frame, rect or visible_field(frame) or whole(frame)))


def rendered(seed: int, size_hw: tuple[int, int]) -> Image:
    return next(iter(render_clip(seed, *size_hw, frames=1)))[0]


def tissue(size_hw: tuple[int, int], seed: int = 0) -> Image:
    """Red, textured at several scales, without black or white."""
    rng = np.random.default_rng(seed)
    texture = sum(
        cv2.resize(rng.normal(0, 9, (size_hw[0] // step, size_hw[1] // step)), size_hw[::-1])
        for step in (3, 10, 30)
    )
    return np.clip(texture[..., None] + (150, 80, 70), 40, 200).astype(np.uint8)


def flat(level: int, size_hw: tuple[int, int] = (360, 480)) -> Image:
    return np.full((*size_hw, 3), level, np.uint8)


def moved(frame: Image, size_px: int, *, down: bool) -> Image:
    """Blur by motion along one direction."""
    return cv2.blur(frame, (1, size_px) if down else (size_px, 1)).astype(np.uint8)


class TestBlur:
    @pytest.mark.parametrize(("seed", "size_hw"), [(1, (360, 480)), (2, (360, 480)), (3, (720, 960))])
    def test_more_blur_never_scores_sharper(self, seed: int, size_hw: tuple[int, int]) -> None:
        frame, unit = rendered(seed, size_hw), size_hw[0] / 360
        rect = visible_field(frame) or whole(frame)
        found = [
            quality(cv2.GaussianBlur(frame, (0, 0), sigma * unit), rect).blur
            if sigma
            else quality(frame, rect).blur
            for sigma in (0, 0.5, 1, 1.5, 2, 3, 4, 6, 8)
        ]
        assert found == sorted(found)
        assert found[-1] - found[0] > 0.4 and 0 <= found[0] and found[-1] <= 1
        assert found[4] - found[0] > 0.1  # a blur of two pixels of 360 lines shows

    @pytest.mark.parametrize("down", [False, True])
    def test_motion_in_either_direction_is_blur(self, down: bool) -> None:
        frame = tissue((360, 480))
        found = [
            quality(moved(frame, size, down=down)).blur if size else quality(frame).blur
            for size in (0, 9, 25)
        ]
        assert found[0] + 0.1 < found[1] < found[2]

    def test_without_any_difference_nothing_is_sharp(self) -> None:
        slope = np.repeat(np.linspace(60, 120, 480).astype(np.uint8)[None, :, None], 360, 0).repeat(3, 2)
        assert quality(flat(120)).blur == 1 and quality(flat(120)).sharpness == 0
        # Eight bits make single steps of a slope; they are not edges.
        assert quality(slope).blur == 1

    def test_a_codecs_noise_on_a_blurred_frame_does_not_make_it_sharp(self) -> None:
        blurred = cv2.GaussianBlur(tissue((360, 480)), (0, 0), 8)
        noisy = np.clip(blurred + np.random.default_rng(0).normal(0, 1, blurred.shape), 0, 255).astype(
            np.uint8
        )
        assert quality(noisy).sharpness < 0.5 * quality(tissue((360, 480))).sharpness

    def test_highlights_do_not_make_a_blurred_frame_sharp(self) -> None:
        blurred = np.asarray(cv2.GaussianBlur(tissue((360, 480)), (0, 0), 6), np.uint8)
        shining = blurred.copy()
        for x in range(30, 460, 60):
            cv2.circle(shining, (x, 180), 5, (255, 255, 255), -1)
        assert quality(shining).blur == pytest.approx(quality(blurred).blur, abs=0.02)

    def test_both_sizes_of_one_scene_agree(self) -> None:
        large = tissue((1080, 1440))
        small = np.asarray(cv2.resize(large, (480, 360), interpolation=cv2.INTER_AREA), np.uint8)
        assert quality(large).blur == pytest.approx(quality(small).blur, abs=0.1)


class TestLight:
    @pytest.mark.parametrize("size_hw", SIZES_HW)
    def test_glare_is_the_share_of_its_spots(self, size_hw: tuple[int, int]) -> None:
        frame, side = tissue(size_hw), size_hw[0] // 20
        for x in range(side, size_hw[1] - 2 * side, 6 * side):
            frame[size_hw[0] // 3 :][:side, x : x + side] = 255
        share = (frame.min(axis=2) == 255).mean()
        found = quality(frame)
        assert 0.004 < share < 0.02
        assert found.glare == pytest.approx(share, rel=0.15) and found.overexposed == 0

    @pytest.mark.parametrize("share", [0.25, 0.5])
    def test_a_wide_white_area_is_overexposed(self, share: float) -> None:
        frame = tissue((360, 480))
        frame[: round(360 * share)] = 250
        found = quality(frame)
        assert found.overexposed == pytest.approx(share, abs=0.01) and found.glare < 0.005

    def test_a_bright_red_area_is_neither(self) -> None:
        frame = tissue((360, 480))
        frame[100:200, 100:200] = (255, 150, 120)
        assert (quality(frame).glare, quality(frame).overexposed) == (0, 0)

    def test_brightness_and_dark_share(self) -> None:
        frame = flat(102)
        frame[90:270, 120:360] = 10  # a lumen: a quarter, away from the edges
        found = quality(frame)
        assert found.brightness == pytest.approx((0.75 * 102 + 0.25 * 10) / 255, abs=0.01)
        assert found.underexposed == pytest.approx(0.25, abs=0.01) and not found.black

    @pytest.mark.parametrize(("level", "black"), [(0, True), (24, True), (25, False)])
    def test_black(self, level: int, black: bool) -> None:
        frame = flat(0)
        frame[..., 0] = level
        assert quality(frame).black is black

    def test_a_black_frame_is_dark_and_not_sharp(self) -> None:
        noisy = np.random.default_rng(0).integers(0, 20, (360, 480, 3)).astype(np.uint8)
        found = quality(noisy)
        assert found.black and found.underexposed == 1 and found.glare == 0 and found.brightness < 0.1


def test_why_a_picture_is_poor() -> None:
    good, white, dark = tissue((360, 480)), tissue((360, 480)), tissue((360, 480))
    white[:90] = 255
    dark[60:300, 40:440] //= 12
    shining = good.copy()
    for y in range(20, 350, 40):
        for x in range(20, 470, 40):
            cv2.circle(shining, (x, y), 8, (255, 255, 255), -1)
    blurred = np.asarray(cv2.GaussianBlur(good, (0, 0), 12), np.uint8)
    found = [quality(frame).poor for frame in (good, white, dark, shining, blurred, flat(3))]
    assert found == [None, "overexposed", "underexposed", "glare", "blur", "black"]


class TestBorder:
    @pytest.mark.parametrize("shape", ["disc", "octagon"])
    def test_the_endoscopes_border_is_ignored(self, shape: str) -> None:
        """The same scene behind a border: its sharp edge and its black corners change nothing."""
        scene = np.asarray(cv2.GaussianBlur(tissue((360, 360)), (0, 0), 4), np.uint8)
        seen = np.zeros((360, 360), np.uint8)
        if shape == "disc":
            cv2.circle(seen, (180, 180), 178, 1, -1)
        else:
            cut = [(80, 0), (280, 0), (359, 80), (359, 280), (280, 359), (80, 359), (0, 280), (0, 80)]
            cv2.fillPoly(seen, [np.array(cut)], 1)
        plain, behind = quality(scene), quality(scene * seen[..., None], Rect(0, 0, 360, 360))
        assert behind.blur == pytest.approx(plain.blur, abs=0.03)
        assert behind.brightness == pytest.approx(plain.brightness, abs=0.02)
        assert behind.underexposed == plain.underexposed == 0

    def test_what_lies_outside_the_field_of_view_is_ignored(self) -> None:
        scene, field = tissue((360, 360)), Rect(300, 40, 360, 360)
        frame = flat(0, (480, 960))
        frame[40:400, 300:660] = scene
        frame[200:280, 20:240] = 255  # patient data beside the picture
        assert quality(frame, field) == quality(scene, Rect(0, 0, 360, 360))


class TestStill:
    FRAME = tissue((360, 480))
    BOX = Rect(180, 120, 90, 90)

    def score(self, frame: Image, box: Rect = BOX) -> float:
        return still_score(small_view(frame, whole(frame)), box)

    def test_the_sharper_the_larger_and_the_less_glare_the_better(self) -> None:
        own = self.score(self.FRAME)
        shining = self.FRAME.copy()
        cv2.circle(shining, (225, 165), 12, (255, 255, 255), -1)
        assert 0 < self.score(np.asarray(cv2.GaussianBlur(self.FRAME, (0, 0), 3), np.uint8)) < 0.8 * own
        assert self.score(shining) < own
        assert self.score(self.FRAME, Rect(160, 100, 130, 130)) > own

    def test_only_the_lesion_counts(self) -> None:
        """Sharp elsewhere does not help, and glare elsewhere does not matter."""
        blurred = np.asarray(cv2.GaussianBlur(self.FRAME, (0, 0), 3), np.uint8)
        blurred[:, 300:] = self.FRAME[:, 300:]
        shining = self.FRAME.copy()
        cv2.circle(shining, (400, 60), 12, (255, 255, 255), -1)
        assert self.score(blurred) < 0.8 * self.score(self.FRAME)
        assert self.score(shining) == pytest.approx(self.score(self.FRAME))

    def test_its_value(self) -> None:
        """A box without any glare: sharpness times the root of its share of the frame."""
        found = measure(small_view(self.FRAME, whole(self.FRAME)), self.BOX)
        assert found.glare == found.overexposed == 0
        assert self.score(self.FRAME) == pytest.approx(found.sharpness * (90 * 90 / (360 * 480)) ** 0.5)

    @pytest.mark.parametrize("box", [Rect(0, 0, 1, 1), Rect(479, 359, 1, 1), Rect(0, 0, 480, 360)])
    def test_any_box_of_the_frame_has_a_score(self, box: Rect) -> None:
        assert 0 <= self.score(self.FRAME, box) <= 1


def through_codec(frames: list[Image], path: Path) -> list[Image]:
    """Encode as a recorder does, with visible loss, and decode."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=25, options={"crf": "30", "g": "12", "threads": "1"}
        )
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def spans_s(frames: list[Image]) -> list[float]:
    frozen = FrozenPicture()
    return [frozen.see(small_view(frame, whole(frame)), index / 25) for index, frame in enumerate(frames)]


class TestFrozen:
    def test_repeats_with_a_codecs_noise_are_frozen(self, tmp_path: Path) -> None:
        decoded = through_codec([rendered(5, (360, 480))] * 50, tmp_path / "frozen.mp4")
        assert any((one != other).any() for one, other in zip(decoded, decoded[1:], strict=False))
        assert spans_s(decoded) == pytest.approx([index / 25 for index in range(50)])

    def test_a_slow_pan_is_not(self, tmp_path: Path) -> None:
        """A quarter of a pixel a frame: no frame differs much from the one before."""
        scene = rendered(5, (360, 520))[:, 20:]
        shifts = [np.array([[1, 0, -0.25 * index], [0, 1, 0]], np.float64) for index in range(50)]
        frames = [cv2.warpAffine(scene, shift, (480, 360), borderMode=cv2.BORDER_REFLECT) for shift in shifts]
        spans = spans_s(
            through_codec([np.asarray(frame, np.uint8) for frame in frames], tmp_path / "pan.mp4")
        )
        assert max(spans) < 0.7 and spans.count(0) >= 3

    def test_a_small_change_of_the_picture_ends_it(self) -> None:
        frame = tissue((360, 480))
        other = frame.copy()
        other[100:130, 200:230] += 40
        assert spans_s([frame, frame, frame, other, other]) == pytest.approx([0, 0.04, 0.08, 0, 0.04])

    def test_another_size_and_a_time_that_jumps_back_begin_anew(self) -> None:
        frozen, small, large = FrozenPicture(), flat(100, (120, 160)), flat(100, (20, 20))
        times = [(small, 5.0), (small, 6.0), (large, 7.0), (large, 8.0), (large, 3.0), (large, 3.5)]
        spans = [frozen.see(small_view(frame, whole(frame)), time_s) for frame, time_s in times]
        assert spans == [0, 1, 0, 1, 0, 0.5]


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (50, 1), (9, 9), (33, 2000)])
def test_frames_of_any_size(size_hw: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    found = quality(frame, whole(frame))
    values = (found.blur, found.brightness, found.overexposed, found.glare, found.underexposed)
    assert all(0 <= value <= 1 for value in values)
    assert FrozenPicture().see(small_view(frame, whole(frame)), 0.0) == 0
