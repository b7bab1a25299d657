"""Runs at one time: each has a folder of its own, and none writes where another one is active."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.data.labelled_folders import write_folder
from tests.video.small_videos import count_frames, write_video
from vmkla.files import partial_path
from vmkla.folders import LOCK, locked_folder

VMKLA = str(Path(sys.executable).with_name("vmkla"))
IN_USE = f"is in use by another run, process {os.getpid()}"


OUTPUTS = [
    "contact_sheet.jpg",
    "frames.jsonl",
    "lesions",
    "lesions.jsonl",
    "overlay.mp4",
    "procedure.html",
    "report.json",
]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder: Path) -> dict[Path, str]:
    """Hash every file of a folder but the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path: sha256(path) for path in files}


def start(cwd: Path, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [VMKLA, *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_three_exams_of_one_name_started_together(tiny_onnx: Path, tmp_path: Path) -> None:
    """The site's name is the folder's; each report and each row belongs to the video that it names."""
    lengths = {"north": 40, "south": 50, "west": 60}
    sources = {}
    for seed, (site, frames) in enumerate(lengths.items()):
        (tmp_path / site).mkdir()
        sources[site] = write_video(tmp_path / site / "exam.mp4", frames, seed=seed)
    runs = [start(tmp_path, "infer", "--video", path, "--model", tiny_onnx) for path in sources.values()]
    for run in runs:
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 0, stderr
    folders = sorted((tmp_path / "runs/infer").iterdir())
    assert [folder.name for folder in folders] == ["exam", "exam-2", "exam-3"]
    reports = {
        report["input"]["sha256"]: (report, folder)
        for folder in folders
        if (report := json.loads((folder / "report.json").read_text(encoding="utf-8")))
    }
    assert len(reports) == 3
    for site, frames in lengths.items():
        report, folder = reports[sha256(sources[site])]
        rows = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
        assert [row["index"] for row in rows] == list(range(frames))
        assert report["counts"]["frames"] == frames == count_frames(folder / "overlay.mp4")
        assert names(folder) == OUTPUTS


@pytest.mark.parametrize("flag", [(), ("--exist-ok",)], ids=str)
def test_infer_never_writes_where_a_run_is_active(
    vmkla: Any, tiny_onnx: Path, clip: Path, images: Path, tmp_path: Path, flag: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    given = ("infer", "--model", tiny_onnx, "--out", out, *flag)
    assert vmkla(*given, "--video", clip).status == 0
    before = contents(out)
    with locked_folder(out):
        for source in ("--video", clip), ("--source", images), ("--source", images, "--continue"):
            done = vmkla(*given, *source)
            assert done.status == 2 and IN_USE in done.stderr and done.stdout == ""
        done = vmkla(*given, "--live", "--source", "sample://", "--duration-s", "1")
        assert done.status == 2 and IN_USE in done.stderr
        assert contents(out) == before


def test_no_other_command_does_either(
    vmkla: Any, tiny_onnx: Path, tiny_weights: Path, clip: Path, images: Path, tmp_path: Path
) -> None:
    labelled = write_folder(tmp_path / "set", 4)
    out = tmp_path / "out"
    commands: list[tuple[object, ...]] = [
        ("eval", "--data", labelled, "--model", tiny_onnx, "--exist-ok"),
        ("verify", tiny_onnx, tiny_onnx, "--source", clip, "--exist-ok"),
        ("explain", "--source", images, "--model", tiny_weights, "--exist-ok"),
        ("train", "--data", labelled, "--resume"),
        ("calibrate", tiny_onnx, "--data", clip, "--target", "cpu", "-o", tmp_path / "int8.onnx"),
        ("bench", "--conformance", "--model", tiny_onnx, "--duration-s", "1"),
    ]
    with locked_folder(out):
        for command in commands:
            done = vmkla(*command, "--out", out)
            assert done.status == 2 and IN_USE in done.stderr, (command, done.stderr)
        assert [path.name for path in out.iterdir()] == [LOCK]


def test_a_killed_run_hinders_nobody_and_its_rest_goes(tiny_onnx: Path, clip: Path, tmp_path: Path) -> None:
    """Killed between its first row and its end, while its video waits under a temporary name."""
    out = tmp_path / "out"
    given = ("infer", "--video", clip, "--model", tiny_onnx, "--out", out)
    long = write_video(tmp_path / "long.mp4", 600)
    with start(tmp_path, "infer", "--video", long, "--model", tiny_onnx, "--out", out) as run:
        rows, until_s = out / ".frames.partial.jsonl", time.monotonic() + 60
        while not (rows.exists() and rows.stat().st_size) and time.monotonic() < until_s:
            time.sleep(0.01)
        second = subprocess.run([VMKLA, *map(str, given)], capture_output=True, text=True, check=False)
        run.send_signal(signal.SIGKILL)
    assert second.returncode == 2 and f"process {run.pid}" in second.stderr
    (out / ".lesions.partial").mkdir(exist_ok=True)  # with the stills so far, where there are any
    left = {path.name for path in out.iterdir()}
    assert {LOCK, ".reserve.partial", ".overlay.partial.mp4", ".frames.partial.jsonl"} <= left
    again = subprocess.run([VMKLA, *map(str, given)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert names(out) == OUTPUTS
    assert count_frames(out / "overlay.mp4") == 6


def test_settings_of_a_dead_run_over_images_hinder_no_video(
    vmkla: Any, tiny_onnx: Path, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in (".settings.json", ".frames.partial.jsonl", partial_path(out / "report.json").name):
        (out / name).write_bytes(b"{}")
    done = vmkla("infer", "--video", clip, "--model", tiny_onnx, "--out", out)
    assert done.status == 0, done.stderr
    assert names(out) == OUTPUTS
