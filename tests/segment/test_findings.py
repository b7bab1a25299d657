"""vmkla.segment.findings: mask, area, boxes and largest probability, against counting by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.errors import VmklaError
from vmkla.segment.findings import find
from vmkla.segment.preprocess import Rect, restore


def flood(mask: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]) -> list[tuple[int, Rect, float]]:
    """Regions of an 8-neighbourhood by a plain search: area, box and largest probability, largest first."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    regions = []
    while left:
        stack, members = [left.pop()], []
        while stack:
            y, x = stack.pop()
            members.append((y, x))
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    stack.append(near)
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
    found = find(probability, rect, (34, 45), threshold)
    restored = restore(probability, rect, (34, 45))[0]
    wanted = restored >= np.float32(threshold)
    np.testing.assert_array_equal(found.mask, wanted.astype(np.uint8))
    assert found.area_px == int(wanted.sum())
    assert found.area_fraction == pytest.approx(wanted.mean())
    regions = flood(wanted, restored)
    assert list(found.boxes) == [box for _, box, _ in regions]
    assert list(found.box_probabilities) == [peak for _, _, peak in regions]
    assert set(found.box_classes) <= {1}
    assert found.max_probability == probability.max()


def test_several_classes_take_the_most_probable() -> None:
    rng = np.random.default_rng(2)
    raw = rng.random((4, 8, 9), dtype=np.float32)
    probability = raw / raw.sum(axis=0)
    found = find(probability, Rect(0, 0, 36, 32), (32, 36), 0.99)
    restored = restore(probability, Rect(0, 0, 36, 32), (32, 36))
    wanted = restored.argmax(axis=0)
    np.testing.assert_array_equal(found.mask, wanted)
    assert found.area_px == int((wanted > 0).sum())
    regions = [
        (value, box, peak) for value in (1, 2, 3) for _, box, peak in flood(wanted == value, restored[value])
    ]
    seen = zip(found.box_classes, found.boxes, found.box_probabilities, strict=True)
    assert sorted(seen) == sorted(regions)
    assert found.max_probability == probability[1:].max()


def test_outside_the_field_there_is_nothing() -> None:
    found = find(np.ones((1, 4, 4), np.float32), Rect(10, 5, 20, 10), (40, 50), 0.5)
    assert found.boxes == (Rect(10, 5, 20, 10),) and found.area_px == 200
    softmax = np.zeros((2, 4, 4), np.float32)
    softmax[1] = 1
    found = find(softmax, Rect(10, 5, 20, 10), (40, 50), 0.5)
    assert found.boxes == (Rect(10, 5, 20, 10),) and found.box_classes == (1,)


def test_below_the_threshold_there_is_nothing() -> None:
    found = find(np.full((1, 4, 4), 0.4, np.float32), Rect(0, 0, 8, 8), (8, 8), 0.5)
    assert (found.any, found.area_px, found.boxes) == (False, 0, ())
    assert found.max_probability == pytest.approx(0.4)


def test_at_the_threshold_there_is_a_finding() -> None:
    """0.7 in half the digits is a little less than 0.7, and means the same."""
    probability = np.full((1, 4, 4), 0.7, np.float32)
    assert find(probability, Rect(0, 0, 4, 4), (4, 4), 0.7).area_px == 16


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("classes", [1, 3])
def test_nan_is_an_error_and_not_an_empty_mask(value: float, classes: int) -> None:
    probability = np.zeros((classes, 4, 4), np.float32)
    probability[0, 1, 2] = value
    with pytest.raises(VmklaError, match="NaN"):
        find(probability, Rect(0, 0, 8, 8), (8, 8), 0.5)
