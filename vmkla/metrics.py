"""Compare masks pixel by pixel, and compute measures and their intervals. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import ShapeError

MEASURES = ("dice", "iou", "accuracy", "sensitivity", "specificity")
_DRAWN_AT_ONCE = 1 << 18
_ROUNDING = 1e-9
"""Slack of a rank: 0.95 of 20 is above 19 in floating point."""


@dataclass(frozen=True)
class Confusion:
    """Counts of right and wrong pixels of one class.

    Attributes:
        tp, fp, fn, tn: number of true positives, false positives, false negatives, true negatives.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def pixels(self) -> int:
        """Number of pixels that were counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is neither truth nor prediction."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), of the foreground; 1 where there is neither truth nor prediction."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of the pixels that are right, 0 to 1."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def sensitivity(self) -> float:
        """Share of the truth that is found, 0 to 1; 1 without a truth."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the background that is not marked, 0 to 1; 1 without a background."""
        return _ratio(self.tn, self.tn + self.fp)

    def measures(self) -> dict[str, float]:
        """Return all five measures by name."""
        return {name: float(getattr(self, name)) for name in MEASURES}


def confusion(prediction: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Confusion:
    """Compare two masks.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
    Raises:
        ShapeError: they differ in shape, or are not bool.
    """
    if prediction.shape != truth.shape:
        raise ShapeError(
            f"the prediction is {prediction.shape} and the truth {truth.shape}; they must be equal"
        )
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise ShapeError(
            f"masks are {prediction.dtype} and {truth.dtype}, expected bool; threshold them first"
        )
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Confusion(tp, fp, fn, int(truth.size) - tp - fp - fn)


def confusions(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], num_classes: int
) -> tuple[Confusion, ...]:
    """Compare two masks of several classes: one confusion for each class that is not background.

    Args:
        prediction, truth: (H, W) uint8, class indices.
        num_classes: output channels of the model.
    """
    return tuple(confusion(prediction == k, truth == k) for k in range(1, max(2, num_classes)))


def mean_measures(confusions: Sequence[Confusion]) -> dict[str, float]:
    """Return the five measures, each the mean over the classes' confusions."""
    return {name: sum(float(getattr(c, name)) for c in confusions) / len(confusions) for name in MEASURES}


def wilson(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share.

    Args:
        count: number of hits, 0 to ``total``.
        total: number of independent trials, at least 1.
        level: probability that the interval covers the true share, above 0 and below 1.
    Returns:
        Lower and upper bound, 0 to 1.
    Source: Wilson, J Am Stat Assoc 22:209, 1927.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, widened = count / total, total + z * z
    middle = (count + z * z / 2) / widened
    half = z / widened * math.sqrt(share * (1 - share) * total + z * z / 4)
    # Rounding would leave the bound of none or of all beside 0 or 1.
    return (0.0 if count == 0 else middle - half), (1.0 if count == total else middle + half)


def reached(values: npt.NDArray[np.float64], share: float) -> float:
    """Return the smallest value that at least a share of the values do not exceed; NaN without a value.

    A quantile that is one of the values, so that infinite ones have their place.

    Args:
        values: (n,), which may be infinite.
        share: above 0 and at most 1.
    """
    if not len(values):
        return math.nan
    return float(np.sort(values)[max(0, math.ceil(share * len(values) - _ROUNDING) - 1)])


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals by drawing images with replacement.

    Attributes:
        resamples: number of draws, at least 1.
        seed: seed of the draws; equal seeds give equal intervals.
        level: share of the resampled values inside an interval, 0 to 1.
    """

    resamples: int = 2000
    seed: int = 0
    level: float = 0.95

    def of_mean(self, values: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Return the interval of a mean over images.

        Args:
            values: (n,), one per image.
        Returns:
            Lower and upper bound; NaN twice without a value.
        """
        if not len(values):
            return float("nan"), float("nan")
        means = np.concatenate([values[drawn].mean(1) for drawn in self._draws(len(values))])
        return self._interval(means)

    def of_groups(self, values: npt.NDArray[np.float64], groups: Sequence[str]) -> tuple[float, float]:
        """Return the interval of a mean over images, by drawing whole groups.

        Frames of one sequence are similar, so drawing single frames gives too narrow an interval.

        Args:
            values: (n,), one per image.
            groups: (n,), the group of each image.
        Returns:
            Lower and upper bound; NaN twice without a value.
        """
        if not len(values):
            return float("nan"), float("nan")
        _, index = np.unique(np.asarray(groups), return_inverse=True)
        sums, counts = np.bincount(index, values), np.bincount(index)
        draws = self._draws(len(counts))
        means = np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in draws])
        return self._interval(means)

    def of_global(self, confusions: Sequence[Sequence[Confusion]]) -> dict[str, tuple[float, float]]:
        """Return the intervals of the five global measures.

        Args:
            confusions: one sequence per class with one entry per image; a measure is the mean over classes.
        Returns:
            Measure -> lower and upper bound.
        """
        counts = np.array([[astuple(c) for c in of_class] for of_class in confusions], np.int64)  # (k, n, 4)
        draws = self._draws(counts.shape[1])
        totals = np.concatenate([counts[:, drawn].sum(2) for drawn in draws], axis=1)  # (k, resamples, 4)
        tp, fp, fn, tn = (totals[..., index] for index in range(4))
        values = {
            "dice": _ratios(2 * tp, 2 * tp + fp + fn),
            "iou": _ratios(tp, tp + fp + fn),
            "accuracy": _ratios(tp + tn, tp + fp + fn + tn),
            "sensitivity": _ratios(tp, tp + fn),
            "specificity": _ratios(tn, tn + fp),
        }
        return {name: self._interval(values[name].mean(0)) for name in MEASURES}

    def of_statistics(
        self, count: int, statistics: Callable[[npt.NDArray[np.int64]], Sequence[float]]
    ) -> list[tuple[float, float]]:
        """Return the intervals of any statistics of some units, such as procedures.

        Bounds are values that were drawn, so a statistic may be infinite. A draw in which one is not defined
        (NaN) does not count for it.

        Args:
            count: number of units.
            statistics: called with the indices of each draw, (count,); returns one value each.
        Returns:
            Lower and upper bound of each; NaN twice with fewer than two units, or where no draw defines it.
        """
        if count < 2:
            return [(math.nan, math.nan)] * len(statistics(np.arange(count)))
        rows = np.array([statistics(drawn) for draws in self._draws(count) for drawn in draws], np.float64)
        bounds = ((1 - self.level) / 2, (1 + self.level) / 2)
        columns = [column[~np.isnan(column)] for column in rows.T]
        return [(reached(column, bounds[0]), reached(column, bounds[1])) for column in columns]

    def _draws(self, count: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield drawn indices, (some, count) at a time, so that many images need little memory."""
        rng = np.random.default_rng(self.seed)
        rows = max(1, _DRAWN_AT_ONCE // count)
        for start in range(0, self.resamples, rows):
            yield rng.integers(count, size=(min(rows, self.resamples - start), count))

    def _interval(self, values: npt.NDArray[np.float64]) -> tuple[float, float]:
        low, high = np.quantile(values, ((1 - self.level) / 2, (1 + self.level) / 2))
        return float(low), float(high)


def _ratios(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute ``_ratio`` of every element."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


def _ratio(part: int, whole: int) -> float:
    """Divide a part by its whole; 1 where the whole is 0: without a truth nothing was missed."""
    return part / whole if whole else 1.0
