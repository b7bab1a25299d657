"""vmkla.procedures.tracker: lesions keep their numbers, and what happens to them is reported."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.procedures.scripted import HEIGHT, PALE, RED, WIDTH, Disc, Image, findings, region, render
from vmkla.errors import BadInputError, UsageError
from vmkla.procedures.events import Event
from vmkla.procedures.scene import CHANGE_LIMIT, CUT_LIMIT, change, thumbnail
from vmkla.procedures.tracker import MAX_REGIONS, LesionTracker, Tracked, TrackerOptions, TrackerState
from vmkla.procedures.tracker_state import MAX_LESIONS
from vmkla.segment.findings import Region

STEP_S = 1 / 30


def follow(
    frames: Sequence[Sequence[Region] | None],
    times: Sequence[float] | None = None,
    options: TrackerOptions | None = None,
) -> list[Tracked]:
    """Track findings without frames."""
    tracker = LesionTracker(options)
    times = times or [index * STEP_S for index in range(len(frames))]
    return [tracker.update(time_s, regions) for time_s, regions in zip(times, frames, strict=True)]


def numbers(tracked: Sequence[Tracked]) -> list[list[int | None]]:
    return [list(each.numbers) for each in tracked]


def kinds(tracked: Sequence[Tracked]) -> list[tuple[int, str, int | None, int | None]]:
    return [
        (index, event.kind, event.lesion, event.other)
        for index, each in enumerate(tracked)
        for event in each.events
    ]


def test_lesions_that_move_keep_their_numbers_in_any_order() -> None:
    frames = []
    for index in range(20):
        pair = [region(20 + 4 * index, 50, 40, 40), region(200 - 3 * index, 150, 30, 36)]
        frames.append(pair[:: 1 if index % 2 else -1])
    tracked = follow(frames)
    first, second = tracked[1].numbers
    assert {first, second} == {1, 2}
    for index, each in enumerate(tracked):
        assert each.numbers == ((first, second) if index % 2 else (second, first))
    assert [event.kind for each in tracked for event in each.events] == ["started", "started"]


def test_crossing_lesions_keep_their_numbers() -> None:
    """They pass each other in opposite directions, 30 px apart at the nearest."""
    frames = [
        [region(20 + 8 * index, 80, 40, 40), region(260 - 8 * index, 110, 40, 40)] for index in range(31)
    ]
    assert numbers(follow(frames)) == [[1, 2]] * 31


def test_crossing_lesions_that_merge_on_the_way_are_told_apart_by_colour() -> None:
    tracker = LesionTracker()
    result = []
    for index in range(40):
        red = Disc("red", 60 + 5 * index, 120)
        pale = Disc("pale", 260 - 5 * index, 124, colour=PALE)
        rgb = render([red, pale])
        if abs(red.x - pale.x) < 38:  # one finding around both
            left, right = min(red.x, pale.x) - 20, max(red.x, pale.x) + 20
            found = [region(left, 100, right - left, 44)]
        else:
            found = findings([red, pale])
        result.append((len(found), tracker.update(index * STEP_S, found, rgb)))
    assert all(each.numbers == (1, 2) for count, each in result if count == 2)
    assert {each.numbers for count, each in result if count == 1} <= {(1,), (2,)}
    events = [(event.kind, {event.lesion, event.other}) for _, each in result for event in each.events]
    assert events == [("started", {1, None}), ("started", {2, None}), ("merged", {1, 2}), ("split", {1, 2})]


@pytest.mark.parametrize(("gap_s", "after"), [(1.5, 1), (1.99, 1), (2.2, 2)])
def test_a_gap_is_bridged_up_to_the_limit(gap_s: float, after: int) -> None:
    box = region(100, 100, 40, 40)
    times = [0.0, 0.1, *np.arange(0.2, 0.1 + gap_s - 1e-9, 0.1), 0.1 + gap_s]
    frames: list[list[Region]] = [[box], [box], *([[]] * (len(times) - 3)), [box]]
    tracked = follow(frames, times)
    assert tracked[-1].numbers == (after,)
    ended = [event for each in tracked for event in each.events if event.kind == "ended"]
    assert ended == ([] if after == 1 else [Event("ended", 1)])


def test_an_occlusion_by_a_fold_while_the_camera_moves() -> None:
    """A bar covers the lesion for half a second, in which the camera moves by 60 px."""
    tracker = LesionTracker()
    result = []
    for index in range(60):
        pan = (40 + 4 * index, 60)
        disc = Disc("fold", 330 - pan[0], 120, found=not 15 <= index < 30)
        rgb = render([disc], pan)
        if not disc.found:
            cv2.rectangle(rgb, (round(disc.x) - 24, 0), (round(disc.x) + 24, HEIGHT), (150, 90, 80), -1)
        result.append(tracker.update(index * STEP_S, findings([disc]), rgb))
    assert {each.numbers for each in result} == {(1,), ()}
    assert [event.kind for each in result for event in each.events] == ["started"]


def test_merge_and_split_without_frames() -> None:
    def pair(apart: float) -> list[Region]:
        return [region(120 - apart / 2, 100, 40, 40), region(120 + apart / 2, 100, 40, 40)]

    frames = [pair(100 - 4 * index) for index in range(15)]
    frames += [[region(98, 100, 84, 40)]] * 20
    frames += [pair(44 + 4 * index) for index in range(15)]
    tracked = follow(frames)
    assert numbers(tracked) == [[1, 2]] * 15 + [[1]] * 20 + [[1, 2]] * 15 or (
        numbers(tracked) == [[1, 2]] * 15 + [[2]] * 20 + [[1, 2]] * 15
    )
    host = tracked[20].numbers[0]
    guest = 3 - (host or 0)
    assert kinds(tracked)[2:] == [(15, "merged", guest, host), (35, "split", guest, host)]


def test_a_merged_lesion_is_forgotten_after_its_limit() -> None:
    apart = [region(60, 100, 40, 40), region(140, 100, 40, 40)]
    near = [region(80, 100, 40, 40), region(122, 100, 40, 40)]
    frames = [apart, near, *[[region(80, 100, 82, 40)]] * 60, near]
    tracked = follow(frames, options=TrackerOptions(merge_s=1.0))
    assert [kind for _, kind, *_ in kinds(tracked)] == [
        "started", "started", "merged", "ended",
    ]  # fmt: skip
    # What separates afterwards is a piece at first.
    assert len(set(tracked[-1].numbers)) == 1


def test_pieces_share_a_number_and_become_a_lesion_of_their_own_when_they_stay_apart() -> None:
    whole, pieces = region(100, 100, 80, 40), [region(100, 100, 44, 40), region(150, 100, 30, 40)]
    flicker = follow([[whole], pieces, [whole], pieces] * 15)
    assert {number for each in flicker for number in each.numbers} == {1}
    apart = follow([[whole], *[pieces] * 30])
    assert numbers(apart)[:16] == [[1]] + [[1, 1]] * 15
    assert numbers(apart)[-1] == [1, 2]
    assert [(kind, lesion, other) for _, kind, lesion, other in kinds(apart)] == [
        ("started", 1, None), ("split", 2, 1), ("started", 2, None),
    ]  # fmt: skip


def test_specks_and_parts_do_not_become_lesions_and_do_not_shrink_them() -> None:
    """The network finds the whole lesion, then only a corner of it, then specks beside it."""
    whole, corner = region(100, 100, 60, 60), region(104, 140, 12, 12)
    specks = [region(164, 120, 4, 3), region(130, 162, 2, 2), region(110, 110, 5, 5)]
    frames = [[whole], [corner], [corner], [whole, *specks], *[[whole, *specks]] * 30, []]
    tracked = follow(frames)
    assert {number for each in tracked for number in each.numbers} == {1}
    assert [kind for _, kind, *_ in kinds(tracked)] == ["started"]
    # A speck elsewhere is a lesion, and so is one of a first frame far from the other.
    assert numbers(follow([[whole, region(250, 200, 4, 4)]])) == [[1, 2]]
    assert numbers(follow([[whole, specks[0]]])) == [[1, 1]]


def test_a_cut_ends_lesions() -> None:
    tracker = LesionTracker()
    disc = Disc("one", 160, 120)
    before = [tracker.update(index * STEP_S, findings([disc]), render([disc], seed=0)) for index in range(5)]
    other = render([disc], seed=1)[::-1] // 3
    after = [tracker.update((5 + index) * STEP_S, findings([disc]), other) for index in range(90)]
    assert {each.numbers for each in before} == {(1,)}
    assert {each.numbers for each in after} == {(2,)}
    assert [(kind, lesion) for _, kind, lesion, _ in kinds([*before, *after])] == [
        ("started", 1), ("cut", None), ("started", 2), ("ended", 1),
    ]  # fmt: skip


def test_a_fast_camera_at_a_low_rate_is_no_cut() -> None:
    """Eight frames a second, 24 px each: neighbours differ as much as two scenes may."""

    def contrasty(rgb: Image) -> Image:
        return np.clip(110 + 1.8 * (rgb.astype(np.float32) - 110), 0, 255).astype(np.uint8)

    tracker = LesionTracker()
    result, scenes = [], []
    for index in range(10):
        pan = (30 + 24 * index, 60)
        disc = Disc("one", 310 - pan[0], 120)
        rgb = contrasty(render([disc], pan))
        scenes.append(thumbnail(rgb))
        result.append(tracker.update(index / 8, findings([disc]), rgb))
    changes = [change(*pair) for pair in itertools.pairwise(scenes)]
    assert CUT_LIMIT < max(changes) <= CHANGE_LIMIT
    assert numbers(result) == [[1]] * 10
    assert [kind for _, kind, *_ in kinds(result)] == ["started"]
    # Without a lesion it is none either.
    tracker = LesionTracker()
    for index in range(10):
        empty = tracker.update(index / 8, [], contrasty(render([], (30 + 24 * index, 60))))
        assert empty.events == ()


def test_a_flush_does_not_end_lesions() -> None:
    """White frames for half a second are a cut and its return."""
    tracker = LesionTracker()
    result = []
    for index in range(40):
        pan = (100 + index, 100)
        disc = Disc("one", 260 - pan[0], 120)
        flushed = 10 <= index < 25
        rgb = np.full((HEIGHT, WIDTH, 3), 250, np.uint8) if flushed else render([disc], pan)
        result.append(tracker.update(index * STEP_S, [] if flushed else findings([disc]), rgb))
    assert {each.numbers for each in result} == {(1,), ()}
    assert [(index, kind) for index, kind, *_ in kinds(result)] == [
        (0, "started"), (10, "cut"), (25, "cut"), (25, "returned"),
    ]  # fmt: skip


def test_irregular_times() -> None:
    """A lesion that moves 60 px a second, seen at steps of 10 to 400 ms."""
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.choice([0.01, 0.033, 0.1, 0.4], 60)).tolist()
    frames = [[region(10 + 60 * time_s, 100, 40, 40)] for time_s in times]
    assert numbers(follow(frames, times)) == [[1]] * 60


@pytest.mark.parametrize("jump_s", [-0.01, -100.0, 2.5, 1e6])
def test_times_that_jump_end_lesions(jump_s: float) -> None:
    box = [region(100, 100, 40, 40)]
    tracked = follow([box, box, box], [100.0, 100.1, 100.1 + jump_s])
    assert numbers(tracked) == [[1], [1], [2]]
    assert [kind for _, kind, *_ in kinds(tracked)] == ["started", "jump", "ended", "started"]


def test_equal_times_are_no_jump() -> None:
    box = [region(100, 100, 40, 40)]
    assert numbers(follow([box, box], [1.0, 1.0])) == [[1], [1]]


@pytest.mark.parametrize("time_s", [math.nan, math.inf])
def test_a_time_that_is_none(time_s: float) -> None:
    with pytest.raises(UsageError, match="time of a frame"):
        LesionTracker().update(time_s, [])


def test_a_frame_that_was_not_searched_is_no_gap() -> None:
    box = [region(100, 100, 40, 40)]
    tracked = follow([box, None, None, box])
    assert numbers(tracked) == [[1], [], [], [1]]


def test_a_stride_longer_than_the_limit_keeps_numbers() -> None:
    """Every 30th of 10 frames a second is searched: three seconds between two looks."""
    frames = [None if index % 30 else [region(100, 100, 40, 40)] for index in range(91)]
    tracked = follow(frames, [index * 0.1 for index in range(91)])
    assert [each.numbers for each in tracked if each.numbers] == [(1,)] * 4
    frames[31:] = [None if index % 30 else [] for index in range(31, 91)]
    gone = follow([*frames, None], [index * 0.1 for index in range(92)])
    assert [kind for _, kind, *_ in kinds(gone)] == ["started", "ended"]


def test_classes_do_not_mix() -> None:
    tracked = follow([[region(100, 100, 40, 40, 1)], [region(100, 100, 40, 40, 2)]])
    assert numbers(tracked) == [[1], [2]]


def test_the_largest_findings_of_a_noisy_frame_are_numbered_and_the_memory_is_limited() -> None:
    tracker = LesionTracker()
    for index in range(6):
        noise = [region(5 * k + 40 * index, 200 * (k % 7) + 1000 * index, 4, 4) for k in range(100)]
        result = tracker.update(index * STEP_S, noise)
        assert None not in result.numbers[:MAX_REGIONS]
        assert set(result.numbers[MAX_REGIONS:]) == {None}
        assert len(tracker.state.lesions) <= MAX_LESIONS


def test_candidates_of_a_new_lesion_are_reported_where_they_are_wanted() -> None:
    box = region(100, 100, 40, 40)
    frames: list[list[Region]] = [[box], *([[]] * 40), [box]]
    times = [index * 0.1 for index in range(42)]
    wanted = follow(frames, times, TrackerOptions(candidate_s=6.0))
    assert wanted[-1].numbers == (2,)
    [event] = wanted[-1].events
    assert event.kind == "started" and [number for number, _ in event.candidates] == [1]
    assert kinds(wanted)[1][1:3] == ("ended", 1)
    assert follow(frames, times)[-1].events == (Event("started", 2),)


@pytest.mark.parametrize("change", [{"bridge_s": 0.0}, {"merge_s": -1.0}, {"split_s": math.inf}])
def test_limits_out_of_range(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected more than 0 seconds"):
        TrackerOptions(**change)


DISCS = st.lists(
    st.tuples(
        st.sampled_from([(80, 80), (90, 84), (200, 150), (215, 160), (120, 180)]),
        st.sampled_from([12.0, 20.0, 30.0]),
        st.sampled_from([RED, PALE]),
    ),
    max_size=3,
    unique_by=lambda disc: disc[0],
)
FRAMES = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.02, 0.04, 0.3, 1.5, 3.0, -1.0]),  # time since the last frame
        DISCS,
        st.sampled_from(["picture", "picture", "other scene", "white", "none", "unsearched"]),
    ),
    min_size=2,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(frames=FRAMES, cuts=st.sets(st.integers(0, 11)))
def test_a_restored_tracker_goes_on_as_if_uninterrupted(
    frames: list[tuple[float, list[tuple[tuple[int, int], float, tuple[int, int, int]]], str]], cuts: set[int]
) -> None:
    options = TrackerOptions(candidate_s=4.0, split_s=0.03)
    whole, parts = LesionTracker(options), LesionTracker(options)
    time_s = 10.0
    for index, (step_s, made, kind) in enumerate(frames):
        time_s += step_s
        discs = [Disc("", *place, radius, colour) for place, radius, colour in made]
        if kind == "none":
            rgb = None
        elif kind == "white":
            rgb = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)
        else:
            rgb = render(discs, (3 * index, 2 * index), seed=int(kind == "other scene"))
        regions = None if kind == "unsearched" else findings(discs)
        if index in cuts:
            stored = json.loads(json.dumps(parts.state.to_dict(), allow_nan=False))
            parts = LesionTracker(options, TrackerState.from_dict(stored))
        assert whole.update(time_s, regions, rgb) == parts.update(time_s, regions, rgb)
    assert whole.state.to_dict() == parts.state.to_dict()


def test_the_state_is_limited_in_size() -> None:
    tracker = LesionTracker(TrackerOptions(candidate_s=10.0))
    for index in range(8):
        rgb = np.zeros((1080, 1920, 3), np.uint8) + np.uint8(100 + index)
        noise = [region(20 + 90 * (k % 20), 20 + 80 * (k // 20) + index, 20, 20) for k in range(60)]
        tracker.update(index * STEP_S, noise, rgb)
    assert len(json.dumps(tracker.state.to_dict())) < 150_000


@pytest.mark.parametrize(
    "change",
    [
        {"next_number": "1"},
        {"extra": 1},
        {"lesions": [{"number": 1}]},
        {"next_number": 1, "lesions": [1]},
        {"scene": {"grey": "!!", "hw": [2, 2], "shrink": [1.0, 1.0]}},
        {"scene": {"grey": "AAAA", "hw": [2, 2], "shrink": [1.0, 1.0]}},
        {"scene": {"grey": "AAAA", "hw": [0, 3], "shrink": [1.0, 1.0]}},
    ],
)
def test_a_state_of_something_else(change: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="state cannot be restored"):
        TrackerState.from_dict({**TrackerState().to_dict(), **change})
    with pytest.raises(BadInputError):
        TrackerState.from_dict([])


@pytest.mark.parametrize(
    "change", [{"number": 0}, {"number": 2}, {"box": [1.0, 1.0, 0.0, 5.0]}, {"extent": [1.0, 2.0]}]
)
def test_a_state_of_impossible_lesions(change: dict[str, object]) -> None:
    tracker = LesionTracker()
    tracker.update(0.0, [region(100, 100, 40, 40)])
    stored = json.loads(json.dumps(tracker.state.to_dict()))
    TrackerState.from_dict(stored)
    stored["lesions"][0] |= change
    with pytest.raises(BadInputError, match="state cannot be restored"):
        TrackerState.from_dict(stored)
