"""A clip that is played as if it were a camera."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.built_once import built_once
from tests.faults.clips import write_clip
from tests.faults.harness import Setup
from vmkla.cli.main import main
from vmkla.weights import resolve


@pytest.fixture(scope="session")
def live_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of 128x96."""
    return write_clip(tmp_path_factory.mktemp("live") / "clip.mp4", 96, 128, seconds=3)


@pytest.fixture(scope="session")
def small_nano() -> Path:
    """``nano`` at 96x96: one slow core with AVX2 keeps the limits of live mode with it, at 256x256 not."""

    def export(path: Path) -> None:
        weights = str(resolve("nano", ".safetensors"))
        assert main(["export", "--model", weights, "--imgsz", "96", "--output", str(path), "--quiet"]) == 0

    return built_once("nano-96.onnx", export)


@pytest.fixture(scope="session")
def live_setup(live_clip: Path, small_nano: Path) -> Setup:
    """A small ``nano`` on that clip, over and over; every frame is held against the clip's own."""
    return Setup(str(live_clip), model=str(small_nano), options={"loop": True}, known=True)
