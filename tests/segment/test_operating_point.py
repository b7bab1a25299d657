"""vmkla.segment.operating_point: what a user gives in the place of a model's own values."""

from __future__ import annotations

import pytest

from vmkla.errors import UsageError
from vmkla.segment.operating_point import OWN_POINT, OperatingPoint, PointOverrides

OWN = OperatingPoint(0.5, peak=0.9, min_fraction=0.01)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (OWN_POINT, OWN),
        (PointOverrides(threshold=0.3), OperatingPoint(0.3, 0.9, 0.01)),
        (PointOverrides(threshold=0.95), OperatingPoint(0.95, 0.95, 0.01)),
        (PointOverrides(peak=0.6), OperatingPoint(0.5, 0.6, 0.01)),
        (PointOverrides(min_fraction=0.0), OperatingPoint(0.5, 0.9, 0.0)),
        (PointOverrides(0.2, 0.3, 0.4), OperatingPoint(0.2, 0.3, 0.4)),
    ],
)
def test_what_is_not_given_is_the_models(given: PointOverrides, expected: OperatingPoint) -> None:
    assert given.on(OWN) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0"),
        ({"threshold": 7.0}, "threshold is 7"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"peak": 0.0}, "peak is 0"),
        ({"peak": 1.5}, "peak is 1.5"),
        ({"peak": float("nan")}, "peak is nan"),
        ({"threshold": 0.5, "peak": 0.4}, "peak is 0.4, expected the threshold, which is 0.5"),
        ({"min_fraction": -0.1}, "-0.1 of the field of view"),
        ({"min_fraction": 1.0}, "1.0 of the field of view"),
        ({"min_fraction": float("nan")}, "nan of the field of view"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PointOverrides(**values)


def test_a_peak_below_the_models_threshold_is_refused() -> None:
    with pytest.raises(UsageError, match="peak is 0.4, expected the threshold, which is 0.5"):
        PointOverrides(peak=0.4).on(OWN)
