"""Every line of frames.jsonl is of the schema in docs/schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import pytest

from tests import ROOT
from vmkla.video.file.options import SegmentOptions
from vmkla.video.file.pipeline import segment

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "frames.schema.json").read_text(encoding="utf-8"))


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        jsonschema.validate(row, SCHEMA, cls=jsonschema.Draft202012Validator)
        if row["segmented"]:
            assert len(row["boxes"]) == len(row["box_probabilities"]) == len(row["box_peaks"])
            assert len(row.get("box_lesions", row["boxes"])) == len(row["boxes"])
            assert all(row["max_probability"] + 1e-6 >= value for value in row["box_probabilities"])
    return rows


@pytest.mark.parametrize("classes", [1, 3])
def test_a_video(tmp_path: Path, write_clip: Any, make_frames: Any, make_runner: Any, classes: int) -> None:
    clip = write_clip("clip.mp4", make_frames(10, 64, 96))
    options = SegmentOptions(out_dir=tmp_path / "out", stride=2, save_masks=True, save_probability=True)
    segment(make_runner(classes=classes), clip, options)
    rows = rows_of(tmp_path / "out")
    assert [row["segmented"] for row in rows] == [True, False] * 5
    assert any(row["boxes"] for row in rows)


def test_images(tmp_path: Path, make_frames: Any, make_runner: Any) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, frame in enumerate(make_frames(3, 64, 96)):
        cv2.imwrite(str(folder / f"{index}.png"), frame[..., ::-1])
    segment(make_runner(), folder, SegmentOptions(out_dir=tmp_path / "out", save_masks=True))
    assert len(rows_of(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": [[1, 2, 3]]},
        {"box_probabilities": [1.5]},
        {"extra": 1},
        {"area_fraction": 2},
        {"index": None},
    ],
)
def test_the_schema_sees_what_is_wrong(change: dict[str, Any]) -> None:
    row = {"index": 0,
        "frame_hw": [8, 5], "pts_s": 0.0, "segmented": True, "area_px": 4, "area_fraction": 0.1,
           "boxes": [[1, 2, 2, 2]], "box_areas_px": [4], "box_probabilities": [0.9], "box_peaks": [0.8],
           "max_probability": 0.9, "latency_ms": {"total": 1.0}}  # fmt: skip
    jsonschema.validate(row, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**row, **change}, SCHEMA)
