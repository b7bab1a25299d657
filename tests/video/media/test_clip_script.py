"""The scripted procedure: exact identities, cuts and flushes, and the truth that eval reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from vmkla.errors import UsageError
from vmkla.evaluation.truth.layouts import open_annotated
from vmkla.video.media import clip_script
from vmkla.video.media.clip import FPS, Scene
from vmkla.video.media.clip_script import ScriptedLesion, render_procedure, write_procedure


def test_equal_seeds_give_equal_procedures_and_numbers_rise_with_appearance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Short passages, so that a second of frames holds cuts."""
    monkeypatch.setattr(clip_script, "_PASSAGE_S", (0.15, 0.3))
    frames = list(render_procedure(1, 1 / 60, 48, 64))
    assert [frame.time_s for frame in frames] == [index / FPS for index in range(30)]
    again = list(render_procedure(1, 0.2 / 60, 48, 64))
    for before, after in zip(frames[:6], again, strict=True):
        np.testing.assert_array_equal(before.rgb, after.rgb)
        np.testing.assert_array_equal(before.lesions, after.lesions)
    first_seen: dict[int, int] = {}
    for index, frame in enumerate(frames):
        assert frame.lesions.dtype == np.uint16 and frame.lesions.shape == (48, 64)
        for number in np.unique(frame.lesions[frame.lesions > 0]).tolist():
            first_seen.setdefault(number, index)
    assert list(first_seen) == list(range(1, len(first_seen) + 1)) and len(first_seen) >= 2
    # A cut: no lesion of the passage before is seen after it.
    cuts = [
        index
        for index in range(1, 30)
        if np.abs(frames[index].rgb.astype(int) - frames[index - 1].rgb).mean() > 12
    ]
    assert cuts
    before = {int(n) for frame in frames[: cuts[0]] for n in np.unique(frame.lesions) if n}
    after = {int(n) for frame in frames[cuts[0] :] for n in np.unique(frame.lesions) if n}
    assert not before & after


def test_lesions_are_those_of_the_scene_and_a_flush_hides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_script, "_FLUSHES_PER_S", 6.0)
    monkeypatch.setattr(clip_script, "_FLUSH_S", (0.1, 0.2))
    rng = np.random.default_rng((1, 19))
    rng.uniform(20, 60)
    offset, scene = int(rng.integers(0, 3000)), Scene(1000, 48, 64)
    flushed = 0
    for index, frame in enumerate(render_procedure(1, 0.6 / 60, 48, 64)):
        rgb, identity = scene.frame_with_lesions(offset + index)
        if np.array_equal(rgb, frame.rgb):
            counts = np.unique(identity[identity > 0], return_counts=True)[1]
            assert (frame.lesions > 0).sum() <= (identity > 0).sum()
            assert len(np.unique(frame.lesions)) - 1 <= len(counts)
            # Only pieces below a thousandth of the frame, here three pixels, are left out.
            gone = ((identity > 0) & (frame.lesions == 0)).astype(np.uint8)
            stats = cv2.connectedComponentsWithStats(gone, connectivity=8)[2]
            assert not len(stats[1:]) or stats[1:, cv2.CC_STAT_AREA].max() < 2 * 0.001 * gone.size
        else:
            flushed += 1
            assert frame.rgb.mean() > 180 and not frame.lesions.any() and identity.any()
    assert 0 < flushed < 18


def test_the_truth_is_a_layout_that_eval_reads(tmp_path: Path) -> None:
    lesions = write_procedure(
        tmp_path / "a" / "clip.mp4", 0.01, 1, tmp_path / "a" / "masks", height=48, width=64
    )
    found = open_annotated(tmp_path / "a")
    assert found.layout == "masks beside frames"
    (recording,) = found.recordings
    seen: dict[str, list[int]] = {}
    for frame in recording.source.frames():
        for mark in recording.truth[frame.index].marks((48, 64)):
            seen.setdefault(mark.lesion, []).append(frame.index)
    assert [str(lesion.number) for lesion in lesions] == list(seen) and len(seen) >= 2
    for lesion in lesions:
        frames = [index for first, last in lesion.spans for index in range(first, last + 1)]
        assert frames == seen[str(lesion.number)] and lesion.frames == len(frames)


def test_numbers_above_255_have_masks_of_16_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def frames(*_: object) -> object:
        for number in (255, 300):
            lesions = np.zeros((32, 32), np.uint16)
            lesions[4:12, 4:12] = number
            yield clip_script.ScriptedFrame(0.0, np.zeros((32, 32, 3), np.uint8), lesions)

    monkeypatch.setattr(clip_script, "render_procedure", frames)
    lesions = write_procedure(tmp_path / "clip.mp4", 1, 0, tmp_path / "masks", height=32, width=32)
    assert [lesion.number for lesion in lesions] == [255, 300]
    (recording,) = open_annotated(tmp_path).recordings
    assert [recording.truth[index].marks((32, 32))[0].lesion for index in (0, 1)] == ["255", "300"]
    small = cv2.imread(str(tmp_path / "masks" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert small.dtype == np.uint8


def test_spans_of_a_lesion() -> None:
    lesion = ScriptedLesion(3)
    for index in (0, 1, 2, 30, 31, 90):
        lesion.add(index)
    assert lesion.to_dict() == {
        "lesion": 3, "frames": 6, "spans_s": [[0.0, 0.067], [1.0, 1.033], [3.0, 3.0]]
    }  # fmt: skip


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), 1e9, 1e-6])
def test_a_senseless_duration_is_refused(minutes: float) -> None:
    with pytest.raises(UsageError, match="one frame to 24 hours"):
        render_procedure(0, minutes, 48, 64)


def test_a_senseless_size_is_refused_before_the_first_frame() -> None:
    with pytest.raises(UsageError, match="least is 32x32"):
        render_procedure(0, 1, 16, 64)
