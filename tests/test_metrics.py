"""Metrics against counting pixel by pixel with sets, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn import metrics as sklearn_metrics

from vmkla.errors import ShapeError
from vmkla.metrics import (
    MEASURES,
    Bootstrap,
    Confusion,
    confusion,
    mean_measures,
    wilson,
)

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


@given(prediction=masks, truth=masks)
def test_measures_against_scikit_learn(prediction: Mask, truth: Mask) -> None:
    pair = truth.ravel(), prediction.ravel()
    expected = {
        "dice": sklearn_metrics.f1_score(*pair, zero_division=1.0),
        "iou": 1.0,
        "accuracy": sklearn_metrics.accuracy_score(*pair),
        "sensitivity": sklearn_metrics.recall_score(*pair, zero_division=1.0),
        "specificity": sklearn_metrics.recall_score(*pair, pos_label=0, zero_division=1.0),
    }
    if truth.any() or prediction.any():  # scikit-learn knows no value of its own for nothing at all
        expected["iou"] = sklearn_metrics.jaccard_score(*pair)
    assert confusion(prediction, truth).measures() == pytest.approx(expected)


@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=5))
def test_global_is_one_image_of_all_and_per_image_is_each(pairs: list[tuple[Mask, Mask]]) -> None:
    confusions = [confusion(*pair) for pair in pairs]
    predictions, truths = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert sum(confusions, Confusion()).measures() == pytest.approx(by_sets(predictions, truths))
    for found, pair in zip(confusions, pairs, strict=True):
        assert found.measures() == pytest.approx(by_sets(*pair))


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


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 26), (26, 26), (11, 26), (279, 295), (1, 2000)])
def test_wilson_interval_against_scipy(count: int, total: int) -> None:
    for level in (0.95, 0.8):
        expected = stats.binomtest(count, total).proportion_ci(level, method="wilson")
        assert wilson(count, total, level) == pytest.approx((expected.low, expected.high), abs=1e-12)
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1


def test_bootstrap_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.2, 400)
    low, high = Bootstrap().of_mean(values)
    error = 0.2 / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert Bootstrap().of_mean(values) == (low, high)
    assert Bootstrap(seed=1).of_mean(values) != (low, high)
    assert Bootstrap().of_mean(np.full(5, 0.25)) == (0.25, 0.25)
    assert all(math.isnan(bound) for bound in Bootstrap().of_mean(np.array([])))


@given(prediction=masks, truth=masks)
def test_dice_and_iou_belong_together_and_know_no_order(prediction: Mask, truth: Mask) -> None:
    there, back = confusion(prediction, truth), confusion(truth, prediction)
    assert there.dice == back.dice and there.iou == back.iou and there.accuracy == back.accuracy
    assert there.iou == pytest.approx(there.dice / (2 - there.dice))
    assert confusion(truth, truth).measures() == dict.fromkeys(MEASURES, 1.0)
    assert confusion(~truth, truth).accuracy == 0.0


def test_bootstrap_of_global_figures_against_resampled_pixels() -> None:
    """The same draws, from the masks themselves laid side by side."""
    rng = np.random.default_rng(1)
    pairs = [(rng.random((6, 6)) < 0.5, rng.random((6, 6)) < share) for share in np.linspace(0.2, 0.8, 9)]
    found = Bootstrap(resamples=50, seed=4).of_global([[confusion(*pair) for pair in pairs]])
    draws = np.random.default_rng(4)
    dice = []
    for _ in range(50):
        chosen = draws.integers(9, size=9)
        whole = [np.concatenate([pairs[i][side].ravel() for i in chosen]) for side in (1, 0)]
        dice.append(sklearn_metrics.f1_score(*whole))
    assert found["dice"] == pytest.approx(tuple(np.quantile(dice, (0.025, 0.975))))
    assert set(found) == set(MEASURES)


def test_mean_measures_and_their_bootstrap_over_classes() -> None:
    first, second = Confusion(3, 1, 2, 10), Confusion(0, 4, 0, 12)
    assert mean_measures([first, second])["dice"] == pytest.approx((6 / 9 + 0) / 2)
    low, high = Bootstrap(resamples=20).of_global([[first] * 4, [second] * 4])["dice"]
    assert low == high == pytest.approx(3 / 9)


def test_bootstrap_over_groups() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(0.6, 0.1, 300)
    alone = Bootstrap().of_groups(values, [f"{n}" for n in range(300)])
    assert alone == pytest.approx(Bootstrap().of_mean(values), abs=0.002)  # a group of one is an image
    one = Bootstrap().of_groups(values, ["same"] * 300)
    assert one == pytest.approx((values.mean(), values.mean()))
    # Two groups of unequal size: one is drawn twice, the other twice, or each once.
    low, high = Bootstrap().of_groups(np.array([0.0, 1.0, 1.0, 1.0]), ["a", "b", "b", "b"])
    assert (low, high) == (0.0, 1.0)
    assert all(math.isnan(bound) for bound in Bootstrap().of_groups(np.array([]), []))
