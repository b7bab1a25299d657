"""vmkla.segment.overlay: markers where findings are, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.errors import UsageError
from vmkla.segment.contours import smooth_outlines
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.overlay import PALETTE_RGB, Label, OverlayStyle, draw, outline, paint
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
    reach_px = 4  # smoothing moves the edge of a disc by less than 1 px; a line of 1 px has 1 px of dark edge
    if style == "box":
        boxes = np.zeros(findings.mask.shape, np.uint8)
        for box in (region.box for region in findings.regions):
            ring = np.zeros_like(boxes)
            ring[box.y : box.y + box.h, box.x : box.x + box.w] = 1
            boxes |= near_edge(ring, reach_px - 1).view(np.uint8)
        allowed = boxes > 0
    else:
        allowed = near_edge(findings.mask, reach_px - 1 if style == "contour" else 1)
        if style == "fill":
            allowed |= findings.mask > 0
    changed = (drawn != frame).any(axis=2)
    assert changed.sum() > 100
    assert not (changed & ~allowed).any()


def test_contour_closes_around_each_region() -> None:
    frame, findings = scene()
    drawn = draw(np.zeros_like(frame), findings, "contour")
    line = drawn[..., 1] > 64  # green, and not the dark edge
    outside, labels = cv2.connectedComponents((~line).view(np.uint8), connectivity=4)
    assert outside == 4  # the rest of the frame, and the inside of each region: background is 0
    for box in (region.box for region in findings.regions):
        assert labels[box.y + box.h // 2, box.x + box.w // 2] != labels[0, 0]


def test_fill_blends_by_alpha() -> None:
    frame, findings = scene()
    drawn = draw(frame, findings, "fill", 0.25)
    inside = cv2.erode(findings.mask, np.ones((5, 5), np.uint8)) > 0
    wanted = 0.75 * frame[inside] + 0.25 * np.array(PALETTE_RGB[0])
    assert np.abs(drawn[inside] - wanted).max() <= 0.51


def test_lines_grow_with_the_frame() -> None:
    def marked(height: int, width: int) -> int:
        frame, findings = scene(height, width)
        return int((draw(np.zeros_like(frame), findings, "box")[..., 1] > 128).sum())

    assert marked(2160, 2880) / marked(540, 720) == pytest.approx(
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
            drawn = draw(frame, findings, style)
            assert drawn[19, 29, 1] > 60 and drawn[19, 29, 1] > 2 * drawn[19, 29, 0]  # green


def test_unknown_style() -> None:
    frame, findings = scene()
    with pytest.raises(UsageError, match="heatmap"):
        draw(frame, findings, "heatmap")  # type: ignore[arg-type]


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
@pytest.mark.parametrize("alpha", [None, 0.3])
@pytest.mark.parametrize("label", ["none", "probability", "lesion"])
def test_a_drawing_says_which_pixels_it_covers(
    style: OverlayStyle, alpha: float | None, label: Label
) -> None:
    frame, findings = scene()
    for value in (0, 255):  # whatever is under it, some pixels are changed and all others are kept
        frame[:] = value
        drawing = outline(findings, style, alpha, label, (1, 2))
        painted = paint(frame, drawing)
        covered = drawing.covered()
        assert (painted[covered] != value).any(axis=1).mean() > 0.75
        np.testing.assert_array_equal(painted[~covered], frame[~covered])


def test_a_line_is_light_and_its_edges_are_dark() -> None:
    """Legible on glare and in the dark: its colour, with near-black on both sides."""
    frame, findings = scene(480, 640)
    for value in (0, 255):
        drawn = draw(np.full_like(frame, value), findings, "box")
        box = findings.regions[0].box
        across = drawn[box.y + box.h // 2, box.x - 6 : box.x + 6].astype(int)  # (12, 3)
        line = int(np.argmax(across[:, 1] - across[:, 0]))
        assert np.abs(across[line] - PALETTE_RGB[0]).max() < 50
        assert max(across[:line].max(axis=1).min(), across[line + 1 :].max(axis=1).min()) < 128


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
def test_every_region_is_drawn_and_none_are_joined(style: OverlayStyle) -> None:
    """Specks, thin lines and close neighbours, none of which smoothing alone would keep."""
    mask = np.zeros((360, 480), np.uint8)
    boxes = [(20, 20, 1, 1), (40, 20, 2, 1), (60, 20, 1, 30), (100, 100, 60, 40), (100, 141, 60, 40)]
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = 1
    findings = find(mask[None].astype(np.float32), Rect(0, 0, 480, 360), mask.shape, OperatingPoint(0.5))
    drawing = outline(findings, style)
    assert len(findings.regions) == len(drawing.layers) == len(boxes)
    found, others = smooth_outlines(mask, 1, Rect(0, 0, 480, 360), most=8)
    assert {edge.box for edge in found} == {region.box for region in findings.regions} and not others
    covered = drawing.covered()
    for x, y, w, h in boxes:
        assert covered[y : y + h, x : x + w].any()


@pytest.mark.parametrize("style", ["contour", "fill", "box"])
def test_of_noise_everywhere_every_region_is_drawn(style: OverlayStyle) -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[4:236:8, 4:316:8] = 1  # 1131 single pixels
    findings = find(mask[None].astype(np.float32), Rect(0, 0, 320, 240), mask.shape, OperatingPoint(0.5))
    drawing = outline(findings, style, label="probability")
    assert len(findings.regions) == 1131 and len(drawing.shapes) == 33
    assert drawing.covered()[mask > 0].all()


def test_labels_state_the_probability_and_stay_in_the_frame() -> None:
    frame, findings = scene()
    plain, labelled = outline(findings), outline(findings, label="probability")
    assert [shape.text for shape in labelled.shapes] == ["100%", "100%"]
    text = labelled.covered() & ~plain.covered()
    assert text.sum() > 50
    painted = paint(frame, labelled)
    np.testing.assert_array_equal(
        painted[plain.covered() & ~text], paint(frame, plain)[plain.covered() & ~text]
    )
    with pytest.raises(UsageError, match="size"):
        outline(findings, label="size")  # type: ignore[arg-type]


def test_labels_show_the_number_of_the_lesion() -> None:
    _, findings = scene()
    labelled = outline(findings, label="lesion", lesions=(12, None))
    large = max(range(2), key=lambda index: len(labelled.shapes[index].paths[0]))
    assert [shape.text for shape in labelled.shapes] == (["#12", ""] if large == 0 else ["", "#12"])
    plain = outline(findings)
    text = labelled.covered() & ~plain.covered()
    assert text.sum() > 50
    assert not (outline(findings, label="lesion").covered() & ~plain.covered()).any()
    other = outline(findings, label="lesion", lesions=(13, None)).covered()
    assert (other != labelled.covered()).any()


def test_a_label_that_would_lie_on_another_is_left_out() -> None:
    mask = np.zeros((240, 320), np.uint8)
    mask[100:160, 50:150] = mask[97, 52] = 1
    findings = find(mask[None].astype(np.float32), Rect(0, 0, 320, 240), mask.shape, OperatingPoint(0.5))
    assert len(outline(findings, label="probability").layers) == 3  # two markers, one label


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
    missing[:, :2] = missing[:, -2:] = False
    assert not missing.any()
    # What lay beyond the frame's edge was never seen, and a line as wide as the edge may come in.
    assert (covered & ~wanted).sum() <= 5 * (height + width)
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
    mask = findings.mask > 0
    assert not ((drawing.covered() ^ mask) & ~near_edge(findings.mask, 1)).any()
    moved = drawing.moved(np.array([[1, 0, 10], [0, 1, 5]], np.float64))
    np.testing.assert_array_equal(moved.covered()[5:, 10:], drawing.covered()[:-5, :-10])


def test_a_moved_box_stays_upright() -> None:
    _, findings = scene()
    drawing = outline(findings, "box")
    turn = np.array([[1.1, 0.2, 0], [-0.2, 1.1, 0]])
    for before, after in zip(drawing.shapes, drawing.moved(turn).shapes, strict=True):
        sides = np.ptp(after.paths[0], axis=0) / np.ptp(before.paths[0], axis=0)
        np.testing.assert_allclose(sides, np.hypot(1.1, 0.2), rtol=1e-4)
        assert len(np.unique(after.paths[0].round(3)[:, 0])) == 2
