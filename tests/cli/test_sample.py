"""``vmkla sample``: a clip, its masks, and no silent replacing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.video.small_videos import count_frames


def test_a_clip_and_its_masks(vmkla: Any, tmp_path: Path) -> None:
    out, masks = tmp_path / "clip é.mp4", tmp_path / "masks"
    done = vmkla("sample", out, "--frames", 4, "--seed", 2, "--size", "64x96", "--masks", masks)
    assert done.status == 0, done.stderr
    assert str(out) in done.stdout and str(masks) in done.stdout
    assert count_frames(out) == 4
    names = sorted(masks.iterdir())
    assert len(names) == 4
    for path in names:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert mask.shape == (64, 96) and set(mask.ravel()) <= {0, 255}


def test_an_earlier_clip_is_replaced_only_when_told(vmkla: Any, tmp_path: Path) -> None:
    out = tmp_path / "clip.mp4"
    out.write_text("mine")
    arguments = ("sample", out, "--frames", 2, "--size", "64", "--json")
    refused = vmkla(*arguments)
    assert refused.status == 2 and "--exist-ok" in refused.stderr and out.read_text() == "mine"
    done = vmkla(*arguments, "--exist-ok")
    assert done.status == 0 and done.json == {"video": str(out), "masks": None, "frames": 2}
    assert count_frames(out) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--size", "63x64"), 2, "even"),
        (("--size", "wide"), 2, "--size"),
        (("--size", "4x4"), 2, "32"),
        (("--frames", "0"), 2, "--frames"),
        (("--minutes", "0"), 2, "one frame to 24 hours"),
        (("--minutes", "0.1", "--size", "4x4"), 2, "32"),
        (("--minutes", "0.1", "--size", "63x64"), 2, "even"),
        (("--minutes", "0.1", "--frames", "3"), 2, "Leave one of them out"),
    ],
)
def test_wrong_values(
    vmkla: Any, tmp_path: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = vmkla("sample", tmp_path / "clip.mp4", *arguments)
    assert done.status == status and message in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written(vmkla: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = vmkla("sample", tmp_path / "file" / "clip.mp4", "--frames", 2, "--size", "64")
    assert done.status == 3 and "Traceback" not in done.stderr


def test_a_procedure_with_its_truth_beside_it(vmkla: Any, tmp_path: Path) -> None:
    out, arguments = tmp_path / "exam" / "exam.mp4", ("--minutes", 0.005, "--seed", 1, "--size", "48x64")
    done = vmkla("sample", out, *arguments, "--json")
    assert done.status == 0, done.stderr
    masks = out.parent / "masks"
    assert (done.json["video"], done.json["masks"], done.json["frames"]) == (str(out), str(masks), 9)
    assert count_frames(out) == len(list(masks.iterdir())) == 9
    values = [
        {int(value) for value in np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) if value}
        for path in sorted(masks.iterdir())
    ]
    assert len(done.json["lesions"]) >= 2
    for number, lesion in enumerate(done.json["lesions"], 1):
        seen = [index for index, present in enumerate(values) if number in present]
        assert (lesion["lesion"], lesion["frames"]) == (number, len(seen))
        assert lesion["spans_s"][0][0] == round(seen[0] / 30, 3)
        assert lesion["spans_s"][-1][1] == round(seen[-1] / 30, 3)
    # A shorter one in its place leaves no masks of the longer one.
    refused = vmkla("sample", tmp_path / "exam" / "other.mp4", *arguments)
    assert refused.status == 2 and "not empty" in refused.stderr and len(list(masks.iterdir())) == 9
    (masks / "note.txt").write_text("mine")
    refused = vmkla("sample", out, *arguments, "--exist-ok")
    assert refused.status == 2 and "note.txt" in refused.stderr and len(list(masks.iterdir())) == 10
    (masks / "note.txt").unlink()
    done = vmkla("sample", out, "--minutes", 0.002, "--seed", 1, "--size", "48x64", "--exist-ok")
    assert done.status == 0 and "lesions: " in done.stdout and "s: 0.0 to 0.1" in done.stdout
    assert len(list(masks.iterdir())) == 4
