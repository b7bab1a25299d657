"""Write the files of an evaluation into a free folder, each whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmkla.evaluation.judge import ImageResult
from vmkla.evaluation.lesions import size_of
from vmkla.files import output_errors, write_whole
from vmkla.folders import check_free, locked_folder
from vmkla.metrics import MEASURES
from vmkla.video.media.sinks import to_json

REPORT, ROWS, LESIONS, PAGE = "report.json", "per_image.csv", "per_lesion.csv", "report.html"
_FILES = (REPORT, ROWS, LESIONS, PAGE)


@contextlib.contextmanager
def output_folder(path: Path, *, exist_ok: bool) -> Iterator[None]:
    """Lock a folder for the outputs, for a block, so that no other run writes to it.

    Raises:
        UsageError: it holds an evaluation and ``exist_ok`` is not set, or another run is active there.
        BadInputError: it cannot be made.
    """
    with locked_folder(path, _FILES):
        check_free(path, _FILES, exist_ok=exist_ok)
        yield


def write_outputs(
    path: Path,
    document: Mapping[str, Any],
    results: Sequence[ImageResult],
    class_names: Sequence[str],
    page: str | None,
) -> None:
    """Write ``per_image.csv``, ``report.html`` if there is a page, and last ``report.json``.

    Raises:
        BadInputError: a file cannot be written.
    """
    # A file's name may not be valid Unicode: the table keeps its bytes, the page shows them escaped.
    files = {ROWS: per_image_csv(results, class_names).encode(errors="surrogateescape")}
    if page is not None:
        files[PAGE] = page.encode(errors="backslashreplace")
    files[REPORT] = to_json(plain(document), indent=2) + b"\n"
    write_files(path, files)


def write_files(path: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of an evaluation in their order, in the place of an earlier one's.

    Args:
        path: the folder.
        files: content by name; ``report.json`` is the last, since it states that the others are whole.
    Raises:
        BadInputError: a file cannot be written.
    """
    with output_errors(path):
        for name in _FILES:  # an earlier evaluation's files must not stay beside new ones
            (path / name).unlink(missing_ok=True)
    for name, data in files.items():
        write_whole(path / name, data)


def per_image_csv(results: Sequence[ImageResult], class_names: Sequence[str]) -> str:
    """Make one row per image.

    Measures of the raw mask at both resolutions, lesions and false regions of the findings at the image's
    own, and of several classes the Dice of each.
    """
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for result in results:
        row: dict[str, Any] = {
            "name": result.name,
            "set": result.set_name,
            "group": result.group,
            "height_px": result.size_hw[0],
            "width_px": result.size_hw[1],
            "truth_fraction": result.truth_fraction,
            "size": size_of(result.truth_fraction),
            "max_probability": result.max_probability,
            "largest_region_fraction": result.native.largest_region,
            "lesions": len(result.lesions.lesions),
            "lesions_found": result.lesions.found,
            "false_regions": len(result.lesions.false_findings),
        }
        for label, view in (("native", result.native), ("model", result.model)):
            measures = view.measures()
            row.update({f"{label}_{name}": measures[name] for name in MEASURES})
        if len(class_names) > 1:
            confusions = zip(class_names, result.native.confusions, strict=True)
            row.update({f"native_dice_{name}": confusion.dice for name, confusion in confusions})
        if writer is None:
            writer = csv.DictWriter(text, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return text.getvalue()


def plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None in plain values."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
