"""A usage error names the flag or the command that was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("infer", "clip.mp4"), "Run: vmkla infer --video clip.mp4"),
        (("infer", "my frames/"), "Run: vmkla infer --source 'my frames/'"),
        (("infer", "--source", "a.mp4", "b.mp4"), "One run takes one source: for clip in"),
        (("infer", "--video", "a.mp4", "--video", "b.mp4"), "One run takes one source: for clip in"),
        (("infer", "--source", "0"), "Run: vmkla infer --source v4l2:///dev/video0 --live --display"),
        (("infer", "--source", "2", "--live"), "--source v4l2:///dev/video2 --live"),
        (("infer", "--source", "vids/*.mp4"), "One run takes one source: for clip in"),
        (("infer", "--video", "c.mp4", "--conf", "0.3"), "--conf is --threshold here"),
        (("infer", "--video", "c.mp4", "--weights", "m.onnx"), "--weights is --model here"),
        (("infer", "--video", "c.mp4", "--show"), "--show is --live --display here"),
        (("bench", "mine.onnx"), "Run: vmkla bench --model mine.onnx"),
        (("eval", "--data", "DIR", "best.safetensors"), "Run: vmkla eval --model best.safetensors"),
    ],
)
def test_what_was_meant_is_named(vmkla: Any, arguments: tuple[str, ...], hint: str) -> None:
    done = vmkla(*arguments)
    assert (done.status, done.stdout) == (2, "")
    assert hint in done.stderr


@pytest.mark.parametrize("arguments", [("infer", "--nonsense"), ("export", "--show"), ("doctor", "x")])
def test_no_guess_where_nothing_of_the_kind_exists(vmkla: Any, arguments: tuple[str, ...]) -> None:
    done = vmkla(*arguments)
    assert done.status == 2 and " here." not in done.stderr and "Run: vmkla" not in done.stderr


def test_a_file_that_is_called_like_a_camera_is_a_file(
    vmkla: Any, clip: Path, tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip.rename(tmp_path / "0")
    monkeypatch.chdir(tmp_path)
    done = vmkla("infer", "--source", "0", "--model", tiny_onnx, "--out", "out")
    assert done.status == 0, done.stderr
