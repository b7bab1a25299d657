"""Fixtures of the commands' tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.video.small_videos import write_video
from vmkla.cli.main import main


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        status: exit status.
        stdout, stderr: what it printed.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Parse stdout, which must be one JSON document."""
        return json.loads(self.stdout)


Command = Callable[..., Done]


@pytest.fixture
def vmkla(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process: ``vmkla("infer", "--video", path)``."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        stdout, stderr = capfd.readouterr()
        return Done(status, stdout, stderr)

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of six frames."""
    return write_video(tmp_path / "clip.mp4")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three images, one of them in a folder of its own."""
    import cv2

    rng = np.random.default_rng(5)
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "b c é.jpg", "deeper/a.png"):
        picture = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        encoded = cv2.imencode(Path(name).suffix, picture)[1]
        (folder / name).write_bytes(encoded.tobytes())
    return folder
