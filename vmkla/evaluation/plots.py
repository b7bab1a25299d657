"""The plots of ``report.html``, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from vmkla.evaluation.froc import froc
from vmkla.evaluation.judge import ImageResult
from vmkla.evaluation.lesions import SIZE_LIMITS, SIZES, size_of
from vmkla.imports import require
from vmkla.metrics import MEASURES

_DPI = 110
_SHOWN_SEQUENCES = 60
"""Largest number of bars in the plot of sequences."""


def measures_plot(report: dict[str, Any]) -> bytes:
    """Plot all five measures with their intervals, of both families at both resolutions."""
    figure, axes = _figure(9, 4)
    series = [
        (f"{label}, {view['resolution']}", view[family], marker, colour)
        for family, label, marker in (("per_image", "mean over images", "o"), ("global", "all pixels", "s"))
        for view, colour in zip(report["resolutions"].values(), ("tab:blue", "tab:orange"), strict=True)
    ]
    for number, (label, values, marker, colour) in enumerate(series):
        names = [_key(values, measure) for measure in MEASURES]
        centres = np.array([values[name] for name in names])
        bounds = np.array([values[f"{name}_ci95"] for name in names])
        errors = np.abs(bounds.T - centres)
        place = np.arange(len(MEASURES)) + (number - 1.5) * 0.17
        axes.errorbar(
            place, centres, errors, fmt=marker, color=colour, capsize=3, label=label,
            markerfacecolor=colour if marker == "o" else "white",
        )  # fmt: skip
    axes.set_xticks(range(len(MEASURES)), MEASURES)
    axes.set(ylim=(0, 1.02), ylabel="value and 95 % interval")
    axes.grid(axis="y", alpha=0.4)
    figure.legend(loc="outside upper center", ncols=2)  # inside the axes it could cover a point
    return _png(figure)


def dice_histogram(results: Sequence[ImageResult]) -> bytes:
    """Plot the histogram of the images' native Dice."""
    figure, axes = _figure(6, 3.6)
    dice = np.array([result.native.measures()["dice"] for result in results])
    axes.hist(dice, bins=np.linspace(0, 1, 21), color="tab:blue", edgecolor="white")
    axes.axvline(dice.mean(), color="black", label=f"mean {dice.mean():.3f}")
    axes.axvline(np.median(dice), color="black", linestyle=":", label=f"median {np.median(dice):.3f}")
    axes.set(xlim=(0, 1), xlabel="Dice of an image, native resolution", ylabel="images")
    axes.legend(loc="upper left")
    return _png(figure)


def dice_by_size(results: Sequence[ImageResult]) -> bytes | None:
    """Plot Dice over the size of the lesion; None where no image has a lesion."""
    lesions = [result for result in results if result.truth_fraction > 0]
    if not lesions:
        return None
    figure, axes = _figure(6, 3.6)
    share = np.array([result.truth_fraction for result in lesions])
    dice = np.array([result.native.measures()["dice"] for result in lesions])
    axes.scatter(100 * share, dice, s=9, alpha=0.45, color="tab:blue", linewidths=0)
    axes.set_xscale("log")
    edges = [100 * share.min() * 0.9, *(100 * limit for limit in SIZE_LIMITS), 100 * share.max() * 1.1]
    for number, size in enumerate(SIZES):
        inside = dice[[size_of(value) == size for value in share]]
        if len(inside):
            axes.hlines(
                inside.mean(), edges[number], edges[number + 1], color="tab:red",
                label="mean of small, medium, large" if not axes.get_legend_handles_labels()[1] else None,
            )  # fmt: skip
    for limit in SIZE_LIMITS:
        axes.axvline(100 * limit, color="grey", linestyle=":")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set(ylim=(-0.02, 1.02), xlabel="lesion, % of the image", ylabel="Dice, native resolution")
    figure.legend(loc="outside upper center")
    return _png(figure)


def froc_plot(report: dict[str, Any], results: Sequence[ImageResult]) -> bytes | None:
    """Plot the FROC curve, of all lesions and by size, with the operating point; None without a lesion."""
    lesions = report["lesions"]
    if not lesions["lesions"]:
        return None
    figure, axes = _figure(7, 4.2)
    series = [("all lesions", "", "black", lesions)]
    series += [
        (f"{size} lesions", size, colour, lesions["by_size"][size])
        for size, colour in zip(SIZES, ("tab:orange", "tab:green", "tab:blue"), strict=True)
        if lesions["by_size"][size]["lesions"]
    ]
    false_rate = lesions["false_regions_per_image"]
    for label, size, colour, figures in series:
        curve = froc(results, report["operating_point"]["threshold"], size)
        axes.step(
            [0.0, *curve["false_regions_per_image"]], [0.0, *curve["sensitivity"]], where="post",
            color=colour, linewidth=1 if size else 2,
            label=f"{label} ({figures['found']} of {figures['lesions']} found at the point)",
        )  # fmt: skip
        axes.plot(false_rate, figures["sensitivity"], marker="o", color=colour, zorder=3)
    intervals = [
        np.abs(np.array([lesions[f"{name}_ci95"]]).T - lesions[name])
        for name in ("false_regions_per_image", "sensitivity")
    ]
    axes.errorbar(
        false_rate, lesions["sensitivity"], intervals[1], intervals[0], fmt="o", color="black", capsize=3,
        label="operating point and its 95 % intervals", zorder=4,
    )  # fmt: skip
    end = max([*lesions["froc"]["false_regions_per_image"], lesions["false_regions_per_image_ci95"][1]])
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.5)
    ticks = [tick for tick in (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if tick <= 1.2 * end]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(
        xlim=(-0.004, max(0.1, 1.1 * end)), ylim=(0, 1.02),
        xlabel="false regions per image (linear up to 0.1, logarithmic above)",
        ylabel="sensitivity per lesion",
    )  # fmt: skip
    axes.grid(alpha=0.4)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return _png(figure)


def dice_by_sequence(report: dict[str, Any]) -> bytes | None:
    """Plot the mean Dice of each sequence, worst first; None where there are no sequences."""
    if report["by_sequence"] is None:
        return None
    rows = sorted(report["by_sequence"]["each"].items(), key=lambda item: item[1]["dice"])
    return _bars(
        [f"{name} ({row['images']})" for name, row in rows[:_SHOWN_SEQUENCES]],
        [row["dice"] for _, row in rows[:_SHOWN_SEQUENCES]],
        [row["dice_std"] for _, row in rows[:_SHOWN_SEQUENCES]],
        "mean Dice of the frames, and their standard deviation",
    )


def dice_by_class(report: dict[str, Any]) -> bytes | None:
    """Plot the Dice of each class, over volumes or else over images; None for a single class."""
    if "volumes" in report:
        rows, label = report["volumes"]["by_organ"], "mean Dice over volumes, and standard deviation"
    elif "by_class" in report:
        rows, label = report["by_class"], "mean Dice over images, and standard deviation"
    else:
        return None
    return _bars(
        list(rows),
        [row["dice"] for row in rows.values()],
        [row["dice_std"] for row in rows.values()],
        label,
    )


def _bars(names: Sequence[str], values: Sequence[float], spreads: Sequence[float], label: str) -> bytes:
    figure, axes = _figure(8, 1.2 + 0.22 * len(names))
    places = np.arange(len(names))
    axes.barh(places, values, color="tab:blue", xerr=spreads, ecolor="grey")
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02), xlabel=label)
    axes.grid(axis="x", alpha=0.4)
    return _png(figure)


def _key(values: dict[str, Any], measure: str) -> str:
    """Return a measure's name in the family of the values."""
    return measure if measure in values else {"dice": "dsc", "iou": "miou"}[measure]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Make a figure and its axes, sizes in inches, without pyplot's global state."""
    require("matplotlib", extra="report", purpose="report.html")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI)
    return data.getvalue()
