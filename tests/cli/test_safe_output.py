"""What commands print: no password, and nothing of a file's name or metadata that a terminal obeys."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.export.exported_models import resealed
from tests.video.small_videos import write_video

ADDRESSES = (
    "rtsp://user:s3cret#Zq9@127.0.0.1:1/live",
    "rtsp://user:s3cret/Zq9@127.0.0.1:1/live",
    "rtsp://user:1/s3cret@127.0.0.1:1/live",
    "rtsp://user:s3cret?Zq9@127.0.0.1:1/live",
    "rtsp://user:s3cret Zq9@127.0.0.1:1/live",
    "rtsp://user:s3cret%Zq9@127.0.0.1:1/live",
    "rtsp://user:s3cret",
    "rtsp:/user:s3cret@127.0.0.1/live",
    "user:s3cret@127.0.0.1/live",
    "http://user:s3cret@127.0.0.1/live.m3u8?token=Zq9",
)
COMMANDS = (
    ("infer", "--live", "--source"),
    ("infer", "--source"),
    ("infer", "--video"),
    ("infer",),
    ("bench", "--conformance", "--source"),
    ("verify", "nano", "nano", "--source"),
    ("calibrate", "nano", "--target", "cpu", "--output", "x.onnx", "--data"),
    ("eval", "--data"),
    ("tune", "nano", "--sensitivity", "0.5", "--quiet", "x", "--data"),
    ("tune", "nano", "--sensitivity", "0.5", "--data", "x", "--quiet"),
    ("data", "check", "--data"),
    ("explain", "--source"),
    ("export", "--model", "nano", "--output", "x.onnx", "--frames"),
)
HOSTILE = "[red]\x1b]0;owned\x07\x1b[2J\x9b2J\u202e\nvmkla: all well[bold]"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "command",
    [pytest.param(words, marks=[pytest.mark.slow] * (words[0] == "export")) for words in COMMANDS],
    ids=" ".join,
)
def test_no_command_prints_a_password_of_what_it_cannot_read(vmkla: Any, command: tuple[str, ...]) -> None:
    for address in ADDRESSES if command[0] == "infer" else ADDRESSES[::4]:
        done = vmkla("--debug", *command, address)
        assert done.status in (2, 3), done.stderr
        printed = done.stdout + done.stderr
        assert "s3cret" not in printed and "Zq9" not in printed, printed


@pytest.fixture
def grumpy_camera() -> Iterator[int]:
    """A server that refuses every RTSP request, and quotes it."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                asked = client.recv(65536)
                number = next((line for line in asked.split(b"\r\n") if line.startswith(b"CSeq")), b"CSeq: 1")
                about = asked.split(b"\r\n")[0]
                client.sendall(
                    b"RTSP/1.0 404 " + about + b"\r\n" + number + b"\r\nServer: " + about + b"\r\n\r\n"
                )

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def test_a_camera_that_refuses_gets_no_password_into_log_or_report(
    vmkla: Any, grumpy_camera: int, tmp_path: Path
) -> None:
    secret = f"rtsp://user:s3cret%40Zq9@127.0.0.1:{grumpy_camera}/user=me&password=s3cret/live?token=s3cret"
    done = vmkla("infer", "--live", "--source", secret, "--duration-s", 1, "--out", "out", "--json")
    assert done.status in (3, 7), done.stderr
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert "source lost" in written, written
    for text in (done.stdout, done.stderr, written):
        assert "s3cret" not in text and "Zq9" not in text, text


def assert_harmless(printed: str) -> None:
    assert not OBEYED.search(printed), repr(printed)
    assert not [line for line in printed.splitlines() if line.startswith("vmkla: all well")], repr(printed)


@pytest.mark.parametrize("json_wanted", [False, True])
def test_the_name_of_an_image_is_printed_harmlessly(vmkla: Any, tmp_path: Path, json_wanted: bool) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    good = np.full((40, 56, 3), 90, np.uint8)
    (folder / f"{HOSTILE}.png").write_bytes(cv2.imencode(".png", good)[1].tobytes())
    (folder / f"{HOSTILE} 2.png").write_bytes(b"no image")
    (folder / os.fsdecode(b"\xff\x1b[2J.png")).write_bytes(b"no image")
    done = vmkla("infer", "--source", folder, *(("--json",) if json_wanted else ()))
    assert done.status == 7, done.stderr
    assert r"\x1b]0;owned\x07" in done.stderr
    assert_harmless(done.stderr)
    assert_harmless(done.stdout)
    report = next((tmp_path / "runs" / "infer").iterdir()) / "report.json"
    assert_harmless(report.read_text())
    assert HOSTILE + " 2.png" in [problem["where"] for problem in json.loads(report.read_text())["problems"]]


def test_the_name_of_a_video_and_its_metadata_are_printed_harmlessly(vmkla: Any, tmp_path: Path) -> None:
    clip = tmp_path / f"{HOSTILE}.mkv"
    with av.open(str(tmp_path / "made.mkv"), "w") as container:
        container.metadata.update(
            {"title": HOSTILE.replace("\n", " "), "comment": HOSTILE.replace("\n", " ")}
        )
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 80, np.uint8), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (tmp_path / "made.mkv").rename(clip)
    for arguments in (("--video", clip), ("--video", clip, "--json"), ("--source", f"{clip}.none")):
        done = vmkla("infer", *arguments, "--debug")
        assert done.status in (0, 3), done.stderr
        assert_harmless(done.stdout + done.stderr)


def test_the_metadata_of_a_model_is_printed_harmlessly(vmkla: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from vmkla import weights

    model = onnx.load(weights.resolve("nano", ".onnx"))
    for entry in model.metadata_props:
        if entry.key == "vmkla.class_names":
            entry.value = json.dumps([HOSTILE])
        elif entry.key == "vmkla.training":
            entry.value = json.dumps({HOSTILE: [HOSTILE]})
        elif entry.key in ("vmkla.version", "vmkla.weights_sha256"):
            entry.value = HOSTILE
    path = tmp_path / f"{HOSTILE}.onnx"
    path.write_bytes(resealed(model))
    write_video(tmp_path / "clip.mp4", 2)
    for arguments in (
        ("inspect", path),
        ("inspect", path, "--json"),
        ("bench", "--model", path, "--iterations", 1, "--warmup", 0),
        ("infer", "--model", path, "--video", "clip.mp4", "--json"),
        ("verify", "nano", path, "--source", "clip.mp4"),
    ):
        done = vmkla(*arguments)
        assert done.status == 0, done.stderr
        assert_harmless(done.stdout + done.stderr)
    assert r"\x1b]0;owned\x07" in vmkla("inspect", path).stdout


def test_usage_errors_quote_harmlessly(vmkla: Any) -> None:
    for arguments in (
        (HOSTILE,),
        ("infer", f"--{HOSTILE}"),
        ("infer", "--overlay", HOSTILE),
        ("inspect", HOSTILE),
    ):
        done = vmkla(*arguments)
        assert done.status in (2, 3)
        assert_harmless(done.stdout + done.stderr)


def test_the_log_of_the_installed_command_is_harmless(tmp_path: Path) -> None:
    """A model whose maker skipped the check is logged with its name."""
    onnx = pytest.importorskip("onnx")
    from vmkla import weights

    model = onnx.load(weights.resolve("nano", ".onnx"))
    for entry in model.metadata_props:
        if entry.key == "vmkla.gates":
            entry.value = json.dumps({"skipped": True})
    path = tmp_path / f"{HOSTILE}.onnx"
    path.write_bytes(resealed(model))
    vmkla = shutil.which("vmkla", path=str(Path(sys.executable).parent))
    assert vmkla is not None
    done = subprocess.run(
        [vmkla, "bench", "--model", path, "--iterations", "1", "--warmup", "0"],
        capture_output=True, text=True, errors="surrogateescape", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "is unverified: " in done.stderr, done.stderr
    assert_harmless(done.stdout + done.stderr)
