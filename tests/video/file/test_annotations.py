"""``--export``: what other tools read is, pixel by pixel, what the same run wrote into masks/."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.video.file.annotation_readers import read_coco, read_cvat, read_yolo
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError
from vmkla.video.file.annotations import LOG
from vmkla.video.file.pipeline import Progress, SegmentOptions, segment
from vmkla.video.media.decoding import VideoSource

# pycocotools is older than numpy's argument.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ALL = ("coco", "cvat", "yolo")
COCO_FILE = "export/annotations/instances_default.json"
Image = npt.NDArray[np.uint8]


def busy_frames(count: int, size_hw: tuple[int, int], seed: int = 0) -> list[Image]:
    """Frames whose red channel gives many regions, with holes and at the edges; the third has none."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        noise = cv2.GaussianBlur(rng.normal(size=(*size_hw, 3)), (0, 0), 3)
        frame = np.clip(128 + 90 * noise / noise.std(), 0, 255).astype(np.uint8)
        frames.append(frame if index != 2 else frame // 4)
    return frames


def write_images(folder: Path, names: list[str], seed: int = 0) -> Path:
    for index, (name, frame) in enumerate(zip(names, busy_frames(len(names), (50, 71), seed), strict=True)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame[: 50 - index])
    return folder


def saved_masks(out: Path, classes: int, *, video: bool) -> dict[str, Image]:
    """The masks of the run, by the name that the formats use."""
    masks = {}
    for line in (out / "frames.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["segmented"]:
            mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            name = f"frame_{row['index']:06d}.png" if video else row["name"]
            masks[name] = np.asarray(mask // 255 if classes == 1 else mask, np.uint8)
    return masks


def check_equal(out: Path, classes: int, *, video: bool) -> dict[str, Image]:
    """Compare every format with the masks, and return these."""
    wanted = saved_masks(out, classes, video=video)
    for found in (
        read_coco(out / COCO_FILE),
        read_cvat(out / "export/annotations.xml"),
    ):
        assert list(found) == list(wanted)
        for name, mask in wanted.items():
            np.testing.assert_array_equal(found[name], mask, err_msg=name)
    for name, mask in wanted.items():
        np.testing.assert_array_equal(read_yolo(out / "export", name, mask.shape), mask, err_msg=name)
    labels = {path.relative_to(out / "export/labels").as_posix() for path in (out / "export").rglob("*.txt")}
    assert labels == {str(Path(name).with_suffix(".txt")) for name in wanted}
    return wanted


@pytest.mark.parametrize("classes", [1, 3])
def test_a_video(tmp_path: Path, write_clip: Any, make_runner: Any, classes: int) -> None:
    clip, out = write_clip("clip.mp4", busy_frames(6, (96, 128))), tmp_path / "out"
    report = segment(
        make_runner(96, 128, classes=classes),
        clip,
        SegmentOptions(out, save_masks=True, export=ALL, stride=2),
    ).to_dict()
    masks = check_equal(out, classes, video=True)
    assert list(masks) == ["frame_000000.png", "frame_000002.png", "frame_000004.png"]
    assert len(np.unique(masks["frame_000000.png"])) == (2 if classes == 1 else classes)
    assert report["outputs"]["export"] == "export" and report["settings"]["export"] == list(ALL)
    coco = json.loads((out / COCO_FILE).read_text())
    names = ["class0"] if classes == 1 else ["class1", "class2"]
    assert [(each["id"], each["name"]) for each in coco["categories"]] == list(enumerate(names, start=1))
    assert [image["id"] for image in coco["images"]] == [1, 3, 5]  # index and 1
    assert "'" not in (text := (out / "export/data.yaml").read_text()) and f'  0: "{names[0]}"' in text
    tracks = (out / "export/tracks.xml").read_text()
    assert "<size>6</size>" in tracks and "<width>128</width><height>96</height>" in tracks
    cvat = (out / "export/annotations.xml").read_text()
    assert '<image id="4" name="frame_000004.png" width="128" height="96">' in cvat


def test_the_frames_of_a_video_are_written_when_asked_for(
    tmp_path: Path, write_clip: Any, make_runner: Any
) -> None:
    clip, out = write_clip("clip.mp4", busy_frames(4, (96, 128))), tmp_path / "out"
    own = {index: frame.rgb for index, frame in enumerate(VideoSource(clip).frames())}
    segment(make_runner(96, 128), clip, SegmentOptions(out, export=("coco",), export_frames=True, stride=3))
    written = {path.name: cv2.imread(str(path)) for path in (out / "export/images").iterdir()}
    assert set(written) == set(read_coco(out / COCO_FILE))
    assert set(written) == {"frame_000000.png", "frame_000003.png"}
    for index in (0, 3):
        np.testing.assert_array_equal(written[f"frame_{index:06d}.png"][..., ::-1], own[index])
    segment(make_runner(96, 128), clip, SegmentOptions(out, exist_ok=True))
    assert not (out / "export").exists()


def test_frames_are_exported_of_videos_and_with_a_format(tmp_path: Path, make_runner: Any) -> None:
    folder, runner = write_images(tmp_path / "in", ["0.png"]), make_runner(50, 71)
    with pytest.raises(UsageError, match="no format was given"):
        SegmentOptions(tmp_path / "out", export_frames=True)
    with pytest.raises(UsageError, match="is images"):
        segment(runner, folder, SegmentOptions(tmp_path / "out", export=ALL, export_frames=True))
    assert runner.calls == 0


def test_probabilities_are_the_rows(tmp_path: Path, write_clip: Any, make_runner: Any) -> None:
    out = tmp_path / "out"
    segment(
        make_runner(96, 128),
        write_clip("c.mp4", busy_frames(2, (96, 128))),
        SegmentOptions(out, export=("coco",)),
    )
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    annotations = json.loads((out / COCO_FILE).read_text())["annotations"]
    assert [each["score"] for each in annotations] == [
        value for row in rows for value in row["box_probabilities"]
    ]
    assert [each["bbox"] for each in annotations] == [box for row in rows for box in row["boxes"]]
    assert sorted(path.name for path in (out / "export").iterdir()) == ["annotations", "images"]


def test_a_folder_with_sizes_of_its_own_and_a_negative(tmp_path: Path, make_runner: Any) -> None:
    folder = write_images(tmp_path / "in", ["a.png", "b c é.jpg", "deep/c.png", "deep/a.png"])
    out = tmp_path / "out"
    segment(make_runner(50, 71), folder, SegmentOptions(out, save_masks=True, export=ALL))
    masks = check_equal(out, 1, video=False)
    assert set(masks) == {"a.png", "b c é.jpg", "deep/c.png", "deep/a.png"}
    negative = next(name for name, mask in masks.items() if not mask.any())
    assert (out / "export/labels" / negative).with_suffix(".txt").read_bytes() == b""


def stop_after(count: int, cancel: threading.Event) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if progress.done >= count:
            cancel.set()

    return show


def test_a_stopped_run_is_annotated_up_to_there_and_can_be_continued(
    tmp_path: Path, make_runner: Any
) -> None:
    names = [f"{index}.png" for index in range(12)]
    folder, out = write_images(tmp_path / "in", names), tmp_path / "out"
    options = SegmentOptions(out, save_masks=True, export=ALL, resume=True)
    cancel = threading.Event()
    segment(make_runner(50, 71), folder, options, stop_after(3, cancel), cancel)
    first = check_equal(out, 1, video=False)
    assert 3 <= len(first) < 12
    # One image is gone, one has other content, and one is new at the front.
    (folder / "1.png").unlink()
    write_images(folder, ["0.png"], seed=9)
    write_images(folder, ["00.png"], seed=8)
    report = segment(make_runner(50, 71), folder, options)
    assert report.counts.kept == len(first) - 2
    masks = check_equal(out, 1, video=False)
    assert set(masks) == {*names, "00.png"} - {"1.png"}
    ids = [image["id"] for image in json.loads((out / COCO_FILE).read_text())["images"]]
    assert ids == list(range(1, 13))


def test_an_image_whose_findings_are_lost_is_segmented_again(tmp_path: Path, make_runner: Any) -> None:
    folder, out = write_images(tmp_path / "in", ["0.png", "1.png"]), tmp_path / "out"
    options = SegmentOptions(out, save_masks=True, export=("coco", "cvat", "yolo"), resume=True)
    segment(make_runner(50, 71), folder, options)
    lines = (out / ".annotations.jsonl").read_bytes().splitlines(keepends=True)
    (out / ".annotations.jsonl").write_bytes(lines[0] + lines[1][:30])
    assert segment(make_runner(50, 71), folder, options).counts.kept == 1
    assert len(check_equal(out, 1, video=False)) == 2


def test_an_image_with_a_class_that_the_network_lacks_is_segmented_again(
    tmp_path: Path, make_runner: Any
) -> None:
    """A digit of an earlier run's log is damaged."""
    folder, out = write_images(tmp_path / "in", ["0.png", "1.png", "2.png"]), tmp_path / "out"
    options = SegmentOptions(out, save_masks=True, export=("coco", "cvat", "yolo"), resume=True)
    segment(make_runner(50, 71), folder, options)
    found = (out / COCO_FILE).read_bytes()
    text = (out / LOG).read_text()
    assert '"class": 1' in text
    (out / LOG).write_text(text.replace('"class": 1', '"class": 2', 1))
    assert segment(make_runner(50, 71), folder, options).counts.kept == 2
    assert (out / COCO_FILE).read_bytes() == found and len(check_equal(out, 1, video=False)) == 3


def test_other_formats_are_another_run(tmp_path: Path, make_runner: Any) -> None:
    folder, out = write_images(tmp_path / "in", ["0.png"]), tmp_path / "out"
    segment(make_runner(50, 71), folder, SegmentOptions(out, export=("coco",)))
    with pytest.raises(ArtefactMismatchError, match="its export was"):
        segment(make_runner(50, 71), folder, SegmentOptions(out, export=("cvat",), resume=True))
    with pytest.raises(UsageError, match="export|outputs"):
        segment(make_runner(50, 71), folder, SegmentOptions(out))


def test_a_later_run_removes_its_files_and_no_other(tmp_path: Path, make_runner: Any) -> None:
    folder, out = write_images(tmp_path / "in", ["0.png", "deep/1.png"]), tmp_path / "out"
    segment(make_runner(50, 71), folder, SegmentOptions(out, export=ALL))
    own = out / "export/images/0.png"
    own.write_bytes(b"mine")
    segment(make_runner(50, 71), folder, SegmentOptions(out, exist_ok=True))
    left = [path.relative_to(out).as_posix() for path in (out / "export").rglob("*") if path.is_file()]
    assert left == ["export/images/0.png"] and not (out / ".annotations.jsonl").exists()


def test_a_data_set_of_someone_else_is_left_alone(tmp_path: Path, make_runner: Any) -> None:
    folder, out = write_images(tmp_path / "in", ["0.png"]), tmp_path / "out"
    (out / "export").mkdir(parents=True)
    (out / "export/data.yaml").write_text("mine")
    with pytest.raises(UsageError, match="export"):
        segment(make_runner(50, 71), folder, SegmentOptions(out, export=ALL))
    segment(make_runner(50, 71), folder, SegmentOptions(out))
    segment(make_runner(50, 71), folder, SegmentOptions(out, exist_ok=True))
    assert (out / "export/data.yaml").read_text() == "mine"


def test_a_run_that_fails_is_annotated_up_to_there(tmp_path: Path, write_clip: Any, make_runner: Any) -> None:
    clip, out, runner = write_clip("c.mp4", busy_frames(6, (96, 128))), tmp_path / "out", make_runner(96, 128)
    runner.fail_at = 4
    with pytest.raises(RuntimeError, match="fell off"):
        segment(runner, clip, SegmentOptions(out, save_masks=True, export=ALL))
    assert len(check_equal(out, 1, video=True)) == 4


def test_a_run_without_a_frame_leaves_nothing(tmp_path: Path, write_clip: Any, make_runner: Any) -> None:
    clip, out, runner = write_clip("c.mp4", busy_frames(2, (96, 128))), tmp_path / "out", make_runner(96, 128)
    runner.fail_at = 0
    with pytest.raises(RuntimeError):
        segment(runner, clip, SegmentOptions(out, export=ALL))
    assert not [path for path in out.rglob("*") if path.name != ".vmkla.lock"]


@pytest.mark.parametrize("formats", [("voc",), ("coco", "pascal")])
def test_an_unknown_format_is_refused(tmp_path: Path, formats: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="annotation format '(voc|pascal)'") as caught:
        SegmentOptions(tmp_path, export=formats)
    assert caught.value.hint == "Choose from: coco, cvat, yolo"


def test_a_name_that_cvat_cannot_hold_is_refused_before_anything(tmp_path: Path, make_runner: Any) -> None:
    folder = write_images(tmp_path / "in", ["a\x01.png"])
    runner, out = make_runner(50, 71), tmp_path / "out"
    with pytest.raises(BadInputError, match="XML"):
        segment(runner, folder, SegmentOptions(out, export=ALL))
    assert runner.calls == 0 and not out.exists()
    segment(runner, folder, SegmentOptions(out, export=("coco", "yolo"), save_masks=True))
    assert list(read_coco(out / COCO_FILE)) == ["a\x01.png"]


def test_anonymous_names_reach_the_formats(tmp_path: Path, make_runner: Any) -> None:
    folder, out = write_images(tmp_path / "zyxdoe", ["zyxdoe.png"]), tmp_path / "out"
    segment(make_runner(50, 71), folder, SegmentOptions(out, export=ALL, save_masks=True, anonymous=True))
    assert len(check_equal(out, 1, video=False)) == 1
    for path in out.rglob("*"):
        assert "zyxdoe" not in path.name and (path.is_dir() or b"zyxdoe" not in path.read_bytes())
