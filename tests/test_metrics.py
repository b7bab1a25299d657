"""Metrics against counting pixel by pixel with sets."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vmkla.errors import ShapeError
from vmkla.metrics import MEASURES, Confusion, bootstrap_mean, confusion, global_measures, per_image

Mask = npt.NDArray[np.bool_]


def by_sets(prediction: Mask, truth: Mask) -> dict[str, float]:
    """The five measures from sets of coordinates."""
    everything = {(y, x) for y in range(truth.shape[0]) for x in range(truth.shape[1])}
    found = {p for p in everything if prediction[p]}
    real = {p for p in everything if truth[p]}

    def ratio(part: float, whole: float) -> float:
        return part / whole if whole else 1.0

    return {
        "dice": ratio(2 * len(found & real), len(found) + len(real)),
        "iou": ratio(len(found & real), len(found | real)),
        "accuracy": ratio(sum((p in found) == (p in real) for p in everything), len(everything)),
        "sensitivity": ratio(len(found & real), len(real)),
        "specificity": ratio(len(everything - found - real), len(everything - real)),
    }


masks = hnp.arrays(np.bool_, (5, 7))


@given(prediction=masks, truth=masks)
def test_measures_of_one_image(prediction: Mask, truth: Mask) -> None:
    assert confusion(prediction, truth).measures() == pytest.approx(by_sets(prediction, truth))


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=5))
def test_global_is_one_image_of_all_and_per_image_is_each(pairs: list[tuple[Mask, Mask]]) -> None:
    confusions = [confusion(*pair) for pair in pairs]
    predictions, truths = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert global_measures(confusions) == pytest.approx(by_sets(predictions, truths))
    values = per_image(confusions)
    for name in MEASURES:
        expected = [by_sets(*pair)[name] for pair in pairs]
        np.testing.assert_allclose(values[name], expected)


def test_empty_masks() -> None:
    nothing, something = np.zeros((4, 4), np.bool_), np.eye(4, dtype=np.bool_)
    assert confusion(nothing, nothing).measures() == dict.fromkeys(MEASURES, 1.0)
    alarm = confusion(something, nothing)
    assert (alarm.dice, alarm.iou, alarm.sensitivity, alarm.specificity) == (0.0, 0.0, 1.0, 0.75)
    missed = confusion(nothing, something)
    assert (missed.dice, missed.iou, missed.sensitivity, missed.specificity) == (0.0, 0.0, 0.0, 1.0)


def test_masks_that_are_no_masks_are_refused() -> None:
    mask = np.zeros((4, 4), np.bool_)
    with pytest.raises(ShapeError, match="must be equal"):
        confusion(mask, mask[:3])
    with pytest.raises(ShapeError, match="threshold them first"):
        confusion(mask.astype(np.float32), mask)


def test_large_counts_do_not_overflow() -> None:
    total = sum([Confusion(2**31, 1, 1, 2**33)] * 4, Confusion())
    assert total.tp == 2**33 and 0.999 < total.dice < 1


def test_bootstrap_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.2, 400)
    low, high = bootstrap_mean(values)
    error = 0.2 / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert bootstrap_mean(values) == (low, high)
    assert bootstrap_mean(values, seed=1) != (low, high)
    assert bootstrap_mean(np.full(5, 0.25)) == (0.25, 0.25)
    assert all(math.isnan(bound) for bound in bootstrap_mean(np.array([])))
