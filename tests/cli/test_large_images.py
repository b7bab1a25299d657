"""A signal ends every command at once, also while a large image decodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.labelled_folders import write_folder
from tests.video.media.small_images import stating

# Stands in for a decoder that takes minutes: a call into C that no signal interrupts, with the GIL released.
SLOW_DECODER = """
import hashlib, pathlib, sys
import cv2
def imdecode(data, flags):
    pathlib.Path(sys.argv[0]).write_text("decoding")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
cv2.imdecode = imdecode
from vmkla.cli.main import run
run()
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A labelled folder whose images are large enough to decode apart."""
    folder = write_folder(tmp_path / "set", 2)
    for number in range(2):
        (folder / "images" / f"case-{number:02d}.png").write_bytes(stating(2500, 2500, "png"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["infer", "--source", "{set}/images"],
        ["data", "check", "--data", "{set}"],
        ["data", "pack", "--data", "{set}", "--out", "{out}/set.vmkpack"],
        ["calibrate", "nano", "--data", "{set}", "--target", "cpu", "-o", "{out}/nano.int8.onnx"],
        ["train", "--data", "{set}", "--val", "{set}/../val", "--out", "{out}/run"],
    ],
    ids=lambda command: "-".join(command[: 2 if command[0] == "data" else 1]),
)
def test_sigterm_is_heard_while_an_image_decodes(large: Path, tmp_path: Path, command: list[str]) -> None:
    """The decoder never returns, so that a command that waits for it fails whatever the machine's load is."""
    write_folder(tmp_path / "val", 2, first_seed=9)
    marker, out = tmp_path / "marker", tmp_path / "out"
    arguments = [part.format(set=large, out=out) for part in command]
    script = SLOW_DECODER.replace("sys.argv[0]", repr(str(marker)))
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not marker.exists():
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, "no image was decoded"
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGTERM)
            # `infer` joined its decoder for 10 s; the others waited for good. Torch takes long to end.
            _, stderr = process.communicate(timeout=8 if command[0] == "infer" else 60)
        finally:
            process.kill()
    assert process.returncode == 143, stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.rglob("*.vmkpack")) and not list(tmp_path.rglob("*.int8.onnx"))
