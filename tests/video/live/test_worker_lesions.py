"""Lesions in the worker: numbers outlive it, failures are reported, and the state stays small."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.procedures.scripted import HEIGHT, WIDTH, Disc, region, render
from vmkla.procedures.events import Event
from vmkla.procedures.scene import thumbnail
from vmkla.procedures.stills import Stills
from vmkla.procedures.tracker_state import MAX_LESIONS, TrackerState
from vmkla.segment.findings import Findings, Region
from vmkla.segment.preprocess import Rect
from vmkla.video.live.frame import FrameLesions, LiveFrame
from vmkla.video.live.network.lesions import TRACKER_BYTES, KeptTracker, WorkerLesions
from vmkla.video.live.network.options import StillOptions
from vmkla.video.live.shared_memory.board import Board

BOTH = (Disc("left", 80, 120, 30), Disc("right", 240, 120, 20))


@pytest.fixture
def board() -> Iterator[Board]:
    with contextlib.closing(Board(TRACKER_BYTES)) as made:
        yield made


def see(lesions: WorkerLesions, time_s: float, discs: tuple[Disc, ...]) -> FrameLesions:
    """Track a frame with these discs, all of which are found."""
    rgb = render(discs)
    regions = tuple(
        region(disc.x - disc.radius, disc.y - disc.radius, 2 * disc.radius, 2 * disc.radius) for disc in discs
    )
    return track(lesions, time_s, rgb, regions)


def track(
    lesions: WorkerLesions, time_s: float, rgb: np.ndarray, regions: tuple[Region, ...]
) -> FrameLesions:
    height_px, width_px = rgb.shape[:2]
    mask = np.zeros((height_px, width_px), np.uint8)
    for one in regions:
        mask[one.box.y : one.box.y + one.box.h, one.box.x : one.box.x + one.box.w] = 1
    whole = tuple(replace(one, area_px=one.box.w * one.box.h) for one in regions)
    findings = Findings(mask, whole)
    return lesions.track(LiveFrame(1, time_s, rgb), findings, Rect(0, 0, width_px, height_px), thumbnail(rgb))


def after_both(board: Board) -> KeptTracker:
    """What is left of a worker that saw both discs, number 1 and 2, until second 101."""
    first = WorkerLesions(KeptTracker(), board)
    for step in range(31):
        assert see(first, 100 + step / 30, BOTH).numbers == (1, 2)
    state = board.read()
    assert state is not None
    return KeptTracker(state, next_number=3)


@pytest.mark.parametrize("outage_s", [0.1, 0.9, 1.9, 2.5, 9.0])
def test_numbers_outlive_a_worker(board: Board, outage_s: float) -> None:
    second = WorkerLesions(after_both(board), board)
    first_s = 101 + outage_s
    assert see(second, first_s, BOTH[1:]) == FrameLesions((2,), poor="blur")  # the wall is smooth
    # A lesion that is hidden when the worker is back is still waited for, until the tracker's own limit.
    for step in range(1, 15):
        assert see(second, first_s + step / 30, BOTH[1:]).events == ()
    assert see(second, first_s + 0.6, BOTH).numbers == (1, 2)


def test_after_a_long_outage_lesions_are_new_and_numbers_are_not_taken_twice(board: Board) -> None:
    found = see(WorkerLesions(after_both(board), board), 112.0, BOTH)
    assert found.numbers == (3, 4) and Event("jump") in found.events and not found.failure


def test_a_lost_state_gives_new_numbers(board: Board) -> None:
    assert see(WorkerLesions(KeptTracker(b"", 7), board), 0.0, BOTH).numbers == (7, 8)


@pytest.mark.parametrize("state", [b"{", b"\xff", b"[]", b"{}", b'{"next_number": 0}'])
def test_a_damaged_state_is_reported_once(board: Board, state: bytes) -> None:
    lesions = WorkerLesions(KeptTracker(state, 7), board)
    found = see(lesions, 0.0, BOTH)
    assert found.numbers == (7, 8) and "state" in found.failure
    assert see(lesions, 0.1, BOTH) == FrameLesions((7, 8), poor="blur")


def test_a_failure_costs_numbers_and_no_finding(board: Board) -> None:
    lesions = WorkerLesions(KeptTracker(), board)
    assert see(lesions, 0.0, BOTH).numbers == (1, 2)
    failed = see(lesions, float("nan"), BOTH)
    assert failed.numbers == (None, None) and failed.events == (Event("jump"),)
    assert failed.failure.startswith("UsageError: the time of a frame is nan")
    assert see(lesions, 0.1, BOTH).numbers == (3, 4)


def test_the_state_stays_small(board: Board) -> None:
    rng = np.random.default_rng(0)
    lesions = WorkerLesions(KeptTracker(), board)
    frame = np.repeat(np.repeat(render(()), 2, axis=0), 2, axis=1)[:360]  # 16:9
    for step in range(40):
        regions = tuple(region(int(x), int(y), 12, 12) for x, y in rng.integers(0, (600, 340), (32, 2)))
        track(lesions, step / 30, frame, regions)
    state = board.read()
    assert state is not None and len(state) < 100_000
    assert len(TrackerState.from_dict(json.loads(state)).lesions) == MAX_LESIONS


def test_a_frame_of_extreme_proportions_leaves_its_state_without_pictures(board: Board) -> None:
    lesions = WorkerLesions(KeptTracker(), board)
    assert track(lesions, 0.0, np.full((100, 40_000, 3), 90, np.uint8), (region(5, 5, 9, 9),)).numbers == (1,)
    state = board.read()
    assert state is not None
    kept = TrackerState.from_dict(json.loads(state))
    assert kept.scene is None and [lesion.number for lesion in kept.lesions] == [1]


def test_poor_pictures_are_named(board: Board) -> None:
    lesions = WorkerLesions(KeptTracker(), board)
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert track(lesions, 0.0, black, ()).poor == "black"
    assert see(lesions, 0.5, BOTH).poor == "blur"
    noise = np.random.default_rng(0).integers(60, 200, (HEIGHT, WIDTH, 3), np.uint8)
    poor = [track(lesions, 1 + step / 2, noise, ()).poor for step in range(4)]
    assert poor == [None, None, "frozen", "frozen"]


def still_files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.jpg")}


def finish(lesions: WorkerLesions) -> None:
    lesions.close(20)
    assert not lesions._stills or not lesions._stills._thread.is_alive()


def see_slowly(lesions: WorkerLesions, time_s: float, discs: tuple[Disc, ...]) -> None:
    """A frame of which the still is taken, however slow the machine is."""
    see(lesions, time_s, discs)
    keeper = lesions._stills
    assert keeper is not None
    until = time.monotonic() + 20
    while not keeper._offers.empty() and time.monotonic() < until:
        time.sleep(0.002)


def test_stills_outlive_a_worker_and_the_best_one_stays(board: Board, tmp_path: Path) -> None:
    options = StillOptions(folder=tmp_path)
    first = WorkerLesions(KeptTracker(), board, options)
    see_slowly(first, 100.0, BOTH)
    finish(first)
    partial = tmp_path / ".lesions.partial"
    names = {"0001.jpg", "0001.marked.jpg", "0002.jpg", "0002.marked.jpg"}
    assert still_files(partial) == names and partial.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in partial.iterdir()} == {0o600}
    before = {name: (partial / name).read_bytes() for name in names}
    state = board.read()
    assert state is not None
    second = WorkerLesions(KeptTracker(state, 3), board, options)
    small, large = Disc("left", 80, 120, 24), Disc("right", 240, 120, 26)  # one is shown worse, one better
    see_slowly(second, 100.5, (large, small))
    finish(second)
    assert (partial / "0001.jpg").read_bytes() == before["0001.jpg"]
    assert (partial / "0002.jpg").read_bytes() != before["0002.jpg"]
    kept = Stills(tmp_path)
    kept.resume(90.0)
    kept.finish({})
    left, right = kept.of(1), kept.of(2)
    assert left is not None and right is not None and (left.time_s, right.time_s) == (10.0, 10.5)
    assert left.box == Rect(50, 90, 60, 60) and right.box == Rect(214, 94, 52, 52)
    assert still_files(tmp_path / "lesions") == names and not partial.exists()


def test_what_is_to_be_hidden_is_black_in_stills(board: Board, tmp_path: Path) -> None:
    lesions = WorkerLesions(KeptTracker(), board, StillOptions((Rect(50, 90, 30, 60),), tmp_path))
    see_slowly(lesions, 0.0, BOTH[:1])
    finish(lesions)
    crop = cv2.imread(str(tmp_path / ".lesions.partial" / "0001.jpg"))
    # The crop begins 16 pixels before the box of 60 pixels, and is enlarged to 320 pixels for 92.
    left, right = crop[150:170, 70:150], crop[150:170, 170:250]
    assert left.max() < 30 and right.min(axis=(0, 1)).max() > 30


def test_a_full_disk_costs_stills_only(board: Board, tmp_path: Path) -> None:
    (tmp_path / ".lesions.partial").write_text("in the way")
    lesions = WorkerLesions(KeptTracker(), board, StillOptions(folder=tmp_path))
    see(lesions, 0.0, BOTH)
    keeper = lesions._stills
    assert keeper is not None
    lesions.close(20)
    found = [see(lesions, 0.1, BOTH), see(lesions, 0.2, BOTH)]
    assert [one.numbers for one in found] == [(1, 2), (1, 2)]
    assert found[0].failure.startswith("no more stills: BadInputError") and not found[1].failure


def test_a_disk_that_hangs_does_not_hold_up_the_tracker(board: Board, tmp_path: Path) -> None:
    """The index of the stills is a pipe that nobody reads, so that opening it never returns."""
    (tmp_path / ".lesions.partial").mkdir()
    lesions = WorkerLesions(KeptTracker(), board, StillOptions(folder=tmp_path))
    os.mkfifo(tmp_path / ".lesions.partial" / "index.jsonl")
    for step in range(40):
        assert see(lesions, step / 3, BOTH if step < 5 else BOTH[:1]).numbers[0] == 1
    began = time.monotonic()
    lesions.close(0.2)
    assert time.monotonic() - began < 5
    keeper = lesions._stills
    assert keeper is not None and keeper._thread.is_alive() and keeper._offers.full()
