"""Pictures of cases: which are chosen, and what is drawn into them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from tests.evaluation.colour_runners import Labelled, RedRunner, labelled
from vmkla.evaluation import judge
from vmkla.evaluation.cases import (
    PREDICTION_RGB,
    REST_RGB,
    TRUTH_RGB,
    CaseBook,
    draw_classes,
    draw_contours,
)
from vmkla.segment.operating_point import OperatingPoint


def square(left: int, size: int = 20, height: int = 60, width: int = 80) -> npt.NDArray[np.uint8]:
    """A mask of one square."""
    mask = np.zeros((height, width), np.uint8)
    mask[20 : 20 + size, left : left + size] = 1
    return mask


def coloured(picture: npt.NDArray[np.uint8], rgb: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Where a picture has exactly this colour."""
    return np.asarray((picture == rgb).all(-1))


def test_both_outlines_lie_where_the_masks_do() -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    truth, prediction = square(10), square(45)
    picture = draw_contours(grey, truth, prediction)
    assert picture.shape == grey.shape and (grey == 90).all()
    ring = cv2.getStructuringElement(cv2.MORPH_RECT, (5, 5))
    for mask, colour in ((truth, TRUTH_RGB), (prediction, PREDICTION_RGB)):
        drawn = coloured(picture, colour)
        near = cv2.dilate(mask, ring) & ~cv2.erode(mask, ring) & 1
        assert drawn.any() and not (drawn & (near == 0)).any()
        assert drawn[20, mask[20].argmax()] and drawn.sum() >= 4 * 19
    untouched = ~coloured(picture, TRUTH_RGB) & ~coloured(picture, PREDICTION_RGB)
    assert (picture[untouched] == 90).all()
    assert (draw_contours(grey, square(10) * 0, square(10) * 0) == 90).all()


def test_large_images_are_shrunk_and_keep_their_shape() -> None:
    picture = draw_contours(np.zeros((1200, 1600, 3), np.uint8), *[square(300, 500, 1200, 1600)] * 2)
    assert picture.shape == (300, 400, 3) and coloured(picture, PREDICTION_RGB).any()


def test_classes_side_by_side() -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    both = draw_classes(grey, square(10) + 2 * square(45), square(10))
    left, right = both[:, :80], both[:, 80:]
    assert both.shape == (60, 160, 3)
    assert len({tuple(pixel) for pixel in left[left.std(-1) > 0]}) == 2
    assert len({tuple(pixel) for pixel in right[right.std(-1) > 0]}) == 1
    assert (right[:, 43:] == 90).all()


def test_the_choice() -> None:
    """Twenty lesions, each found worse than the one before, and three clean frames with marks."""
    runner = RedRunner(60, 80)
    truth = square(20)
    with CaseBook() as book:
        results = []
        for number in range(23):
            shown = np.roll(truth, number, 1) > 0
            real = truth if number < 20 else np.zeros_like(truth)
            if number >= 20:
                shown = square(5, (20, 10, 2)[number - 20]) > 0  # 2 x 2 of 4800 pixels: no alarm
            sample = labelled(f"{number:02d}", shown, real)
            result, prediction = judge(runner, sample, OperatingPoint(0.5, min_fraction=0.005))
            results.append(result)
            book.add(result, sample, prediction)
        chosen = book.choose(results)
    names = {heading: [case.result.name for case in cases] for heading, cases in chosen.items()}
    assert names == {
        "Best": ["00", "01", "02", "03"],
        "Median": ["08", "09", "10", "11"],
        "Worst": ["19", "18", "17", "16", "15", "14", "13", "12"],
        "Worst false alarms: images without a lesion, highest peak first": ["20", "21"],
    }
    for cases in chosen.values():
        for case in cases:  # the picture is the case's own: its prediction is drawn where it was made
            picture = cv2.imdecode(np.frombuffer(case.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            assert picture.shape == (60, 80, 3)
            number = int(case.result.name)
            left = 20 + number if number < 20 else 5
            far = np.abs(picture[30, left].astype(int) - PREDICTION_RGB).max()
            assert far < 110, "JPEG blurs a thin line; anything else differs more"


def test_what_is_not_a_finding_is_drawn_apart() -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    finding, rest = square(10), square(45)
    picture = draw_contours(grey, square(0, 1) * 0, finding | rest, finding)
    assert coloured(picture, PREDICTION_RGB)[20, 10] and not coloured(picture, PREDICTION_RGB)[:, 40:].any()
    assert coloured(picture, REST_RGB)[20, 45] and not coloured(picture, REST_RGB)[:, :40].any()
    _, right = np.split(draw_classes(grey, finding, finding | rest, finding), 2, axis=1)
    drawn = (right != 90).any(-1)
    assert drawn[:, :40].sum() > 1.5 * drawn[:, 40:].sum() > 0, "thinner"


def test_a_speck_does_not_vanish_when_the_image_is_shrunk() -> None:
    speck = np.zeros((1500, 2000), np.uint8)
    speck[701, 1003] = 1
    picture = draw_contours(np.zeros((1500, 2000, 3), np.uint8), speck * 0, speck)
    assert coloured(picture, PREDICTION_RGB)[140, 200]


def test_worst_false_alarms_are_those_of_the_highest_peak() -> None:
    """Six images: false regions below the point are left out; the others come by their peak."""
    point = OperatingPoint(0.5, 0.7, 0.005)
    placed = {  # red of a false region and its size; whether there is a lesion elsewhere
        "large and low": (200, 20, False),
        "small and high": (250, 10, False),
        "below the peak": (170, 20, False),
        "too small": (255, 2, False),
        "beside a lesion": (240, 10, True),
        "higher beside a lesion": (245, 10, True),
    }
    with CaseBook() as book:
        results = []
        for name, (red, size, with_lesion) in placed.items():
            image = np.zeros((60, 80, 3), np.uint8)
            image[..., 0] = red * square(5, size)
            sample = Labelled(name, image, square(50) * np.uint8(with_lesion))
            result, prediction = judge(RedRunner(60, 80), sample, point)
            results.append(result)
            book.add(result, sample, prediction)
        chosen = book.choose(results)
    names = {heading.split(",")[0]: [case.result.name for case in cases] for heading, cases in chosen.items()}
    assert names["Worst false alarms: images without a lesion"] == ["small and high", "large and low"]
    assert names["Worst false regions beside a lesion"] == ["higher beside a lesion", "beside a lesion"]
