"""Matching lesions with regions: touching lesions, shared findings, and what is left of a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.evaluation.colour_runners import ClassRunner, Labelled, RedRunner, labelled
from tests.evaluation.slow_count import flood
from vmkla.evaluation import judge
from vmkla.evaluation.lesions import LesionMatch, only
from vmkla.segment.findings import find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect

Mask = npt.NDArray[np.uint8]


def boxes(*placed: tuple[int, int, int, int], value: int = 1) -> Mask:
    """Rectangles (top, left, height, width) in an image of 20 x 20."""
    mask = np.zeros((20, 20), np.uint8)
    for y, x, h, w in placed:
        mask[y : y + h, x : x + w] = value
    return mask


def matched(truth: Mask, found: Mask, point: OperatingPoint | None = None) -> LesionMatch:
    """Match a truth with what a network of one class marks with a probability of 1."""
    result, _ = judge(RedRunner(20, 20), labelled("x", found > 0, truth), point or OperatingPoint(0.5))
    return result.lesions


def test_a_finding_over_two_lesions_finds_both() -> None:
    both = matched(boxes((2, 2, 4, 4), (2, 10, 4, 4)), boxes((3, 3, 1, 10)))
    assert [lesion.found for lesion in both.lesions] == [True, True] and both.false_regions == ()
    assert [lesion.fraction for lesion in both.lesions] == [16 / 400, 16 / 400] and both.found == 2


def test_a_lesion_under_two_findings_is_found_once_and_neither_is_false() -> None:
    once = matched(boxes((2, 2, 4, 14)), boxes((3, 3, 2, 2), (3, 10, 2, 2)))
    assert once.found == len(once.lesions) == 1 and once.false_regions == ()


def test_lesions_that_touch_at_a_corner_are_one() -> None:
    corner = matched(boxes((2, 2, 4, 4), (6, 6, 4, 4)), boxes((2, 2, 1, 1)))
    assert [lesion.found for lesion in corner.lesions] == [True]
    apart = matched(boxes((2, 2, 4, 4), (7, 6, 4, 4)), boxes((2, 2, 1, 1)))
    assert [lesion.found for lesion in apart.lesions] == [True, False]


def test_one_shared_pixel_finds_and_a_touching_edge_does_not() -> None:
    truth = boxes((5, 5, 5, 5))
    assert matched(truth, boxes((9, 9, 6, 6))).found == 1
    beside = matched(truth, boxes((10, 10, 6, 6)))
    assert beside.found == 0 and len(beside.false_findings) == 1
    assert beside.lesions[0].peak is None


def test_classes_that_touch_are_lesions_of_their_own_and_another_class_finds_nothing() -> None:
    truth = boxes((2, 2, 4, 4)) + boxes((2, 6, 4, 4), value=2)
    runner = ClassRunner(20, 20, ("background", "a", "b"))
    found = boxes((2, 2, 4, 8), value=2)  # over both, of the second class
    result, _ = judge(runner, labelled("x", found, truth), OperatingPoint(0.5))
    assert [(lesion.class_index, lesion.found) for lesion in result.lesions.lesions] == [
        (1, False),
        (2, True),
    ]
    assert result.lesions.false_regions == ()
    result, _ = judge(runner, labelled("x", boxes((2, 2, 4, 4), value=2), truth), OperatingPoint(0.5))
    assert result.lesions.found == 0
    assert [region.class_index for region in result.lesions.false_findings] == [2]


def test_the_point_decides_what_finds_and_what_is_false() -> None:
    truth = boxes((2, 2, 4, 4), (2, 10, 4, 4))
    red = boxes((2, 2, 2, 2), value=204) + boxes((2, 10, 4, 4), value=255)  # 0.8 and 1
    red += boxes((12, 2, 4, 4), value=230) + boxes((12, 12, 1, 1), value=255)
    image = Labelled("x", np.repeat(red[..., None], 3, axis=2), truth)

    def at(point: OperatingPoint) -> LesionMatch:
        return judge(RedRunner(20, 20), image, point)[0].lesions

    everything = at(OperatingPoint(0.5))
    assert everything.found == 2 and len(everything.false_findings) == 2
    assert everything.highest_false is not None and everything.highest_false.peak == 1.0
    high = at(OperatingPoint(0.5, 0.95))
    assert [lesion.found for lesion in high.lesions] == [False, True] and len(high.false_findings) == 1
    assert [lesion.peak for lesion in high.lesions] == [np.float32(0.8), 1.0], "kept for the curve"
    assert len(high.false_regions) == 2
    large = at(OperatingPoint(0.5, 0.5, 16 / 400))
    assert [lesion.found for lesion in large.lesions] == [False, True]
    assert large.lesions[0].peak is None and len(large.false_regions) == 1
    assert at(OperatingPoint(0.5, 0.95, 16 / 400)).highest_false is None


def test_regions_that_are_left_of_a_mask() -> None:
    """Random regions of two classes, in each other's bounding boxes: what is kept is what was asked for."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        wanted = rng.choice([0, 0, 0, 1, 2], (12, 14))
        probability = (wanted == np.arange(3)[:, None, None]).astype(np.float32)
        found = find(probability, Rect(0, 0, 14, 12), (12, 14), OperatingPoint(0.5))
        kept = [region for region in found.regions if rng.random() < 0.5]
        mask = only(found.mask, kept)
        for value in (1, 2):
            chosen = [region.box for region in kept if region.class_index == value]
            expected = np.zeros((12, 14), np.bool_)
            for pixels in flood(wanted == value):
                ys, xs = zip(*pixels, strict=True)
                if (min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1) in chosen:
                    expected[ys, xs] = True
            np.testing.assert_array_equal(mask == value, expected)
        assert (only(found.mask, found.regions) == found.mask).all() and not only(found.mask, ()).any()
