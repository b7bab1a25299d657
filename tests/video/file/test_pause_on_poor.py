"""``--pause-on-poor`` in file mode: no markers on poor pictures, and no other result changes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

RATE = 10
Image = npt.NDArray[np.uint8]


def pictures(blurred: range, count: int) -> list[Image]:
    """Sharp noise with a red disc, blurred in some frames."""
    noise = np.random.default_rng(2)
    made = []
    for index in range(count):
        frame = noise.integers(20, 80, (96, 128, 3), dtype=np.uint8)
        cv2.circle(frame, (64, 48), 24, (240, 60, 60), -1)
        made.append(cv2.GaussianBlur(frame, (0, 0), 6) if index in blurred else frame)
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def marked(rgb: Image) -> int:
    """Number of pixels in the marker's colour, green, which the frames never have."""
    levels = rgb.astype(int)
    return int((levels[..., 1] - levels[..., 0] > 90).sum())


def test_a_video(make_runner: Any, write_clip: Any, read_back: Any, tmp_path: Path) -> None:
    clip = write_clip("clip.mp4", pictures(range(6), 12), rate=Fraction(RATE), options={"qp": "8"})
    runs = {}
    for name, pause in (("paused", True), ("plain", False)):
        out = tmp_path / name
        report = segment(make_runner(96, 128), clip, SegmentOptions(out, pause_on_poor=pause)).to_dict()
        rows = lines(out / "frames.jsonl")
        for row in rows:
            del row["latency_ms"]
        runs[name] = report, rows, [marked(frame) for frame in read_back(out / "overlay.mp4")[0]]
    report, rows, marks = runs["paused"]
    assert [row.get("poor") for row in rows] == ["blur"] * 6 + [None] * 6
    assert all(len(row["boxes"]) == 1 for row in rows) and rows == runs["plain"][1]
    assert max(marks[:6]) == 0 and min(marks[6:]) > 50 and min(runs["plain"][2]) > 50
    assert (report["counts"]["paused"], runs["plain"][0]["counts"]["paused"]) == (6, 0)
    assert report["counts"]["with_finding"] == 12
    assert report["settings"]["pause_on_poor"] is True and "pause_on_poor" not in runs["plain"][0]["settings"]
    assert "markers were paused in 6 of 12 segmented frames: poor picture" in report["warnings"]
    (lesion,) = lines(tmp_path / "paused" / "lesions.jsonl")
    assert lesion["first_marker_after_s"] == 0.6
    assert lines(tmp_path / "plain" / "lesions.jsonl")[0]["first_marker_after_s"] == 0.0
    tile_width = 480 + 4  # the contact sheet shows only frames with markers: the six of the second half
    sheet = cv2.imread(str(tmp_path / "paused" / "contact_sheet.jpg"))[..., ::-1]
    assert all(marked(sheet[: sheet.shape[0] // 2, x : x + tile_width]) for x in (0, tile_width))


def test_images_and_a_run_that_continues(make_runner: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    originals = pictures(range(1), 2)
    for name, image in zip(("blurred.png", "sharp.png"), originals, strict=True):
        cv2.imwrite(str(folder / name), image[..., ::-1])
    options = SegmentOptions(out, pause_on_poor=True, save_masks=True)
    report = segment(make_runner(96, 128), folder, options).to_dict()
    blurred, sharp = lines(out / "frames.jsonl")
    assert blurred["poor"] == "blur" and "poor" not in sharp
    assert report["counts"]["paused"] == 1 and report["counts"]["with_finding"] == 2
    overlays = [cv2.imread(str(out / row["overlay"]))[..., ::-1] for row in (blurred, sharp)]
    np.testing.assert_array_equal(overlays[0], originals[0])
    assert marked(overlays[1]) > 50
    assert cv2.imread(str(out / blurred["mask"]), cv2.IMREAD_UNCHANGED).any()  # the finding itself stays
    (out / "report.json").unlink()
    again = SegmentOptions(out, pause_on_poor=True, save_masks=True, resume=True)
    report = segment(make_runner(96, 128), folder, again).to_dict()
    assert (report["counts"]["kept"], report["counts"]["paused"]) == (2, 1)
