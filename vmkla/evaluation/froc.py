"""Compute the figures of lesions and false regions over many images, and the FROC curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vmkla.evaluation.judge import ImageResult
from vmkla.evaluation.lesions import SIZE_LIMITS, SIZES, FalseRegion, Lesion, size_of
from vmkla.metrics import Bootstrap, wilson

Report = dict[str, Any]
Part = TypeVar("Part", Lesion, FalseRegion)


def lesion_report(
    results: Sequence[ImageResult],
    *,
    class_names: Sequence[str],
    threshold: float,
    resolution: str,
    bootstrap: Bootstrap,
) -> Report:
    """Compute the figures of lesions and findings at the images' own resolution.

    Args:
        results: results of the images, at least one.
        class_names: names of the classes that are not background.
        threshold: threshold of the operating point at which findings were counted.
        resolution: name of the images' own resolution.
        bootstrap: draws of the interval of false regions per image.
    Returns:
        Plain values: ``resolution``, the figures of ``_figures``, the same ``by_size`` (of a lesion's own
        share of the image, and of a false region's) and ``by_class`` (several classes), and ``froc``.
    """
    report: Report = {
        "resolution": resolution,
        **_figures(results, bootstrap),
        "by_size": {
            "limits": list(SIZE_LIMITS),
            **{size: _figures(results, bootstrap, size=size) for size in SIZES},
        },
    }
    if len(class_names) > 1:
        report["by_class"] = {
            name: _figures(results, bootstrap, class_index=index)
            for index, name in enumerate(class_names, start=1)
        }
    report["froc"] = froc(results, threshold)
    return report


def froc(results: Sequence[ImageResult], threshold: float, size: str = "") -> Report:
    """Compute the FROC curve: sensitivity per lesion over false regions per image, by the point's peak.

    The peak falls from 1 to the threshold; threshold and smallest area stay. Every step is one of the
    regions' own peaks, so the curve is exact.

    Args:
        results: results of the images, at least one.
        threshold: the point's, which is the lowest peak.
        size: size of the lesions that count; empty for every lesion. False regions count whatever their size.
    Returns:
        Three columns with one entry per step: ``peak``, falling: the highest peak that gives these figures;
        ``sensitivity``, None without a lesion; ``false_regions_per_image``. Above the first peak nothing is
        found. The columns are empty where no region is large enough for a finding.
    Source: Bunch et al., J Appl Photogr Eng 4:166, 1978; Chakraborty, Med Phys 16:561, 1989.
    """
    lesions = [part for result in results for part in _chosen(result.lesions.lesions, size)]
    # At the threshold every region counts, one with a lower peak too.
    true = np.array([max(lesion.peak, threshold) for lesion in lesions if lesion.peak is not None])
    parts = [part for result in results for part in result.lesions.false_regions]
    false = np.array([max(part.peak, threshold) for part in parts])
    peaks = np.unique(np.concatenate([true, false]))[::-1]
    found, alarms = (len(values) - np.searchsorted(np.sort(values), peaks) for values in (true, false))
    return {
        "peak": peaks.tolist(),
        "sensitivity": (found / len(lesions)).tolist() if lesions else [None] * len(peaks),
        "false_regions_per_image": (alarms / len(results)).tolist(),
    }


def _chosen(parts: Iterable[Part], size: str = "", class_index: int = 0) -> list[Part]:
    """Return the lesions or false regions of one size and one class; empty and 0 stand for every one."""
    return [
        part
        for part in parts
        if (not size or size_of(part.fraction) == size) and class_index in (0, part.class_index)
    ]


def _figures(
    results: Sequence[ImageResult], bootstrap: Bootstrap, *, size: str = "", class_index: int = 0
) -> Report:
    """Count the lesions and false regions of one size and one class; empty and 0 stand for every one.

    Returns:
        ``lesions``, ``found``, ``sensitivity``; ``images_with`` such a lesion, ``images_found`` (one of
        them was), ``image_sensitivity``; ``images``, ``false_regions``, ``false_regions_per_image``;
        ``images_without`` any lesion, ``alarms`` (such a finding is there), ``alarm_rate``. Each rate has
        its 95 % interval, ``..._ci95``, and is None where there is nothing to count.
    """
    lesions = [_chosen(result.lesions.lesions, size, class_index) for result in results]
    false = [_chosen(result.lesions.false_findings, size, class_index) for result in results]
    found = [sum(lesion.found for lesion in of_image) for of_image in lesions]
    without = [part for part, result in zip(false, results, strict=True) if not result.lesions.lesions]
    alarms = np.array([len(of_image) for of_image in false], np.float64)
    images_with = sum(bool(of_image) for of_image in lesions)
    images_found, images_alarmed = sum(map(bool, found)), sum(map(bool, without))
    return {
        "lesions": sum(map(len, lesions)),
        "found": sum(found),
        **_rate("sensitivity", sum(found), sum(map(len, lesions)), bootstrap),
        "images_with": images_with,
        "images_found": images_found,
        **_rate("image_sensitivity", images_found, images_with, bootstrap),
        "images": len(results),
        "false_regions": int(alarms.sum()),
        "false_regions_per_image": float(alarms.mean()),
        "false_regions_per_image_ci95": _interval_of_counts(alarms, bootstrap),
        "images_without": len(without),
        "alarms": images_alarmed,
        **_rate("alarm_rate", images_alarmed, len(without), bootstrap),
    }


def _rate(name: str, count: int, total: int, bootstrap: Bootstrap) -> Report:
    """Return a share with its Wilson interval; None for both where there is nothing to count."""
    if not total:
        return {name: None, f"{name}_ci95": None}
    return {name: count / total, f"{name}_ci95": list(wilson(count, total, bootstrap.level))}


def _interval_of_counts(counts: npt.NDArray[np.float64], bootstrap: Bootstrap) -> list[float]:
    """Return the 95 % interval of a mean count over images, by drawing images.

    Images without any count all draw zero, so there the upper bound is the exact one of a Poisson count.

    Args:
        counts: (n,), one per image, n at least 1.
    Source: Garwood, Biometrika 28:437, 1936.
    """
    if not counts.any():
        return [0.0, -math.log((1 - bootstrap.level) / 2) / len(counts)]
    return list(bootstrap.of_mean(counts))
