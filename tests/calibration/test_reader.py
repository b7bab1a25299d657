"""Frames to calibrate with: spread, distinct, counted, and refused when there is too little to trust."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calibration.small_graphs import SIDE
from tests.data.labelled_folders import write_folder
from tests.export.exported_models import frames
from tests.video.small_videos import write_tracks
from vmkla.calibration.likeness import DistinctViews
from vmkla.calibration.reader import MIN_CHECK, MIN_FRAMES, read_check, read_frames
from vmkla.errors import BadInputError
from vmkla.segment.preprocess import PreprocessSpec

SPEC = PreprocessSpec(SIDE, SIDE)
Images = Callable[..., Path]


def test_frames_are_spread_hashed_and_held_out(images: Images) -> None:
    folder = images(90)
    seen = read_frames([str(folder)], SPEC, count=40, check_count=20)
    assert (len(seen.frames), len(seen.check_frames), seen.duplicates) == (40, 20, 0)
    assert seen.to_dict()["held_out"] is True
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


@pytest.mark.parametrize(("count", "checked"), [(40, 8), (44, 12), (48, 16), (60, 20), (90, 20)])
def test_the_check_never_sees_a_frame_that_gave_a_range(images: Images, count: int, checked: int) -> None:
    seen = read_frames([str(images(count))], SPEC, count=64, check_count=20)
    assert len(seen.check_frames) == checked and MIN_FRAMES <= len(seen.frames) <= count - checked
    kept = {frame.tobytes() for frame in seen.frames}
    assert not any(frame.tobytes() in kept for frame in seen.check_frames)


def test_too_few_to_check_with_are_refused(images: Images) -> None:
    """39 distinct frames are 32 for the ranges and 7 others; the same ones never serve both ends."""
    folder = str(images(MIN_FRAMES + MIN_CHECK - 1))
    with pytest.raises(
        BadInputError, match="39 distinct frames .* at least 40 .32 for the ranges and 8 oth"
    ) as e:
        read_frames([folder], SPEC, count=64, check_count=20)
    assert "--check WHAT" in str(e.value.hint)
    assert len(read_frames([folder], SPEC, count=64, check_count=0).frames) == 39
    seen = read_frames([folder], SPEC, count=64, check_count=20, allow_few=True)
    assert (len(seen.frames), len(seen.check_frames)) == (26, 13)


def test_data_to_check_with_is_not_that_of_the_ranges(images: Images) -> None:
    first, second = str(images(36)), str(images(12, name="other", seed=1))
    calibrated = read_frames([first], SPEC, count=64, check_count=0)
    with pytest.raises(BadInputError, match="is like one that the ranges were measured on"):
        read_check([first], SPEC, count=8, calibrated=calibrated)
    mixed, _, _ = read_check([first, second], SPEC, count=24, calibrated=calibrated)
    other, _, _ = read_check([second], SPEC, count=12, calibrated=calibrated)
    assert len(other) == 12
    np.testing.assert_array_equal(mixed, other)


def test_one_repeated_frame_is_refused(tmp_path: Path) -> None:
    """Forty copies are one frame, also when a video's compression makes each a little different."""
    frame = frames(1, SIDE, SIDE)[0]
    for number in range(40):
        noisy = np.clip(frame + np.random.default_rng(number).integers(-1, 2, frame.shape), 0, 255)
        cv2.imwrite(str(tmp_path / f"{number}.png"), noisy.astype(np.uint8))
    with pytest.raises(BadInputError, match=r"1 distinct frames \(40 were read, 39 of them") as caught:
        read_frames([str(tmp_path)], SPEC, count=32, check_count=8)
    assert "--allow-few" in str(caught.value)
    with pytest.raises(BadInputError, match=r"1 distinct frames .* expected at least 2"):
        read_frames([str(tmp_path)], SPEC, count=32, check_count=8, allow_few=True)
    seen = read_frames([str(tmp_path)], SPEC, count=32, check_count=0, allow_few=True)
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
    assert seen.seen - seen.duplicates == 50  # every fifth is noise alone, and all those are one view
    assert len(seen.check_pairs) == len(seen.check_frames) == 10
    assert not any("mask" in name for name in seen.names)
    other = write_folder(tmp_path / "other", 9, first_seed=100)
    few, pairs, _ = read_check([str(other)], SPEC, count=5, calibrated=seen)
    assert len(few) == len(pairs) == 5


def coded(path: Path, pictures: npt.NDArray[np.uint8]) -> str:
    """A video of (n, 64, 96, 3)."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return str(path)


def test_a_video_is_read_to_its_end(tmp_path: Path) -> None:
    clip = coded(tmp_path / "clip.mp4", frames(90, 64, 96))
    seen = read_frames([clip], SPEC, count=40, check_count=10)
    assert len(seen.frames) >= MIN_FRAMES and not seen.check_pairs
    assert int(seen.names[0]) < 4 and int(seen.names[-1]) > 80


def test_a_still_picture_as_a_video_is_one_frame(tmp_path: Path) -> None:
    still = coded(tmp_path / "still.mp4", frames(1, 64, 96).repeat(40, axis=0))
    with pytest.raises(BadInputError, match="1 distinct frames"):
        read_frames([still], SPEC, count=32, check_count=8)


def dark_view(side: int) -> npt.NDArray[np.float64]:
    """One badly lit view: folds of 4 to 30 levels."""
    rows, columns = np.mgrid[:side, :side] / side
    folds = 12 + 9 * np.sin(9 * columns + 4 * rows) + 6 * np.cos(14 * rows * columns)
    return np.clip(folds, 3, 30)[..., None] * (1.0, 0.6, 0.5)


@settings(max_examples=25, deadline=None)
@given(
    levels=st.floats(0.5, 25),
    kind=st.sampled_from(["coloured", "grey", "coarse", "JPEG", "brightness"]),
    seed=st.integers(0, 999),
)
def test_noise_makes_no_new_view(levels: float, kind: str, seed: int) -> None:
    """Eighty noisy copies of one dark view passed for 80 frames, and the ranges were those of one."""
    rng, side = np.random.default_rng(seed), 256
    views, distinct = DistinctViews(), 0
    for _ in range(20):
        shape = {"grey": (side, side, 1), "coarse": (side // 2, side // 2, 3)}.get(kind, (side, side, 3))
        noise = rng.normal(0, levels, shape)
        if kind == "coarse":
            noise = noise.repeat(2, axis=0).repeat(2, axis=1)
        shown = dark_view(side) + noise
        if kind == "brightness":
            shown = shown * rng.uniform(0.85, 1.15) + rng.uniform(-2, 2)
        frame = np.clip(np.rint(shown), 0, 255).astype(np.uint8)
        if kind == "JPEG":
            frame = np.asarray(cv2.imdecode(cv2.imencode(".jpg", frame)[1], cv2.IMREAD_COLOR), np.uint8)
        distinct += views.add(frame)
    assert distinct <= (2 if kind == "brightness" else 1)


@pytest.mark.parametrize("levels", [0, 3, 10])
def test_dark_views_that_differ_stay_distinct(levels: int) -> None:
    """The same darkness and noise, another place in the bowel."""
    rng, views = np.random.default_rng(1), DistinctViews()
    for shift in range(12):
        shown = np.roll(dark_view(256), 20 * shift, axis=shift % 2) + rng.normal(0, levels, (256, 256, 3))
        views.add(np.clip(np.rint(shown), 0, 255).astype(np.uint8))
    assert len(views) >= 11


def test_eighty_noisy_copies_of_one_dark_view_are_refused(tmp_path: Path) -> None:
    for number in range(80):
        noise = np.random.default_rng(number).normal(0, 12, (SIDE, SIDE, 3))
        cv2.imwrite(
            str(tmp_path / f"{number}.png"), np.clip(dark_view(SIDE) + noise, 0, 255).astype(np.uint8)
        )
    with pytest.raises(BadInputError, match=r"has [1-3] distinct frames \(80 were read"):
        read_frames([str(tmp_path)], SPEC, count=64, check_count=16)


@pytest.mark.needs_data
def test_a_real_withdrawal_stays_diverse(shared_data: Path) -> None:
    seen = read_frames(
        [str(shared_data / "video" / "colonoscopy.mp4")], PreprocessSpec(256, 256), count=96, check_count=32
    )
    assert seen.seen >= 128 and seen.duplicates <= 0.1 * seen.seen


def test_what_is_left_out_is_told(images: Images, tmp_path: Path) -> None:
    """Files that cannot be read, what is not a file, and other tracks; of the data to check with as well."""
    folder = images(60)
    (folder / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    os.mkfifo(folder / "pipe.png")
    said: list[str] = []
    seen = read_frames([str(folder)], SPEC, count=60, check_count=0, say=said.append)
    assert [line.split(":")[0] for line in said] == ["skipped pipe.png", "skipped 000.png"]
    video = str(write_tracks(tmp_path / "two.mkv", [(64, 48), (192, 144)]))
    said.clear()
    read_check([video], SPEC, count=2, calibrated=seen, say=said.append)
    (note,) = said
    assert note.startswith("note: two.mkv: video track 2 (192x144, h264) was read")


def test_folders_of_what_are_no_files_are_refused(images: Images) -> None:
    folder = images(40)
    for number in range(3):
        os.mkfifo(folder / f"pipe{number}.png")
    with pytest.raises(BadInputError, match="3 of 43 images of .* cannot be read"):
        read_frames([str(folder)], SPEC, count=32, check_count=8)
