"""vmkla.video.file.options: settings that make no sense are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vmkla.errors import UsageError
from vmkla.segment.operating_point import PointOverrides
from vmkla.segment.preprocess import Rect
from vmkla.video.file.options import SegmentOptions


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 1.5},
        {"alpha": float("nan")},
        {"stride": 0},
        {"overlay": "heatmap"},
        {"roi": "everything"},
        {"roi": Rect(0, 0, 0, 5)},
    ],
    ids=str,
)
def test_nonsense_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        SegmentOptions(tmp_path, **changes)


def test_extremes_are_taken(tmp_path: Path) -> None:
    SegmentOptions(tmp_path, point=PointOverrides(1.0), alpha=0.0, stride=10**6, roi=Rect(0, 0, 1, 1))
