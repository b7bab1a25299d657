"""Figures of merit of masks: per image, and from one confusion matrix over all pixels. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.errors import ShapeError

MEASURES = ("dice", "iou", "accuracy", "sensitivity", "specificity")


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


def global_measures(confusions: Iterable[Confusion]) -> dict[str, float]:
    """The five measures of one confusion matrix over the pixels of all images."""
    return sum(confusions, Confusion()).measures()


def per_image(confusions: Sequence[Confusion]) -> dict[str, npt.NDArray[np.float64]]:
    """The five measures of every image, (n,) each."""
    return {name: np.array([getattr(c, name) for c in confusions], np.float64) for name in MEASURES}


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
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _ratio(part: int, whole: int) -> float:
    """Part of a whole; 1 of nothing: where there was nothing to find, nothing was missed."""
    return part / whole if whole else 1.0
