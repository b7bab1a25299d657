"""What is printed never ends a run: streams that are closed, ASCII, full, or read by nobody any more."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.video.small_videos import count_frames

VMKLA = str(Path(sys.executable).with_name("vmkla"))
Run = subprocess.CompletedProcess[str]


def shell(redirections: str, *arguments: object, **environment: str) -> Run:
    """Run the command as a shell does, with such redirections."""
    return subprocess.run(
        ["bash", "-c", f"exec {shlex.join([VMKLA, *map(str, arguments)])} {redirections}"],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


@contextmanager
def without_reader() -> Iterator[int]:
    """The writing end of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def outputs(folder: Path) -> dict[str, Any]:
    """What a run over a video wrote, without its times."""
    rows = [json.loads(line) for line in (folder / "frames.jsonl").read_bytes().splitlines()]
    report = json.loads((folder / "report.json").read_bytes())
    return {
        "names": sorted(path.name for path in folder.iterdir()),
        "video": hashlib.sha256((folder / "overlay.mp4").read_bytes()).hexdigest(),
        "rows": [{**row, "latency_ms": None} for row in rows],
        "counts": report["counts"],
        "status": report["exit_status"],
    }


@pytest.fixture
def infer(tiny_onnx: Path, clip: Path, tmp_path: Path) -> Callable[..., tuple[Run, dict[str, Any]]]:
    """Segment the clip under redirections: ``infer("2>&-", "--json")``."""

    def run(redirections: str, *flags: str, **environment: str) -> tuple[Run, dict[str, Any]]:
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))} é"
        done = shell(
            redirections, "infer", "--video", clip, "--model", tiny_onnx, "--out", out, *flags, **environment
        )
        return done, outputs(out)

    return run


def test_closed_streams_lose_nothing(infer: Any) -> None:
    """No file gets the number of a closed stream, which everything printed would then be written into."""
    done, expected = infer("", "--json")
    assert done.returncode == 0 and expected["counts"]["frames"] == 6
    for redirections in ("<&- >&- 2>&-", ">&-", "2>&-", ">&- 2>/dev/full"):
        done, seen = infer(redirections, "--json")
        assert done.returncode == 0 and seen == expected, redirections
        if redirections == "2>&-":
            assert json.loads(done.stdout)["counts"] == expected["counts"]
        else:
            assert done.stdout == ""


def test_ascii_streams_lose_nothing(infer: Any) -> None:
    done, seen = infer("", "--quiet", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and seen["status"] == 0
    assert "out0 \\xe9/report.json" in done.stdout and done.stderr == ""
    done, seen = infer("", "--json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii()
    assert json.loads(done.stdout)["out_dir"].endswith("out1 é")


def test_a_system_without_unicode_loses_nothing(infer: Any) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for number, (flags, name) in enumerate((((), r"\xc3\xa9"), (("--json",), r"\udcc3\udca9"))):
        done, seen = infer("", *flags, **plain)
        assert done.returncode == 0 and seen["status"] == 0 and done.stdout.isascii()
        assert f"out{number} {name}" in done.stdout  # the bytes of the name, escaped


def test_a_name_that_is_no_unicode_is_printed(vmkla: Any, tmp_path: Path) -> None:
    for environment in {}, {"PYTHONIOENCODING": "ascii"}:
        done = shell("", "inspect", tmp_path / os.fsdecode(b"caf\xe9.onnx"), **environment)
        assert done.returncode == 3 and "caf\\xe9.onnx" in done.stderr
    output = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    done = shell("", "sample", output, "--frames", 2, "--size", "64", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["video"] == str(output)


def test_a_reader_that_left_ends_no_run(tiny_onnx: Path, clip: Path, tmp_path: Path, infer: Any) -> None:
    """A whole run whose results nobody took ends with 141; any other keeps its own status."""
    _, expected = infer("")
    given = ["infer", "--model", str(tiny_onnx), "--video", str(clip), "--quiet", "--json"]
    with without_reader() as pipe:
        command = [VMKLA, *given, "--out", str(tmp_path / "out-a")]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (141, b"") and outputs(tmp_path / "out-a") == expected
        missing = [VMKLA, "infer", "--video", str(tmp_path / "none.mp4"), "--model", str(tiny_onnx)]
        done = subprocess.run(missing, stdout=pipe, stderr=pipe, check=False, timeout=120, cwd=tmp_path)
        assert done.returncode == 3
    with without_reader() as pipe:  # a note on stderr before the work begins
        command = [VMKLA, "sample", str(tmp_path / "new.mp4"), "--frames", "3", "--size", "64"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=pipe, check=False, timeout=120)
        assert done.returncode == 0 and done.stdout.startswith(b"video: ")
        assert count_frames(tmp_path / "new.mp4") == 3


def test_a_degraded_run_keeps_its_status(tiny_onnx: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    command = [
        VMKLA,
        "infer",
        "--source",
        str(images),
        "--model",
        str(tiny_onnx),
        "--out",
        str(tmp_path / "out"),
    ]
    with without_reader() as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, check=False, timeout=120)
    assert done.returncode == 7 and b"1 of 4 images cannot be read" in done.stderr
    assert json.loads((tmp_path / "out/report.json").read_bytes())["exit_status"] == 7


def test_results_that_a_full_disk_refuses_are_status_3(infer: Any) -> None:
    done, seen = infer("> /dev/full", "--json", "--quiet")
    assert done.returncode == 3 and seen["status"] == 0
    assert done.stderr == "vmkla: cannot write the results to the standard output: No space left on device\n"


def test_live_with_closed_streams(tiny_onnx: Path, tmp_path: Path) -> None:
    """Its processes begin with what this one has at their numbers."""
    out = tmp_path / "out"
    done = shell(
        ">&- 2>&-", "infer", "--live", "--source", "sample://?size=96x64", "--duration-s", "1", "--record",
        "--model", tiny_onnx, "--out", out,
    )  # fmt: skip
    report = json.loads((out / "report.json").read_bytes())
    assert done.returncode == report["exit_status"] and report["counts"]["shown"] > 5
    assert list((out / "recording").glob("raw-*.mp4"))
