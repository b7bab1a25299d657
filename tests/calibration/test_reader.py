"""Frames to calibrate with: spread, distinct, counted, and refused when there is too little to trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from exported_models import frames
from labelled_folders import write_folder
from small_graphs import SIDE
from small_videos import write_video

from vmkla.calibration.reader import MIN_FRAMES, read_check, read_frames
from vmkla.errors import BadInputError
from vmkla.preprocess import PreprocessSpec

SPEC = PreprocessSpec(SIDE, SIDE)
Images = Callable[..., Path]


def test_frames_are_spread_hashed_and_held_out(images: Images) -> None:
    folder = images(90)
    seen = read_frames([str(folder)], SPEC, count=40, check_count=20)
    assert (len(seen.frames), len(seen.check_frames), seen.held_out, seen.duplicates) == (40, 20, True, 0)
    whole = frames(90, SIDE, SIDE)
    numbers = [int(name.removesuffix(".png")) for name in seen.names]
    assert numbers == sorted(numbers) and numbers[0] < 3 and numbers[-1] > 80
    np.testing.assert_array_equal(seen.frames, whole[numbers])
    kept = {frame.tobytes() for frame in seen.frames}
    assert not any(frame.tobytes() in kept for frame in seen.check_frames)
    again = read_frames([str(folder)], SPEC, count=40, check_count=20)
    assert again.sha256 == seen.sha256
    other = read_frames([str(images(90, name="other", seed=1))], SPEC, count=40, check_count=20)
    assert other.sha256 != seen.sha256


def test_few_distinct_frames_serve_both_ends(images: Images) -> None:
    seen = read_frames([str(images(MIN_FRAMES))], SPEC, count=64, check_count=20)
    assert len(seen.frames) == len(seen.check_frames) == MIN_FRAMES and not seen.held_out


def test_one_repeated_frame_is_refused(tmp_path: Path) -> None:
    """Forty copies are one frame, also when a video's compression makes each a little different."""
    frame = frames(1, SIDE, SIDE)[0]
    for number in range(40):
        noisy = np.clip(frame + np.random.default_rng(number).integers(-1, 2, frame.shape), 0, 255)
        cv2.imwrite(str(tmp_path / f"{number}.png"), noisy.astype(np.uint8))
    with pytest.raises(BadInputError, match=r"1 distinct frames \(40 were read, 39 of them") as caught:
        read_frames([str(tmp_path)], SPEC, count=32, check_count=8)
    assert "--allow-few" in str(caught.value)
    seen = read_frames([str(tmp_path)], SPEC, count=32, check_count=8, allow_few=True)
    assert (len(seen.frames), seen.duplicates) == (1, 39)


def test_fewer_than_enough_are_refused(images: Images) -> None:
    folder = images(MIN_FRAMES - 1)
    with pytest.raises(BadInputError, match=f"{MIN_FRAMES - 1} distinct frames"):
        read_frames([str(folder)], SPEC, count=64, check_count=8)


def test_copies_make_room_for_others(images: Images) -> None:
    """Where the spread choice meets copies, frames in between are taken instead."""
    folder = images(80)
    for number in range(0, 80, 2):
        (folder / f"{number:03d}.png").write_bytes((folder / "000.png").read_bytes())
    seen = read_frames([str(folder)], SPEC, count=40, check_count=0)
    assert len(seen.frames) == 40 and seen.duplicates > 0


@pytest.mark.parametrize(("spoilt", "refused"), [(2, False), (6, True)])
def test_unreadable_images(images: Images, spoilt: int, refused: bool) -> None:
    """Listed, skipped and counted up to one in twenty, refused beyond."""
    folder = images(60)
    for number in range(spoilt):
        (folder / f"{7 * number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    if refused:
        with pytest.raises(BadInputError, match=r"6 of 60 images .* 5%") as caught:
            read_frames([str(folder)], SPEC, count=60, check_count=20)
        assert "000.png" in str(caught.value) and "035.png" in str(caught.value)
        return
    seen = read_frames([str(folder)], SPEC, count=60, check_count=20)
    assert [problem.where for problem in seen.problems] == ["000.png", "007.png"]
    assert len(seen.to_dict()["unreadable"]) == 2 and len(seen.frames) + len(seen.check_frames) == 58


def test_a_labelled_folder_gives_its_images_and_their_masks(tmp_path: Path) -> None:
    """Masks are never calibrated on."""
    folder = write_folder(tmp_path / "set", 70)
    seen = read_frames([str(folder)], SPEC, count=40, check_count=10)
    assert seen.seen == 50 and len(seen.check_pairs) == len(seen.check_frames) == 10
    assert not any("mask" in name for name in seen.names)
    few, pairs, _ = read_check([str(folder)], SPEC, count=5)
    assert len(few) == len(pairs) == 5


def test_a_video_is_read_to_its_end(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", 90)
    seen = read_frames([str(clip)], SPEC, count=40, check_count=10)
    assert len(seen.frames) >= MIN_FRAMES and not seen.check_pairs
    assert int(seen.names[0]) < 4 and int(seen.names[-1]) > 80


def test_a_still_picture_as_a_video_is_one_frame(tmp_path: Path) -> None:
    import av

    picture = np.ascontiguousarray(frames(1, 64, 96)[0])
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with pytest.raises(BadInputError, match="1 distinct frames"):
        read_frames([str(tmp_path / "still.mp4")], SPEC, count=32, check_count=8)
