"""``--hide`` in file mode: no output shows what it covers, and no result changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vmkla.errors import ArtefactMismatchError, UsageError
from vmkla.segment.preprocess import Rect
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

NAME = Rect(8, 4, 24, 12)
"""Where the frames have burned-in text; the lesion begins under it."""


def frames() -> list[Any]:
    """Frames of 96x128 with a red lesion that reaches under white text."""
    made = []
    for index in range(12):
        frame = np.full((96, 128, 3), (90, 50, 40), np.uint8)
        frame[::7, ::5] += np.uint8(20 + index)
        frame[8:48, 12:60] = (230, 60, 50)
        cv2.putText(frame, "JANE", (9, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1)
        made.append(frame)
    return made


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "latency_ms"} for row in rows]


def test_a_video(tmp_path: Path, write_clip: Any, make_runner: Any, read_back: Any) -> None:
    clip = write_clip("clip.mp4", frames(), options={"qp": "4"})
    shown, hidden = tmp_path / "shown", tmp_path / "hidden"
    extra: dict[str, Any] = {"stride": 2, "export": ("coco",), "export_frames": True}
    segment(make_runner(96, 128), clip, SegmentOptions(shown, **extra))
    report = segment(make_runner(96, 128), clip, SegmentOptions(hidden, hide=(NAME,), **extra)).to_dict()
    assert report["settings"]["hide"] == [list(NAME)]
    assert rows_of(hidden) == rows_of(shown)  # the network, the tracker and the quality see the whole frame
    # Overlays of segmented frames and of those that the stride skips; H.264 is not exact.
    for overlay, other in zip(*(read_back(out / "overlay.mp4")[0] for out in (hidden, shown)), strict=True):
        assert overlay[11:14, 17:30].max() < 40 and other[11:14, 17:30, 0].max() > 180
        assert overlay[4:16, 8:32].min(axis=2).max() < 150  # the marker is green, the text white
        assert other[4:16, 8:32].min(axis=2).max() > 180
        assert np.abs(overlay[60:].astype(int) - other[60:]).max() < 60
    exported = sorted((hidden / "export" / "images").iterdir())
    assert len(exported) == 6
    for path in exported:
        image = cv2.imread(str(path))
        assert not image[NAME.y : NAME.y + NAME.h, NAME.x : NAME.x + NAME.w].any()
        assert image[40:48, 12:60, 2].min() > 180
    # The still shows the lesion from its upper left corner on: black under the text, red elsewhere.
    (lesion,) = [json.loads(line) for line in (hidden / "lesions.jsonl").read_text().splitlines()]
    clean, marked, before = (
        cv2.imread(str(folder / "lesions" / name))
        for folder, name in ((hidden, "0001.jpg"), (hidden, "0001.marked.jpg"), (shown, "0001.jpg"))
    )
    box = lesion["still"]["box"]
    assert max(box[:2]) < 16 and clean.shape == before.shape
    margin = 16  # what a still shows around a small lesion; here cut off by the frame's edges
    scale = clean.shape[1] / (box[0] + box[2] + margin)
    x0, y0, x1, y1 = (round(scale * v) for v in (17, 11, 29, 14))
    assert max(clean[y0:y1, x0:x1].max(), marked[y0:y1, x0:x1].max()) < 40
    assert before[y0:y1, x0:x1].max() > 150
    sheet = cv2.imread(str(hidden / "contact_sheet.jpg"))
    scale = 480 / 128
    assert sheet[round(scale * 11) : round(scale * 14), round(scale * 17) : round(scale * 29)].max() < 60


def test_images_of_several_sizes_and_a_run_that_continues(tmp_path: Path, make_runner: Any) -> None:
    """In an image of another size the rectangle hides its own place and the one that it scales to."""
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for name, size_wh in (("a.png", (128, 96)), ("b.png", (256, 192))):
        cv2.imwrite(str(folder / name), cv2.resize(frames()[0][..., ::-1], size_wh))
    options = SegmentOptions(out, hide=(NAME,), overlay="none")
    segment(make_runner(96, 128), folder, options)

    def check() -> None:
        first, second = (cv2.imread(str(out / "overlay" / name)) for name in ("a.png", "b.png"))
        for image, boxes in ((first, [NAME]), (second, [NAME, Rect(16, 8, 48, 24)])):
            black = np.zeros(image.shape[:2], bool)
            for x, y, w, h in boxes:
                black[y : y + h, x : x + w] = True
            assert not image[black].any() and image[~black].max(axis=1).min() > 0

    check()
    # The size that the rectangle refers to is that of the first image, also where only the second is new.
    (out / "overlay" / "b.png").unlink()
    (out / "report.json").unlink()
    again = SegmentOptions(out, hide=(NAME,), overlay="none", resume=True)
    report = segment(make_runner(96, 128), folder, again).to_dict()
    assert report["counts"]["kept"] == 1
    check()
    with pytest.raises(ArtefactMismatchError, match="hide"):
        segment(make_runner(96, 128), folder, SegmentOptions(out, overlay="none", resume=True))


def test_a_rectangle_outside_the_first_frame_ends_the_run_before_it_begins(
    tmp_path: Path, write_clip: Any, make_runner: Any
) -> None:
    clip, out = write_clip("clip.mp4", frames()), tmp_path / "out"
    with pytest.raises(UsageError, match="200,0,5,5 is not in the frame of 128x96"):
        segment(make_runner(96, 128), clip, SegmentOptions(out, hide=(NAME, Rect(200, 0, 5, 5))))
    assert not out.exists()
