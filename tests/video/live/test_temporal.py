"""vmkla.video.live.network.temporal: what is kept, what is dropped, and when all is forgotten."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.errors import UsageError
from vmkla.procedures.scene import thumbnail
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect
from vmkla.video.live.network.options import TemporalOptions
from vmkla.video.live.network.temporal import RESET_AFTER_S, TemporalFilter

Floats = npt.NDArray[np.float32]
SIDE = 64
STEP_S = 1 / 30
THRESHOLD = 0.5


def blob(peak: float, *, at: tuple[int, int] = (32, 32), radius: int = 8, floor: float = 0.05) -> Floats:
    """(1, 64, 64): a soft disc of the given probability."""
    plane = np.full((SIDE, SIDE), floor, np.float32)
    cv2.circle(plane, at, radius, peak, -1)
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), 1.0), np.float32)[None]


def area(probability: Floats, threshold: float = THRESHOLD) -> int:
    """Pixels found, at four times the network's size, so that interpolation has its say."""
    return find(
        probability, Rect(0, 0, 4 * SIDE, 4 * SIDE), (4 * SIDE, 4 * SIDE), OperatingPoint(threshold)
    ).area_px


def steadied(planes: list[Floats], **options: Any) -> list[Floats]:
    """A stream of 30 frames a second through a new filter."""
    filter_ = TemporalFilter(TemporalOptions(**options), OperatingPoint(THRESHOLD))
    return [filter_.apply(plane, 1000 + index * STEP_S) for index, plane in enumerate(planes)]


def test_the_defaults_change_nothing() -> None:
    rng = np.random.default_rng(0)
    planes = [rng.random((1, SIDE, SIDE), np.float32) for _ in range(4)]
    assert not TemporalOptions().any
    for before, after in zip(planes, steadied(planes), strict=True):
        np.testing.assert_array_equal(before, after)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 3),
    low=st.one_of(st.none(), st.floats(0.01, 0.49)),
    age_ms=st.floats(0, 200),
    threshold=st.floats(0.5, 0.99),
)
def test_a_probability_stays_one_and_the_input_stays_as_it_was(
    seed: int, classes: int, low: float | None, age_ms: float, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    filter_ = TemporalFilter(TemporalOptions(low, age_ms), OperatingPoint(threshold))
    for index in range(5):
        raw = rng.random((classes, 20, 28), np.float32)
        raw = np.stack([cv2.GaussianBlur(plane, (0, 0), 2) for plane in raw])
        plane = (raw - raw.min()) / (raw.max() - raw.min())
        if classes > 1:
            plane = plane / plane.sum(axis=0)
        plane = plane.astype(np.float32)
        before = plane.copy()
        steady = filter_.apply(plane, index * STEP_S)
        np.testing.assert_array_equal(plane, before)
        assert steady.shape == plane.shape and steady.dtype == np.float32
        assert np.isfinite(steady).all() and steady.min() >= 0 and steady.max() <= 1 + 1e-6
        if classes > 1:
            np.testing.assert_allclose(steady.sum(axis=0), 1, atol=1e-5)


def test_hysteresis_keeps_what_was_found_and_adds_nothing_elsewhere() -> None:
    strong, weak = blob(0.8), blob(0.4)
    elsewhere = np.maximum(weak, blob(0.4, at=(12, 12), radius=5))
    plain = [area(plane) > 0 for plane in (strong, weak, weak)]
    assert plain == [True, False, False]
    first, second, third = steadied([strong, elsewhere, elsewhere], hysteresis_low=0.3)
    np.testing.assert_array_equal(first, strong)
    for kept in (second, third):
        np.testing.assert_array_equal(kept >= THRESHOLD, (strong >= THRESHOLD) & (weak >= 0.3))
        assert area(kept) == pytest.approx(area(weak, 0.3), rel=0.1)
        assert (kept[0, :20, :20] < THRESHOLD).all()
    gone = steadied([strong, blob(0.25), weak], hysteresis_low=0.3)
    assert [area(plane) > 0 for plane in gone] == [True, False, False]


def test_hysteresis_keeps_the_edge_that_the_lower_threshold_has() -> None:
    """Kept pixels end where the probability falls to the lower threshold, between pixels too."""
    wide, weak = blob(0.9, radius=14), blob(0.45, radius=9)
    _, kept = steadied([wide, weak], hysteresis_low=0.3)
    assert area(kept) == pytest.approx(area(weak, 0.3), rel=0.02)


def test_regions_show_when_they_are_old_enough() -> None:
    ages = steadied([blob(0.9)] * 6, min_lesion_age_ms=100)
    assert [area(plane) > 0 for plane in ages] == [False, False, False, True, True, True]
    np.testing.assert_array_equal(ages[3], blob(0.9))


def test_a_lesion_that_moves_ages_and_one_that_blinks_does_not() -> None:
    moving = [blob(0.9, at=(20 + 2 * index, 32)) for index in range(6)]
    assert [area(plane) > 0 for plane in steadied(moving, min_lesion_age_ms=100)][3:] == [True] * 3
    jumping = [blob(0.9, at=(12 + 40 * (index % 2), 32), radius=5) for index in range(8)]
    assert not any(area(plane) for plane in steadied(jumping, min_lesion_age_ms=100))
    blinking = [blob(0.9 if index % 3 else 0.1) for index in range(9)]
    assert not any(area(plane) for plane in steadied(blinking, min_lesion_age_ms=100))


def test_a_new_lesion_beside_an_old_one_has_an_age_of_its_own() -> None:
    old = blob(0.9, at=(14, 14), radius=6)
    both = np.maximum(old, blob(0.9, at=(48, 48), radius=6))
    steady = steadied([old] * 5 + [both] * 5, min_lesion_age_ms=100)
    shown = [
        (area(plane[:, :31, :31]) > 0, bool((plane[0, 32:, 32:] >= THRESHOLD).any())) for plane in steady
    ]
    assert [first for first, _ in shown] == [False] * 3 + [True] * 7
    assert [second for _, second in shown] == [False] * 8 + [True] * 2


def test_the_least_age_holds_with_hysteresis() -> None:
    """A lesion that is only kept by hysteresis still ages."""
    planes = [blob(0.9), *[blob(0.4)] * 5]
    steady = steadied(planes, hysteresis_low=0.3, min_lesion_age_ms=100)
    assert [area(plane) > 0 for plane in steady] == [False, False, False, True, True, True]


def test_hysteresis_keeps_a_finding_that_no_longer_reaches_the_peak() -> None:
    """It holds what was a finding; what never reached the peak stays none."""
    point = OperatingPoint(THRESHOLD, peak=0.9)
    filter_ = TemporalFilter(TemporalOptions(hysteresis_low=0.3), point)
    other = (12, 12)
    seen = []
    for number, inside in enumerate((0.95, 0.7, 0.4, 0.2, 0.7)):
        plane = np.maximum(blob(inside), blob(0.8, at=other, radius=5))
        steady = filter_.apply(plane, 1000 + number * STEP_S)
        found = find(steady, Rect(0, 0, SIDE, SIDE), (SIDE, SIDE), point).mask
        assert not found[other]
        seen.append(bool(found[32, 32]))
    assert seen == [True, True, True, False, False]


@pytest.mark.parametrize("how", ["gap", "backwards", "cut", "reset", "size"])
def test_all_is_forgotten_after(how: str) -> None:
    filter_ = TemporalFilter(TemporalOptions(hysteresis_low=0.3), OperatingPoint(THRESHOLD))
    ramp = np.tile(np.linspace(20, 220, 80, dtype=np.uint8)[None, :, None], (60, 1, 3))
    before, other = thumbnail(ramp), thumbnail(np.ascontiguousarray(255 - ramp))
    filter_.apply(blob(0.9), 10.0, before)
    weak = blob(0.4)
    assert area(filter_.apply(weak, 10.0 + STEP_S, before)) > 0
    at_s, frame = 10.0 + 2 * STEP_S, before
    if how == "gap":
        at_s += RESET_AFTER_S
    elif how == "backwards":
        at_s = 9.0
    elif how == "cut":
        frame = other
    elif how == "reset":
        filter_.reset()
    else:
        weak = np.ascontiguousarray(weak[:, :60])
    steady = filter_.apply(weak, at_s, frame)
    np.testing.assert_array_equal(steady, weak)


def three(values: dict[tuple[int, int], tuple[float, float, float]]) -> Floats:
    """(3, 8, 8): background everywhere but in the given pixels."""
    planes = np.zeros((3, 8, 8), np.float32)
    planes[0] = 1
    for (row, column), shares in values.items():
        planes[:, row, column] = shares
    return planes


def test_several_classes_keep_theirs_until_another_is_clearly_more_probable() -> None:
    filter_ = TemporalFilter(TemporalOptions(hysteresis_low=0.3), OperatingPoint(THRESHOLD))
    filter_.apply(three({(2, 2): (0.2, 0.7, 0.1), (5, 5): (0.2, 0.7, 0.1)}), 0.0)
    steady = filter_.apply(
        three({(2, 2): (0.1, 0.4, 0.5), (5, 5): (0.05, 0.3, 0.65), (6, 1): (0.5, 0.4, 0.1)}), 0.03
    )
    classes = steady.argmax(axis=0)
    assert (classes[2, 2], classes[5, 5], classes[6, 1]) == (1, 2, 0)


def test_several_classes_are_dropped_to_background() -> None:
    planes = three({(row, column): (0.1, 0.1, 0.8) for row in range(1, 5) for column in range(1, 5)})
    planes[:, 7, 7] = (0.1, 0.8, 0.1)
    assert not any(plane.argmax(axis=0).any() for plane in steadied([planes] * 2, min_lesion_age_ms=50))
    assert steadied([planes] * 3, min_lesion_age_ms=50)[-1].argmax(axis=0).any()


@pytest.mark.parametrize(
    "options",
    [
        {"hysteresis_low": 0.0},
        {"hysteresis_low": 1.0},
        {"hysteresis_low": float("nan")},
        {"min_lesion_age_ms": -1.0},
        {"min_lesion_age_ms": float("inf")},
        {"min_lesion_age_ms": float("nan")},
    ],
)
def test_values_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TemporalOptions(**options)


def test_hysteresis_lies_below_the_threshold() -> None:
    with pytest.raises(UsageError, match="not below the threshold"):
        TemporalFilter(TemporalOptions(hysteresis_low=0.5), OperatingPoint(0.5))
