"""vmkla.procedures.scene: a cut is told from a moving camera."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.procedures.scene import CHANGE_LIMIT, CUT_LIMIT, change, thumbnail
from vmkla.video.media.clip import Scene

Image = npt.NDArray[np.uint8]


def texture(seed: int, height: int = 120, width: int = 160, *, level: float = 120) -> Image:
    """A smooth random frame."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    return np.clip(level + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "hw", [(48, 64), (120, 160), (360, 480), (1080, 1920), (1920, 1080), (7, 5), (1, 900)]
)
def test_a_thumbnail_of_any_size(hw: tuple[int, int]) -> None:
    rgb = texture(1, *hw)
    before = rgb.copy()
    small = thumbnail(rgb)
    np.testing.assert_array_equal(rgb, before)
    assert min(small.grey.shape) == min(120, *hw)
    assert small.coarse.shape == (48, 64) and small.coarse.dtype == np.float32
    height, width = small.grey.shape
    assert small.shrink == pytest.approx((hw[1] / width, hw[0] / height))
    assert change(small, small) == 0


def test_a_thumbnail_holds_no_view_of_the_frame() -> None:
    rgb = texture(2, 90, 110)  # smaller than a thumbnail, so nothing is shrunk
    small = thumbnail(rgb)
    grey, coarse = small.grey.copy(), small.coarse.copy()
    rgb[:] = 0
    np.testing.assert_array_equal(small.grey, grey)
    np.testing.assert_array_equal(small.coarse, coarse)


def test_change_is_symmetric_and_grows_with_the_distance() -> None:
    wide = texture(3, 120, 260)
    views = [thumbnail(np.ascontiguousarray(wide[:, shift : shift + 160])) for shift in (0, 2, 8, 40)]
    changes = [change(views[0], view) for view in views]
    assert changes == sorted(changes) and changes[0] == 0 < changes[1]
    assert change(views[3], views[0]) == pytest.approx(changes[3])


def test_darkness_and_light() -> None:
    rng = np.random.default_rng(0)
    lit = thumbnail(texture(4))
    black = thumbnail(np.zeros((120, 160, 3), np.uint8))
    noisy_black = thumbnail(rng.integers(0, 12, (120, 160, 3)).astype(np.uint8))
    white = thumbnail(np.full((120, 160, 3), 255, np.uint8))
    assert change(black, noisy_black) == 0
    assert change(lit, black) > 1.5 and change(black, lit) > 1.5
    assert change(lit, white) > CHANGE_LIMIT


def test_the_border_of_the_endoscope_does_not_dilute_a_cut() -> None:
    small = [texture(seed, 120, 160) for seed in (5, 6)]
    framed = []
    for image in small:
        frame = np.zeros((360, 480, 3), np.uint8)
        frame[120:240, 160:320] = image
        framed.append(frame)
    plain = change(*(thumbnail(image) for image in small))
    assert plain > CUT_LIMIT
    assert change(*(thumbnail(frame) for frame in framed)) == pytest.approx(plain, rel=0.15)


def test_sensor_noise_is_no_change() -> None:
    rng = np.random.default_rng(1)
    rgb = texture(7).astype(np.int16)
    noisy = [np.clip(rgb + rng.normal(0, 8, rgb.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    assert change(*(thumbnail(image) for image in noisy)) < CUT_LIMIT / 3


def test_rendered_clips_move_without_cuts_and_differ_from_each_other() -> None:
    clips = []
    for seed in (0, 1, 4):
        scene = Scene(seed, 120, 160)
        clips.append([thumbnail(scene.frame(index)[0]) for index in range(12)])
    for clip in clips:
        assert max(change(*pair) for pair in zip(clip, clip[1:], strict=False)) < CUT_LIMIT
        assert max(change(*pair) for pair in zip(clip, clip[4:], strict=False)) < CHANGE_LIMIT
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert change(clips[first][0], clips[second][0]) > CUT_LIMIT


@pytest.mark.needs_data
def test_real_clips_move_without_cuts_and_differ_from_each_other(shared_data: Path) -> None:
    clips = []
    for name in ("polyp_seq1.mp4", "colonoscopy.mp4"):
        clip = []
        with av.open(str(shared_data / "video" / name)) as container:
            for frame in container.decode(video=0):
                clip.append(thumbnail(frame.to_ndarray(format="rgb24")))
                if len(clip) == 300:
                    break
        clips.append(clip)
        assert max(change(*pair) for pair in zip(clip, clip[1:], strict=False)) < CUT_LIMIT
    cuts = [change(first, second) for first in clips[0] for second in clips[1][::10]]
    assert min(cuts) > CUT_LIMIT
