"""Compute the figures of a set of images: both families, both resolutions, and strata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.evaluation.froc import lesion_report
from vmkla.evaluation.judge import ImageResult, MaskComparison
from vmkla.evaluation.lesions import SIZE_LIMITS, SIZES, size_of
from vmkla.metrics import MEASURES, Bootstrap, Confusion, mean_measures
from vmkla.segment.operating_point import OperatingPoint

_GLOBAL_NAMES = {"dice": "dsc", "iou": "miou"}

Report = dict[str, Any]


def summarise(
    results: Sequence[ImageResult],
    *,
    class_names: Sequence[str],
    point: OperatingPoint,
    model_hw: tuple[int, int],
    at_native: bool,
    bootstrap: Bootstrap,
) -> Report:
    """Compute the figures of a set of images.

    Args:
        results: results of the images, at least one.
        class_names: names of the classes that are not background.
        point: the operating point at which findings were counted.
        model_hw: height and width of the network's input, px.
        at_native: resolution of the top level, the strata and ``each``: the images' own, or the network's.
            ``resolutions`` always has both.
        bootstrap: draws of the intervals.
    Returns:
        Plain values; see ``evaluate``.
    """
    packed = any(result.packed for result in results)
    labels = {True: "as packed" if packed else "native", False: f"{model_hw[0]}x{model_hw[1]}"}
    both = {native: _figures(results, native, labels[native], point, bootstrap) for native in (True, False)}
    report: Report = {
        "images": len(results),
        **both[at_native],
        "resolutions": {"native": both[True], "model": both[False]},
        "lesions": lesion_report(
            results,
            class_names=class_names,
            threshold=point.threshold,
            resolution=labels[True],
            bootstrap=bootstrap,
        ),
        "by_size": _by_size(results, at_native, bootstrap),
        "by_sequence": _by_sequence(results, at_native, bootstrap),
    }
    if len(class_names) > 1:
        report["by_class"] = _by_class(results, class_names, at_native, bootstrap)
    report["each"] = [each_row(result, at_native) for result in results]
    return report


def each_row(result: ImageResult, at_native: bool) -> Report:
    """Make the entry of ``each`` for one image."""
    measures = result.at(at_native).measures()
    return {
        "name": result.name,
        "dice": measures["dice"],
        "iou": measures["iou"],
        "max_probability": result.max_probability,
        "truth_fraction": result.truth_fraction,
        "size": size_of(result.truth_fraction),
        "lesions": len(result.lesions.lesions),
        "lesions_found": result.lesions.found,
        "false_regions": len(result.lesions.false_findings),
        "set": result.set_name,
        "group": result.group,
    }


def values_of(results: Sequence[ImageResult], native: bool) -> dict[str, npt.NDArray[np.float64]]:
    """Return the five measures of every image, (n,) each."""
    rows = [result.at(native).measures() for result in results]
    return {name: np.array([row[name] for row in rows], np.float64) for name in MEASURES}


def spread(name: str, values: npt.NDArray[np.float64], bootstrap: Bootstrap) -> Report:
    """Compute mean, standard deviation and 95 % interval of one measure over images."""
    low, high = bootstrap.of_mean(values)
    return {name: float(values.mean()), f"{name}_std": float(values.std()), f"{name}_ci95": [low, high]}


def _views(results: Sequence[ImageResult], native: bool) -> list[MaskComparison]:
    return [result.at(native) for result in results]


def _of_classes(results: Sequence[ImageResult], native: bool) -> list[tuple[Confusion, ...]]:
    """Return one tuple per class, with one confusion per image."""
    return list(zip(*(view.confusions for view in _views(results, native)), strict=True))


def _figures(
    results: Sequence[ImageResult],
    native: bool,
    resolution: str,
    point: OperatingPoint,
    bootstrap: Bootstrap,
) -> Report:
    """Compute both families of figures at one resolution."""
    per_measure: Report = {}
    for name, values in values_of(results, native).items():
        per_measure.update(spread(name, values, bootstrap))
    negatives = [view for view in _views(results, native) if not view.has_polyp]
    positives = [view for view in _views(results, native) if view.has_polyp]
    return {
        "resolution": resolution,
        "per_image": per_measure,
        "global": _global(_of_classes(results, native), bootstrap),
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


def _global(confusions: Sequence[Sequence[Confusion]], bootstrap: Bootstrap) -> Report:
    """Compute the measures over all pixels, one confusion matrix per class, as means over the classes."""
    totals = mean_measures([sum(of_class, Confusion()) for of_class in confusions])
    intervals = bootstrap.of_global(confusions)
    report: Report = {_GLOBAL_NAMES.get(name, name): totals[name] for name in MEASURES}
    report.update({f"{_GLOBAL_NAMES.get(name, name)}_ci95": list(intervals[name]) for name in MEASURES})
    return report


def _by_size(results: Sequence[ImageResult], native: bool, bootstrap: Bootstrap) -> Report:
    """Group images with a lesion by the lesion's share of the image."""
    report: Report = {"limits": list(SIZE_LIMITS)}
    for size in SIZES:
        chosen = [result for result in results if size_of(result.truth_fraction) == size]
        report[size] = _stratum(chosen, native, bootstrap)
    return report


def _by_sequence(results: Sequence[ImageResult], native: bool, bootstrap: Bootstrap) -> Report | None:
    """Group frames by sequence; None where no two frames belong to one sequence."""
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
    low, high = bootstrap.of_groups(values_of(results, native)["dice"], clusters)
    return {
        "sequences": len(groups),
        "mean_of_sequences": spread("dice", means, bootstrap),
        "image_mean_dice_ci95": [low, high],
        "each": each,
    }


def _by_class(
    results: Sequence[ImageResult], class_names: Sequence[str], native: bool, bootstrap: Bootstrap
) -> Report:
    """Compare each class with all others; an image without it in truth and prediction scores 1."""
    report: Report = {}
    for name, confusions in zip(class_names, _of_classes(results, native), strict=True):
        present = [c for c in confusions if c.tp + c.fn > 0]
        dice = np.array([c.dice for c in confusions], np.float64)
        report[name] = {
            "images_with": len(present),
            **spread("dice", dice, bootstrap),
            "dice_where_present": sum(c.dice for c in present) / len(present) if present else None,
            "missed": sum(c.tp == 0 for c in present),
            "global": _global([confusions], bootstrap),
        }
    return report


def _stratum(results: Sequence[ImageResult], native: bool, bootstrap: Bootstrap) -> Report:
    """Compute Dice and IoU of some images; only their number where there are none."""
    if not results:
        return {"images": 0}
    values = values_of(results, native)
    return {
        "images": len(results),
        **spread("dice", values["dice"], bootstrap),
        **spread("iou", values["iou"], bootstrap),
        "missed": sum(view.has_polyp and not view.found for view in _views(results, native)),
    }
