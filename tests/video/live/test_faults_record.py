"""A run ends while it records, in good order or not, and a disk fills up: what was written can be played."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import record as faults
from tests.faults.harness import Setup
from tests.faults.held import frame_held

pytestmark = pytest.mark.slow


@pytest.mark.telling
def test_sigterm(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.ended(tmp_path, live_setup, seconds=2.5)
    frame_held(figures)
    more = figures.more
    assert more["raw segments"] >= 2 and more["raw segments"] == more["overlay segments"]
    assert more["raw segments unplayable"] == more["overlay segments unplayable"] == 0
    assert more["raw frames missing"] <= 10 and more["overlay frames missing"] <= 10
    assert more["processes left"] == 0
    assert more["readable by others"] == []


def test_kill_of_everything(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.cut_off(tmp_path, live_setup, seconds=2.5)
    more = figures.more
    assert figures.wrong_pixels == 0
    assert more["raw segments"] >= 2
    for stream in ("raw", "overlay"):
        assert more[f"{stream} segments unplayable"] <= 1
        assert more[f"{stream} frames missing"] <= more["a segment, frames"]
    assert more["readable by others"] == []


@pytest.mark.quiet  # the encoders and the disk's limit leave little of two cores
@pytest.mark.skipif(not faults.can_mount(), reason="needs unshare and a mount namespace of its own")
def test_disk_full(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.disk_full(tmp_path, live_setup)
    frame_held(figures)
    assert figures.more["to REC off, ms"] < 20_000
    assert figures.more["last pictures with AI ON"] > 0
    assert "full" in figures.more["recording stopped because of"]
