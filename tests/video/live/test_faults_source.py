"""The source stalls, dies, changes and breaks: what is shown stays true. A named pipe is the camera."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import source as faults
from tests.faults.harness import Setup
from tests.faults.held import frame_held

pytestmark = pytest.mark.slow


def test_stalls(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.stalled(tmp_path, live_setup, seconds=1.5)
    frame_held(figures)
    assert "no signal" in figures.more["reasons said meanwhile"]
    assert figures.more["to NO SIGNAL, ms"] < 5000
    assert figures.more["to the picture again, ms"] < 5000
    assert figures.more["earlier markers on pictures after"] == 0


def test_dies_and_comes_back(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.died(tmp_path, live_setup, seconds=1.5)
    frame_held(figures)
    assert "no signal" in figures.more["reasons said meanwhile"]
    assert figures.more["earlier markers on pictures after"] == 0


def test_frame_size_changes(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.resized(tmp_path, live_setup)
    frame_held(figures)
    assert figures.more["sizes"] == [[96, 128], [144, 176]]
    assert figures.more["markers of the old size on the new one"] == 0
    assert figures.restarts == 0


def test_corrupted_frames(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.corrupted(tmp_path, live_setup)
    frame_held(figures)
    dropped = sum(count for cause, count in figures.more["dropped"].items() if cause != "not taken")
    assert figures.more["damaged"] + dropped > 0  # they were seen for what they are
    assert figures.more["shown after it"] > 10
    assert figures.restarts == 0
