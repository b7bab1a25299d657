"""vmkla.video.live.markers.marker_board: a marker only where and while it belongs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.segment import overlay
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.overlay import OverlayStyle
from vmkla.segment.preprocess import Rect
from vmkla.video.live.frame import LiveFrame, LiveResult
from vmkla.video.live.markers.marker_board import Marker, MarkerBoard
from vmkla.video.media.clip import render_clip

Image = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 120, 160
FPS = 30


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(120 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def live_frames(images: Sequence[Image], first: int = 1) -> list[LiveFrame]:
    """Frames as a source of 30 a second gives them."""
    return [LiveFrame(first + index, 50 + (first + index) / FPS, rgb) for index, rgb in enumerate(images)]


def disc(height: int = HEIGHT, width: int = WIDTH, *, at: tuple[int, int] = (80, 60)) -> Findings:
    probability = np.zeros((1, height, width), np.float32)
    cv2.circle(probability[0], at, 20, 1.0, -1)
    return find(probability, Rect(0, 0, width, height), (height, width), OperatingPoint(0.5))


def nothing() -> Findings:
    return find(
        np.zeros((1, 4, 4), np.float32), Rect(0, 0, WIDTH, HEIGHT), (HEIGHT, WIDTH), OperatingPoint(0.5)
    )


def result(frame: LiveFrame, findings: Findings) -> LiveResult:
    height, width = findings.mask.shape
    finished_s = frame.captured_s + 0.03
    return LiveResult(frame.sequence, frame.captured_s, finished_s, (height, width), findings, {})


def still(count: int, seed: int = 0) -> list[LiveFrame]:
    """A source whose camera does not move, with its noise."""
    base = texture(seed).astype(np.int16)
    rng = np.random.default_rng(seed)
    noisy = [np.clip(base + rng.integers(-3, 4, base.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    return live_frames(noisy)


def shown(board: MarkerBoard, frame: LiveFrame, marker: Marker | None) -> tuple[Image, Marker | None]:
    """Draw, and hold the board to what it must never do."""
    before = frame.rgb.copy()
    rgb, drawn = board.draw(frame, marker)
    np.testing.assert_array_equal(frame.rgb, before)
    touched = (rgb != before).any(axis=2)
    allowed = np.zeros(touched.shape, bool) if drawn is None else drawn.drawing.covered()
    assert not (touched & ~allowed).any()
    return rgb, drawn


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
@pytest.mark.parametrize("alpha", [None, 0.3])
def test_on_its_own_frame_it_is_what_file_mode_draws(style: OverlayStyle, alpha: float | None) -> None:
    board = MarkerBoard(style, alpha)
    (frame,) = still(1)
    rgb, drawn = shown(board, frame, board.prepare(result(frame, disc())))
    np.testing.assert_array_equal(rgb, overlay.draw(frame.rgb, disc(), style, alpha))
    assert drawn is not None and drawn.sequence == frame.sequence
    assert (rgb != frame.rgb).any()


def test_without_a_marker_the_frame_itself_is_shown() -> None:
    board = MarkerBoard()
    for frame in still(3):
        rgb, drawn = board.draw(frame, None)
        assert rgb is frame.rgb and drawn is None


def test_a_result_without_findings_covers_the_frame_and_draws_nothing() -> None:
    board = MarkerBoard()
    first, second = still(2)
    marker = None
    for frame in (first, second):
        marker = marker or board.prepare(result(first, nothing()))
        rgb, drawn = board.draw(frame, marker)
        assert rgb is frame.rgb
        assert drawn is not None and drawn.sequence == first.sequence


@pytest.mark.parametrize("motion", [True, False])
def test_it_stays_for_the_time_given_and_no_longer(motion: bool) -> None:
    board = MarkerBoard(max_staleness_s=0.12, motion=motion)
    clip = still(6)
    marker = board.prepare(result(clip[0], disc()))
    drawn = [shown(board, frame, marker)[1] is not None for frame in clip]
    assert drawn == [True, True, True, True, False, False]  # 0, 33, 67, 100 ms; then 133 and 167
    assert dict(board.cleared) == {"stale": 2}


def test_staleness_zero_draws_on_the_own_frame_only() -> None:
    board = MarkerBoard(max_staleness_s=0)
    first, second = still(2)
    marker = board.prepare(result(first, disc()))
    assert shown(board, first, marker)[1] is not None
    assert shown(board, second, marker)[1] is None


def test_never_on_an_earlier_frame() -> None:
    board = MarkerBoard()
    first, second = still(2)
    assert shown(board, first, board.prepare(result(second, disc())))[1] is None
    assert dict(board.cleared) == {"stale": 1}


def test_a_cut_clears_it_for_good() -> None:
    board = MarkerBoard(motion=False, max_staleness_s=1)
    clip = still(3)
    other = live_frames([texture(9), texture(9)], first=4)
    back = live_frames([frame.rgb for frame in clip], first=6)
    marker = board.prepare(result(clip[1], disc()))
    drawn = [shown(board, frame, marker)[1] is not None for frame in [*clip[1:], *other, *back]]
    assert drawn == [True, True, False, False, False, False, False]
    assert dict(board.cleared) == {"scene": 5}
    fresh = board.prepare(result(back[2], disc()))
    assert shown(board, back[2], fresh)[1] is not None


def test_a_cut_that_no_marker_was_there_for_counts_too() -> None:
    board = MarkerBoard(max_staleness_s=1)
    clip = still(2)
    for frame in [*clip, *live_frames([texture(9)], first=3)]:
        shown(board, frame, None)
    (same_as_first,) = live_frames([clip[0].rgb], first=4)
    assert shown(board, same_as_first, board.prepare(result(clip[0], disc())))[1] is None


def test_a_slow_but_large_change_clears_it() -> None:
    """No two neighbours are a cut, but what is left has little to do with the marker's frame."""
    board = MarkerBoard(motion=False, max_staleness_s=1)
    first = texture(1).astype(np.float32)
    last = 255 - first
    shares = np.linspace(0, 1, 12)
    clip = live_frames([(first * (1 - share) + last * share).astype(np.uint8) for share in shares])
    marker = board.prepare(result(clip[0], disc()))
    drawn = [shown(board, frame, marker)[1] is not None for frame in clip]
    assert drawn[:3] == [True] * 3 and not drawn[-1]
    assert drawn == sorted(drawn, reverse=True), "once cleared it does not come back"
    assert set(board.cleared) == {"scene"}


def test_black_frames_clear_it() -> None:
    board = MarkerBoard(max_staleness_s=1)
    first, second = still(2)
    marker = board.prepare(result(first, disc()))
    assert shown(board, first, marker)[1] is not None
    (black,) = live_frames([np.zeros_like(first.rgb)], first=second.sequence)
    assert shown(board, black, marker)[1] is None


def test_another_size_clears_it_for_good() -> None:
    board = MarkerBoard(max_staleness_s=1)
    clip = still(3)
    marker = board.prepare(result(clip[0], disc()))
    assert shown(board, clip[0], marker)[1] is not None
    (larger,) = live_frames([np.asarray(cv2.resize(clip[1].rgb, (2 * WIDTH, 2 * HEIGHT)), np.uint8)], first=2)
    assert shown(board, larger, marker)[1] is None
    assert shown(board, clip[2], marker)[1] is None
    assert dict(board.cleared) == {"size": 1, "scene": 1}


def test_a_marker_of_a_frame_that_never_went_by() -> None:
    board = MarkerBoard()
    clip = still(3)
    marker = board.prepare(result(clip[1], disc()))
    shown(board, clip[0], None)
    assert shown(board, clip[2], marker)[1] is None
    assert dict(board.cleared) == {"unknown": 1}


def test_a_given_thumbnail_stands_in_for_the_frame() -> None:
    from vmkla.procedures.scene import thumbnail

    board = MarkerBoard()
    first, second = still(2)
    marker = board.prepare(result(first, disc()), thumbnail(first.rgb))
    assert shown(board, second, marker)[1] is not None


def test_after_clear_nothing_of_before_is_drawn() -> None:
    board = MarkerBoard()
    clip = still(3)
    marker = board.prepare(result(clip[0], disc()))
    assert shown(board, clip[0], marker)[1] is not None
    board.clear()
    assert shown(board, clip[1], marker)[1] is None
    assert shown(board, clip[2], board.prepare(result(clip[1], disc())))[1] is not None


def test_it_moves_along_with_what_it_marks() -> None:
    wide = texture(3, HEIGHT, WIDTH + 40)
    clip = live_frames([np.ascontiguousarray(wide[:, 5 * i : 5 * i + WIDTH]) for i in range(4)])
    board = MarkerBoard("fill", 1.0)
    marker = board.prepare(result(clip[0], disc()))
    for index, frame in enumerate(clip):
        _, drawn = shown(board, frame, marker)
        assert drawn is not None and drawn.sequence == 1
        wanted = disc(at=(80 - 5 * index, 60)).mask > 0
        covered = drawn.drawing.covered()
        assert 2 * (covered & wanted).sum() / (covered.sum() + wanted.sum()) > 0.95


def test_when_it_cannot_be_found_again_it_is_not_drawn() -> None:
    """Something comes between the lens and the polyp, too small to be another scene."""
    first, second = still(2)
    covered = second.rgb.copy()
    covered[30:95, 48:115] = np.roll(texture(11), 40, axis=2)[30:95, 48:115]
    (hidden,) = live_frames([covered], first=2)
    for motion, wanted in ((True, None), (False, 1)):
        board = MarkerBoard(motion=motion)
        marker = board.prepare(result(first, disc()))
        assert shown(board, first, marker)[1] is not None
        drawn = shown(board, hidden, marker)[1]
        assert (None if drawn is None else drawn.sequence) == wanted
        assert dict(board.cleared) == ({} if wanted else {"motion": 1})


def test_rendered_polyps_are_better_marked_with_motion_than_without() -> None:
    """The reason for the default: the same figure as in benchmarks/live/results.md, in short."""
    clip = list(render_clip(1, 180, 240, 5))
    seen = live_frames([rgb for rgb, _ in clip])
    dice = {}
    for motion in (False, True):
        board = MarkerBoard("fill", 1.0, max_staleness_s=1, motion=motion)
        truth = [
            find(mask[None] / np.float32(255), Rect(0, 0, 240, 180), (180, 240), OperatingPoint(0.5))
            for _, mask in clip
        ]
        marker = board.prepare(result(seen[0], truth[0]))
        for frame in seen:
            _, drawn = shown(board, frame, marker)
        assert drawn is not None
        covered, wanted = drawn.drawing.covered(), truth[-1].mask > 0
        dice[motion] = 2 * (covered & wanted).sum() / (covered.sum() + wanted.sum())
    assert dice[True] > dice[False] + 0.2


def test_markers_are_prepared_in_another_thread_while_frames_are_drawn() -> None:
    board = MarkerBoard(max_staleness_s=10)
    clip = still(60)
    newest: list[Marker] = []
    seen: list[LiveFrame] = []
    stop = threading.Event()
    failures: list[BaseException] = []

    def prepare() -> None:
        try:
            while not stop.is_set():
                if seen:
                    newest[:] = [board.prepare(result(seen[-1], disc()))]
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    try:
        drawn = 0
        for frame in clip:
            drawn += shown(board, frame, newest[0] if newest else None)[1] is not None
            seen.append(frame)
            if not newest:
                stop.wait(0.02)
    finally:
        stop.set()
        thread.join()
    assert not failures and drawn > 10 and not board.cleared
