"""Settings of a live run: what makes no sense is refused with a word on what would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmkla.errors import UsageError
from vmkla.segment.preprocess import Rect
from vmkla.video.live.options import LiveOptions


def test_the_defaults_are_the_regulators(tmp_path: Path) -> None:
    options = LiveOptions(tmp_path)
    assert options.max_staleness_ms == 120 and options.max_staleness_s == pytest.approx(0.12)
    assert options.temporal is None and not options.record and options.monitor is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"overlay": "glow"}, "glow"),
        ({"roi": "middle"}, "middle"),
        ({"max_staleness_ms": -1}, "-1 ms"),
        ({"max_staleness_ms": 5000}, "5000 ms"),
        ({"max_staleness_ms": float("nan")}, "nan ms"),
        ({"segment_s": 0.0}, "0 s"),
        ({"segment_s": float("nan")}, "nan s"),
        ({"duration_s": 0.0}, "duration is 0"),
        ({"duration_s": float("inf")}, "duration is inf"),
        ({"drop_budget": 1.5}, "1.5"),
        ({"record": True, "hide": (Rect(0, 0, 0, 5),)}, "0,0,0,5"),
        ({"hide": (Rect(0, 0, 5, 5),)}, "nothing is recorded"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LiveOptions(tmp_path, **changes)
