"""The network fails in every way, and the frame goes on. Whole live runs of a small ``nano``, hurt outside.

What is held is behaviour: which frames are shown, what the strip says, that it comes back. Times are
``benchmarks/live/faults.py``'s; here they are only bounded far above what they take.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import worker as faults
from tests.faults.figures import Figures
from tests.faults.harness import Setup
from tests.faults.held import frame_held

pytestmark = pytest.mark.slow


def held(figures: Figures) -> None:
    """What holds whatever happens to the network."""
    frame_held(figures)
    assert figures.to_off_ms and all(to_off < 1000 for to_off in figures.to_off_ms)


@pytest.mark.telling
def test_killed(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.killed(tmp_path, live_setup, times=2)
    held(figures)
    assert figures.restarts == 2
    assert "worker was killed" in figures.reasons


def test_stopped(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.stopped(tmp_path, live_setup, seconds=1.0)
    held(figures)


def test_hangs(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.spoilt(tmp_path, live_setup, "hang")
    held(figures)
    assert figures.restarts >= 1  # only a new process ends a call that never returns
    assert figures.more["AI ON while it failed"] == 0


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("nan", "output makes no sense"),
        ("shape", "output makes no sense"),
        ("memory", "out of memory"),
        ("device lost", "inference failed"),
        ("segv", "worker crashed"),
    ],
)
def test_fails(tmp_path: Path, live_setup: Setup, order: str, reason: str) -> None:
    figures = faults.spoilt(tmp_path, live_setup, order)
    held(figures)
    assert figures.restarts >= 1
    assert figures.more["AI ON while it failed"] == 0
    assert reason in figures.more["reasons said meanwhile"]


def test_model_file_deleted(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.deleted(tmp_path, live_setup)
    held(figures)
    assert figures.more["AI ON after the deletion alone, % of pictures"] > 50
    assert not figures.more["AI ON without the file"]
    assert "model cannot be loaded" in figures.more["reasons said meanwhile"]


def test_ten_times_too_slow(tmp_path: Path, live_setup: Setup) -> None:
    figures = faults.slow(tmp_path, live_setup, seconds=1.5)
    held(figures)
    assert figures.restarts == 0  # a new worker would not be faster
    assert figures.more["AI ON while slow"] == 0
    assert figures.more["pictures with an old marker"] == 0
