"""vmkla.video.timestamps: good timestamps are untouched, all others come out rising."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from vmkla.video.timestamps import Timeline

MILLI = Fraction(1, 1000)


@given(st.sets(st.integers(0, 10**7), min_size=1, max_size=50))
def test_rising_timestamps_are_untouched(values: set[int]) -> None:
    timeline = Timeline(MILLI, 40)
    assert [timeline.place(pts) for pts in sorted(values)] == sorted(values)
    assert (timeline.repaired, timeline.shift) == (0, 0)


@given(st.lists(st.none() | st.integers(-5000, 10**5), min_size=1, max_size=60))
def test_anything_comes_out_rising_from_zero_or_later(values: list[int | None]) -> None:
    timeline = Timeline(MILLI, 40)
    placed = [timeline.place(pts) for pts in values]
    assert placed[0] >= 0
    assert all(earlier < later for earlier, later in zip(placed, placed[1:], strict=False))


def place(values: list[int | None]) -> tuple[list[int], int]:
    timeline = Timeline(MILLI, 40)
    return [timeline.place(pts) for pts in values], timeline.repaired


def test_missing_ones_follow_at_the_frame_rate() -> None:
    assert place([0, None, None, 120]) == ([0, 40, 80, 120], 2)
    assert place([None, None]) == ([0, 40], 2)


def test_a_repeated_one_moves_by_a_tick_and_the_next_is_itself() -> None:
    assert place([0, 40, 40, 80]) == ([0, 40, 41, 80], 1)


def test_a_restart_follows_on() -> None:
    """A recorder that begins again from zero: the new part keeps its own pace."""
    assert place([5000, 5040, 0, 40, 80]) == ([5000, 5040, 5080, 5120, 5160], 1)


def test_a_start_below_zero_moves_everything() -> None:
    assert place([-80, -40, 0, 40]) == ([0, 40, 80, 120], 0)
