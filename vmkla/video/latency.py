"""Latency of stages over a run of any length, in memory of a fixed size."""

from __future__ import annotations

import math
import time

_FLOOR_MS = 1e-3
_GROWTH = 1.01
_BINS = 2100  # reaches 1e-3 ms * 1.01**2100 = 1.2e6 ms, 20 minutes


class LatencyStats:
    """A histogram of latencies with bins that grow by 1 %; percentiles are exact to half a percent."""

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self.count = 0
        self.max_ms = 0.0
        self.sum_ms = 0.0

    def add(self, value_ms: float) -> None:
        """Add a measurement."""
        position = math.log(value_ms / _FLOOR_MS) / math.log(_GROWTH) if value_ms > _FLOOR_MS else 0.0
        self._bins[min(_BINS - 1, int(position))] += 1
        self.count += 1
        self.sum_ms += value_ms
        self.max_ms = max(self.max_ms, value_ms)

    def percentile_ms(self, percent: float) -> float:
        """Return the smallest value that ``percent`` of the measurements do not exceed, ms; 0 without any."""
        wanted = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for position, number in enumerate(self._bins):
            seen += number
            if number and seen >= wanted:
                return min(self.max_ms, _FLOOR_MS * math.pow(_GROWTH, position + 0.5))
        return 0.0

    def to_dict(self) -> dict[str, float | None]:
        """Return p50, p95, p99, max and mean, ms; each None without a measurement."""
        if not self.count:
            return dict.fromkeys(("p50", "p95", "p99", "max", "mean"))
        return {
            "p50": round(self.percentile_ms(50), 3),
            "p95": round(self.percentile_ms(95), 3),
            "p99": round(self.percentile_ms(99), 3),
            "max": round(self.max_ms, 3),
            "mean": round(self.sum_ms / self.count, 3),
        }


class Stopwatch:
    """Measures the duration of consecutive steps."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap_ms(self) -> float:
        """Return the time since the last lap, or since the start, ms."""
        now = time.perf_counter()
        elapsed_ms = (now - self._since) * 1e3
        self._since = now
        return elapsed_ms
