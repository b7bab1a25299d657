"""Alarms by duration, beside a slow count that walks from frame to frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from vmkla.errors import BadInputError, ShapeError
from vmkla.evaluation.alarms import Alarms, count_alarms, rate_interval


def slow_count(times_s: list[float], found: list[bool], usual_s: float) -> tuple[list[float], float]:
    """Walk over the frames one by one: durations of the alarms, and the recorded time."""
    durations, recorded, began = [], 0.0, None
    for index, (time_s, has) in enumerate(zip(times_s, found, strict=True)):
        end_s = time_s + usual_s
        goes_over = False
        if index + 1 < len(times_s):
            step_s = times_s[index + 1] - time_s
            if step_s <= 1 or step_s <= 2 * usual_s:
                end_s, goes_over = times_s[index + 1], True
        recorded += end_s - time_s
        if has and began is None:
            began = time_s
        if began is not None and not (has and goes_over and found[index + 1]):
            durations.append(end_s - began)
            began = None
    return durations, recorded


@given(
    st.lists(st.tuples(st.sampled_from([0.02, 0.04, 0.5, 0.99, 1.5, 7.0]), st.booleans()), max_size=40),
    st.sampled_from([0.04, 0.9, None]),
)
def test_the_slow_count_agrees(frames: list[tuple[float, bool]], frame_s: float | None) -> None:
    times_s = np.cumsum([step_s for step_s, _ in frames]).tolist()
    found = [has for _, has in frames]
    steps_s = np.diff(times_s)
    usual_s = frame_s if frame_s is not None else float(np.median(steps_s)) if len(steps_s) else 0.0
    durations, recorded_s = slow_count(times_s, found, usual_s)
    alarms = count_alarms(times_s, found, frame_s=frame_s)
    assert alarms.durations_s == pytest.approx(durations)
    assert alarms.recorded_s == pytest.approx(recorded_s)
    for limit_s in (0.0, 0.5, 1.0, 2.0):
        assert alarms.count(limit_s) == sum(duration >= limit_s - 1e-6 for duration in durations)


def test_runs_are_counted_by_their_duration() -> None:
    """At 10 frames a second: alarms of 1, 5 and 20 frames, in 10 s."""
    found = np.zeros(100, bool)
    found[3] = found[10:15] = found[40:60] = True
    alarms = count_alarms(np.arange(100) / 10, found)
    assert alarms.durations_s == pytest.approx((0.1, 0.5, 2.0))
    assert [alarms.count(limit_s) for limit_s in (0, 0.5, 1, 2)] == [3, 2, 1, 1]
    assert alarms.recorded_s == pytest.approx(10) and alarms.per_minute() == pytest.approx(18)
    facts = alarms.to_dict()
    assert facts["share_of_time"] == pytest.approx(0.26)
    assert list(facts) == ["recorded_s", "share_of_time", "any", "0.5_s", "1_s", "2_s"]
    assert facts["0.5_s"]["alarms"] == 2 and facts["0.5_s"]["per_minute"] == pytest.approx(12)


def test_a_gap_ends_an_alarm_and_is_not_recorded() -> None:
    """Ten frames at 10 a second, a pause of a minute, ten more; all with a finding."""
    times_s = np.concatenate([np.arange(10) / 10, 61 + np.arange(10) / 10])
    alarms = count_alarms(times_s, np.ones(20, bool))
    assert alarms.durations_s == pytest.approx((1.0, 1.0)) and alarms.recorded_s == pytest.approx(2)
    sparse = count_alarms(np.arange(5) * 3.0, [True] * 5)  # no gap where all frames are so far apart
    assert sparse.durations_s == pytest.approx((15.0,))


def test_time_stamps_of_whole_milliseconds() -> None:
    """Fifteen frames at 30 a second are half a second, also where Matroska rounds the times."""
    times_s = [round(index / 30, 3) for index in range(90)]
    for first in range(60):
        found = [first <= index < first + 15 for index in range(90)]
        assert count_alarms(times_s, found).count(0.5) == 1
        short = [first <= index < first + 14 for index in range(90)]
        assert count_alarms(times_s, short).count(0.5) == 0


def test_one_frame_and_none() -> None:
    assert count_alarms([], []) == Alarms() and math.isnan(Alarms().per_minute())
    assert count_alarms([5.0], [True]) == Alarms((0.0,), 0.0)
    assert count_alarms([5.0], [True], frame_s=0.2).durations_s == pytest.approx((0.2,))
    joined = Alarms((1.0,), 30) + Alarms((3.0,), 30)
    assert joined.count(2) == 1 and joined.per_minute() == 2


def test_bad_input_is_an_error() -> None:
    with pytest.raises(BadInputError, match="rise"):
        count_alarms([0.0, 1.0, 1.0], [True] * 3)
    with pytest.raises(BadInputError, match="rise"):
        count_alarms([0.0, math.nan], [True] * 2)
    with pytest.raises(ShapeError, match="one for each"):
        count_alarms([0.0, 1.0], [True])


@pytest.mark.parametrize("count", [0, 1, 3, 10, 200])
def test_the_interval_is_close_to_the_exact_one(count: int) -> None:
    """Garwood's interval by chi-square quantiles; at one event Byar's lower bound is 0.0065 too low."""
    exact = (chi2.ppf(0.025, 2 * count) / 2 if count else 0, chi2.ppf(0.975, 2 * count + 2) / 2)
    found = rate_interval(count, 4.0)
    assert np.multiply(found, 4.0) == pytest.approx(exact, rel=0.01, abs=0.025)
    assert all(map(math.isnan, rate_interval(3, 0.0)))
