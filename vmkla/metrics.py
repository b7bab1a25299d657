"""Figures of merit of masks: per image, and from one confusion matrix over all pixels. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import ShapeError

MEASURES = ("dice", "iou", "accuracy", "sensitivity", "specificity")
_DRAWN_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Confusion:
    """Counts of pixels.

    Attributes:
        tp, fp, fn, tn: found polyp, false alarm, missed polyp, rightly left alone; pixels.
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
        """2 TP / (2 TP + FP + FN); 1 when there is neither truth nor prediction."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), of the foreground; 1 when there is neither truth nor prediction."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of pixels that are right."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def sensitivity(self) -> float:
        """Share of the polyp that is found; 1 when there is none."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the background that is left alone; 1 when there is none."""
        return _ratio(self.tn, self.tn + self.fp)

    def measures(self) -> dict[str, float]:
        """All five."""
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


def bootstrap_mean(
    values: npt.NDArray[np.float64], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a mean, by drawing images with replacement.

    Args:
        values: (n,), one per image.
        level: share of the resampled means inside the interval.
        resamples: number of draws.
        seed: of the draws; equal seeds give equal intervals.
    Returns:
        Lower and upper bound; NaN twice when there is no value.
    """
    if not len(values):
        return float("nan"), float("nan")
    draws = _draws(len(values), resamples, seed)
    means = np.concatenate([values[drawn].mean(1) for drawn in draws])
    return _interval(means, level)


def bootstrap_groups(
    values: npt.NDArray[np.float64],
    groups: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a mean over images, by drawing whole groups with replacement.

    Frames of one sequence resemble each other, so drawing single frames gives too narrow an interval.

    Args:
        values: (n,), one per image.
        groups: (n,), the group of each image.
        level, resamples, seed: as of ``bootstrap_mean``.
    Returns:
        Lower and upper bound; NaN twice when there is no value.
    """
    if not len(values):
        return float("nan"), float("nan")
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    draws = _draws(len(counts), resamples, seed)
    means = np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in draws])
    return _interval(means, level)


def bootstrap_global(
    confusions: Sequence[Sequence[Confusion]], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the five global measures, by drawing images with replacement.

    Args:
        confusions: one sequence per class with one entry per image; a measure is the mean over classes.
        level, resamples, seed: as of ``bootstrap_mean``.
    Returns:
        Measure -> lower and upper bound.
    """
    counts = np.array([[astuple(c) for c in of_class] for of_class in confusions], np.int64)  # (k, n, 4)
    draws = _draws(counts.shape[1], resamples, seed)
    totals = np.concatenate([counts[:, drawn].sum(2) for drawn in draws], axis=1)  # (k, resamples, 4)
    tp, fp, fn, tn = (totals[..., index] for index in range(4))
    values = {
        "dice": _ratios(2 * tp, 2 * tp + fp + fn),
        "iou": _ratios(tp, tp + fp + fn),
        "accuracy": _ratios(tp + tn, tp + fp + fn + tn),
        "sensitivity": _ratios(tp, tp + fn),
        "specificity": _ratios(tn, tn + fp),
    }
    return {name: _interval(values[name].mean(0), level) for name in MEASURES}


def mean_measures(confusions: Sequence[Confusion]) -> dict[str, float]:
    """The five measures, each the mean over the classes' confusions."""
    return {name: sum(float(getattr(c, name)) for c in confusions) / len(confusions) for name in MEASURES}


def _draws(count: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices drawn with replacement, (some, count) at a time, so that many images need little memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, resamples, rows):
        yield rng.integers(count, size=(min(rows, resamples - start), count))


def _ratios(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """``_ratio`` of every element."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


def _interval(values: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _ratio(part: int, whole: int) -> float:
    """Part of a whole; 1 of nothing: where there was nothing to find, nothing was missed."""
    return part / whole if whole else 1.0
