"""``vmkla infer --export``: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_file_modes import modes


def test_files_for_annotation_tools(vmkla: Any, tiny_onnx: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "out"
    done = vmkla("infer", "--source", images, "--model", tiny_onnx, "--out", out, "--export", "yolo, coco")
    assert done.status == 0, done.stderr
    assert f"export:        {out / 'export'}" in done.stdout.splitlines()
    files = sorted(path.relative_to(out).as_posix() for path in (out / "export").rglob("*.*"))
    assert files == [
        "export/annotations/instances_default.json",
        "export/data.yaml",
        *(f"export/labels/{name}.txt" for name in ("a", "b c é", "deeper/a")),
    ]
    assert {
        mode for path, mode in modes(tmp_path / "made").items() if (tmp_path / "made" / path).is_file()
    } == {0o600}


@pytest.mark.parametrize("text", ["voc", "coco,voc", ""])
def test_an_unknown_format_is_status_2_and_the_three_are_named(
    vmkla: Any, tiny_onnx: Path, clip: Path, tmp_path: Path, text: str
) -> None:
    done = vmkla("infer", "--video", clip, "--model", tiny_onnx, "--out", tmp_path / "out", "--export", text)
    assert done.status == 2 and "coco, cvat, yolo" in done.stderr
    assert done.stdout == "" and not list((tmp_path / "out").glob("*"))


def test_it_is_for_files(vmkla: Any) -> None:
    done = vmkla("infer", "--source", "sample://", "--live", "--export", "coco")
    assert done.status == 2 and "--export" in done.stderr
