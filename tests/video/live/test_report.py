"""What a live run's report says of a network that does not keep up."""

from __future__ import annotations

import pytest

from vmkla.video.latency import LatencyStats
from vmkla.video.live.frame import AiState, LiveStatus
from vmkla.video.live.report import too_slow, what_is_missing
from vmkla.video.live.tallies import Tallies


def results(*values_ms: float) -> LatencyStats:
    stats = LatencyStats()
    for value_ms in values_ms:
        stats.add(value_ms)
    return stats


def tallies(on_s: float, off_s: float, **reasons: int) -> Tallies:
    made = Tallies()
    made.ai_s.update({AiState.ON: on_s, AiState.OFF: off_s})
    made.off_reasons.update({name.replace("_", " "): count for name, count in reasons.items()})
    return made


def test_measured_and_needed_milliseconds_and_what_helps() -> None:
    said = too_slow(tallies(0.0, 10.0, too_slow=1), results(180.0, 200.0, 220.0), 120.0)
    assert "a result takes 200 ms" in said and "at most 60 ms" in said and "--max-staleness-ms 120" in said
    assert all(flag in said for flag in ("vmkla calibrate", "--model", "--threads"))


@pytest.mark.parametrize(
    ("run", "result_ms"),
    [
        (tallies(10.0, 0.1, too_slow=1), results(55.0)),  # one lapse
        (tallies(0.0, 10.0, self_test_failed=1), results(10.0)),  # another cause
        (tallies(0.0, 10.0, too_slow=1), results()),  # not one result
    ],
)
def test_nothing_where_speed_was_not_the_matter(run: Tallies, result_ms: LatencyStats) -> None:
    assert too_slow(run, result_ms, 120.0) == ""


def test_markers_that_were_paused_as_asked_are_nothing_that_is_missing() -> None:
    run = tallies(0.0, 0.0)
    run.ai_s[AiState.PAUSED] = 10.0
    run.shown, run.status = 100, LiveStatus(AiState.PAUSED, "poor picture: blur")
    run._since_s = run._ai_since_s + 5.0
    assert what_is_missing(run, 100, {}, 0.01, "") == ""
    run.status = LiveStatus(AiState.OFF, "too slow")
    assert what_is_missing(run, 100, {}, 0.01, "") == "the AI was off at the end: too slow"
    run.ai_s = {AiState.OFF: 10.0, AiState.ON: 0.0, AiState.PAUSED: 0.0}
    assert "the AI was never on" in what_is_missing(run, 100, {}, 0.01, "")
