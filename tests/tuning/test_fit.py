"""The fit, beside a slow search that measures every point, and the requests that are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.errors import BadInputError, GateError, UsageError
from vmkla.segment.operating_point import OperatingPoint
from vmkla.tuning.candidates import readable_peak
from vmkla.tuning.evidence import MIN_FRACTIONS, Cost, Evidence, QuietFrames, fractions_for
from vmkla.tuning.fit import TuneRequest, check_lesions, fit

THRESHOLD = 0.5


def evidence(
    seed: int, *, lesions: int = 30, frames: int = 200, minutes: float = 5.0, levels: int = 40
) -> Evidence:
    """Peaks on a coarse grid, so that they coincide, falling with the smallest area; two recordings."""
    rng = np.random.default_rng(seed)
    fractions = (0.0, 0.001, 0.005)

    def peaks(count: int, empty: float) -> Any:
        steps = rng.integers(0, levels + 1, (count, 1)) - rng.integers(0, 3, (count, 3)).cumsum(1)
        values = np.float32(THRESHOLD + 0.5 * np.maximum(steps, 0) / levels).astype(np.float64)
        values[np.maximum.accumulate(rng.random((count, 3)) < empty, axis=1)] = -math.inf
        return values

    step_s = 60 * minutes / frames
    half = frames // 2
    times_s = step_s * np.arange(half)
    gap = times_s + np.where(np.arange(half) >= half // 2, 100.0 + 3 * step_s, 0)
    quiet = [QuietFrames(times_s, peaks(half, 0.3)), QuietFrames(gap, peaks(half, 0.6), step_s)]
    return Evidence(fractions, peaks(lesions, 0.05), quiet)


def every_point(known: Evidence) -> list[tuple[OperatingPoint, Cost, int]]:
    """Measure each peak that occurs at each smallest area, and count the most alarms there and above."""
    measured = []
    for column, fraction in enumerate(known.fractions):
        values = np.concatenate([known.lesions[:, column], *(q.peaks[:, column] for q in known.quiet)])
        most = 0
        for peak in sorted({THRESHOLD, *values[values > THRESHOLD].tolist()}, reverse=True):
            point = OperatingPoint(THRESHOLD, peak, fraction)
            cost = known.measure(point)
            most = max(most, cost.alarms.count())
            measured.append((point, cost, most))
    return measured


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    wanted=st.one_of(
        st.sampled_from([0.7, 1.5, 4.0, 9.0]).map(lambda n: TuneRequest(alarms_per_minute=n)),
        st.sampled_from([0.3, 0.6, 0.8]).map(lambda s: TuneRequest(sensitivity=s)),
    ),
)
def test_a_search_of_every_point_finds_none_better(seed: int, wanted: TuneRequest) -> None:
    known = evidence(seed)
    measured = every_point(known)
    minutes = known.minutes
    if wanted.sensitivity is None:
        limit = wanted.alarms_per_minute or 0
        good = [
            (-cost.found, most, point.peak, point.min_fraction)
            for point, cost, most in measured
            if most / minutes <= limit and cost.found
        ]
    else:
        good = [
            (most, -cost.found, point.peak, point.min_fraction)
            for point, cost, most in measured
            if cost.sensitivity >= wanted.sensitivity
        ]
    if not good:
        with pytest.raises(GateError):
            fit(known, OperatingPoint(THRESHOLD), wanted)
        return
    best = min(good)
    chosen = fit(known, OperatingPoint(THRESHOLD), wanted)
    cost = known.measure(chosen)
    found = -best[0] if wanted.sensitivity is None else -best[1]
    assert cost.found == found and cost.alarms.count() <= max(best[0], best[1])
    assert chosen.min_fraction == best[3] and chosen.threshold == THRESHOLD
    # The peak that is written separates the same regions as the measured one.
    assert chosen.peak <= np.nextafter(np.float32(best[2]), np.float32(2))
    assert known.measure(chosen) == known.measure(OperatingPoint(THRESHOLD, best[2], best[3]))


def test_alarms_that_grow_together_are_no_gain() -> None:
    """A lower peak joins two alarms in one that lasts as long as the recording: it has still two."""
    frames = np.array([[0.9], [0.6], [0.9], [0.6]])
    known = Evidence((0.0,), np.array([[0.95], [0.55]]), [QuietFrames(np.arange(4.0) * 30, frames)])
    own = OperatingPoint(THRESHOLD, 0.7)
    at = [known.measure(OperatingPoint(THRESHOLD, peak)) for peak in (0.5, 0.7, 0.92)]
    assert [cost.alarms.count() for cost in at] == [1, 2, 0]
    assert [cost.alarms.share for cost in at] == [1.0, 0.5, 0.0]
    silent = fit(known, own, TuneRequest(alarms_per_minute=1.5))  # 3 in two minutes
    assert silent == OperatingPoint(THRESHOLD) and known.measure(silent).found == 2
    joined = Evidence((0.0,), known.lesions, [*known.quiet] * 3)  # 6 alarms in six minutes, 3 where they join
    chosen = fit(joined, own, TuneRequest(alarms_per_minute=0.6))
    assert joined.measure(chosen).alarms.count() == 0 and joined.measure(chosen).found == 1


@given(
    st.floats(0.5, 1.0, width=32).flatmap(
        lambda upper: st.tuples(st.floats(0.25, upper, width=32, exclude_max=True), st.just(upper))
    )
)
def test_the_written_peak_separates_two_measured_ones(pair: tuple[float, float]) -> None:
    lower, upper = pair
    point = OperatingPoint(0.0, readable_peak(lower, upper))
    assert not point.accepts(1, lower, 1) and point.accepts(1, upper, 1)


def test_the_written_peak_is_short() -> None:
    assert readable_peak(0.9112345, 0.9587654) == 0.93  # of the middle, 0.93499995
    assert readable_peak(0.98765, 0.98772) == 0.9877
    neighbours = float(np.float32(0.9)), float(np.nextafter(np.float32(0.9), np.float32(1)))
    assert readable_peak(*neighbours) == 0.90000001


def test_the_model_s_own_area_is_tried() -> None:
    assert fractions_for(OperatingPoint(0.5, 0.9, 0.0123)) == (*MIN_FRACTIONS, 0.0123)
    assert fractions_for(OperatingPoint(0.5)) == MIN_FRACTIONS


def test_the_amount_that_would_do() -> None:
    """Three minutes without an alarm bound the rate at one a minute; 59 of 59 lesions show 95 %."""
    assert TuneRequest(alarms_per_minute=2.0).minutes == 1.5
    assert TuneRequest(sensitivity=0.95).lesions == 59 and TuneRequest(sensitivity=0.9).lesions == 29
    assert 0.05 ** (1 / 59) >= 0.95 > 0.05 ** (1 / 58)
    with pytest.raises(BadInputError, match=r"have 5.00 min to fit to.*at least 6.00 min") as caught:
        fit(evidence(1), OperatingPoint(THRESHOLD), TuneRequest(alarms_per_minute=0.5))
    assert caught.value.hint == "Record 1 min more without a lesion, or ask for --alarms-per-minute 0.6"
    with pytest.raises(BadInputError, match=r"hold 30 lesions to fit to;.*at least 59, all") as caught:
        fit(evidence(1), OperatingPoint(THRESHOLD), TuneRequest(sensitivity=0.95))
    assert caught.value.hint == "Label 29 more, or ask for at most --sensitivity 0.904"
    check_lesions(30, TuneRequest(sensitivity=0.904))
    with pytest.raises(BadInputError, match="hold no lesion"):
        fit(evidence(1, lesions=0), OperatingPoint(THRESHOLD), TuneRequest(alarms_per_minute=1.0))


def test_what_no_point_reaches_is_an_error() -> None:
    quiet = [QuietFrames(np.arange(4.0) * 30, np.full((4, 1), 0.9) * [[1], [-math.inf], [1], [1]])]
    known = Evidence((0.0,), np.array([[0.8], [-math.inf]] * 4), quiet)
    with pytest.raises(
        GateError, match=r"at most 0.8 alarms.*the fewest with which one is found are 1.00"
    ) as caught:
        fit(
            Evidence((0.0,), known.lesions, [*quiet, *quiet]),
            OperatingPoint(THRESHOLD),
            TuneRequest(alarms_per_minute=0.8),
        )
    assert caught.value.hint and "--alarms-per-minute 1" in caught.value.hint
    with pytest.raises(GateError, match=r"the most that one finds is 0.500 \(4 of 8\)"):
        fit(known, OperatingPoint(THRESHOLD), TuneRequest(sensitivity=0.6))
    blind = Evidence((0.0,), np.full((3, 1), -math.inf), quiet)
    with pytest.raises(GateError, match="finds no lesion"):
        fit(blind, OperatingPoint(THRESHOLD), TuneRequest(alarms_per_minute=2.0))


def test_halves_of_a_recording() -> None:
    times_s, peaks = np.arange(5.0), np.arange(10.0).reshape(5, 2)
    first, second = QuietFrames(times_s, peaks, 0.5).halves()
    assert first.times_s.tolist() == [0, 1] and second.times_s.tolist() == [2, 3, 4]
    assert np.concatenate([first.peaks, second.peaks]).tolist() == peaks.tolist()
    assert (first.frame_s, second.frame_s) == (0.5, 0.5) and first.recorded_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"alarms_per_minute": 1.0, "sensitivity": 0.9},
        {"alarms_per_minute": 0.0},
        {"alarms_per_minute": math.inf},
        {"alarms_per_minute": math.nan},
        {"sensitivity": 1.0},
        {"sensitivity": 0.0},
        {"sensitivity": math.nan},
    ],
)
def test_a_senseless_request_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TuneRequest(**values)


def test_a_point_below_every_peak_keeps_every_region() -> None:
    """A region's peak may lie below the threshold; at a peak equal to it every region counts."""
    known = Evidence(
        (0.0,),
        np.array([[0.4], [-math.inf], [0.9]]),
        [QuietFrames(np.arange(3.0), np.full((3, 1), -math.inf))],
    )
    assert known.measure(OperatingPoint(0.6)).found == 2
    assert known.measure(OperatingPoint(0.6, 0.7)).found == 1
