"""Readers of annotated recordings: the same truth from every layout, and what is rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.evaluation.truth import miniatures
from tests.evaluation.truth.miniatures import FRAMES, HEIGHT, LAYOUTS, ONE, WIDTH, filled, visible, write
from tests.video.small_videos import write_video
from vmkla.errors import BadInputError, UsageError
from vmkla.evaluation.truth.layouts import AnnotatedSet, open_annotated
from vmkla.evaluation.truth.records import AnnotatedRecording, TruthRules

SIZE = (HEIGHT, WIDTH)


def opened(root: Path, layout: str) -> AnnotatedSet:
    """The miniature of a layout."""
    make, fps = LAYOUTS[layout]
    make(root)
    return open_annotated(root, TruthRules(fps))


def boxes(recording: AnnotatedRecording, index: int) -> dict[str, Any]:
    """The lesions of a frame; each must fill its box."""
    truth = recording.truth.get(index)
    marks = truth.marks(SIZE) if truth is not None else ()
    assert all(mark.pixels.all() and mark.pixels.shape == (mark.box.h, mark.box.w) for mark in marks)
    return {mark.lesion.rpartition("_")[2]: mark.box for mark in marks}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_truth(tmp_path: Path, layout: str) -> None:
    annotated = opened(tmp_path, layout)
    assert annotated.layout == layout
    (recording,) = annotated.recordings
    assert recording.name == recording.procedure == ("001-001" if layout == "REAL-Colon" else "exam")
    for index in range(FRAMES):
        assert boxes(recording, index) == visible(index), index
    assert recording.frame_s == pytest.approx(1 / 30) and recording.times_s is not None
    assert np.diff(recording.times_s) == pytest.approx([1 / 30] * (FRAMES - 1))
    frames = list(recording.source.frames())
    assert [frame.index for frame in frames] == list(range(FRAMES))
    for index, frame in enumerate(frames):
        assert np.array_equal(frame.rgb[..., ::-1], miniatures.frame(index))


def test_sun_seg(tmp_path: Path) -> None:
    miniatures.sun_seg(tmp_path)
    annotated = open_annotated(tmp_path)
    clip, without = annotated.recordings
    assert (annotated.layout, clip.name, clip.procedure) == (
        "SUN-SEG", "TestEasyDataset/Seen/case1_2", "case1",
    )  # fmt: skip
    marks = [clip.truth[index].marks(SIZE) for index in range(FRAMES)]
    assert [[(mark.lesion, mark.box) for mark in of] for of in marks] == [
        [("case1", ONE)] if index in miniatures.VISIBLE["1"] else [] for index in range(FRAMES)
    ]
    assert (without.name, without.truth, without.source.total) == ("SUN-Negative/case3", {}, FRAMES)


def test_a_video_beside_mot_text(tmp_path: Path) -> None:
    (tmp_path / "exam" / "gt").mkdir(parents=True)
    write_video(tmp_path / "exam" / "clip.mp4")
    (tmp_path / "exam" / "gt" / "gt.txt").write_text("2,5,1.5,2.5,4,4\n")
    (recording,) = open_annotated(tmp_path).recordings
    assert (recording.source.kind, recording.times_s, recording.frame_s) == ("video", None, None)
    (mark,) = recording.truth[1].marks(SIZE)
    assert (mark.lesion, tuple(mark.box)) == ("5", (1, 2, 5, 5)) and set(recording.truth) == {1}
    with pytest.raises(UsageError, match="frames have times"):
        open_annotated(tmp_path, TruthRules(30))


def test_frames_left_out_leave_a_gap_in_time(tmp_path: Path) -> None:
    """REAL-Colon and masks: the number in a frame's name is its place in time."""
    for layout in ("REAL-Colon", "masks beside frames"):
        root = tmp_path / layout
        root.mkdir()
        make, fps = LAYOUTS[layout]
        make(root)
        for path in root.rglob("*"):
            if path.is_file() and path.stem in ("shot004", "shot005", "001-001_104", "001-001_105"):
                path.unlink()
        (recording,) = open_annotated(root, TruthRules(fps)).recordings
        assert recording.times_s is not None
        assert np.diff(recording.times_s) == pytest.approx([1 / 30] * 3 + [3 / 30] + [1 / 30] * 5)
        assert boxes(recording, 4) == visible(6)


def edited(path: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    """Change a text file of a miniature."""

    def change(root: Path) -> None:
        (root / path).write_text(edit((root / path).read_text()))

    return change


def in_coco(edit: Callable[[Any], object]) -> Callable[[Path], None]:
    """Change the document of COCO's miniature."""

    def change(root: Path) -> None:
        path = root / "annotations/truth.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))

    return change


def removed(path: str) -> Callable[[Path], None]:
    """Remove a file."""
    return lambda root: (root / path).unlink()


XML = "001-001_annotations/001-001_107.xml"
WRONG: list[tuple[str, Callable[[Path], Any], str]] = [
    # annotations of other frames than those there
    ("REAL-Colon", removed("001-001_frames/001-001_103.jpg"), "1 annotated frame of 12 is not there"),
    ("REAL-Colon", removed("001-001_annotations/001-001_103.xml"), "1 frame of 12 has no annotation"),
    (
        "REAL-Colon",
        edited(XML, lambda text: text.replace("<width>48", "<width>64")),
        r"a frame of \(32, 64\)",
    ),
    ("COCO", removed("images/exam/0003.png"), "1 annotated frame of 12 is not there: exam/0003"),
    ("COCO", in_coco(lambda d: d["annotations"][0].update(image_id=99)), "image 99, which is not listed"),
    ("COCO", in_coco(lambda d: d["images"][6].update(height=64)), r"a frame of \(64, 48\)"),
    ("MOT", removed("exam/img1/000005.jpg"), "frame 000006 follows 000004"),
    ("MOT", removed("exam/img1/000012.jpg"), "states 12 frames, and .* holds 11"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: text + "\n13,1,5,5,9,9"), "a row of frame 13"),
    ("masks beside frames", removed("exam/frames/shot003.png"), "1 annotated frame of 12 is not there"),
    ("masks beside frames", removed("exam/masks/shot003.png"), "1 frame of 12 has no annotation"),
    (
        "masks beside frames",
        lambda root: write(root / "exam/masks/shot003.png", np.zeros((16, 24), np.uint8)),
        r"the mask is \(16, 24\)",
    ),
    # one identity in two places at once
    ("REAL-Colon", edited(XML, lambda text: text.replace("001-001_2", "001-001_1")), "annotated twice"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: text + "\n9,1,30,5,9,9"), "lesion 1 is annotated twice"),
    ("COCO", in_coco(lambda d: d["annotations"].append(d["annotations"][0])), "annotated twice"),
    # times that jump
    ("COCO", in_coco(lambda d: d["images"][6].update(frame_id=3)), "the times do not rise"),
    (
        "masks beside frames",
        lambda root: [
            (root / "exam" / kind / "shot003.png").rename(root / "exam" / kind / "shot0002.png")
            for kind in ("frames", "masks")
        ],
        "the times do not rise",
    ),
    # what cannot be read
    ("REAL-Colon", edited(XML, lambda text: text[:100]), "is not a VOC annotation"),
    ("REAL-Colon", edited(XML, lambda text: "<!DOCTYPE a>" + text), "declares entities"),
    (
        "REAL-Colon",
        lambda root: (root / XML).write_text('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "utf-16"),
        "declares entities",
    ),
    ("REAL-Colon", edited(XML, lambda text: text.replace("unique_id", "uid")), "no unique_id"),
    ("REAL-Colon", edited(XML, lambda text: text.replace("<xmin>6<", "<xmin>99<")), "no area"),
    ("REAL-Colon", edited("video_info.csv", lambda text: text.replace("fps", "rate")), "no columns"),
    (
        "REAL-Colon",
        edited("video_info.csv", lambda text: text.replace("001-001", "001-002")),
        "no row of 001-001",
    ),
    ("COCO", edited("annotations/truth.json", lambda text: text[:-9]), "is not COCO"),
    ("COCO", in_coco(lambda d: d["annotations"][0].pop("instance_id")), "track_id or instance_id"),
    ("COCO", in_coco(lambda d: d["annotations"][0].update(segmentation=[[1, 2]])), "three points"),
    ("COCO", in_coco(lambda d: d["images"][0].update(file_name="../x.png")), "leaves the folder"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: "1,1,a,b,c,d\n" + text), "line 1: not numbers"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: "1,1,60,5,4,4\n" + text), "outside the frame"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: "1,1,5,5,4,4,0\n" + text), "not to be considered"),
    ("MOT", edited("exam/seqinfo.ini", lambda text: text.replace("=30", "=fast")), "frameRate is 'fast'"),
    (
        "masks beside frames",
        lambda root: write(root / "exam/masks/shot003.png", miniatures.frame(3)[..., 0]),
        "values beside 0",
    ),
    (
        "masks beside frames",
        lambda root: write(root / "exam/masks/shot003.tif", filled({ONE: 1})),
        "differ in their suffix only",
    ),
    (
        "masks beside frames",
        lambda root: (root / "exam/masks/shot003.png").write_bytes(
            cv2.imencode(".jpg", filled({ONE: 1}))[1].tobytes()
        ),
        "is a JPEG",
    ),
    ("COCO", in_coco(lambda d: d["images"][3].update(video_id=[7])), "an entry has no video_id"),
    ("COCO", in_coco(lambda d: d["images"][3].update(video_id=8)), "video_id 8, which is not listed"),
    ("COCO", in_coco(lambda d: d["images"][3].update(height="32")), "expected whole numbers"),
    ("COCO", in_coco(lambda d: d["videos"].append({"id": 7, "name": "other"})), "two videos have one id"),
    (
        "COCO",
        in_coco(lambda d: d["images"].append(d["images"][0] | {"id": 99})),
        "two images have one file_name",
    ),
    ("MOT", edited("exam/gt/gt.txt", lambda text: "1\n" + text), "line 1: not numbers"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: "1.5,1,5,5,4,4\n" + text), "line 1: not numbers"),
    ("MOT", edited("exam/gt/gt.txt", lambda text: "1,-1,5,5,4,4\n" + text), "line 1: with the identity -1"),
    ("MOT", edited("exam/seqinfo.ini", lambda text: text.replace("=img1", "=../x")), "leaves the folder"),
]


@pytest.mark.parametrize(("layout", "spoil", "message"), WRONG)
def test_wrong_truth_is_rejected(
    tmp_path: Path, layout: str, spoil: Callable[[Path], Any], message: str
) -> None:
    make, fps = LAYOUTS[layout]
    make(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BadInputError, match=message):
        for recording in open_annotated(tmp_path, TruthRules(fps)).recordings:
            for truth in recording.truth.values():
                truth.marks(SIZE)


def test_frames_that_are_numbered_far_apart(tmp_path: Path) -> None:
    """Every fifth frame at 30 a second, or at 6? The folder does not tell."""
    for index in range(0, 60, 5):
        write(tmp_path / "a" / "frames" / f"{index}.png", miniatures.frame(0))
        write(tmp_path / "a" / "masks" / f"{index}.png", filled({}))
    with pytest.raises(BadInputError, match="numbered 5 apart"):
        open_annotated(tmp_path, TruthRules(30))


def test_the_rate_is_stated_once(tmp_path: Path) -> None:
    for layout, (make, fps) in LAYOUTS.items():
        root = tmp_path / layout
        root.mkdir()
        make(root)
        with pytest.raises(UsageError, match="no frames a second" if fps else "Leave --fps out"):
            open_annotated(root, TruthRules(None if fps else 25.0))
    with pytest.raises(UsageError, match="above 0"):
        TruthRules(0.0)


def test_no_layout_or_two(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not exist"):
        open_annotated(tmp_path / "absent")
    (tmp_path / "notes").mkdir()
    with pytest.raises(BadInputError, match="none of the layouts that are known; it holds: notes"):
        open_annotated(tmp_path)
    miniatures.mot(tmp_path)
    miniatures.real_colon(tmp_path)
    with pytest.raises(BadInputError, match="the layouts of REAL-Colon and of MOT"):
        open_annotated(tmp_path)


def test_colours_of_masks_are_identities(tmp_path: Path) -> None:
    """A mask with a palette, as DAVIS has them: red and blue lesions."""
    write(tmp_path / "a" / "frames" / "0.png", miniatures.frame(0))
    colours = cv2.merge([filled({ONE: 200}), filled({}), filled({miniatures.TWO: 128})])
    write(tmp_path / "a" / "masks" / "0.png", np.asarray(colours, np.uint8))
    (recording,) = open_annotated(tmp_path, TruthRules(30)).recordings
    marks = {mark.lesion: mark.box for mark in recording.truth[0].marks(SIZE)}
    assert marks == {"0000c8": ONE, "800000": miniatures.TWO}
