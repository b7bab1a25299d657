"""Answers of the network that are kept: equal findings, and a video that is continued."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests import FIND_TESTS
from tests.archive.batches import contents
from tests.video.red_runner import RedRunner
from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint, PointOverrides
from vmkla.segment.preprocess import Rect, View
from vmkla.video.file.answers import AnswerFile, AnswerKind, StoredAnswers, kept_files
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment
from vmkla.video.media.clip import write_clip
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.parts import Part, find_parts

FRAMES = 14


def kind(threshold: float = 0.5, *, whole: bool = False, **changes: Any) -> AnswerKind:
    return AnswerKind(RedRunner(**changes), OperatingPoint(threshold), whole=whole)


def view(seed: int, rect: Rect) -> View:
    return View(np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8), rect)


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9])
@pytest.mark.parametrize(
    "size", [(480, 360), (50, 33), (20, 14), (7, 5)]
)  # smaller frames than the network's
def test_what_is_left_out_changes_no_finding(threshold: float, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    rect = Rect(2, 1, size[0] - 3, size[1] - 2)
    left_out = 0
    for _ in range(60):
        probability = np.clip(rng.normal(threshold * rng.uniform(0.2, 1.2), 0.2, (1, 32, 48)), 0, 1)
        probability *= rng.random((1, 32, 48)) < rng.uniform(0.01, 0.6)  # specks and crowds
        probability = probability.astype(np.float32)
        thin = kind(threshold).thin(probability, View(np.zeros((32, 48, 3), np.uint8), rect))
        left_out += np.count_nonzero(thin != probability)
        point = OperatingPoint(threshold, min_fraction=0.001)
        one, other = (find(each, rect, (size[1], size[0]), point) for each in (probability, thin))
        assert np.array_equal(one.mask, other.mask)
        assert (one.regions, one.max_probability) == (other.regions, other.max_probability)
    assert left_out or size == (7, 5)


def test_a_file_of_answers(tmp_path: Path) -> None:
    """What was added comes back bit for bit, of another kind nothing, and of a damaged file what is whole."""
    rect, rng = Rect(0, 0, 96, 64), np.random.default_rng(1)
    views = [view(seed, rect) for seed in range(4)]
    given = [rng.random((1, 32, 48)).astype(np.float32) for _ in views]
    path = tmp_path / "answers"
    file = AnswerFile(path, kind(whole=True))
    for seen, probability in zip(views, given, strict=True):
        file.add(seen, probability)
    file.close()

    def found(wanted: AnswerKind) -> list[bool]:
        stored = StoredAnswers([tmp_path / "missing", path], wanted)
        answers = [stored.get(seen) for seen in views]
        stored.close()
        for answer, probability in zip(answers, given, strict=True):
            assert answer is None or answer.tobytes() == probability.tobytes()
        return [answer is not None for answer in answers]

    assert found(kind(whole=True)) == [True] * 4
    assert path.stat().st_mode & 0o777 == 0o600
    assert StoredAnswers([path], kind(whole=True)).get(View(views[0].pixels_rgb, Rect(0, 0, 95, 64))) is None
    for other in (kind(0.4), kind(whole=True, sha256="2" * 64), kind(whole=True, device="cuda:0")):
        assert found(other) == [False] * 4
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert found(kind(whole=True)) == [True, True, True, False]
    changed = bytearray(whole)
    changed[len(whole) // 3] ^= 1  # in the second answer
    path.write_bytes(changed)
    assert found(kind(whole=True)) == [True, False, True, True]
    for damage in range(100):
        changed = bytearray(whole)
        changed[rng.integers(len(whole))] ^= 1 << damage % 8
        path.write_bytes(changed)
        assert sum(found(kind(whole=True))) < 4 or changed == whole


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_clip(path, FRAMES, 6, height=64, width=96)
    return path


def test_a_video_is_continued(clip: Path, tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    segment(RedRunner(), clip, SegmentOptions(expected, save_masks=True))
    out, failing = tmp_path / "out", RedRunner()
    options = SegmentOptions(out, save_masks=True, resume=True)
    failing.fail_at = 9
    with pytest.raises(RuntimeError):
        segment(failing, clip, options)
    assert [path.name for path in kept_files(out)] == [".answers.1"]
    failing.calls, failing.fail_at = 0, 2
    with pytest.raises(RuntimeError):
        segment(failing, clip, options)
    assert [path.name for path in kept_files(out)] == [".answers.1", ".answers.2"]
    with pytest.raises(UsageError, match="holds outputs already"):
        segment(RedRunner(), clip, SegmentOptions(out, save_masks=True))
    with pytest.raises(ArtefactMismatchError, match="its threshold was 0.5, now it is 0.25"):
        segment(
            RedRunner(),
            clip,
            SegmentOptions(out, save_masks=True, resume=True, point=PointOverrides(threshold=0.25)),
        )
    runner = RedRunner()
    report = segment(runner, clip, options)
    assert runner.calls == FRAMES - 9 - 2 and report.outcome == "done"
    assert any("ran earlier for 11 of 14 frames" in text for text in report.warnings)
    assert kept_files(out) == []
    assert contents(out, ignore=[".settings.json"]) == contents(expected)
    with pytest.raises(UsageError, match="holds outputs already"):  # there is nothing to continue
        segment(RedRunner(), clip, options)


KILLED = """
import sys, time
from pathlib import Path
from tests.video.red_runner import RedRunner
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

class Slow(RedRunner):
    def infer(self, frames_rgb):
        time.sleep(60 if self.calls > 3 else 0)
        return super().infer(frames_rgb)

segment(Slow(), sys.argv[1], SegmentOptions(Path(sys.argv[2]), save_masks=True, resume=True))
"""


def test_a_killed_run_is_continued(clip: Path, tmp_path: Path) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    segment(RedRunner(), clip, SegmentOptions(expected, save_masks=True))
    run = subprocess.Popen([sys.executable, "-I", "-c", FIND_TESTS + KILLED, clip, out], cwd=tmp_path)
    while not any(path.stat().st_size > 1000 for path in kept_files(out)):
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    runner = RedRunner()
    segment(runner, clip, SegmentOptions(out, save_masks=True, resume=True))
    assert 0 < runner.calls < FRAMES
    assert contents(out, ignore=[".settings.json"]) == contents(expected)


def write_groups(path: Path, frames: int, group: int) -> Path:
    """Write H.264 with a keyframe every so many frames and B frames between them."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (64, 96 + frames, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {
            "bf": "2",
            "g": str(group),
            "keyint_min": str(group),
            "sc_threshold": "0",
        }
        for index in range(frames):
            rgb = np.ascontiguousarray(texture[:, index : index + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_parts_hold_the_frames_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = write_groups(tmp_path / f"clip.{suffix}", 34, 5)
    parts = find_parts(path, None, 0.35)  # two groups of 0.2 s
    assert [(part.first, part.end) for part in parts] == [(0, 10), (10, 20), (20, 30), (30, 34)]
    whole = [frame.rgb for frame in VideoSource(path).frames()]
    joined = [frame for part in parts for frame in VideoSource(path).frames(part)]
    assert [frame.index for frame in joined] == list(range(34))
    assert all(np.array_equal(frame.rgb, rgb) for frame, rgb in zip(joined, whole, strict=True))


def test_what_is_not_cut(tmp_path: Path) -> None:
    path = write_groups(tmp_path / "clip.mp4", 20, 5)
    assert find_parts(path, None, 10.0) == () and find_parts(path, None, 0.1)[1] == Part(5, 10, 2560, 0)
    assert find_parts(write_groups(tmp_path / "clip.h264", 20, 5), None, 0.1) == ()  # it has no time stamps
