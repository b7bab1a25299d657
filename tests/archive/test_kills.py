"""Drivers and workers that are killed at random lose nothing and repeat only what was in hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archive.batches import STORED, write_archive
from tests.archive.kills import compare, drive, kill_at_random
from tests.video.file.test_answers import write_groups


@pytest.mark.slow
def test_thirty_random_kills(tmp_path: Path) -> None:
    archive, undisturbed = write_archive(tmp_path / "archive", 100), tmp_path / "undisturbed"
    assert drive(archive, undisturbed).wait(timeout=300) == 0
    killing = kill_at_random(archive, tmp_path / "out", 30, mean_s=0.3, seed=1)
    assert killing.drivers + killing.workers == 30 and min(killing.drivers, killing.workers) > 0
    assert killing.pieces == 100
    compare(tmp_path / "out", undisturbed)
    assert killing.repeated <= 2 * killing.drivers + killing.workers


@pytest.mark.slow
def test_kills_in_the_parts_of_a_long_video(tmp_path: Path) -> None:
    archive, undisturbed, out = tmp_path / "archive", tmp_path / "undisturbed", tmp_path / "out"
    archive.mkdir()
    write_groups(archive / "long.mp4", 60, 5)
    assert drive(archive, undisturbed).wait(timeout=300) == 0
    killing = kill_at_random(archive, out, 6, mean_s=0.8, seed=2, part_s=0.35)
    assert killing.drivers + killing.workers > 0 and killing.pieces == 1
    compare(out, undisturbed)
    (report,) = out.glob("results/*/report.json")
    assert STORED in report.read_text()
