"""Clients that hammer the monitor, a clock that jumps, and nothing at all for a while."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import around as faults
from tests.faults.clips import write_clip
from tests.faults.harness import Setup
from tests.faults.held import frame_held

pytestmark = pytest.mark.slow


def test_fifty_clients(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.hammered(tmp_path, live_setup, clients=50, seconds=3)
    frame_held(figures)
    assert figures.more["answers"] > 20  # they did get through to the page
    assert figures.restarts == 0


def test_wall_clock_steps(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.clock_stepped(tmp_path, live_setup)
    frame_held(figures)
    assert figures.restarts == 0
    assert figures.more["steps that the run's clock made"] == 3  # the clock did jump for this process
    # A busy machine may leave frames uncovered; a clock must not be among the causes.
    assert set(figures.more["reasons said meanwhile"]) <= {"no result in time", "too slow", "catching up"}


def test_memory_stays_flat(tmp_path: Path, live_setup: Setup) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 240, 320, seconds=1)
    setup = replace(live_setup, source=str(clip))
    # On a busy machine the worker takes ten seconds to grow to its size.
    figures = faults.soaked(tmp_path / "live", setup, seconds=24)
    frame_held(figures)
    for name in ("display, MiB", "vmkla-worker, MiB"):
        # A frame that is kept by mistake is 225 KiB: 400 MiB a minute.
        assert figures.more[name]["growth a minute, second half"] < 100, name
