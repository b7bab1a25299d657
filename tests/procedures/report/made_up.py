"""Folders of runs whose content is made up, for tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmkla.procedures.stills import encode_still

RATE = 10


def row(index: int, numbers: Sequence[int] | None = (), **more: Any) -> dict[str, Any]:
    """A row of a video of 10 frames a second; no numbers: a frame that was not segmented."""
    count = None if numbers is None else len(numbers)
    per_box = {"boxes": [10, 10, 20, 20], "box_areas_px": 300, "box_peaks": 0.9}
    values: dict[str, Any] = {"index": index, "pts_s": index / RATE, "frame_hw": [100, 100]}
    values |= {"segmented": numbers is not None, "box_lesions": None if numbers is None else list(numbers)}
    values |= {name: None if count is None else [value] * count for name, value in per_box.items()}
    return values | more


def lesion(number: int, first_s: float = 1.0, last_s: float = 2.0, **more: Any) -> dict[str, Any]:
    """A row of lesions.jsonl."""
    names = {"image": f"lesions/{number:04d}.jpg", "marked": f"lesions/{number:04d}.marked.jpg"}
    return {
        "id": number, "first_s": first_s, "last_s": last_s, "frames": 10, "gaps": [], "largest_area_px": 300,
        "largest_area_fraction": 0.03, "median_area_px": 300, "peak_probability": 0.9,
        "first_marker_after_s": 0.0, "joined": [],
        "still": {"pts_s": first_s, "box": [10, 10, 20, 20], "score": 0.1, **names},
    } | more  # fmt: skip


def write_run(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    lesions: Sequence[dict[str, Any]] | None = (),
    document: dict[str, Any] | None = None,
    *,
    name: str = "frames.jsonl",
) -> Path:
    """Write the files of a run with a still for each lesion; without lesions.jsonl for None."""
    folder.mkdir(exist_ok=True)
    _write_lines(folder / name, rows)
    if lesions is not None:
        _write_lines(folder / "lesions.jsonl", lesions)
        stills = folder / "lesions"
        stills.mkdir(exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        for each in lesions:
            for ending in ("", ".marked"):
                (stills / f"{each['id']:04d}{ending}.jpg").write_bytes(encode_still(noise))
    values: dict[str, Any] = {"input": {"kind": "video", "name": "a.mp4", "sha256": "ab" * 32}}
    (folder / "report.json").write_text(json.dumps(values | (document or {})))
    return folder


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
