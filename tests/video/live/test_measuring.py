"""The screen that measures sees what it must see: one wrong pixel, one strange frame, one late marker."""

from __future__ import annotations

import io
import json
import time
import zlib

import numpy as np
import numpy.typing as npt
import pytest

from vmkla.segment.findings import Findings, Region
from vmkla.segment.overlay import PALETTE_RGB, OverlayStyle, draw, outline, paint
from vmkla.segment.preprocess import Rect
from vmkla.video.live.conformance.measuring import MeasuringScreen, wrong_pixels
from vmkla.video.live.frame import AiState, LiveFrame, LiveStatus, SignalState
from vmkla.video.live.markers.marker_board import Marker
from vmkla.video.live.screen import Shown

Image = npt.NDArray[np.uint8]
HW = (40, 60)
ON = LiveStatus(AiState.ON)


def image(seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 250, (*HW, 3), np.uint8)


def findings() -> Findings:
    mask = np.zeros(HW, np.uint8)
    mask[10:30, 15:40] = 1
    return Findings(mask, (Region(Rect(15, 10, 25, 20), 500, 1, 0.9, 0.9),), 0.9)


def shown(
    sequence: int, rgb: Image, source: Image, marker: Marker | None = None, age_s: float = 0.01
) -> Shown:
    frame = LiveFrame(sequence, time.monotonic() - age_s, source)
    return Shown(
        sequence, rgb, frame, ON, marker_sequence=None if marker is None else marker.sequence, marker=marker
    )


@pytest.mark.parametrize(("style", "alpha"), [("contour", None), ("box", None), ("fill", 0.4)])
def test_a_markers_own_pixels_are_not_wrong(style: OverlayStyle, alpha: float | None) -> None:
    source = image()
    drawing = outline(findings(), style, alpha)
    marked = paint(source, drawing)
    assert np.any(marked != source)
    assert wrong_pixels(marked, source, drawing) == 0


@pytest.mark.parametrize(("style", "alpha"), [("contour", None), ("box", None), ("fill", 0.4)])
def test_every_changed_pixel_is_seen(style: OverlayStyle, alpha: float | None) -> None:
    source = image()
    drawing = outline(findings(), style, alpha)
    spoilt = paint(source, drawing)
    spoilt[0, 0, 2] ^= 1  # one bit of one channel, outside the marker
    spoilt[-1, -1, 0] ^= 128
    assert wrong_pixels(spoilt, source, drawing) == 2
    y, x = np.argwhere(drawing.covered())[20]
    spoilt[y, x, 1] ^= 1  # and one inside
    assert wrong_pixels(spoilt, source, drawing) == 3


def test_a_marker_elsewhere_is_wrong() -> None:
    source = image()
    drawing = outline(findings())
    moved = drawing.moved(np.array([[1, 0, 20], [0, 1, 0]], np.float64))
    assert wrong_pixels(paint(source, moved), source, drawing) > 50


def test_without_a_marker_a_markers_colour_is_wrong_too() -> None:
    source = image()
    spoilt = source.copy()
    spoilt[5, 5] = PALETTE_RGB[0]
    assert wrong_pixels(spoilt, source, None) == 1


def test_another_size_is_wrong_everywhere() -> None:
    source = image()
    assert wrong_pixels(source[:-1], source, outline(findings())) == (HW[0] - 1) * HW[1]


def test_delays_are_of_the_first_frame_with_the_marker() -> None:
    screen, source = MeasuringScreen(), image()
    screen.show(shown(1, source, source, age_s=0.010))
    marker = Marker(1, 0.0, outline(findings()))
    marked = draw(source, findings())
    screen.show(shown(2, marked, source, marker))
    screen.show(shown(3, marked, source, marker))
    measured = screen.phases["all"]
    assert measured.shown == 3 and measured.marked == 2
    assert measured.marker_delay_ms.count == 1
    assert measured.first_video_delay_ms is not None and measured.first_video_delay_ms >= 10
    assert measured.first_marker_delay_ms is not None and measured.first_marker_delay_ms >= 10
    assert measured.wrong_pixels == 0


def test_frames_twice_or_out_of_order_are_counted_and_not_timed() -> None:
    screen, source = MeasuringScreen(), image()
    for sequence in (1, 3, 3, 2, 4):
        screen.show(shown(sequence, source, source))
    assert screen.phases["all"].disordered == 2
    assert screen.phases["all"].video_delay_ms.count == 3


def test_a_frame_that_the_source_has_not_is_a_stranger() -> None:
    known = frozenset({zlib.crc32(image(0).tobytes())})
    screen = MeasuringScreen(known=known)
    screen.show(shown(1, image(0), image(0)))
    assert screen.phases["all"].strangers == 0
    screen.show(shown(2, image(1), image(1)))
    assert screen.phases["all"].strangers == 1


def test_what_stands_in_for_a_lost_signal_must_be_black() -> None:
    lost = LiveStatus(AiState.OFF, "no signal", SignalState.LOST)
    screen = MeasuringScreen()
    words = np.zeros((*HW, 3), np.uint8)
    words[20:22, 10:50] = 200
    screen.show(Shown(0, words, None, lost))
    assert screen.phases["all"].wrong_pixels == 0 and screen.phases["all"].replaced == 1
    for frame in (image(), np.repeat(image()[..., :1], 3, axis=2)):  # of the source, in colour and in grey
        before = screen.phases["all"].wrong_pixels
        screen.show(Shown(0, frame, None, lost))
        assert screen.phases["all"].wrong_pixels > before


def test_each_phase_has_figures_of_its_own() -> None:
    screen, source = MeasuringScreen(phase="warm"), image()
    screen.show(shown(1, source, source))
    screen.phase = "after"
    screen.show(shown(2, source, source, age_s=0.05))
    assert screen.phases["warm"].shown == screen.phases["after"].shown == 1
    assert screen.phases["after"].first_video_delay_ms is not None
    assert screen.phases["after"].first_video_delay_ms >= 50
    assert screen.phases["after"].gap_ms.count == 0  # the gap belongs to neither


def test_the_log_has_a_line_for_each_frame() -> None:
    log, source = io.StringIO(), image()
    screen = MeasuringScreen(log=log)
    screen.show(shown(7, source, source))
    line = json.loads(log.getvalue())
    assert line["sequence"] == 7 and line["ai"] == "on" and line["wrong_pixels"] == 0
    assert line["crc32"] == zlib.crc32(source.tobytes())
