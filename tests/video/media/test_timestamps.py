"""vmkla.video.media.timestamps: good time stamps are untouched, all others come out rising."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkla.video.live.recording.segments import SegmentMp4
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.timestamps import Timeline, written_base

MILLI = Fraction(1, 1000)


def place(values: list[int | None]) -> tuple[list[int], int, int]:
    """Time stamps of 40 ms frames as they are placed; how many were mended; how often they began anew."""
    timeline = Timeline(MILLI, 40)
    placed = [pts for _, pts in timeline.placed(values, lambda value: value, MILLI)]
    return placed, timeline.repaired, timeline.jumps


@given(st.sets(st.integers(0, 10**7), min_size=1, max_size=50))
def test_rising_timestamps_are_untouched(values: set[int]) -> None:
    assert place(list(sorted(values))) == (sorted(values), 0, 0)


@given(st.lists(st.none() | st.integers(-5000, 10**5) | st.integers(0, 10**11), min_size=1, max_size=60))
def test_anything_comes_out_rising_from_zero_or_later(values: list[int | None]) -> None:
    placed, _, _ = place(values)
    assert len(placed) == len(values) and placed[0] >= 0
    assert all(earlier < later for earlier, later in zip(placed, placed[1:], strict=False))


@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=6),
    st.lists(st.integers(1, 3), min_size=40, max_size=40),
)
def test_joined_parts_keep_their_own_pace(lengths: list[int], steps: list[int]) -> None:
    """Parts that each begin at zero: within a part the output differs from the source by one constant."""
    parts = [[40 * sum(steps[:index]) for index in range(length)] for length in lengths]
    placed, repaired, jumps = place([pts for part in parts for pts in part])
    assert (repaired, jumps) == (0, len(lengths) - 1)
    first = 0
    for part in parts:
        found = placed[first : first + len(part)]
        assert [pts - found[0] for pts in found] == part
        if first:
            assert found[0] - placed[first - 1] == 40
        first += len(part)


def test_missing_ones_follow_at_the_frame_rate() -> None:
    assert place([0, None, None, 120]) == ([0, 40, 80, 120], 2, 0)
    assert place([None, None]) == ([0, 40], 2, 0)


@pytest.mark.parametrize(
    ("following", "first"), [(10_000, 9960), (40, 0), (60, 20), (100, 60)], ids="next-{}".format
)
def test_a_missing_first_one_is_a_frame_before_the_next(following: int, first: int) -> None:
    """It was put at 0, and the clip began with a pause of ten seconds."""
    values = [None, following, following + 40]
    assert place(values) == ([first, following, following + 40], 1, 0)


def test_a_missing_first_one_stays_at_zero_or_later() -> None:
    placed, repaired, jumps = place([None, 20, 60, 100])
    assert placed == [0, 20, 60, 100] and (repaired, jumps) == (1, 0)
    placed, repaired, jumps = place([None, -80, -40, 0])
    assert placed[0] == 0 and placed[2:] == [40, 80] and jumps == 0, "moved to zero as without the first"


def test_a_repeated_one_is_placed_between_its_neighbours() -> None:
    assert place([0, 40, 40, 80]) == ([0, 40, 60, 80], 1, 0)


def test_many_equal_ones_keep_the_pace_and_the_clock_catches_up() -> None:
    assert place([0, 40, 40, 40, 120, 160]) == ([0, 40, 80, 100, 120, 160], 2, 0)
    assert place([7] * 4) == ([7, 47, 87, 127], 3, 0)


@pytest.mark.parametrize("wrong", [0, 20, 10_000, 10**9])
def test_a_single_one_out_of_line_changes_no_other(wrong: int) -> None:
    placed, repaired, jumps = place([0, 40, 80, wrong, 160, 200])
    assert placed[:3] + placed[4:] == [0, 40, 80, 160, 200] and (repaired, jumps) == (1, 0)


def test_an_old_clock_that_comes_back_counts_again() -> None:
    placed, _, jumps = place([5000, 5040, 0, 40, 5160, 5200])
    assert placed == [5000, 5040, 5080, 5120, 5160, 5200] and jumps == 0


def test_a_restart_follows_on() -> None:
    """A recorder that begins again from zero: the new part keeps its own pace."""
    assert place([5000, 5040, 0, 40, 80]) == ([5000, 5040, 5080, 5120, 5160], 0, 1)


def test_a_pause_stays_and_one_that_no_mp4_holds_does_not() -> None:
    hour = 3_600_000
    assert place([0, 40, 2 * hour, 2 * hour + 40]) == ([0, 40, 2 * hour, 2 * hour + 40], 0, 0)
    assert place([0, 40, 7 * hour, 7 * hour + 40, 7 * hour + 80]) == ([0, 40, 80, 120, 160], 0, 1)


def test_a_start_below_zero_moves_everything() -> None:
    assert place([-80, -40, 0, 40]) == ([0, 40, 80, 120], 0, 0)


def test_nanoseconds_are_written_as_microseconds() -> None:
    """An MP4 in ticks of 1 ns could hold no pause of more than 2.1 s."""
    assert written_base(Fraction(1, 90000)) == Fraction(1, 90000)
    assert written_base(Fraction(1, 10**9)) == Fraction(1, 10**6)
    timeline = Timeline(Fraction(1, 10**6), 40_000)
    placed = timeline.placed([0, 5_000_000_400], lambda pts: pts, Fraction(1, 10**9))
    assert [pts for _, pts in placed] == [0, 5_000_000]


def test_joined_recorded_segments_of_less_than_a_second(tmp_path: Path) -> None:
    """Thirty frames of a recorder's file, twice, in one transport stream: each keeps its 33 ms."""
    pts = [round(1e6 * index / 30) for index in range(30)]
    mp4 = SegmentMp4((48, 64))
    blocks = [
        block
        for index in range(30)
        for block in mp4.add(np.full((48, 64, 3), 8 * index, np.uint8), pts[index])
    ]
    data = bytearray()
    for at, piece in (*blocks, *mp4.close()):
        data[at : at + len(piece)] = piece
    segment = tmp_path / "raw-000001.mp4"
    segment.write_bytes(data)
    single = [round(frame.pts_s * 1e6) for frame in VideoSource(segment).frames() if frame.pts_s is not None]
    assert single == pts
    stream = tmp_path / "part.ts"
    with av.open(str(segment)) as source, av.open(str(stream), "w") as sink:
        copied = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                sink.mux(packet)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * stream.read_bytes())
    source_ = VideoSource(joined)
    found = [frame.pts_s for frame in source_.frames()]
    assert len(found) == 60 and source_.timestamp_jumps == 1 and source_.repaired_timestamps == 0
    steps = np.diff([time for time in found if time is not None])
    assert steps.min() > 0.033 and steps.max() < 0.034
