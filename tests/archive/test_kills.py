"""Drivers and workers that are killed at random lose nothing and repeat only what was in hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.batches import write_archive
from tests.archive.kills import compare, drive, kill_at_random


@pytest.mark.slow
def test_thirty_random_kills(tmp_path: Path) -> None:
    archive, undisturbed = write_archive(tmp_path / "archive", 100), tmp_path / "undisturbed"
    assert drive(archive, undisturbed).wait(timeout=300) == 0
    killing = kill_at_random(archive, tmp_path / "out", 30, mean_s=1.0, seed=1)
    assert killing.drivers + killing.workers == 30 and min(killing.drivers, killing.workers) > 0
    assert killing.pieces == 100
    compare(tmp_path / "out", undisturbed)
    assert killing.repeated <= 2 * killing.drivers + killing.workers
