"""``vmkla report``: the page of a run over a video, made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.video.small_videos import write_video
from vmkla.folders import locked_folder


@pytest.fixture
def run(vmkla: Any, tiny_onnx: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    clip = write_video(tmp_path / "clip.mp4", 6)
    done = vmkla("infer", "--video", clip, "--model", tiny_onnx, "--out", out)
    assert done.status == 0, done.stderr
    return out


def test_it_makes_the_same_page_as_infer(vmkla: Any, run: Path) -> None:
    page = run / "procedure.html"
    before = page.read_bytes()
    page.unlink()
    done = vmkla("report", run)
    assert done.status == 0 and done.stderr == ""
    lesions = len((run / "lesions.jsonl").read_text().splitlines())
    assert done.stdout.splitlines() == [f"lesions:   {lesions}", f"procedure: {page}"]
    # The report names one more output by now, and the page shows none of them.
    assert page.read_bytes() == before and page.stat().st_mode & 0o777 == 0o600
    assert json.loads((run / "report.json").read_text())["outputs"]["procedure"] == "procedure.html"


def test_what_is_missing(vmkla: Any, run: Path) -> None:
    for name in ("report.json", "overlay.mp4", "lesions.jsonl"):
        (run / name).unlink()
    done = vmkla("report", run, "--json")
    assert done.status == 0
    result = json.loads(done.stdout)
    assert result["page"] == str(run / "procedure.html") and result["lesions"] >= 1
    assert len(result["missing"]) == 3 and done.stderr.count("note: There is no ") == 3


def test_errors(vmkla: Any, run: Path, tmp_path: Path) -> None:
    done = vmkla("report", tmp_path / "none")
    assert done.status == 3 and "there is no folder" in done.stderr and not (tmp_path / "none").exists()
    done = vmkla("report", tmp_path)
    assert done.status == 3 and "has no frames.jsonl" in done.stderr and "vmkla infer --video" in done.stderr
    with locked_folder(run):
        done = vmkla("report", run)
    assert done.status == 2 and "is in use by another run" in done.stderr
