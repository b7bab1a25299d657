"""A clip that is played as if it were a camera."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clips import write_clip
from tests.faults.harness import Setup


@pytest.fixture(scope="session")
def live_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of 128x96."""
    return write_clip(tmp_path_factory.mktemp("live") / "clip.mp4", 96, 128, seconds=3)


@pytest.fixture(scope="session")
def live_setup(live_clip: Path, small_nano: Path) -> Setup:
    """A small ``nano`` on that clip, over and over; every frame is compared with the clip's own."""
    return Setup(str(live_clip), model=str(small_nano), options={"loop": True}, known=True)
