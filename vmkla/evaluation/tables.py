"""Convert the figures to tables of text, for the terminal and for ``report.html``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmkla.evaluation.lesions import SIZES
from vmkla.metrics import MEASURES

FROC_RATES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""False regions per image at which the table of the FROC curve states the sensitivity; ``report.json`` has
every step."""
SHOWN_SEQUENCES = 30
"""Largest number of rows in the table of sequences; ``report.json`` has all."""
_FROC_COLUMNS = ("false_regions_per_image", "sensitivity", "peak")
_HEADS = ("Dice", "IoU", "accuracy", "sensitivity", "specificity")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: title above the table.
        columns: headings of the columns.
        rows: cells of each row; a line break separates a figure from its interval.
        note: note below the table; empty without one.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Yield all tables of a result of ``evaluate``."""
    yield _measures(document)
    yield _lesions(document)
    if document["lesions"]["lesions"]:
        yield _froc(document)
    if "volumes" in document:
        yield _volumes(document["volumes"])
    if "by_set" in document:
        yield _sets(document["by_set"])
    if "by_class" in document:
        yield _classes(document["by_class"], document["resolution"])
    yield _sizes(document["by_size"], document["resolution"])
    yield _alarms(document)
    if document["by_sequence"] is not None:
        yield _sequences(document["by_sequence"], document["resolution"])


def _measures(document: Mapping[str, Any]) -> Table:
    rows = []
    for view in document["resolutions"].values():
        values = view["per_image"]
        cells = [
            f"{values[name]:.3f} ± {values[f'{name}_std']:.3f}\n{_interval(values[f'{name}_ci95'])}"
            for name in MEASURES
        ]
        rows.append((f"mean over images,\n{view['resolution']}", *cells))
    for view in document["resolutions"].values():
        values = view["global"]
        names = ("dsc", "miou", *MEASURES[2:])
        cells = [f"{values[name]:.3f}\n{_interval(values[f'{name}_ci95'])}" for name in names]
        rows.append((f"all pixels as one,\n{view['resolution']}", *cells))
    count = document["images"]
    return Table(
        f"{count} image{'s' * (count != 1)}, raw mask",
        ("", *_HEADS),
        tuple(rows),
        "± standard deviation over images, in brackets the 95 % bootstrap interval over images. "
        f"{_raw_rule(document)}, whether or not its region is a finding.",
    )


def _raw_rule(document: Mapping[str, Any]) -> str:
    """Return what the raw mask marks."""
    threshold = document["threshold"]
    if threshold is None:
        return "The raw mask gives each pixel its most probable class"
    return f"The raw mask is every pixel of probability {threshold:g} or more"


def _finding_rule(document: Mapping[str, Any]) -> str:
    """Return which regions of the raw mask are findings."""
    point = document["operating_point"]
    rules = []
    if point["min_fraction"]:
        rules.append(f"of at least {100 * point['min_fraction']:g} % of the field of view")
    if point["peak"] > point["threshold"]:
        rules.append(f"with a peak of at least {point['peak']:g}")
    return f"A finding is a connected region of the raw mask {' '.join(rules)}".rstrip()


def _lesions(document: Mapping[str, Any]) -> Table:
    """Make the table of lesions and false regions: all, by size, by class and by set."""
    report = document["lesions"]
    sizes = zip(SIZES, _ranges(report["by_size"]["limits"]), strict=True)
    parts = [("all", report), *((f"{size}, {text}", report["by_size"][size]) for size, text in sizes)]
    parts += [(f"class {name}", part) for name, part in report.get("by_class", {}).items()]
    parts += [(f"set {name}", part["lesions"]) for name, part in document.get("by_set", {}).items()]
    rows = tuple(
        (
            name,
            _share(part, "sensitivity", "found", "lesions"),
            _share(part, "image_sensitivity", "images_found", "images_with"),
            _share(part, "false_regions_per_image", "false_regions", "images"),
            _share(part, "alarm_rate", "alarms", "images_without"),
        )
        for name, part in parts
    )
    return Table(
        f"Lesions and false regions, {report['resolution']}, findings",
        ("", "lesions found", "images with one found", "false regions per image", "alarms without lesion"),
        rows,
        f"{_finding_rule(document)} ({document['operating_point_from']}). "
        "A lesion is a connected region of the truth, found when a finding shares a pixel with it; a false "
        "region is a finding that shares none with any lesion. A finding over two lesions finds both; two "
        "findings on one lesion find it once. By size: the lesion's share of the image, and a false region's "
        "own. In brackets 95 % intervals: Wilson's, and of false regions by drawing images.",
    )


def _froc(document: Mapping[str, Any]) -> Table:
    """Make the table of the FROC curve at ``FROC_RATES`` and at the operating point."""
    report, point = document["lesions"], document["operating_point"]
    steps = list(zip(*(report["froc"][name] for name in _FROC_COLUMNS), strict=True))
    own = (f"{report['sensitivity']:.3f}", f"{point['peak']:g}, in force")
    rows = [(report["false_regions_per_image"], *own)]
    for rate in FROC_RATES:
        within = [step for step in steps if step[0] <= rate]
        if not within:  # several regions share the highest peak
            rows.append((rate, "-", "-"))
            continue
        # As many digits as float32 needs, so that the printed peak gives the row.
        rows.append((rate, f"{within[-1][1]:.3f}", str(np.float32(within[-1][2]))))
        if len(within) == len(steps):
            break
    return Table(
        f"FROC, {report['resolution']}, findings",
        ("false regions per image, at most", "sensitivity per lesion", "peak"),
        tuple((f"{rate:.3g}", *cells) for rate, *cells in sorted(rows)),
        "What another peak of the operating point would give on these images; threshold and smallest area "
        "stay.",
    )


def _volumes(volumes: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            _spread(row, "dice", 3),
            _spread(row, "hd95_voxels", 2),
            str(row["volumes"]),
            str(row["missed"]),
            str(row["invented"]),
        )
        for name, row in volumes["by_organ"].items()
    ]
    mean = ("mean", _spread(volumes, "dice", 3), _figure(volumes["hd95_voxels"], 2), str(volumes["count"]))
    return Table(
        "Volumes, per organ, raw mask",
        ("", "Dice", "HD95, voxels", "volumes", "missed", "invented"),
        (*rows, (*mean, "", "")),
        "An organ missed or invented has no HD95 and is left out of its mean.",
    )


def _sets(by_set: Mapping[str, Any]) -> Table:
    rows = []
    for name, report in by_set.items():
        native, model = report["resolutions"]["native"], report["resolutions"]["model"]
        rows.append(
            (
                name,
                str(report["images"]),
                _spread(native["per_image"], "dice", 3),
                _spread(native["per_image"], "iou", 3),
                f"{model['global']['dsc']:.3f}\n{_interval(model['global']['dsc_ci95'])}",
                f"{model['global']['miou']:.3f}\n{_interval(model['global']['miou_ci95'])}",
            )
        )
    size = next(iter(by_set.values()))["resolutions"]["model"]["resolution"]
    heads = ("mean Dice, native", "mean IoU, native", f"global DSC, {size}", f"global mIoU, {size}")
    return Table("Sets, raw mask", ("", "images", *heads), tuple(rows))


def _classes(by_class: Mapping[str, Any], resolution: str) -> Table:
    rows = tuple(
        (
            name,
            str(row["images_with"]),
            _spread(row, "dice", 3),
            _figure(row["dice_where_present"], 3),
            f"{row['global']['dsc']:.3f}",
            f"{row['global']['miou']:.3f}",
            str(row["missed"]),
        )
        for name, row in by_class.items()
    )
    heads = ("images with it", "mean Dice", "where present", "global DSC", "global mIoU", "missed")
    return Table(
        f"Classes, {resolution}, raw mask",
        ("", *heads),
        rows,
        "In the mean Dice an image that lacks the class in truth and prediction scores 1.",
    )


def _ranges(limits: Sequence[float]) -> tuple[str, str, str]:
    """Return the sizes in words."""
    low, high = (100 * limit for limit in limits)
    return f"below {low:g} %", f"{low:g} to {high:g} %", f"{high:g} % and more"


def _sizes(by_size: Mapping[str, Any], resolution: str) -> Table:
    ranges = _ranges(by_size["limits"])
    rows = tuple(
        (
            f"{size}, {text}",
            str(by_size[size]["images"]),
            _spread(by_size[size], "dice", 3),
            _spread(by_size[size], "iou", 3),
            str(by_size[size].get("missed", "-")),
        )
        for size, text in zip(SIZES, ranges, strict=True)
    )
    return Table(
        f"By size of the lesion, {resolution}, raw mask",
        ("share of the image", "images", "mean Dice", "mean IoU", "missed"),
        rows,
    )


def _alarms(document: Mapping[str, Any]) -> Table:
    rows = []
    for view in document["resolutions"].values():
        negatives, positives = view["without_polyp"], view["with_polyp"]
        rows.append(
            (
                view["resolution"],
                f"{positives['missed']} of {positives['images']}",
                f"{negatives['false_alarms']} of {negatives['images']}",
                f"{negatives['any_mark']} of {negatives['images']}",
            )
        )
    return Table(
        "Images missed and false alarms",
        (
            "",
            "missed by the raw mask",
            "no lesion, but a finding",
            "no lesion, but a pixel of the raw mask",
        ),
        tuple(rows),
        f"Missed: no pixel of the lesion is marked. {_finding_rule(document)}.",
    )


def _sequences(by_sequence: Mapping[str, Any], resolution: str) -> Table:
    """Make the table of sequences, worst first, limited to ``SHOWN_SEQUENCES`` rows."""
    each = sorted(by_sequence["each"].items(), key=lambda item: item[1]["dice"])
    rows = tuple(
        (
            name,
            str(row["images"]),
            f"{row['dice']:.3f} ± {row['dice_std']:.3f}",
            f"{row['dice_min']:.3f}",
            str(row["missed"]),
        )
        for name, row in each[:SHOWN_SEQUENCES]
    )
    whole = by_sequence["mean_of_sequences"]
    left_out = "" if len(each) <= SHOWN_SEQUENCES else f" The {SHOWN_SEQUENCES} worst are shown."
    note = (
        f"Mean of the {by_sequence['sequences']} sequences' means: {whole['dice']:.3f} "
        f"{_interval(whole['dice_ci95'])}. Interval of the mean over images when whole sequences are drawn: "
        f"{_interval(by_sequence['image_mean_dice_ci95'])}.{left_out}"
    )
    title = f"Sequences, {resolution}, raw mask"
    return Table(title, ("", "frames", "mean Dice", "lowest Dice", "missed"), rows, note)


def _share(row: Mapping[str, Any], name: str, count: str, total: str) -> str:
    """Return a rate with its counts and its interval."""
    if row[name] is None:
        return "-"
    return f"{row[name]:.3f}, {row[count]} of {row[total]}\n{_interval(row[f'{name}_ci95'])}"


def _spread(row: Mapping[str, Any], name: str, digits: int) -> str:
    if row.get(name) is None:
        return "-"
    low, high = row[f"{name}_ci95"]
    return f"{row[name]:.{digits}f} ± {row[f'{name}_std']:.{digits}f}\n[{low:.{digits}f}, {high:.{digits}f}]"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
