"""From the results of single images to the figures of a set: both families, both resolutions, and strata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.evaluation.judge import ImageResult, MaskComparison
from vmkla.metrics import (
    MEASURES,
    Confusion,
    bootstrap_global,
    bootstrap_groups,
    bootstrap_mean,
    mean_measures,
)
from vmkla.segment.operating_point import OperatingPoint

SIZE_LIMITS = (0.05, 0.15)
"""A lesion is small below the first, large from the second on: share of the image that the truth marks."""
SIZES = ("small", "medium", "large")
_GLOBAL_NAMES = {"dice": "dsc", "iou": "miou"}

Report = dict[str, Any]


def summarise(
    results: Sequence[ImageResult],
    *,
    class_names: Sequence[str],
    point: OperatingPoint,
    model_hw: tuple[int, int],
    at_native: bool = True,
    resamples: int = 2000,
    seed: int = 0,
) -> Report:
    """The figures of a set of images.

    Args:
        results: at least one.
        class_names: of the classes that are not background.
        point: the operating point that the findings were counted at.
        model_hw: height and width of the network's input, px.
        at_native: which resolution the top level, the strata and ``each`` speak of; ``resolutions``
            always has both.
        resamples: draws of the bootstrap.
        seed: of the bootstrap.
    Returns:
        Plain values; see ``evaluate``.
    """
    options = {"resamples": resamples, "seed": seed}
    packed = any(result.packed for result in results)
    labels = {True: "as packed" if packed else "native", False: f"{model_hw[0]}x{model_hw[1]}"}
    both = {native: _figures(results, native, labels[native], point, **options) for native in (True, False)}
    report: Report = {
        "images": len(results),
        **both[at_native],
        "resolutions": {"native": both[True], "model": both[False]},
        "by_size": _by_size(results, at_native, **options),
        "by_sequence": _by_sequence(results, at_native, **options),
    }
    if len(class_names) > 1:
        report["by_class"] = _by_class(results, class_names, at_native, **options)
    report["each"] = [each_row(result, at_native) for result in results]
    return report


def size_of(truth_fraction: float) -> str:
    """``small``, ``medium`` or ``large``; empty where there is no lesion."""
    if truth_fraction <= 0:
        return ""
    return SIZES[sum(truth_fraction >= limit for limit in SIZE_LIMITS)]


def each_row(result: ImageResult, at_native: bool) -> Report:
    """What ``each`` says of one image."""
    measures = result.at(at_native).measures()
    return {
        "name": result.name,
        "dice": measures["dice"],
        "iou": measures["iou"],
        "max_probability": result.max_probability,
        "truth_fraction": result.truth_fraction,
        "size": size_of(result.truth_fraction),
        "set": result.set_name,
        "group": result.group,
    }


def values_of(results: Sequence[ImageResult], native: bool) -> dict[str, npt.NDArray[np.float64]]:
    """The five measures of every image, (n,) each."""
    rows = [result.at(native).measures() for result in results]
    return {name: np.array([row[name] for row in rows], np.float64) for name in MEASURES}


def spread(name: str, values: npt.NDArray[np.float64], *, resamples: int, seed: int) -> Report:
    """Mean, standard deviation and 95 % interval of one measure over images."""
    low, high = bootstrap_mean(values, resamples=resamples, seed=seed)
    return {name: float(values.mean()), f"{name}_std": float(values.std()), f"{name}_ci95": [low, high]}


def _views(results: Sequence[ImageResult], native: bool) -> list[MaskComparison]:
    return [result.at(native) for result in results]


def _of_classes(results: Sequence[ImageResult], native: bool) -> list[tuple[Confusion, ...]]:
    """One tuple per class, with one confusion per image."""
    return list(zip(*(view.confusions for view in _views(results, native)), strict=True))


def _figures(
    results: Sequence[ImageResult],
    native: bool,
    resolution: str,
    point: OperatingPoint,
    *,
    resamples: int,
    seed: int,
) -> Report:
    """Both families at one resolution."""
    per_measure: Report = {}
    for name, values in values_of(results, native).items():
        per_measure.update(spread(name, values, resamples=resamples, seed=seed))
    negatives = [view for view in _views(results, native) if not view.has_polyp]
    positives = [view for view in _views(results, native) if view.has_polyp]
    return {
        "resolution": resolution,
        "per_image": per_measure,
        "global": _global(_of_classes(results, native), resamples=resamples, seed=seed),
        "without_polyp": {
            "images": len(negatives),
            "false_alarms": sum(bool(view.findings) for view in negatives),
            "any_mark": sum(view.has_mark for view in negatives),
            "region_fraction": point.min_fraction,
        },
        "with_polyp": {
            "images": len(positives),
            "missed": sum(not view.found for view in positives),
        },
    }


def _global(confusions: Sequence[Sequence[Confusion]], *, resamples: int, seed: int) -> Report:
    """One confusion matrix per class over all pixels; each measure is the mean over the classes."""
    totals = mean_measures([sum(of_class, Confusion()) for of_class in confusions])
    intervals = bootstrap_global(confusions, resamples=resamples, seed=seed)
    report: Report = {_GLOBAL_NAMES.get(name, name): totals[name] for name in MEASURES}
    report.update({f"{_GLOBAL_NAMES.get(name, name)}_ci95": list(intervals[name]) for name in MEASURES})
    return report


def _by_size(results: Sequence[ImageResult], native: bool, *, resamples: int, seed: int) -> Report:
    """Images with a lesion, by the share of the image that it takes."""
    report: Report = {"limits": list(SIZE_LIMITS)}
    for size in SIZES:
        chosen = [result for result in results if size_of(result.truth_fraction) == size]
        report[size] = _stratum(chosen, native, resamples=resamples, seed=seed)
    return report


def _by_sequence(results: Sequence[ImageResult], native: bool, *, resamples: int, seed: int) -> Report | None:
    """Frames by the sequence that they form; None where no two frames belong together."""
    keys = [f"{result.set_name}/{result.group}".strip("/") if result.group else "" for result in results]
    groups = [key for key, count in Counter(keys).items() if key and count > 1]
    if not groups:
        return None
    each: Report = {}
    for group in groups:
        chosen = [result for result, key in zip(results, keys, strict=True) if key == group]
        dice = values_of(chosen, native)["dice"]
        each[group] = {
            "images": len(chosen),
            "dice": float(dice.mean()),
            "dice_std": float(dice.std()),
            "dice_min": float(dice.min()),
            "missed": sum(view.has_polyp and not view.found for view in _views(chosen, native)),
        }
    means = np.array([row["dice"] for row in each.values()], np.float64)
    # A frame that stands alone is drawn as a sequence of one.
    clusters = [key or f"/{number}" for number, key in enumerate(keys)]
    low, high = bootstrap_groups(values_of(results, native)["dice"], clusters, resamples=resamples, seed=seed)
    return {
        "sequences": len(groups),
        "mean_of_sequences": spread("dice", means, resamples=resamples, seed=seed),
        "image_mean_dice_ci95": [low, high],
        "each": each,
    }


def _by_class(
    results: Sequence[ImageResult], class_names: Sequence[str], native: bool, *, resamples: int, seed: int
) -> Report:
    """Each class against all others; an image in which it is neither true nor predicted scores 1."""
    report: Report = {}
    for name, confusions in zip(class_names, _of_classes(results, native), strict=True):
        present = [c for c in confusions if c.tp + c.fn > 0]
        dice = np.array([c.dice for c in confusions], np.float64)
        report[name] = {
            "images_with": len(present),
            **spread("dice", dice, resamples=resamples, seed=seed),
            "dice_where_present": sum(c.dice for c in present) / len(present) if present else None,
            "missed": sum(c.tp == 0 for c in present),
            "global": _global([confusions], resamples=resamples, seed=seed),
        }
    return report


def _stratum(results: Sequence[ImageResult], native: bool, *, resamples: int, seed: int) -> Report:
    """Dice and IoU of some of the images; only their number when there are none."""
    if not results:
        return {"images": 0}
    values = values_of(results, native)
    return {
        "images": len(results),
        **spread("dice", values["dice"], resamples=resamples, seed=seed),
        **spread("iou", values["iou"], resamples=resamples, seed=seed),
        "missed": sum(view.has_polyp and not view.found for view in _views(results, native)),
    }
