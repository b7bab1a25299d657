"""vmkla.segment.overlay: markers where findings are, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.errors import UsageError
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.overlay import PALETTE_RGB, OverlayStyle, draw, outline, paint
from vmkla.segment.preprocess import Rect

Image = npt.NDArray[np.uint8]


def scene(height: int = 240, width: int = 320, *, seed: int = 0) -> tuple[Image, Findings]:
    """A noisy frame, and two discs found in it, one of which leaves the frame."""
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    probability = np.zeros((1, height, width), np.float32)
    cv2.circle(probability[0], (width // 3, height // 2), height // 5, 1.0, -1)
    cv2.circle(probability[0], (width - 5, height // 4), height // 8, 1.0, -1)
    return frame, find(probability, Rect(0, 0, width, height), (height, width), OperatingPoint(0.5))


def near_edge(mask: Image, reach_px: int) -> npt.NDArray[np.bool_]:
    """Pixels within a reach of the mask's inner boundary: those with one of four neighbours outside."""
    kernel = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    edge = mask - cv2.erode(mask, kernel, borderValue=0)
    return np.asarray(cv2.dilate(edge, np.ones((2 * reach_px + 1,) * 2, np.uint8)) > 0)


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
@pytest.mark.parametrize("alpha", [None, 1.0, 0.3])
def test_only_the_marker_changes(style: OverlayStyle, alpha: float | None) -> None:
    frame, findings = scene()
    before = frame.copy()
    drawn = draw(frame, findings, style, alpha)
    np.testing.assert_array_equal(frame, before)
    allowed = {
        "contour": near_edge(findings.mask, 1),
        "fill": findings.mask > 0,
        "box": np.zeros(findings.mask.shape, bool),
    }[style]
    if style == "box":
        for box in (region.box for region in findings.regions):
            grown = np.zeros(findings.mask.shape, bool)
            grown[max(0, box.y - 1) : box.y + box.h + 1, max(0, box.x - 1) : box.x + box.w + 1] = True
            grown[box.y + 1 : box.y + box.h - 1, box.x + 1 : box.x + box.w - 1] = False
            allowed |= grown
    changed = (drawn != frame).any(axis=2)
    assert changed.sum() > 100
    assert not (changed & ~allowed).any()


def test_contour_closes_around_each_region() -> None:
    frame, findings = scene()
    drawn = draw(np.zeros_like(frame), findings, "contour")
    marker = (drawn == PALETTE_RGB[0]).all(axis=2)
    inner_edge = near_edge(findings.mask, 0)
    inside_frame = inner_edge.copy()
    inside_frame[:, -1] = False  # where a region leaves the frame there is no edge to draw
    assert (marker & inside_frame).sum() >= 0.99 * inside_frame.sum()


def test_fill_blends_by_alpha() -> None:
    frame, findings = scene()
    drawn = draw(frame, findings, "fill", 0.25)
    inside = findings.mask > 0
    wanted = 0.75 * frame[inside] + 0.25 * np.array(PALETTE_RGB[0])
    assert np.abs(drawn[inside] - wanted).max() <= 0.51


def test_lines_grow_with_the_frame() -> None:
    def marked(height: int, width: int) -> int:
        frame, findings = scene(height, width)
        return int((draw(np.zeros_like(frame), findings, "box") > 0).any(axis=2).sum())

    assert marked(960, 1280) / marked(240, 320) == pytest.approx(
        16, rel=0.25
    )  # four times as long and as wide


def test_classes_have_colours_of_their_own() -> None:
    probability = np.zeros((3, 40, 60), np.float32)
    probability[0] = 0.5
    probability[1, 5:20, 5:20] = probability[2, 22:35, 30:50] = 0.9
    findings = find(probability, Rect(0, 0, 60, 40), (40, 60), OperatingPoint(0.5))
    drawn = draw(np.zeros((40, 60, 3), np.uint8), findings, "fill", 1.0)
    assert tuple(drawn[10, 10]) == PALETTE_RGB[0] and tuple(drawn[28, 40]) == PALETTE_RGB[1]


@pytest.mark.parametrize("style", ["contour", "fill", "box", "none"])
def test_nothing_found_nothing_drawn(style: OverlayStyle) -> None:
    frame, _ = scene()
    nothing = find(np.zeros((1, 4, 4), np.float32), Rect(0, 0, 320, 240), (240, 320), OperatingPoint(0.5))
    np.testing.assert_array_equal(draw(frame, nothing, style), frame)


def test_none_draws_nothing() -> None:
    frame, findings = scene()
    np.testing.assert_array_equal(draw(frame, findings, "none", 1.0), frame)


def test_a_finding_of_the_whole_frame_and_of_one_pixel() -> None:
    frame = np.zeros((20, 30, 3), np.uint8)
    for probability in (np.ones((1, 20, 30), np.float32), np.zeros((1, 20, 30), np.float32)):
        probability[0, 19, 29] = 1
        findings = find(probability, Rect(0, 0, 30, 20), (20, 30), OperatingPoint(0.9))
        for style in ("contour", "fill", "box"):
            assert (draw(frame, findings, style)[19, 29] == PALETTE_RGB[0]).all() or style == "fill"
            assert draw(frame, findings, style)[19, 29].any()


def test_unknown_style() -> None:
    frame, findings = scene()
    with pytest.raises(UsageError, match="heatmap"):
        draw(frame, findings, "heatmap")  # type: ignore[arg-type]


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
def test_a_drawing_says_which_pixels_it_covers(style: OverlayStyle) -> None:
    frame, findings = scene()
    drawing = outline(findings, style, 1.0)
    painted = paint(frame, drawing)
    covered = drawing.covered()
    np.testing.assert_array_equal(painted[covered], np.full((covered.sum(), 3), PALETTE_RGB[0]))
    np.testing.assert_array_equal(painted[~covered], frame[~covered])


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
@pytest.mark.parametrize("shift", [(0, 0), (7, -4), (-60, 30), (300, 0), (-1000, 5)])
def test_a_drawing_moves(style: OverlayStyle, shift: tuple[int, int]) -> None:
    frame, findings = scene()
    height, width = findings.mask.shape
    drawing = outline(findings, style)
    moved = drawing.moved(np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64))
    wide = np.zeros((height + 2000, width + 2000), np.bool_)
    wide[1000 + shift[1] : 1000 + shift[1] + height, 1000 + shift[0] : 1000 + shift[0] + width] = (
        drawing.covered()
    )
    wanted = wide[1000 : 1000 + height, 1000 : 1000 + width]
    covered = moved.covered()
    missing = wanted & ~covered
    missing[:, [0, -1]] = False
    assert not missing.any()
    # What lay beyond the frame's edge was never seen, and a line as wide as the edge may come in.
    assert (covered & ~wanted).sum() <= 2 * (height + width)
    painted = paint(frame, moved)
    np.testing.assert_array_equal(painted[~covered], frame[~covered])
    if abs(shift[0]) > width:
        assert painted is frame


def test_holes_stay_holes_when_a_drawing_moves() -> None:
    probability = np.zeros((1, 90, 120), np.float32)
    cv2.circle(probability[0], (60, 45), 30, 1.0, -1)
    cv2.circle(probability[0], (60, 45), 12, 0.0, -1)
    findings = find(probability, Rect(0, 0, 120, 90), (90, 120), OperatingPoint(0.5))
    drawing = outline(findings, "fill")
    np.testing.assert_array_equal(drawing.covered(), findings.mask > 0)
    moved = drawing.moved(np.array([[1, 0, 10], [0, 1, 5]], np.float64))
    np.testing.assert_array_equal(moved.covered()[5:, 10:], (findings.mask > 0)[:-5, :-10])
