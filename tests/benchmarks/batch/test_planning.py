"""The simulation of large batches runs as its page says."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

from benchmarks.batch.planning import measure


def test_a_simulated_batch_ends_with_all_pieces_published(tmp_path: Path) -> None:
    measured = measure(tmp_path, 130)
    assert measured.pieces == 130 and all(value > 0 for value in astuple(measured))
    assert len((tmp_path / "out" / "status.jsonl").read_text().splitlines()) == 130
    assert list((tmp_path / "out" / ".batch" / "claims").iterdir()) == []
