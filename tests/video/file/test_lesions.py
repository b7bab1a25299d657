"""lesions.jsonl: the lesions of a scripted video, with their numbers in frames.jsonl."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from tests import ROOT
from tests.video.file.scripted import RATE, procedure
from vmkla.segment.operating_point import PointOverrides
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "lesions.schema.json").read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lesions(out: Path) -> list[dict[str, Any]]:
    rows = lines(out / "lesions.jsonl")
    for row in rows:
        jsonschema.validate(row, SCHEMA, cls=jsonschema.Draft202012Validator)
    return rows


@pytest.fixture
def clip(write_clip: Any) -> Path:
    return Path(write_clip("clip.mp4", procedure(), rate=Fraction(RATE)))


def test_lesions_match_the_script(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = segment(make_runner(96, 128), clip, SegmentOptions(out)).to_dict()
    first, second = lesions(out)
    assert (first["id"], first["first_s"], first["last_s"]) == (1, 0.0, 7.9)
    assert (first["frames"], first["gaps"], first["joined"]) == (50, [[1.9, 5.0]], [3])
    assert (second["id"], second["first_s"], second["last_s"]) == (2, 4.0, 4.9)
    assert (second["frames"], second["gaps"], second["joined"]) == (10, [], [])
    assert first["first_marker_after_s"] == second["first_marker_after_s"] == 0.0
    assert first["median_area_px"] == pytest.approx(np.pi * 14**2, rel=0.15)
    assert second["largest_area_px"] == pytest.approx(np.pi * 10**2, rel=0.2)
    assert report["findings"]["lesions"] == 2 and report["outputs"]["lesions"] == "lesions.jsonl"

    rows = lines(out / "frames.jsonl")
    for index, row in enumerate(rows):
        expected = [1] if not 20 <= index < 50 else [2] if index >= 40 else []
        assert row["box_lesions"] == expected, index
        assert len(row["boxes"]) == len(expected)
    # Rows and lesions add up to the same, also after joining.
    peaks = [row["box_peaks"][0] for row in rows if row["box_lesions"] == [1]]
    assert first["peak_probability"] == max(peaks)
    assert first["largest_area_px"] == max(
        row["box_areas_px"][0] for row in rows if row["box_lesions"] == [1]
    )


def test_each_lesion_has_its_best_still(make_runner: Any, write_clip: Any, tmp_path: Path) -> None:
    """The largest disc is in one frame after the gap, where the lesion has a number of its own at first."""
    frames = procedure()
    cv2.circle(frames[60], (40, 48), 20, (240, 60, 60), -1)
    clip = write_clip("clip.mp4", frames, rate=Fraction(RATE))
    out = tmp_path / "out"
    report = segment(make_runner(96, 128), clip, SegmentOptions(out)).to_dict()
    first, second = lesions(out)
    assert first["joined"] == [3] and first["still"]["pts_s"] == 6.0
    [box] = lines(out / "frames.jsonl")[60]["boxes"]
    assert first["still"]["box"] == box
    assert 4.0 <= second["still"]["pts_s"] <= 4.9
    files = [row["still"][kind] for row in (first, second) for kind in ("image", "marked")]
    assert sorted(f"lesions/{path.name}" for path in (out / "lesions").iterdir()) == sorted(files)
    assert report["outputs"]["stills"] == "lesions"
    clean, marked = (cv2.imread(str(out / name)) for name in files[:2])
    assert clean.shape == marked.shape and max(clean.shape) == 4 * (box[2] + 32)
    assert (clean[clean.shape[0] // 2, clean.shape[1] // 2] > 200).tolist() == [False, False, True]


def test_poor_pictures_are_named(make_runner: Any, write_clip: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(1)
    frames = [noise.integers(40, 200, (96, 128, 3), dtype=np.uint8) for _ in range(10)]
    frames += [np.zeros((96, 128, 3), np.uint8)] * 5 + [frames[0]] * 25
    clip = write_clip("clip.mp4", frames, rate=Fraction(RATE))
    segment(make_runner(96, 128), clip, SegmentOptions(tmp_path / "out"))
    poor = [row.get("poor") for row in lines(tmp_path / "out" / "frames.jsonl")]
    assert poor == [None] * 10 + ["black"] * 5 + [None] * 10 + ["frozen"] * 15
    segment(make_runner(96, 128), clip, SegmentOptions(tmp_path / "strided", stride=2))
    rows = lines(tmp_path / "strided" / "frames.jsonl")
    assert [row.get("poor") for row in rows if not row["segmented"]] == [None] * 20
    assert [row["poor"] for row in rows if "poor" in row] == ["black"] * 3 + ["frozen"] * 7


def test_annotations_have_the_final_numbers(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(make_runner(96, 128), clip, SegmentOptions(out, export=("coco", "cvat")))
    annotations = json.loads((out / "export/annotations/instances_default.json").read_text())["annotations"]
    numbers = [number for row in lines(out / "frames.jsonl") for number in row["box_lesions"]]
    assert (
        [each["attributes"]["track_id"] for each in annotations] == numbers == [1] * 20 + [2] * 10 + [1] * 30
    )
    shapes = (out / "export/annotations.xml").read_text().split('<attribute name="track_id">')[1:]
    assert [int(shape.split("<")[0]) for shape in shapes] == numbers
    first, second = ElementTree.parse(out / "export/tracks.xml").getroot().findall("track")
    stretches = [
        [int(each.attrib["frame"]) for each in track if each.attrib["outside"] == str(outside)]
        for track in (first, second)
        for outside in (0, 1)
    ]
    assert stretches == [[*range(20), *range(50, 80)], [20], list(range(40, 50)), [50]]
    segment(make_runner(96, 128), clip, SegmentOptions(out, exist_ok=True))
    assert not (out / "export").exists()


def test_tracks_of_a_run_that_is_stopped_end_there(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    cancel, out = threading.Event(), tmp_path / "out"
    segment(
        make_runner(96, 128),
        clip,
        SegmentOptions(out, export=("cvat",)),
        progress=lambda done: cancel.set() if done.done >= 5 else None,
        cancel=cancel,
    )
    written = len(lines(out / "frames.jsonl"))
    assert 5 <= written < 20
    (track,) = ElementTree.parse(out / "export/tracks.xml").getroot().findall("track")
    assert [int(shape.attrib["frame"]) for shape in track] == list(range(written + 1))
    assert [shape.attrib["outside"] for shape in track] == ["0"] * written + ["1"]


def test_without_markers(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    segment(make_runner(96, 128), clip, SegmentOptions(tmp_path / "out", overlay="none"))
    assert [row["first_marker_after_s"] for row in lesions(tmp_path / "out")] == [None, None]


def test_a_stride_leaves_no_gaps(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    segment(make_runner(96, 128), clip, SegmentOptions(tmp_path / "out", stride=5))
    first, second = lesions(tmp_path / "out")
    assert (first["frames"], first["gaps"]) == (10, [[1.5, 5.0]])
    assert (second["frames"], second["gaps"]) == (2, [])


def test_a_procedure_without_findings_and_an_earlier_run(
    clip: Path, make_runner: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(make_runner(96, 128), clip, SegmentOptions(out))
    options = SegmentOptions(out, point=PointOverrides(0.999), exist_ok=True)
    report = segment(make_runner(96, 128), clip, options).to_dict()
    assert lesions(out) == [] and report["findings"]["lesions"] == 0
    assert not (out / "lesions").exists() and "stills" not in report["outputs"]


def test_a_run_that_is_stopped_has_the_lesions_so_far(clip: Path, make_runner: Any, tmp_path: Path) -> None:
    cancel = threading.Event()
    out = tmp_path / "out"
    report = segment(
        make_runner(96, 128),
        clip,
        SegmentOptions(out),
        progress=lambda done: cancel.set() if done.done >= 10 else None,
        cancel=cancel,
    )
    assert report.outcome == "interrupted"
    [only] = lesions(out)
    assert only["frames"] == sum(row["box_lesions"] == [1] for row in lines(out / "frames.jsonl")) >= 10


def test_images_have_no_lesions(make_runner: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "one.png"), procedure()[0][..., ::-1])
    report = segment(make_runner(96, 128), folder, SegmentOptions(tmp_path / "out")).to_dict()
    assert not (tmp_path / "out" / "lesions.jsonl").exists()
    assert "lesions" not in report["findings"] and "lesions" not in report["outputs"]
    assert "box_lesions" not in lines(tmp_path / "out" / "frames.jsonl")[0]


@pytest.mark.parametrize(
    "change",
    [
        *({"id": 0}, {"frames": 0}, {"gaps": [[1.0]]}, {"gaps": [[0.0, 1.0]] * 1001}, {"gaps_left_out": 3}),
        *({"more": 1}, {"joined": None}, {"still": {}}),
    ],
)
def test_the_schema_sees_what_is_wrong(change: dict[str, Any]) -> None:
    row = {"id": 1, "first_s": 0.0, "last_s": 1.0, "frames": 2, "gaps": [[0.0, 1.0]], "largest_area_px": 9,
           "largest_area_fraction": 0.1, "median_area_px": 8.5, "peak_probability": 0.9,
           "first_marker_after_s": 0.0, "joined": [2], "still": None}  # fmt: skip
    jsonschema.validate(row, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**row, **change}, SCHEMA)
