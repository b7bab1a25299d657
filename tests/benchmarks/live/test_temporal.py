"""benchmarks/live/temporal.py counts what it says it counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.live.temporal import Answer, Tally, choices, judge
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.live.network.options import TemporalOptions
from vmkla.video.live.network.temporal import TemporalFilter

Mask = npt.NDArray[np.bool_]

SIDE, FPS = 32, 10.0
POLYP = np.zeros((SIDE, SIDE), np.bool_)
POLYP[8:24, 8:24] = True
ELSEWHERE = np.zeros((SIDE, SIDE), np.bool_)
ELSEWHERE[0:3, 0:3] = ELSEWHERE[28:31, 28:31] = True
NOTHING = np.zeros((SIDE, SIDE), np.bool_)


def answer(found: Mask, truth: Mask) -> Answer:
    probability = np.where(found, 0.9, 0.1).astype(np.float16)[None]
    return Answer(probability, Rect(0, 0, SIDE, SIDE), (SIDE, SIDE), truth)


def test_every_count() -> None:
    clip = [
        answer(NOTHING, NOTHING),
        answer(ELSEWHERE, NOTHING),  # an alarm of two regions
        answer(NOTHING, POLYP),  # it comes
        answer(ELSEWHERE, POLYP),  # an alarm elsewhere does not find it
        answer(POLYP, POLYP),  # found, 200 ms after
        answer(NOTHING, NOTHING),
        answer(NOTHING, POLYP),  # comes again, and is never found
    ]
    tally = Tally()
    judge(clip, TemporalOptions(), OperatingPoint(0.5), 1, FPS, tally)
    assert (tally.frames, tally.empty_frames, tally.alarms, tally.false_regions) == (7, 3, 1, 2)
    assert (tally.polyp_frames, tally.hits, tally.lesions) == (4, 1, 2)
    assert tally.delays_ms == pytest.approx([200])
    assert tally.dices == pytest.approx([0, 0, 1, 0])
    assert tally.switches == 4


def test_a_slower_worker_sees_every_third_frame() -> None:
    tally = Tally()
    judge(
        [answer(POLYP, POLYP)] * 7, TemporalOptions(min_lesion_age_ms=300), OperatingPoint(0.5), 3, FPS, tally
    )
    assert (tally.frames, tally.hits) == (3, 2)
    assert tally.delays_ms == pytest.approx([300])


@pytest.mark.parametrize("own", [OperatingPoint(0.4, 0.72), OperatingPoint(0.5, 0.8, 0.005)])
def test_every_choice_suits_the_models_point(own: OperatingPoint) -> None:
    compared = choices(own)
    assert compared["operating point (default)"] == (TemporalOptions(), own)
    for options, point in compared.values():
        TemporalFilter(options, point)  # which rejects a hysteresis that is not below the threshold
        assert point.threshold == own.threshold
