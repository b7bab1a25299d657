"""Figures of whole recordings, beside a slow count in plain Python that looks at one frame at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_alarms import slow_count
from vmkla.errors import BadInputError
from vmkla.evaluation.procedures import SeenFrame, count_recording, summarise_procedures
from vmkla.metrics import Bootstrap, reached

FEW = Bootstrap(resamples=200)

Frames = list[SeenFrame]


def slow_quantile(values: list[float], share: float) -> float:
    """The smallest value that at least a share of the values do not exceed."""
    return min(
        (v for v in values if sum(w <= v for w in values) >= share * len(values) - 1e-9), default=math.nan
    )


def slow_figures(recordings: list[Frames], frame_s: float) -> dict[str, Any]:
    """Count everything again: loops over frames and lesions, no arrays."""
    delays, persistences, alarms, recorded_s = [], [], [], 0.0
    positive = met = negative = quiet = 0
    for frames in recordings:
        for lesion in sorted({name for frame in frames for name in frame.lesions}):
            waiting_s: float | None = None
            delay_s, since, hits = math.inf, 0, 0
            for at, frame in enumerate(frames):
                if waiting_s is not None:
                    step_s = frame.time_s - frames[at - 1].time_s
                    waiting_s += frame_s if step_s > 1 and step_s > 2 * frame_s else step_s
                if lesion not in frame.lesions:
                    continue
                waiting_s = waiting_s or 0.0
                if frame.lesions[lesion]:
                    delay_s = min(delay_s, waiting_s)
                    hits += 1
                since += hits > 0
            delays.append(delay_s)
            persistences += [hits / since] if hits else []
        times_s, false = [frame.time_s for frame in frames], [frame.false_findings > 0 for frame in frames]
        durations, own_s = slow_count(times_s, false, frame_s)
        alarms += durations
        recorded_s += own_s
        for frame in frames:
            if frame.lesions:
                positive += 1
                met += True in frame.lesions.values()
            else:
                negative += 1
                quiet += frame.false_findings == 0
    nan = math.nan
    return {
        "sensitivity": sum(d < math.inf for d in delays) / len(delays) if delays else nan,
        "median_s": slow_quantile(delays, 0.5),
        "p95_s": slow_quantile(delays, 0.95),
        "persistence": sum(persistences) / len(persistences) if persistences else nan,
        "frame_sensitivity": met / positive if positive else nan,
        "frame_specificity": quiet / negative if negative else nan,
        "alarms": [sum(d >= limit - 1e-6 for d in alarms) for limit in (0, 0.5, 1, 2)],
        "recorded_s": recorded_s,
    }


FRAME = st.tuples(
    st.sampled_from([0.04, 0.04, 0.04, 0.5, 7.0]),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), st.booleans(), max_size=2),
    st.sampled_from([0, 0, 1, 2]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FRAME, min_size=1, max_size=25), min_size=1, max_size=4))
def test_the_slow_count_agrees(drawn: list[list[tuple[float, dict[str, bool], int]]]) -> None:
    recordings = [
        [
            SeenFrame(time_s, lesions, false)
            for time_s, (_, lesions, false) in zip(np.cumsum([f[0] for f in frames]), frames, strict=True)
        ]
        for frames in drawn
    ]
    results = [count_recording(str(at), str(at), frames, 0.04) for at, frames in enumerate(recordings)]
    figures = summarise_procedures(results, Bootstrap(resamples=5))
    slow = slow_figures(recordings, 0.04)
    found = {
        "sensitivity": figures["lesions"]["sensitivity"],
        "median_s": figures["first_detection"]["median_s"],
        "p95_s": figures["first_detection"]["p95_s"],
        "persistence": figures["persistence"]["mean"],
        "frame_sensitivity": figures["per_frame"]["sensitivity"],
        "frame_specificity": figures["per_frame"]["specificity"],
    }
    assert found == pytest.approx({key: slow[key] for key in found}, nan_ok=True)
    limits = [figures["alarms"][key] for key in ("any", "0.5_s", "1_s", "2_s")]
    assert [limit["alarms"] for limit in limits] == slow["alarms"]
    assert figures["recorded_s"] == pytest.approx(slow["recorded_s"], abs=1e-3)
    minutes = slow["recorded_s"] / 60
    for limit, count in zip(limits, slow["alarms"], strict=True):
        assert limit["per_procedure"] == pytest.approx(count / len(recordings))
        assert limit["per_minute"] == pytest.approx(count / minutes)


def at_ten(*frames: tuple[dict[str, bool], int]) -> Frames:
    """Frames at 10 a second."""
    return [SeenFrame(index / 10, lesions, false) for index, (lesions, false) in enumerate(frames)]


def test_a_lesion_that_is_found_late_and_lost_again() -> None:
    """Visible in six frames, met in the third and the fifth: found after 0.2 s, kept in 2 of 4."""
    hits = (False, False, True, False, True, False)
    result = count_recording("r", "p", at_ten(({}, 0), *(({"a": hit}, 0) for hit in hits), ({}, 1)))
    (lesion,) = result.lesions
    assert (lesion.first_s, lesion.frames, lesion.hit_frames) == (0.1, 6, 2)
    assert lesion.delay_s == pytest.approx(0.2) and lesion.persistence == pytest.approx(0.5)
    assert (result.with_lesion, result.with_hit, result.without_lesion, result.quiet) == (6, 2, 2, 1)


def test_a_gap_delays_nothing_and_is_reported() -> None:
    """Not met before a minute's pause, met in the second frame after it: three frames of 0.1 s later."""
    frames = [
        SeenFrame(time_s, {"a": hit}) for time_s, hit in ((0, False), (0.1, False), (60, False), (60.1, True))
    ]
    result = count_recording("r", "p", frames, 0.1)
    assert result.lesions[0].delay_s == pytest.approx(0.3) and result.gaps == 1


def test_a_miss_is_infinite() -> None:
    found, missed = ({"a": True}, 0), ({"a": False}, 0)
    results = [
        count_recording(str(at), str(at), at_ten(kind, kind))
        for at, kind in enumerate([found, missed, missed])
    ]
    figures = summarise_procedures(results, FEW)
    detection = figures["first_detection"]
    assert (detection["missed"], detection["median_s"], detection["p95_s"]) == (2, math.inf, math.inf)
    assert detection["median_s_ci95"] == [0.0, math.inf]
    assert figures["lesions"]["sensitivity_ci95"] == [0.0, 1.0]
    assert figures["persistence"]["mean"] == 1.0
    half = summarise_procedures(results[:2], FEW)["first_detection"]
    assert (half["median_s"], half["p95_s"]) == (0.0, math.inf)


def test_intervals_draw_whole_procedures() -> None:
    """Two clips of one procedure are drawn together: with one procedure there is no interval."""
    found, missed = at_ten(({"a": True}, 1)), at_ten(({"b": False}, 0))
    one = summarise_procedures([count_recording("x", "p", found), count_recording("y", "p", missed)], FEW)
    assert (one["procedures"], one["recordings"], one["lesions"]["sensitivity"]) == (1, 2, 0.5)
    assert all(map(math.isnan, one["lesions"]["sensitivity_ci95"]))
    pairs = [
        count_recording(f"{procedure}{clip}", procedure, frames)
        for procedure in "pqrs"
        for clip, frames in enumerate((found, missed))
    ]
    alike = summarise_procedures(pairs, FEW)
    assert alike["lesions"]["sensitivity_ci95"] == [0.5, 0.5]  # every procedure is the same
    assert alike["alarms"]["any"]["per_procedure_ci95"] == [1.0, 1.0]


def test_a_lesion_of_several_clips_is_one() -> None:
    """Missed in a clip of 0.3 s, found after 0.1 s of the next, and met in 2 of 3 frames from there on."""
    missed = at_ten(*[({"a": False}, 0)] * 3)
    found = at_ten(*[({"a": hit}, 0) for hit in (False, True, False)])
    again = at_ten(({"a": True}, 0))
    clips = [count_recording(str(at), "p", clip) for at, clip in enumerate((missed, found))]
    clips.append(count_recording("2", "p", again, 0.1))
    other = count_recording("3", "q", missed)
    figures = summarise_procedures([*clips, other], FEW)
    assert (figures["lesions"]["lesions"], figures["lesions"]["found"]) == (2, 1)
    detection = figures["first_detection"]
    assert (detection["missed"], detection["median_s"]) == (1, pytest.approx(0.4))
    assert figures["persistence"]["mean"] == pytest.approx(2 / 3)
    assert [len(recording["lesions"]) for recording in figures["each"]] == [1, 1, 1, 1]


def test_nothing_to_count() -> None:
    quiet = summarise_procedures([count_recording("r", "p", at_ten(({}, 0), ({}, 0)))], FEW)
    assert math.isnan(quiet["lesions"]["sensitivity"]) and math.isnan(quiet["first_detection"]["median_s"])
    assert quiet["per_frame"]["specificity"] == 1.0 and quiet["alarms"]["any"]["alarms"] == 0
    with pytest.raises(BadInputError, match="r has no frames"):
        count_recording("r", "p", [])
    with pytest.raises(BadInputError, match="r: the times of the frames do not rise"):
        count_recording("r", "p", [SeenFrame(1.0), SeenFrame(0.5)])


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, math.inf]), max_size=30), st.sampled_from([0.025, 0.5, 0.95, 1])
)
def test_quantiles_are_values(values: list[float], share: float) -> None:
    assert reached(np.array(values), share) == pytest.approx(slow_quantile(values, share), nan_ok=True)
