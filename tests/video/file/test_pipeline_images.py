"""The file pipeline on images: folders, collisions, unreadable files, and going on where a run stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.video.media.small_images import black_png
from vmkla.errors import ArtefactMismatchError, BadInputError, DegradedError, UsageError
from vmkla.segment.operating_point import PointOverrides
from vmkla.video.cancellation import Cancellation
from vmkla.video.file.pipeline import SegmentOptions, segment
from vmkla.video.media.images import read_image, write_png
from vmkla.video.media.sinks import JsonlSink

Image = npt.NDArray[np.uint8]
MakeFrames = Callable[..., list[Image]]


@pytest.fixture
def folder(tmp_path: Path, make_frames: MakeFrames) -> Path:
    """Ten images in two folders, with spaces and letters of other alphabets in their names."""
    path = tmp_path / "in"
    for index, frame in enumerate(make_frames(10, 48, 64)):
        write_png(path / ("a" if index < 5 else "b ü") / f"frame {index}.png", frame)
    return path


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "frames.jsonl").read_text("utf-8").splitlines()]


def listing(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


NAMES = [f"a/frame {index}.png" for index in range(5)] + [f"b ü/frame {index}.png" for index in range(5, 10)]


class TestFolder:
    def test_outputs(self, folder: Path, make_runner: Any, tmp_path: Path) -> None:
        out = tmp_path / "out"
        result = segment(make_runner(), folder, SegmentOptions(out, save_masks=True))
        assert listing(out) == sorted(
            [".settings.json", "frames.jsonl", "report.json"]
            + [f"overlay/{name}" for name in NAMES]
            + [f"masks/{name}" for name in NAMES]
        )
        for index, row in enumerate(rows(out)):
            assert (row["index"], row["name"]) == (index, NAMES[index])
            assert (row["overlay"], row["mask"]) == (f"overlay/{NAMES[index]}", f"masks/{NAMES[index]}")
            image, overlay = read_image(folder / row["name"]), read_image(out / row["overlay"])
            mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask is not None and mask.shape == (48, 64)
            assert row["area_px"] == np.count_nonzero(mask)
            assert set(np.unique(mask)) <= {0, 255}
            # Far from any finding the picture is untouched, to the bit: PNG loses nothing.
            far = cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0
            np.testing.assert_array_equal(overlay[far], image[far])
            assert (overlay != image).any() == (row["area_px"] > 0)
        assert result.counts.frames == 10 and result.counts.with_finding == 8
        assert result.input["kind"] == "images" and result.outputs["overlay"] == "overlay"

    def test_one_image(self, folder: Path, make_runner: Any, tmp_path: Path) -> None:
        segment(make_runner(), folder / NAMES[0], SegmentOptions(tmp_path / "out"))
        assert [row["name"] for row in rows(tmp_path / "out")] == ["frame 0.png"]

    def test_each_image_has_its_own_size_and_field(
        self, make_runner: Any, tmp_path: Path, make_frames: MakeFrames
    ) -> None:
        for index, (height, width) in enumerate([(40, 60), (90, 70), (31, 33)]):
            write_png(tmp_path / "in" / f"{index}.png", make_frames(1, height, width)[0])
        segment(make_runner(), tmp_path / "in", SegmentOptions(tmp_path / "out", roi="auto", save_masks=True))
        shapes = [read_image(tmp_path / "out" / row["mask"]).shape[:2] for row in rows(tmp_path / "out")]
        assert shapes == [(40, 60), (90, 70), (31, 33)]

    def test_stride_passes_images_over(self, folder: Path, make_runner: Any, tmp_path: Path) -> None:
        runner = make_runner()
        segment(runner, folder, SegmentOptions(tmp_path / "out", stride=4))
        written = rows(tmp_path / "out")
        assert runner.calls == 3 and len(written) == 10
        assert [row["index"] for row in written if row["segmented"]] == [0, 4, 8]
        assert sum(path.startswith("overlay/") for path in listing(tmp_path / "out")) == 3

    def test_colliding_names_are_refused_before_anything(
        self, folder: Path, make_runner: Any, tmp_path: Path
    ) -> None:
        shutil.copy(folder / NAMES[1], folder / "a" / "frame 1.bmp")
        runner = make_runner()
        with pytest.raises(
            BadInputError, match=r"a/frame 1\.bmp and a/frame 1\.png .* overlay/a/frame 1\.png"
        ):
            segment(runner, folder, SegmentOptions(tmp_path / "out"))
        assert runner.calls == 0 and not (tmp_path / "out").exists()

    def test_unreadable_image_is_listed_and_the_rest_done(
        self, folder: Path, make_runner: Any, tmp_path: Path
    ) -> None:
        (folder / NAMES[3]).write_bytes(b"\x89PNG\r\n\x1a\n torn")
        with pytest.raises(DegradedError, match=r"1 of 10 images cannot be read: a/frame 3\.png"):
            segment(make_runner(), folder, SegmentOptions(tmp_path / "out"))
        made = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
        assert (made["outcome"], made["exit_status"], made["counts"]["unreadable"]) == ("degraded", 7, 1)
        assert [problem["where"] for problem in made["problems"]] == [NAMES[3]]
        assert [row["name"] for row in rows(tmp_path / "out")] == NAMES[:3] + NAMES[4:]

    def test_unreadable_single_image(self, make_runner: Any, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("text")
        with pytest.raises(BadInputError, match=r"a\.png cannot be decoded"):
            segment(make_runner(), tmp_path / "a.png", SegmentOptions(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_output_inside_the_source_is_not_its_own_input(self, folder: Path, make_runner: Any) -> None:
        for _ in range(2):
            result = segment(
                make_runner(), folder, SegmentOptions(folder / "run", save_masks=True, exist_ok=True)
            )
            assert result.counts.frames == 10

    def test_overlay_would_replace_its_input(self, folder: Path, make_runner: Any, tmp_path: Path) -> None:
        image = tmp_path / "overlay" / "x.png"
        write_png(image, read_image(folder / NAMES[0]))
        before = image.read_bytes()
        with pytest.raises(BadInputError, match="replace the input"):
            segment(make_runner(), image, SegmentOptions(tmp_path, exist_ok=True))
        assert image.read_bytes() == before


class TestContinue:
    @staticmethod
    def stop_after(count: int) -> tuple[Cancellation, Callable[[Any], None]]:
        cancel, seen = Cancellation(), [0]

        def progress(_: Any) -> None:
            seen[0] += 1
            if seen[0] == count:
                cancel.stop()

        return cancel, progress

    def test_a_large_image_at_hand_is_left_for_the_next_run(self, make_runner: Any, tmp_path: Path) -> None:
        """Drawing and encoding one takes seconds, and three may wait; none is half-written."""
        cancel, runner = Cancellation(), make_runner()
        (tmp_path / "in").mkdir()
        for name in ("a.png", "b.png"):
            (tmp_path / "in" / name).write_bytes(black_png(2100, 2000))
        plain = runner.infer

        def infer(frames: Image) -> npt.NDArray[np.float32]:
            cancel.stop()
            answer: npt.NDArray[np.float32] = plain(frames)
            return answer

        runner.infer = infer
        options = SegmentOptions(tmp_path / "out", save_masks=True, resume=True)
        first = segment(runner, tmp_path / "in", options, None, cancel)
        assert (first.outcome, first.counts.frames) == ("interrupted", 0)
        assert [name for name in listing(tmp_path / "out") if name.endswith(".png")] == []
        second = segment(make_runner(), tmp_path / "in", options)
        assert (second.outcome, second.counts.frames, second.counts.kept) == ("done", 2, 0)

    def test_goes_on_where_it_stopped(self, folder: Path, make_runner: Any, tmp_path: Path) -> None:
        out, whole = tmp_path / "out", tmp_path / "whole"
        options = SegmentOptions(out, save_masks=True, resume=True)
        cancel, progress = self.stop_after(4)
        first = segment(make_runner(), folder, options, progress, cancel)
        assert first.outcome == "interrupted" and first.counts.frames == 4
        assert len(rows(out)) == 4

        runner = make_runner()
        second = segment(runner, folder, options)
        assert runner.calls == 6
        assert (second.outcome, second.counts.frames, second.counts.kept) == ("done", 10, 4)
        segment(make_runner(), folder, SegmentOptions(whole, save_masks=True))
        strip = [{key: row[key] for key in row if key != "latency_ms"} for row in rows(out)]
        assert strip == [{key: row[key] for key in row if key != "latency_ms"} for row in rows(whole)]
        for name in listing(whole):
            if name.endswith(".png"):
                assert (out / name).read_bytes() == (whole / name).read_bytes()
        assert second.counts.with_finding == 8

        runner = make_runner()
        assert segment(runner, folder, options).counts.kept == 10 and runner.calls == 0

    def test_after_a_kill_and_with_changes_in_between(
        self, folder: Path, make_runner: Any, tmp_path: Path
    ) -> None:
        """A kill leaves the partial rows, the last one torn.

        Meanwhile one image has changed, one overlay is gone, and one image is new.
        """
        out = tmp_path / "out"
        options = SegmentOptions(out, resume=True)
        cancel, progress = self.stop_after(6)
        segment(make_runner(), folder, options, progress, cancel)
        data = (out / "frames.jsonl").read_bytes()
        (out / "frames.jsonl").unlink()
        (out / "report.json").unlink()
        (out / ".frames.partial.jsonl").write_bytes(data[:-30])  # row 5 is torn
        write_png(folder / NAMES[1], np.full((48, 64, 3), 77, np.uint8))
        (out / "overlay" / NAMES[2]).unlink()
        write_png(folder / "a" / "frame 0b.png", np.full((48, 64, 3), 240, np.uint8))
        runner = make_runner()
        result = segment(runner, folder, options)
        assert result.counts.kept == 3 and runner.calls == 8  # rows 0, 3, 4 stood
        names = [row["name"] for row in rows(out)]
        assert sorted(names) == sorted([*NAMES, "a/frame 0b.png"]) and len(set(names)) == 11
        assert [row["index"] for row in rows(out)] == list(range(11))
        changed = next(row for row in rows(out) if row["name"] == NAMES[1])
        assert changed["area_px"] == 0

    @pytest.mark.parametrize(
        "change",
        [
            {"name": ["a"]},
            {"name": None},
            {"sha256": 7},
            {"segmented": "yes"},
            {"segmented": {}},
            {"frame_hw": None},
            {"frame_hw": [48]},
            {"frame_hw": [48, "64"]},
            {"frame_hw": [0, 0]},
            {"boxes": None},
            {"boxes": [[1, 2, 3]], "box_areas_px": [4]},
            {"boxes": [[-1, 2, 3, 4]], "box_areas_px": [4]},
            {"boxes": [[10**30, 2, 3, 4]], "box_areas_px": [4]},
            {"boxes": [[1, 2, 3, 4]], "box_areas_px": []},
            {"boxes": [[1, 2, 3, 4]], "box_areas_px": [None]},
        ],
    )
    def test_a_row_of_other_types_is_no_row(
        self, folder: Path, make_runner: Any, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        out = tmp_path / "out"
        options = SegmentOptions(out, resume=True)
        segment(make_runner(), folder, options)
        first, *others = rows(out)
        text = "".join(json.dumps(row) + "\n" for row in ({**first, **change}, *others))
        (out / "frames.jsonl").write_text(text, encoding="utf-8")
        runner = make_runner()
        segment(runner, folder, options)
        assert runner.calls == 1 and len(rows(out)) == len(others) + 1

    @pytest.mark.parametrize("name", ["a\0b", "../kept.png", "/" + "x" * 300])
    def test_a_row_removes_only_pictures_of_its_run(
        self, folder: Path, make_runner: Any, tmp_path: Path, name: str
    ) -> None:
        out, other = tmp_path / "out", tmp_path / "kept.png"
        segment(make_runner(), folder, SegmentOptions(out))
        other.write_bytes(b"of somebody else")
        (out / "frames.jsonl").write_text(
            json.dumps({**rows(out)[0], "overlay": name}) + "\n", encoding="utf-8"
        )
        segment(make_runner(), folder, SegmentOptions(out, exist_ok=True))
        assert other.exists() and len(rows(out)) == len(NAMES)

    def test_a_second_interruption_loses_nothing(
        self, folder: Path, make_runner: Any, tmp_path: Path
    ) -> None:
        options = SegmentOptions(tmp_path / "out", resume=True)
        for stop in (5, 2):
            cancel, progress = self.stop_after(stop)
            segment(make_runner(), folder, options, progress, cancel)
        assert [row["index"] for row in rows(tmp_path / "out")] == [0, 1, 2, 3, 4]
        runner = make_runner()
        runner.fail_at = 0
        with pytest.raises(RuntimeError, match="fell off the bus"):
            segment(runner, folder, options)
        assert len(rows(tmp_path / "out")) == 5
        runner = make_runner()
        segment(runner, folder, options)
        assert runner.calls == 5

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"point": PointOverrides(threshold=0.3)}, "threshold"),
            ({"point": PointOverrides(peak=0.9)}, "peak"),
            ({"overlay": "box"}, "overlay"),
            ({"save_masks": True}, "save_masks"),
            ({"stride": 2}, "stride"),
            ({"roi": "auto"}, "roi"),
        ],
    )
    def test_other_settings_are_refused(
        self, folder: Path, make_runner: Any, tmp_path: Path, changes: dict[str, Any], field: str
    ) -> None:
        segment(make_runner(), folder, SegmentOptions(tmp_path / "out"))
        before = {name: (tmp_path / "out" / name).read_bytes() for name in listing(tmp_path / "out")}
        with pytest.raises(ArtefactMismatchError, match=f"its {field} was") as caught:
            segment(make_runner(), folder, SegmentOptions(tmp_path / "out", resume=True, **changes))
        assert caught.value.exit_status == 6
        after = {name: (tmp_path / "out" / name).read_bytes() for name in listing(tmp_path / "out")}
        assert after == before

    def test_another_model_or_source_is_refused(self, folder: Path, make_runner: Any, tmp_path: Path) -> None:
        options = SegmentOptions(tmp_path / "out", resume=True)
        segment(make_runner(), folder, options)
        with pytest.raises(ArtefactMismatchError, match="model_sha256"):
            segment(make_runner(sha256="2" * 64), folder, options)
        with pytest.raises(ArtefactMismatchError, match="source"):
            segment(make_runner(), folder / "a", options)

    def test_without_the_flag_an_earlier_run_is_safe(
        self, folder: Path, make_runner: Any, tmp_path: Path
    ) -> None:
        segment(make_runner(), folder, SegmentOptions(tmp_path / "out"))
        with pytest.raises(UsageError, match="holds outputs already"):
            segment(make_runner(), folder, SegmentOptions(tmp_path / "out"))

    def test_the_outputs_of_a_video_are_not_continued(
        self, folder: Path, make_runner: Any, tmp_path: Path, write_clip: Any, make_frames: MakeFrames
    ) -> None:
        out = tmp_path / "out"
        segment(make_runner(), write_clip("in.mp4", make_frames(3, 48, 64)), SegmentOptions(out))
        before = {name: (out / name).read_bytes() for name in listing(out)}
        with pytest.raises(UsageError, match="holds outputs already"):
            segment(make_runner(), folder, SegmentOptions(out, resume=True))
        assert {name: (out / name).read_bytes() for name in listing(out)} == before

    def test_the_stride_holds_over_images_that_came_in_between(
        self, folder: Path, make_runner: Any, tmp_path: Path
    ) -> None:
        options = SegmentOptions(tmp_path / "out", stride=2, resume=True)
        segment(make_runner(), folder, options)
        write_png(folder / "a" / "frame 0b.png", np.full((48, 64, 3), 240, np.uint8))
        segment(make_runner(), folder, options)
        written = rows(tmp_path / "out")
        assert [row["segmented"] for row in written] == [index % 2 == 0 for index in range(11)]

    @pytest.mark.parametrize("killed", [False, True])
    def test_an_end_while_beginning_again_loses_nothing(
        self, folder: Path, make_runner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
    ) -> None:
        out, options = tmp_path / "out", SegmentOptions(tmp_path / "out", resume=True)
        cancel, progress = self.stop_after(6)
        segment(make_runner(), folder, options, progress, cancel)
        if killed:  # a kill leaves the rows under their temporary name
            (out / "frames.jsonl").rename(out / ".frames.partial.jsonl")

        def full(self: JsonlSink, row: dict[str, Any]) -> None:
            raise BadInputError("the disk is full")

        monkeypatch.setattr(JsonlSink, "write", full)
        with pytest.raises(BadInputError, match="the disk is full"):
            segment(make_runner(), folder, options)
        monkeypatch.undo()
        assert not (out / ".reserve.partial").exists()
        runner = make_runner()
        assert segment(runner, folder, options).counts.kept == 6 and runner.calls == 4
