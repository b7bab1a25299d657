"""The file pipeline on videos: every frame, in order, at its time, with the findings of that frame."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests import FIND_TESTS
from vmkla.errors import ArtefactMismatchError, BadInputError, DegradedError, UsageError
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint, PointOverrides
from vmkla.segment.overlay import draw
from vmkla.segment.preprocess import PreprocessSpec, Rect, prepare, visible_field
from vmkla.video.file.pipeline import Progress, SegmentOptions, segment
from vmkla.video.media.decoding import VideoSource

Image = npt.NDArray[np.uint8]
WriteClip = Callable[..., Path]
MakeFrames = Callable[..., list[Image]]
ReadBack = Callable[[Path], tuple[list[Image], list[Fraction], Any]]


OUTPUTS = [
    "contact_sheet.jpg",
    "frames.jsonl",
    "lesions.jsonl",
    "lesions/0001.jpg",
    "lesions/0001.marked.jpg",
    "overlay.mp4",
    "procedure.html",
    "report.json",
]
"""What a video with one lesion leaves."""


def rows(out_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out_dir / "frames.jsonl").read_text("utf-8").splitlines()]


def report(out_dir: Path) -> dict[str, Any]:
    loaded = json.loads((out_dir / "report.json").read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def listing(out_dir: Path) -> list[str]:
    return sorted(path.relative_to(out_dir).as_posix() for path in out_dir.rglob("*") if path.is_file())


def by_hand(path: Path, runner: Any, rect: Rect | None = None) -> list[tuple[Image, Any]]:
    """The same work, one frame after another, without threads."""
    spec = PreprocessSpec(runner.spec.height, runner.spec.width)
    made = []
    for frame in VideoSource(path).frames():
        height, width = frame.rgb.shape[:2]
        field = rect or Rect(0, 0, width, height)
        probability = runner.infer(prepare(frame.rgb, spec, field)[None])[0]
        made.append((frame.rgb, find(probability, field, (height, width), OperatingPoint(0.5))))
    return made


class TestVideo:
    def test_outputs_are_findings_and_the_probability_is_the_networks_own(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        """A peak above all that the network says clears masks and rows, and changes no probability."""
        path, raw = write_clip("in.mp4", make_frames(4, 96, 128)), tmp_path / "raw"
        segment(make_runner(), path, SegmentOptions(raw, save_masks=True))
        peak = max(max(row["box_peaks"]) for row in rows(raw))
        for name, point, kept in (("at", peak, True), ("above", np.nextafter(peak + 1e-6, 2), False)):
            out = tmp_path / name
            options = SegmentOptions(
                out, point=PointOverrides(peak=point - 1e-6 * kept), save_masks=True, save_probability=True
            )
            report = segment(make_runner(), path, options).to_dict()
            assert report["settings"]["peak"] == options.point.peak
            assert any(row["boxes"] for row in rows(out)) is kept
            for row in rows(out):
                mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
                assert mask is not None and bool(mask.any()) is bool(row["boxes"])
                probability = np.load(out / row["probability"])
                assert probability.dtype == np.float32 and probability.shape[0] == 1
                assert probability.max() == pytest.approx(row["max_probability"]) and probability.any()

    def test_outputs_are_those_of_a_plain_loop(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
    ) -> None:
        path, out = write_clip("in.mp4", make_frames(30, 96, 128)), tmp_path / "out"
        runner = make_runner()
        result = segment(runner, str(path), SegmentOptions(out, save_masks=True, overlay="fill", alpha=1.0))
        wanted = by_hand(path, make_runner())
        assert runner.calls == 30
        images, _, _ = read_back(out / "overlay.mp4")
        written = rows(out)
        assert len(images) == len(written) == len(wanted) == 30
        for index, ((rgb, findings), image, row) in enumerate(zip(wanted, images, written, strict=True)):
            assert row["index"] == index and row["segmented"]
            assert row["pts_s"] == pytest.approx(index / 25)
            assert row["area_px"] == findings.area_px
            assert row["area_fraction"] == pytest.approx(findings.area_px / (96 * 128))
            assert row["boxes"] == [list(region.box) for region in findings.regions]
            assert row["max_probability"] == pytest.approx(findings.max_probability)
            assert row["mask"] == f"masks/{index:06d}.png"
            mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            np.testing.assert_array_equal(mask, findings.mask * 255)
            drawn = draw(rgb, findings, "fill", 1.0)
            assert (
                np.abs(image.astype(int) - drawn).mean() < 6
            )  # H.264; a marker of another frame is off by more
        found = [findings.any for _, findings in wanted]
        assert 15 < sum(found) < 30
        assert result.outcome == "done" and result.exit_status == 0
        assert (result.counts.frames, result.counts.segmented) == (30, 30)
        assert result.counts.with_finding == sum(found)
        assert listing(out) == sorted([*OUTPUTS, *(f"masks/{index:06d}.png" for index in range(30))])
        sheet = cv2.imread(str(out / "contact_sheet.jpg"))
        assert sheet is not None and sheet.shape[1] == 3 * (480 + 4)
        assert result.findings["frames"] == sum(found)
        assert result.findings["regions"] == sum(len(findings.regions) for _, findings in wanted)
        areas_px = [region.area_px for _, findings in wanted for region in findings.regions]
        height, width = wanted[0][0].shape[:2]
        share = max(areas_px) / (height * width)
        assert result.findings["largest"]["area_fraction"] == pytest.approx(share, abs=1e-6)

    def test_variable_frame_rate_keeps_every_timestamp(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
    ) -> None:
        pts = [40, 41, 90, 333, 334, 1000, 1900, 1901, 4000, 4017]
        path = write_clip("in.mkv", make_frames(10, 48, 64), pts=pts, time_base=Fraction(1, 1000))
        segment(make_runner(), path, SegmentOptions(tmp_path / "out"))
        _, before, _ = read_back(path)
        _, after, _ = read_back(tmp_path / "out" / "overlay.mp4")
        assert after == before == [Fraction(tick, 1000) for tick in pts]
        assert [row["pts_s"] for row in rows(tmp_path / "out")] == [tick / 1000 for tick in pts]

    def test_report(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path, out = write_clip("in.mp4", make_frames(12, 48, 64), audio=True), tmp_path / "out"
        result = segment(make_runner(), path, SegmentOptions(out, point=PointOverrides(0.25)))
        made = report(out)
        assert made == result.to_dict()
        assert made["outcome"] == "done" and made["exit_status"] == 0
        assert made["counts"]["frames"] == 12
        assert made["input"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert made["input"]["frame_hw"] == [48, 64]
        assert made["model"]["sha256"] == "1" * 64 and made["runtime"]["kernels"] == "native"
        assert made["settings"]["threshold"] == 0.25
        assert made["outputs"] == {
            "overlay": "overlay.mp4",
            "contact_sheet": "contact_sheet.jpg",
            "frames": "frames.jsonl",
            "lesions": "lesions.jsonl",
            "stills": "lesions",
            "procedure": "procedure.html",
            "report": "report.json",
        }
        assert made["warnings"] == ["the sound track is not copied"]
        stages = made["latency_ms"]
        assert set(stages) == {
            "decode", "preprocess", "inference", "postprocess", "track", "overlay", "write", "total",
        }  # fmt: skip
        for figures in stages.values():
            assert 0 <= figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"]
        assert stages["total"]["p50"] >= stages["write"]["p50"] > 0
        assert made["fps"] == pytest.approx(12 / made["wall_s"], rel=0.05)
        for row in rows(out):
            parts = [value for stage, value in row["latency_ms"].items() if stage != "total"]
            assert row["latency_ms"]["total"] == pytest.approx(sum(parts), abs=0.01)

    def test_stride_draws_nothing_on_frames_between(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
    ) -> None:
        path, out = write_clip("in.mp4", make_frames(20, 96, 128)), tmp_path / "out"
        runner = make_runner()
        result = segment(
            runner, path, SegmentOptions(out, stride=3, save_masks=True, overlay="fill", alpha=1.0)
        )
        assert runner.calls == 7 and (result.counts.frames, result.counts.segmented) == (20, 7)
        images, _, _ = read_back(out / "overlay.mp4")
        plain = [frame.rgb for frame in VideoSource(path).frames()]
        for index, row in enumerate(rows(out)):
            green = images[index][..., 1].astype(int) - images[index][..., 0] > 60
            if index % 3:
                assert row["segmented"] is False
                assert row["area_px"] is None and row["boxes"] is None and row["max_probability"] is None
                assert not green.any()
                assert np.abs(images[index].astype(int) - plain[index]).mean() < 6
            else:
                assert row["segmented"] is True and green.any() == (row["area_px"] > 0)
        assert listing(out / "masks") == [f"{index:06d}.png" for index in range(0, 20, 3)]

    def test_odd_size(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
    ) -> None:
        path = write_clip("in.mkv", make_frames(4, 47, 63), codec="ffv1", pix_fmt="bgr0")
        result = segment(make_runner(), path, SegmentOptions(tmp_path / "out", save_masks=True))
        assert read_back(tmp_path / "out" / "overlay.mp4")[2]["size_wh"] == (64, 48)
        mask = cv2.imread(str(tmp_path / "out" / "masks" / "000000.png"), cv2.IMREAD_UNCHANGED)
        assert mask is not None and mask.shape == (47, 63)
        assert any("64x48" in warning for warning in result.warnings)

    def test_several_classes(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        frames = [np.roll(frame, index % 3, axis=2) for index, frame in enumerate(make_frames(6, 48, 64))]
        path, out = write_clip("in.mp4", frames), tmp_path / "out"
        segment(make_runner(classes=3), path, SegmentOptions(out, save_masks=True))
        seen = set()
        for row in rows(out):
            mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask is not None and len(row["boxes"]) == len(row["box_classes"])
            assert set(np.unique(mask)) - {0} == set(row["box_classes"])
            seen |= set(row["box_classes"])
        assert seen == {1, 2}
        with pytest.raises(UsageError, match="threshold"):
            segment(make_runner(classes=3), path, SegmentOptions(tmp_path / "b", point=PointOverrides(0.5)))

    def test_overlay_none_still_writes_every_frame(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
    ) -> None:
        path = write_clip("in.mp4", make_frames(6, 48, 64))
        segment(make_runner(), path, SegmentOptions(tmp_path / "out", overlay="none"))
        images, _, _ = read_back(tmp_path / "out" / "overlay.mp4")
        for image, frame in zip(images, VideoSource(path).frames(), strict=True):
            assert np.abs(image.astype(int) - frame.rgb).mean() < 5

    def test_progress(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.mp4", make_frames(15, 48, 64))
        seen: list[tuple[str, Progress]] = []
        segment(
            make_runner(),
            path,
            SegmentOptions(tmp_path / "out"),
            progress=lambda state: seen.append((threading.current_thread().name, state)),
        )
        assert {thread for thread, _ in seen} == {threading.current_thread().name}
        done = [state.done for _, state in seen]
        assert done == sorted(done) and done[-1] == 15 and len(done) == 16
        assert seen[-1][1] == Progress(15, 15, 12)

    def test_unicode_and_spaces(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("sub dir/in ü 視.mp4", make_frames(3, 48, 64))
        out = tmp_path / "out put é"
        assert segment(make_runner(), path, SegmentOptions(out)).counts.frames == 3
        assert report(out)["input"]["name"] == path.name


class TestFieldOfView:
    @staticmethod
    def framed(make_frames: MakeFrames, count: int, dark: int) -> list[Image]:
        """Dark frames first, then a picture in a black border."""
        frames = []
        for index, inner in enumerate(make_frames(count, 80, 100)):
            frame = np.zeros((96, 160, 3), np.uint8)
            if index >= dark:
                frame[8:88, 40:140] = np.maximum(inner, 40)
            frames.append(frame)
        return frames

    def test_auto_is_found_once_past_dark_frames(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.mp4", self.framed(make_frames, 30, dark=12))
        result = segment(make_runner(roi="auto"), path, SegmentOptions(tmp_path / "out"))
        x, y, w, h = result.input["field_of_view"]
        assert np.abs(np.array([x, y, x + w, y + h]) - [40, 8, 140, 88]).max() <= 3
        fields = [visible_field(frame.rgb) for frame in VideoSource(path).frames()]
        assert fields[0] is None and fields[-1] is not None
        wanted = by_hand(path, make_runner(), Rect(x, y, w, h))
        for row, (_, findings) in zip(rows(tmp_path / "out"), wanted, strict=True):
            assert row["boxes"] == [list(region.box) for region in findings.regions]

    def test_a_dark_clip_is_taken_whole_and_says_so(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.mp4", self.framed(make_frames, 6, dark=6))
        result = segment(make_runner(), path, SegmentOptions(tmp_path / "out", roi="auto"))
        assert result.input["field_of_view"] == [0, 0, 160, 96]
        assert any("no field of view" in warning for warning in result.warnings)

    def test_option_wins_over_the_model(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.mp4", self.framed(make_frames, 6, dark=0))
        runner = make_runner(roi="auto")
        result = segment(runner, path, SegmentOptions(tmp_path / "a", roi=Rect(50, 10, 60, 60)))
        assert result.input["field_of_view"] == [50, 10, 60, 60]
        assert segment(runner, path, SegmentOptions(tmp_path / "b", roi="none")).input["field_of_view"] == [
            0, 0, 160, 96,
        ]  # fmt: skip

    def test_a_field_outside_the_frame(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.mp4", make_frames(3, 48, 64))
        with pytest.raises(BadInputError, match="64x48"):
            segment(make_runner(), path, SegmentOptions(tmp_path / "out", roi=Rect(0, 0, 65, 10)))
        assert not (tmp_path / "out").exists()


class TestDegraded:
    def test_cut_off_video(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        cut_at: Callable[[Path, int], Path],
        tmp_path: Path,
    ) -> None:
        path = write_clip("in.mp4", make_frames(40, 96, 128))
        cut_at(path, int(path.stat().st_size * 0.7))
        out = tmp_path / "out"
        with pytest.raises(DegradedError, match="cut off") as caught:
            segment(make_runner(), path, SegmentOptions(out))
        assert caught.value.exit_status == 7
        images, _, _ = read_back(out / "overlay.mp4")
        made = report(out)
        assert 10 < len(images) < 40 and len(rows(out)) == len(images) == made["counts"]["frames"]
        assert (made["outcome"], made["exit_status"]) == ("degraded", 7)
        assert any("cut off" in problem["what"] for problem in made["problems"])
        assert listing(out) == OUTPUTS

    def test_mended_timestamps_are_a_warning_only(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.h264", make_frames(8, 48, 64))
        result = segment(make_runner(), path, SegmentOptions(tmp_path / "out"))
        assert result.outcome == "done" and result.counts.repaired_timestamps > 0
        assert any("timestamps" in warning for warning in result.warnings)


class TestRefused:
    """Before the first frame: the message, and no folder left behind."""

    def test_settings(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("in.mp4", make_frames(3, 48, 64))
        with pytest.raises(BadInputError, match="leaves the frame"):
            segment(make_runner(), path, SegmentOptions(tmp_path / "out", roi=Rect(0, 0, 99, 1)))
        assert not (tmp_path / "out").exists()

    def test_text_missing_and_empty(
        self, make_runner: Any, write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.mp4").write_text("text\n" * 100)
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "folder").mkdir()
        headless = write_clip("headless.mp4", make_frames(9, 48, 64))
        headless.write_bytes(headless.read_bytes()[: headless.read_bytes().index(b"mdat") + 9])
        for name in ("notes.mp4", "empty.mp4", "gone.mp4", "folder", "headless.mp4"):
            with pytest.raises(BadInputError, match=name) as caught:
                segment(make_runner(), tmp_path / name, SegmentOptions(tmp_path / "out"))
            assert caught.value.exit_status == 3
            assert not (tmp_path / "out").exists(), name

    def test_fixed_batch(self, make_runner: Any, tmp_path: Path) -> None:
        for path, hint in (
            ("red.onnx", "vmkla export again"),
            ("red.plan", "vmkla build again with --profile 1,1,4"),
        ):
            with pytest.raises(ArtefactMismatchError, match="batch of 4") as caught:
                segment(make_runner(batch=4, path=path), tmp_path, SegmentOptions(tmp_path / "out"))
            assert caught.value.hint is not None and hint in caught.value.hint

    def test_taken_folder(
        self,
        write_clip: WriteClip,
        make_frames: MakeFrames,
        make_runner: Any,
        read_back: ReadBack,
        tmp_path: Path,
    ) -> None:
        path, out = write_clip("in.mp4", make_frames(9, 48, 64)), tmp_path / "out"
        segment(make_runner(), path, SegmentOptions(out, save_masks=True))
        (out / "masks" / "mine.txt").write_text("keep me")
        with pytest.raises(UsageError, match="holds outputs already") as caught:
            segment(make_runner(), path, SegmentOptions(out))
        assert caught.value.hint is not None and "--exist-ok" in caught.value.hint
        shorter = write_clip("b.mp4", make_frames(4, 48, 64))
        segment(make_runner(), shorter, SegmentOptions(out, save_masks=True, exist_ok=True))
        assert len(read_back(out / "overlay.mp4")[0]) == len(rows(out)) == 4
        assert listing(out / "masks") == ["000000.png", "000001.png", "000002.png", "000003.png", "mine.txt"]

    def test_output_would_replace_the_input(
        self, write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
    ) -> None:
        path = write_clip("overlay.mp4", make_frames(3, 48, 64))
        before = path.read_bytes()
        with pytest.raises(BadInputError, match="replace the input"):
            segment(make_runner(), path, SegmentOptions(tmp_path, exist_ok=True))
        assert path.read_bytes() == before


def test_unverified_and_random_models_are_named(
    write_clip: WriteClip, make_frames: MakeFrames, make_runner: Any, tmp_path: Path
) -> None:
    import dataclasses

    runner = make_runner()
    metadata = dataclasses.replace(runner.spec.metadata, gates={}, random_weights=True)
    runner = make_runner(metadata=metadata)
    path = write_clip("in.mp4", make_frames(2, 48, 64))
    warnings = " ".join(segment(runner, path, SegmentOptions(tmp_path / "out")).warnings)
    assert "unverified: the check that ends its export" in warnings and "random" in warnings
    runner = make_runner(metadata=metadata, unverified_because="nobody ran it")
    said = segment(runner, path, SegmentOptions(tmp_path / "again")).warnings
    assert "the model is unverified: nobody ran it" in said


@pytest.mark.slow
def test_memory_does_not_grow_with_the_clip(
    write_clip: WriteClip, make_frames: MakeFrames, tmp_path: Path
) -> None:
    """240 frames more, once buffers are full, peak within 20 MB; keeping them would take 124 MB."""
    script = """
import sys
from tests.video.red_runner import RedRunner
from pathlib import Path
from vmkla.video.file.pipeline import SegmentOptions, segment
segment(RedRunner(), sys.argv[1], SegmentOptions(Path(sys.argv[2])))
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) / 1024)  # getrusage begins at this process's own peak
"""
    peaks_mb = []
    for count in (240, 480):
        path = write_clip(f"{count}.mp4", make_frames(60, 360, 480) * (count // 60))
        command = [sys.executable, "-I", "-c", FIND_TESTS + script, str(path), str(tmp_path / str(count))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        peaks_mb.append(float(done.stdout))
    assert peaks_mb[1] - peaks_mb[0] < 20
    assert peaks_mb[1] < 400
