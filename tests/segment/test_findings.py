"""vmkla.segment.findings: mask, area, boxes and largest probability, against counting by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.errors import UsageError, VmklaError
from vmkla.segment.findings import Region, class_mask, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect, restore


def components(mask: npt.NDArray[np.bool_]) -> Iterator[set[tuple[int, int]]]:
    """The pixels of each region of an 8-neighbourhood, by a plain search."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    while left:
        stack, members = [left.pop()], set()
        while stack:
            y, x = stack.pop()
            members.add((y, x))
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    stack.append(near)
        yield members


def flood(mask: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]) -> list[tuple[int, Rect, float]]:
    """Area, box and largest probability of each region, largest first."""
    regions = []
    for members in components(mask):
        ys, xs = [y for y, _ in members], [x for _, x in members]
        box = Rect(min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)
        regions.append((len(members), box, max(float(probability[member]) for member in members)))
    return sorted(regions, key=lambda region: (-region[0], region[1]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), threshold=st.floats(0.05, 1.0), share=st.floats(0.3, 1.0))
def test_one_class(seed: int, threshold: float, share: float) -> None:
    rng = np.random.default_rng(seed)
    probability = rng.random((1, 6, 7), dtype=np.float32)
    rect = Rect(3, 2, max(1, int(40 * share)), max(1, int(30 * share)))
    found = find(probability, rect, (34, 45), OperatingPoint(threshold))
    restored = restore(probability, rect, (34, 45))[0]
    wanted = restored >= np.float32(threshold)
    np.testing.assert_array_equal(found.mask, wanted.astype(np.uint8))
    assert found.area_px == int(wanted.sum())
    assert found.area_fraction == pytest.approx(wanted.mean())
    regions = flood(wanted, restored)
    assert [(each.area_px, each.box, each.probability) for each in found.regions] == regions
    assert {each.class_index for each in found.regions} <= {1}
    assert found.max_probability == probability.max()


def test_several_classes_take_the_most_probable() -> None:
    rng = np.random.default_rng(2)
    raw = rng.random((4, 8, 9), dtype=np.float32)
    probability = raw / raw.sum(axis=0)
    found = find(probability, Rect(0, 0, 36, 32), (32, 36), OperatingPoint(0.99))
    restored = restore(probability, Rect(0, 0, 36, 32), (32, 36))
    wanted = restored.argmax(axis=0)
    np.testing.assert_array_equal(found.mask, wanted)
    assert found.area_px == int((wanted > 0).sum())
    regions = [
        (value, box, peak) for value in (1, 2, 3) for _, box, peak in flood(wanted == value, restored[value])
    ]
    seen = [(each.class_index, each.box, each.probability) for each in found.regions]
    assert sorted(seen) == sorted(regions)
    assert found.max_probability == probability[1:].max()


def test_threshold_and_background() -> None:
    probability = np.array([[[0.5, 0.5, 0.49]]], np.float32)
    assert class_mask(probability, 0.5).tolist() == [[1, 1, 0]]
    several = np.array([[[0.4, 0.2]], [[0.3, 0.5]], [[0.3, 0.3]]], np.float32)
    assert class_mask(several, 0.9).tolist() == [[0, 1]], "the threshold has no effect"


def test_outside_the_field_there_is_nothing() -> None:
    found = find(np.ones((1, 4, 4), np.float32), Rect(10, 5, 20, 10), (40, 50), OperatingPoint(0.5))
    assert found.regions == (Region(Rect(10, 5, 20, 10), 200, 1, 1.0, 1.0),)
    softmax = np.zeros((2, 4, 4), np.float32)
    softmax[1] = 1
    found = find(softmax, Rect(10, 5, 20, 10), (40, 50), OperatingPoint(0.5))
    assert found.regions == (Region(Rect(10, 5, 20, 10), 200, 1, 1.0, 1.0),)


def test_below_the_threshold_there_is_nothing() -> None:
    found = find(np.full((1, 4, 4), 0.4, np.float32), Rect(0, 0, 8, 8), (8, 8), OperatingPoint(0.5))
    assert (found.any, found.area_px, found.regions) == (False, 0, ())
    assert found.max_probability == pytest.approx(0.4)


def test_at_the_threshold_there_is_a_finding() -> None:
    """0.7 in half the digits is a little less than 0.7, and means the same."""
    probability = np.full((1, 4, 4), 0.7, np.float32)
    assert find(probability, Rect(0, 0, 4, 4), (4, 4), OperatingPoint(0.7)).area_px == 16


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("classes", [1, 3])
def test_nan_is_an_error_and_not_an_empty_mask(value: float, classes: int) -> None:
    probability = np.zeros((classes, 4, 4), np.float32)
    probability[0, 1, 2] = value
    with pytest.raises(VmklaError, match="NaN"):
        find(probability, Rect(0, 0, 8, 8), (8, 8), OperatingPoint(0.5))


def blobs() -> np.ndarray:
    """Two regions over 0.5 in (1, 12, 12): 3 x 3 pixels that reach 0.95, and one pixel of 0.6."""
    probability = np.full((1, 12, 12), 0.1, np.float32)
    probability[0, 2:5, 2:5] = 0.7
    probability[0, 3, 3] = 0.95
    probability[0, 9, 9] = 0.6
    return probability


@pytest.mark.parametrize(
    ("point", "peaks"),
    [
        (OperatingPoint(0.5), [0.95, 0.6]),
        (OperatingPoint(0.5, peak=0.6), [0.95, 0.6]),
        (OperatingPoint(0.5, peak=0.61), [0.95]),
        (OperatingPoint(0.5, peak=0.96), []),
        (OperatingPoint(0.5, min_fraction=1 / 144), [0.95, 0.6]),
        (OperatingPoint(0.5, min_fraction=1.01 / 144), [0.95]),
        (OperatingPoint(0.5, min_fraction=0.5), []),
    ],
)
def test_regions_that_do_not_reach_the_point_are_no_findings(
    point: OperatingPoint, peaks: list[float]
) -> None:
    probability = blobs()
    found = find(probability, Rect(0, 0, 12, 12), (12, 12), point)
    assert [region.peak for region in found.regions] == [float(np.float32(peak)) for peak in peaks]
    expected = np.zeros((12, 12), np.uint8)
    for y, x, h, w in [(2, 2, 3, 3), (9, 9, 1, 1)][: len(peaks)]:
        expected[y : y + h, x : x + w] = 1
    np.testing.assert_array_equal(found.mask, expected)
    assert found.area_px == int(expected.sum())
    assert found.probability is probability


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), height=st.integers(3, 60), width=st.integers(3, 60))
def test_the_peak_is_that_of_the_networks_own_pixels(seed: int, height: int, width: int) -> None:
    """Against a count pixel by pixel; frames larger and smaller than the network."""
    rng = np.random.default_rng(seed)
    probability = rng.random((1, 7, 9), dtype=np.float32)
    rect = Rect(2, 1, width, height)
    found = find(probability, rect, (height + 3, width + 4), OperatingPoint(0.6))
    for region in found.regions:
        own = region_of(found.mask, region.box)
        centres = [
            float(probability[0, i, j])
            for i in range(7)
            for j in range(9)
            if (rect.y + int((i + 0.5) * height / 7), rect.x + int((j + 0.5) * width / 9)) in own
        ]
        under = [
            float(probability[0, int((y - rect.y + 0.5) * 7 / height), int((x - rect.x + 0.5) * 9 / width)])
            for y, x in own
        ]
        assert region.peak == max(centres or under)


def region_of(mask: np.ndarray, box: Rect) -> set[tuple[int, int]]:
    """The pixels of the one region that touches all four sides of a box."""
    for members in components(mask > 0):
        ys, xs = [y for y, _ in members], [x for _, x in members]
        if (min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1) == tuple(box):
            return members
    raise AssertionError(f"there is no region at {box}")


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": -0.1},
        {"threshold": 1.1},
        {"threshold": float("nan")},
        {"threshold": 0.5, "peak": 0.4},
        {"threshold": 0.5, "peak": 1.1},
        {"min_fraction": -0.1},
        {"min_fraction": 1.0},
        {"min_fraction": float("nan")},
    ],
)
def test_a_point_outside_its_range_is_rejected(values: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        OperatingPoint(**values)


def test_the_default_peak_is_the_threshold() -> None:
    assert OperatingPoint(0.3).to_dict() == {"threshold": 0.3, "peak": 0.3, "min_fraction": 0.0}


def test_several_classes_count_by_class() -> None:
    probability = np.zeros((3, 6, 6), np.float32)
    probability[0] = 1
    for value, peak, column in ((1, 0.9, 0), (2, 0.6, 4)):
        probability[:, 1:3, column : column + 2] = 0
        probability[value, 1:3, column : column + 2] = peak
        probability[0, 1:3, column : column + 2] = 1 - peak
    rect = Rect(0, 0, 6, 6)
    for peak, classes in ((0.5, [1, 2]), (0.7, [1]), (0.95, [])):
        found = find(probability, rect, (6, 6), OperatingPoint(0.5, peak=peak))
        assert [region.class_index for region in found.regions] == classes
        assert set(np.unique(found.mask)) == {0, *classes}
