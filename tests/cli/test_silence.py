"""No command talks to anybody, or writes where docs/privacy.md does not say so, as strace sees it."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.traced_processes import refuse_to_trace_nothing, trace, whole_calls
from tests.data.labelled_folders import write_folder
from tests.video.small_videos import write_video
from vmkla.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.hardware]

STATUSES = {"build": (0, 4), "infer": (0, 7), "tune": (0, 5)}
"""Exit statuses other than 0 that are as good here: no TensorRT, too slow for live mode under strace, and too
few discs found."""

# A bare inference in a process of its own: the switch is what differs.
INFERENCE = """
import os, sys, time
switch, seconds = sys.argv[1], float(sys.argv[2])
if switch == "on":
    import vmkla
    from vmkla.engines import load_runner
    runner = load_runner("nano", threads=1)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    import numpy as np
    frame = np.zeros((1, runner.spec.height, runner.spec.width, 3), np.uint8)
    step = lambda: runner.infer(frame)
else:
    import onnxruntime
    step = lambda: time.sleep(0.1)
end = time.monotonic() + seconds
while time.monotonic() < end:
    step()
"""


@pytest.fixture(scope="module", autouse=True)
def strace() -> None:
    """Skip where a sandbox forbids tracing."""
    refuse_to_trace_nothing()


@pytest.fixture(scope="module")
def files_of_users(root: Path) -> list[str]:
    """What docs/privacy.md names in the user's home, as patterns below it; parents are made with a folder."""
    text = (root / "docs" / "privacy.md").read_text(encoding="utf-8")
    folders = [Path(name) for name in re.findall(r"^\| `~/([^`]+)/`", text, re.MULTILINE)]
    assert folders
    parents = {str(parent) for folder in folders for parent in folder.parents if parent != Path(".")}
    return sorted(parents | {str(folder) for folder in folders} | {f"{folder}/*" for folder in folders})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a clip and labelled images."""
    write_video(tmp_path / "clip.mp4", 4)
    write_folder(tmp_path / "set", 8)
    assert main(["sample", str(tmp_path / "views.mp4"), "--frames", "8", "--quiet"]) == 0
    return tmp_path


def test_calls_of_several_threads_are_put_together() -> None:
    log = [
        "7 connect(8, {sin_port=htons(53)}, 16 <unfinished ...>",
        '9 openat(AT_FDCWD, "a", O_CREAT) = 3',
        "7 <... connect resumed>) = 0",
        "9 sendto(3, <unfinished ...>",
    ]
    assert list(whole_calls(log)) == [
        log[1],
        "7 connect(8, {sin_port=htons(53)}, 16) = 0",
        "9 sendto(3,) = ?",
    ]


def test_twenty_seconds_of_inference_are_silent_and_the_switch_is_why(tmp_path: Path) -> None:
    places = {switch: tmp_path / switch for switch in ("on", "off")}
    for folder in places.values():
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        waiting = {
            switch: pool.submit(trace, ["-c", INFERENCE, switch, "20"], folder, python=True)
            for switch, folder in places.items()
        }
        seen = {switch: future.result() for switch, future in waiting.items()}
    assert [traced.status for traced in seen.values()] == [0, 0], [traced.output for traced in seen.values()]
    # First the proof that it is seen without the switch, or the rest would show nothing.
    cache = seen["off"].home / ".cache" / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    assert (cache / "onnxruntime.db").is_file() and cache / "onnxruntime.db" in seen["off"].made
    assert any("htons(53)" in call or "resolve" in call for call in seen["off"].spoken), "no query was seen"
    assert not seen["on"].spoken, "\n".join(seen["on"].spoken[:10])
    assert not seen["on"].made and not list(seen["on"].home.rglob("*")), seen["on"].made


@pytest.mark.parametrize(
    "arguments",
    [
        ("infer", "--video", "clip.mp4", "--save-masks", "--out", "out"),
        ("infer", "--source", "set/images", "--out", "out"),
        (
            "infer",
            "--live",
            "--source",
            "sample://?seconds=2",
            "--duration-s",
            "2",
            "--record",
            "--out",
            "out",
        )
        + ("--monitor", "127.0.0.1:0"),
        ("train", "--data", "set", "--imgsz", "32", "--batch", "2", "--epochs", "1", "--out", "out"),
        ("eval", "--data", "set", "--split", "all", "--out", "out"),
        ("tune", "nano", "--data", "set", "--quiet", "clip.mp4", "--sensitivity", "0.1", "--output")
        + ("out/tuned.onnx",),
        ("data", "check", "--data", "set"),
        ("data", "pack", "--data", "set", "--out", "out/set.vmkpack", "--imgsz", "32"),
        ("explain", "--source", "set/images/case-00.png", "--model", "WEIGHTS", "--out", "out"),
        ("export", "--model", "WEIGHTS", "--output", "out/model.onnx"),
        (
            "calibrate",
            "nano",
            "--data",
            "views.mp4",
            "--target",
            "cpu",
            "--output",
            "out/int8.onnx",
            "--out",
            "out",
        )
        + ("--frames", "2", "--allow-few", "--no-sensitivity", "--skip-gates"),
        ("build", "nano", "--output", "out/model.plan"),
        ("verify", "nano", "nano", "--kernels-b", "bodies", "--source", "clip.mp4", "--out", "out"),
        ("inspect", "nano"),
        ("bench", "--model", "nano", "--iterations", "2", "--warmup", "1"),
        ("doctor",),
        ("sample", "out/rendered.mp4", "--frames", "2"),
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_each_command_is_silent(
    arguments: tuple[str, ...], place: Path, tiny_weights: Path, files_of_users: list[str]
) -> None:
    seen = trace([tiny_weights if word == "WEIGHTS" else word for word in arguments], place)
    assert seen.status in STATUSES.get(arguments[0], (0,)), seen.output
    assert not seen.spoken, "\n".join(seen.spoken[:10])
    allowed = [place / "out", place / "temporary", *(f"{seen.home}/{name}" for name in files_of_users)]
    assert not seen.outside(allowed), seen.output
    left = [path for path in (place / "temporary").rglob("*") if path.is_file()]
    assert not left, f"temporary files are left: {left}"
