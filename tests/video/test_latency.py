"""vmkla.video.latency: percentiles to half a percent, in fixed memory."""

from __future__ import annotations

import numpy as np
import pytest

from vmkla.video.latency import LatencyStats


@pytest.mark.parametrize("seed", range(4))
def test_percentiles_against_sorting(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(2, 1.5, 999)
    stats = LatencyStats()
    for value in values:
        stats.add(float(value))
    made = stats.to_dict()
    for percent in (50, 95, 99):
        wanted = np.percentile(values, percent, method="inverted_cdf")
        assert made[f"p{percent}"] == pytest.approx(wanted, rel=0.006)
    assert made["max"] == pytest.approx(values.max(), abs=1e-3)
    assert made["mean"] == pytest.approx(values.mean(), rel=1e-4)


def test_no_measurement_and_extremes() -> None:
    stats = LatencyStats()
    assert stats.to_dict() == {"p50": None, "p95": None, "p99": None, "max": None, "mean": None}
    for value in (0.0, 1e-9, 1e9):
        stats.add(value)
    assert stats.to_dict()["max"] == 1e9 and stats.percentile_ms(50) < 0.01


def test_one_measurement_is_every_percentile() -> None:
    stats = LatencyStats()
    stats.add(12.5)
    assert stats.percentile_ms(50) == stats.percentile_ms(99) == pytest.approx(12.5, rel=0.005)
