"""Settings of a live run: what makes no sense is refused with a word on what would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmkla.errors import UsageError
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.recording.options import RecordOptions


def test_the_defaults_are_the_regulators(tmp_path: Path) -> None:
    options = LiveOptions(tmp_path)
    assert options.max_staleness_ms == 120 and options.max_staleness_s == pytest.approx(0.12)
    assert options.worker.temporal is None and options.recording is None and options.monitor is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"overlay": "glow"}, "glow"),
        ({"max_staleness_ms": -1}, "-1 ms"),
        ({"max_staleness_ms": 5000}, "5000 ms"),
        ({"max_staleness_ms": float("nan")}, "nan ms"),
        ({"recording": RecordOptions(0.5)}, "0.5 s"),
        ({"recording": RecordOptions(3601)}, "3601 s"),
        ({"duration_s": 0.0}, "duration is 0"),
        ({"duration_s": float("inf")}, "duration is inf"),
        ({"drop_budget": 1.5}, "1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LiveOptions(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roi": "middle"}, "middle"),
    ],
)
def test_what_makes_no_sense_to_the_worker_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WorkerOptions(**changes)
