"""A network on annotated recordings: figures counted by hand, from every layout."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.evaluation.colour_runners import RedRunner
from tests.evaluation.truth import miniatures
from tests.evaluation.truth.miniatures import FALSE, HEIGHT, LAYOUTS, ONE, TWO, WIDTH, filled
from tests.video.small_videos import write_video
from vmkla.errors import BadInputError
from vmkla.evaluation.procedures import RecordingResult, count_recording
from vmkla.evaluation.recordings import compare, network_finder, observe
from vmkla.evaluation.truth.layouts import open_annotated
from vmkla.evaluation.truth.records import AnnotatedRecording, Mark, TruthRules
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.media.clip import write_clip

POINT = OperatingPoint(0.5, min_fraction=0.005)


def counted(
    recording: AnnotatedRecording, marked: dict[int, list[Rect]] = miniatures.MARKED
) -> RecordingResult:
    """The recording as a network of its own size sees it."""
    runner = RedRunner(HEIGHT, WIDTH)
    seen = observe(network_finder(runner, recording, POINT, runner.spec.metadata.preprocess), recording)
    assert seen.missing == ""
    assert [sorted(boxes.values()) for boxes in seen.identities.given] == [
        sorted(marked.get(index, [])) for index in range(miniatures.FRAMES)
    ]
    return count_recording(recording.name, recording.procedure, seen.frames, recording.frame_s)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_figures_by_hand(tmp_path: Path, layout: str) -> None:
    make, fps = LAYOUTS[layout]
    make(tmp_path)
    (recording,) = open_annotated(tmp_path, TruthRules(fps)).recordings
    result = counted(recording)
    one, two = result.lesions
    assert (one.frames, one.hit_frames, one.frames_since) == (8, 5, 6)
    assert one.delay_s == pytest.approx(2 / 30) and one.persistence == pytest.approx(5 / 6)
    assert (two.frames, two.hit_frames, two.delay_s) == (5, 0, math.inf) and math.isnan(two.persistence)
    assert result.alarms.durations_s == pytest.approx((2 / 30, 1 / 30))
    assert result.alarms.recorded_s == pytest.approx(12 / 30)
    assert (result.with_lesion, result.with_hit, result.without_lesion, result.quiet) == (9, 5, 3, 2)


def test_sun_seg_by_hand(tmp_path: Path) -> None:
    miniatures.sun_seg(tmp_path)
    first, second = open_annotated(tmp_path).recordings
    clip, without = counted(first), counted(second, {2: [FALSE], 3: [FALSE]})
    assert [(lesion.lesion, lesion.hit_frames) for lesion in clip.lesions] == [("case1", 5)]
    assert clip.alarms.durations_s == pytest.approx((2 / 30, 1 / 30))
    assert (clip.with_lesion, clip.with_hit, clip.without_lesion, clip.quiet) == (8, 5, 4, 3)
    assert without.lesions == () and without.alarms.durations_s == pytest.approx((2 / 30,))
    assert (without.without_lesion, without.quiet) == (12, 10)


def test_one_pixel_is_enough_and_one_beside_is_not() -> None:
    marks = (Mark("1", ONE, np.ones((ONE.h, ONE.w), np.bool_)),)
    for x, hit in ((ONE.x + ONE.w - 1, True), (ONE.x + ONE.w, False)):
        marked = filled({Rect(x, ONE.y + ONE.h - 1, 5, 5): 1}).astype(np.float32)[None]
        findings = find(marked, Rect(0, 0, WIDTH, HEIGHT), (HEIGHT, WIDTH), POINT)
        assert compare(findings, marks) == ({"1": hit}, int(not hit))
    both = filled({Rect(0, 0, WIDTH, 12): 1, FALSE: 1}).astype(np.float32)[
        None
    ]  # one finding over two lesions
    marks += (Mark("2", TWO, np.ones((TWO.h, TWO.w), np.bool_)),)
    findings = find(both, Rect(0, 0, WIDTH, HEIGHT), (HEIGHT, WIDTH), POINT)
    assert compare(findings, marks) == ({"1": True, "2": True}, 1)


def test_truth_of_frames_that_a_video_lacks(tmp_path: Path) -> None:
    (tmp_path / "exam" / "gt").mkdir(parents=True)
    write_video(tmp_path / "exam" / "clip.mp4")
    truth = tmp_path / "exam" / "gt" / "gt.txt"
    truth.write_text("2,5,1,2,4,4\n6,5,1,2,4,4\n")
    runner = RedRunner(HEIGHT, WIDTH)
    preprocess = runner.spec.metadata.preprocess
    (recording,) = open_annotated(tmp_path).recordings
    seen = observe(network_finder(runner, recording, POINT, preprocess), recording)
    assert [sorted(frame.lesions) for frame in seen.frames] == [[], ["5"], [], [], [], ["5"]]
    assert all(
        later.time_s > frame.time_s for frame, later in zip(seen.frames, seen.frames[1:], strict=False)
    )
    truth.write_text("2,5,1,2,4,4\n70,5,1,2,4,4\n")
    (recording,) = open_annotated(tmp_path).recordings
    with pytest.raises(BadInputError, match="1 annotated frames are not there, the last is number 69"):
        observe(network_finder(runner, recording, POINT, preprocess), recording)


def test_masks_beside_a_video(tmp_path: Path) -> None:
    """The rendered clip as ``vmkla sample`` writes it; its red is what the network marks."""
    write_clip(tmp_path / "clip.mp4", 8, 6, height=96, width=128, masks_dir=tmp_path / "masks")
    (recording,) = open_annotated(tmp_path).recordings
    runner = RedRunner(96, 128)
    preprocess = runner.spec.metadata.preprocess
    seen = observe(network_finder(runner, recording, POINT, preprocess), recording)
    areas = [cv2.countNonZero(cv2.imread(str(path), 0)) for path in sorted((tmp_path / "masks").iterdir())]
    assert [bool(frame.lesions) for frame in seen.frames] == [area > 0 for area in areas] and any(areas)
    assert [frame.time_s for frame in seen.frames] == pytest.approx([index / 30 for index in range(8)])
    (tmp_path / "masks" / "000007.png").unlink()
    (recording,) = open_annotated(tmp_path).recordings
    with pytest.raises(BadInputError, match="frame 7 has no annotation, and the last of 7 is of frame 6"):
        observe(network_finder(runner, recording, POINT, preprocess), recording)
    (tmp_path / "masks" / "000003.png").unlink()
    with pytest.raises(BadInputError, match="frame 000004 follows 000002"):
        open_annotated(tmp_path)
