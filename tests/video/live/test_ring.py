"""The ring of frames: readers get whole frames or none, and the writer waits for nobody."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import ROOT
from tests.faults.commanded import echo
from vmkla.errors import VmklaError
from vmkla.video.live.frame import LiveFrame
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import FrameRing
from vmkla.video.live.shared_memory.slots import OverwrittenError, SharedSlots, TornError, checksum

HW = (40, 50)


def frame(sequence: int, height: int = HW[0], width: int = HW[1], *, damaged: bool = False) -> LiveFrame:
    rgb = np.random.default_rng(sequence).integers(0, 256, (height, width, 3), np.uint8)
    return LiveFrame(sequence, 0.25 * sequence, rgb, damaged)


def assert_same(seen: LiveFrame | None, sent: LiveFrame) -> None:
    assert seen is not None
    assert (seen.sequence, seen.captured_s, seen.damaged) == (sent.sequence, sent.captured_s, sent.damaged)
    np.testing.assert_array_equal(seen.rgb, sent.rgb)


def test_latest_gives_the_newest_and_each_once() -> None:
    ring = FrameRing()
    reader = ring.subscribe()
    assert reader.latest() is None and not reader.wait(0)
    for sequence in range(1, 6):
        ring.publish(frame(sequence))
    assert reader.wait(0)
    assert_same(reader.latest(), frame(5))
    assert reader.latest() is None and not reader.wait(0.001)
    assert (reader.skipped, reader.missed, reader.torn) == (4, 0, 0)


def test_next_gives_all_in_order_and_counts_what_was_overwritten() -> None:
    ring = FrameRing(slots=4)
    reader = ring.subscribe()
    for sequence in range(1, 4):
        ring.publish(frame(sequence, damaged=sequence == 2))
    for sequence in range(1, 4):
        assert_same(reader.next(), frame(sequence, damaged=sequence == 2))
    assert reader.next() is None
    for sequence in range(4, 14):
        ring.publish(frame(sequence))
    seen = [reader.next() for _ in range(4)]
    assert [one.sequence for one in seen if one is not None] == [10, 11, 12, 13]
    assert (reader.missed, reader.torn, reader.next()) == (6, 0, None)


def test_a_late_reader_begins_with_the_newest() -> None:
    ring = FrameRing()
    for sequence in (1, 2, 3):
        ring.publish(frame(sequence))
    reader = ring.subscribe()
    assert_same(reader.next(), frame(3))
    assert reader.missed == 0 and ring.newest == (3, 0.75)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_any_size_and_changes_of_size(height: int, width: int, other_height: int, other_width: int) -> None:
    ring = FrameRing(slots=2, slot_bytes=70 * 70 * 3)
    reader = ring.subscribe()
    for sequence, size in enumerate([(height, width), (other_height, other_width), (height, width)], 1):
        ring.publish(frame(sequence, *size))
        assert_same(reader.next(), frame(sequence, *size))
    ring.close()
    reader.close()


def test_each_frame_carries_the_size_of_the_first_one() -> None:
    ring = FrameRing()
    for sequence, width in ((1, 50), (2, 60), (3, 40)):
        ring.publish(frame(sequence, width=width))
    seen = ring.subscribe().latest()  # of a reader that has never seen the first one
    assert seen is not None and seen.rgb.shape == (40, 40, 3) and seen.first_hw == (40, 50)


def test_views_that_are_not_contiguous() -> None:
    ring = FrameRing()
    reader = ring.subscribe()
    rgb = frame(1).rgb[:, ::-1]
    ring.publish(LiveFrame(1, 0.0, rgb))
    seen = reader.latest()
    assert seen is not None
    np.testing.assert_array_equal(seen.rgb, rgb)
    seen.rgb[:] = 0  # a copy: the ring keeps its own
    np.testing.assert_array_equal(ring.subscribe().latest().rgb, rgb)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("rgb", "words"),
    [
        (np.zeros((60, 60, 3), np.uint8), "10800 bytes"),
        (np.zeros((4, 4), np.uint8), "expected (H, W, 3) uint8"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_refuses_what_does_not_fit(rgb: np.ndarray, words: str) -> None:
    ring = FrameRing(slots=2, slot_bytes=9000)
    ring.publish(frame(1))
    with pytest.raises(VmklaError) as caught:
        ring.publish(LiveFrame(2, 0.0, rgb))
    assert words in caught.value.message
    assert_same(ring.subscribe().latest(), frame(1))


def test_readers_that_never_read_hold_up_nobody() -> None:
    ring = FrameRing(slots=2)
    readers = [ring.subscribe() for _ in range(5)]
    for sequence in range(1, 400):
        ring.publish(frame(sequence))
    for reader in readers:
        assert_same(reader.latest(), frame(399))


def test_readers_leave_while_the_writer_goes_on() -> None:
    ring = FrameRing()
    stays = ring.subscribe()
    for sequence in range(1, 50):
        leaver = ring.subscribe()
        leaver.close()
        leaver.close()
        ring.publish(frame(sequence))
    assert_same(stays.latest(), frame(49))
    ring.close()
    ring.close()
    with pytest.raises(VmklaError, match="closed"):
        ring.publish(frame(50))
    with pytest.raises(VmklaError, match="closed"):
        leaver.latest()


def test_a_reader_cannot_write() -> None:
    ring = FrameRing(slots=2)
    ring.publish(frame(1))
    with pytest.raises(TypeError, match="read-only"):
        ring.subscribe()._slots.write([np.zeros(1, np.uint8)])


def test_in_another_process() -> None:
    ring = FrameRing(slots=30)
    answers = Board(10_000)
    context = multiprocessing.get_context("spawn")
    readers = [ring.subscribe(), ring.subscribe()]  # two places in one ring, into one process each
    processes = [context.Process(target=echo, args=(readers[0], answers), daemon=True)]
    processes[0].start()
    for sequence in range(1, 21):
        ring.publish(frame(sequence))
        time.sleep(0.001)
    assert answers.wait(30)
    message = answers.read()
    processes[0].join(10)
    assert message is not None
    sums, missed, torn = json.loads(message)
    assert sums == [[sequence, int(frame(sequence).rgb.sum())] for sequence in range(1, 21)]
    assert (missed, torn) == (0, 0)
    assert_same(readers[1].latest(), frame(20))


class _DiesError(Exception):
    pass


class _Piece:
    """Bytes whose writer dies after the first half of them."""

    def __init__(self, content: np.ndarray) -> None:
        self.content = content

    def __len__(self) -> int:
        return len(self.content)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise _DiesError


@given(st.integers(1, 9), st.integers(0, 20_000), st.integers(1, 20_000))
def test_a_writer_that_dies_half_way_leaves_the_frames_before(before: int, first: int, rest: int) -> None:
    slots = SharedSlots(3, 40_000)
    reader = slots.reader()
    content = np.random.default_rng(first).integers(0, 256, first + rest, np.uint8)
    for number in range(1, before + 1):
        slots.write([np.full(20_000, number, np.uint8)], b"note")
    with pytest.raises(_DiesError):
        slots.write([content[:first], _Piece(content[first:])])  # type: ignore[list-item]
    assert reader.newest == before
    assert (reader.read(before).content == before).all()
    with pytest.raises(TornError):
        reader.read(before + 1)
    if before >= 3:
        with pytest.raises(OverwrittenError):
            reader.read(before - 2)  # its slot is the one that was begun
    slots.write([content], b"next")  # the next writer
    again = reader.read(before + 1)
    np.testing.assert_array_equal(again.content, content)
    assert again.note.rstrip(b"\0") == b"next"


@given(st.integers(1, 20_000), st.data())
def test_every_flipped_bit_is_seen(length: int, data: st.DataObject) -> None:
    slots = SharedSlots(2, 20_000)
    reader = slots.reader()
    slots.write([np.random.default_rng(length).integers(0, 256, length, np.uint8)], b"some note")
    assert reader.read(1).number == 1
    head, content_at = slots._head(1), slots._content_at + slots._stride_bytes
    # Begun and ended numbers and facts with the note, their own checksum, and the content.
    places = st.one_of(st.integers(head, head + 99), st.integers(content_at, content_at + length - 1))
    place, bit = data.draw(places), data.draw(st.integers(0, 7))
    slots._open_bytes()[place] ^= np.uint8(1 << bit)
    with pytest.raises((TornError, OverwrittenError)):
        reader.read(1)


@given(st.integers(0, 40_000), st.integers(0, 40_000))
def test_the_checksum_sees_frames_that_are_mixed(length: int, cut: int) -> None:
    before, after = (np.random.default_rng(seed).integers(0, 256, length, np.uint8) for seed in (1, 2))
    mixed = np.concatenate([after[:cut], before[cut:]])
    whole = np.array_equal(mixed, after)
    assert (checksum(mixed) == checksum(after)) == whole


@given(st.integers(1, 12), st.integers(1, 11))
def test_the_checksum_sees_a_shifted_frame(blocks: int, shift: int) -> None:
    content = np.random.default_rng(blocks).integers(0, 256, blocks * 4096, np.uint8)
    moved = np.roll(content, shift * 4096)
    assert (checksum(moved) == checksum(content)) == np.array_equal(moved, content)


def test_torn_frames_are_counted_and_never_given() -> None:
    ring = FrameRing(slots=4)
    reader, other = ring.subscribe(), ring.subscribe()
    for sequence in (1, 2, 3):
        ring.publish(frame(sequence))
    ring._slots._content(2)[17] ^= np.uint8(4)
    assert [one.sequence for one in (reader.next(), reader.next()) if one is not None] == [1, 3]
    assert (reader.torn, reader.missed) == (1, 0)
    ring.publish(frame(4))
    ring._slots._content(4)[0] ^= np.uint8(1)
    assert other.latest() is None and other.torn == 1


def _hammer(kills: int) -> dict[str, int]:
    program = ROOT / "tests" / "faults" / "torn_writer.py"
    done = subprocess.run(
        [sys.executable, str(program), str(kills)], capture_output=True, text=True, timeout=240, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("kills", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_writers_killed_in_the_middle(kills: int) -> None:
    counts = _hammer(kills)
    assert counts["kills"] == kills
    assert counts["whole"] > kills and counts["mixed"] == 0
    # The kills do hit the middle: without the checks these would have been shown.
    assert counts["half"] > kills // 2 and counts["careless"] > kills // 50
