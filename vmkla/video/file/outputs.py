"""The output folder of a run: check it, continue an earlier run in it, and leave no incomplete files."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.bounded import MalformedError, parse_json, parse_names, read_file
from vmkla.errors import ArtefactMismatchError, BadInputError
from vmkla.files import output_errors, unfinished_path, write_whole
from vmkla.folders import RESERVE, check_free
from vmkla.plain_values import from_plain
from vmkla.procedures.files import LESIONS, OVERLAY_VIDEO, PAGE, REPORT, ROW_MAX_BYTES, ROWS, STILLS
from vmkla.procedures.stills import remove_stills
from vmkla.video.file.annotations import EXPORT, AnnotationLog, logged_images, remove_annotations
from vmkla.video.file.answers import kept_files, remove_files
from vmkla.video.file.plan import Plan
from vmkla.video.media.sinks import DiskReserve, JsonlSink, to_json
from vmkla.video.media.sources import ImageItem, ImageSource

OVERLAY_FOLDER, MASK_FOLDER = "overlay", "masks"
PROBABILITY_FOLDER = "probability"
CONTACT_SHEET = "contact_sheet.jpg"
SETTINGS = ".settings.json"
_SETTINGS_MAX_BYTES = 1 << 20
WHOLE = (
    OVERLAY_VIDEO,
    CONTACT_SHEET,
    OVERLAY_FOLDER,
    MASK_FOLDER,
    PROBABILITY_FOLDER,
    LESIONS,
    STILLS,
    PAGE,
    REPORT,
    SETTINGS,
)
"""Outputs of a killed run that are useless under their temporary names; its rows serve ``resume``."""
_TAKEN = (*(name for name in WHOLE if name != SETTINGS), ROWS)
_ROW_TYPES = {"name": str, "sha256": str, "segmented": bool, "frame_hw": list}

Row = dict[str, Any]


@dataclass
class OutputFolder:
    """The open outputs of one run.

    Attributes:
        path: the folder.
        rows: writer of ``frames.jsonl``.
        reserve: reserved disk space for closing the outputs.
        kept: rows of an interrupted run whose outputs exist, by image name.
        annotations: findings for the annotation formats; None without ``export``.
    """

    path: Path
    rows: JsonlSink
    reserve: DiskReserve
    kept: dict[str, Row] = field(default_factory=dict)
    annotations: AnnotationLog | None = None

    def discard(self) -> None:
        """Remove what ``open_outputs`` created after a run without a frame, but no earlier frames."""
        self.reserve.release()
        if self.annotations is not None:
            self.annotations.discard()
        if self.kept:
            self.close_rows()
            return
        self.rows.close(keep=False)
        (self.path / SETTINGS).unlink(missing_ok=True)

    def close_rows(self, *, dropped: Collection[str] = ()) -> None:
        """Complete ``frames.jsonl``; after a resumed run, with one row per image and in order.

        Args:
            dropped: names of images of the earlier run that get no row.
        Raises:
            BadInputError: the file cannot be written.
        """
        self.rows.close()
        if not self.kept:
            return
        latest = {row["name"]: row for row in _read_rows(self.rows.path) if row["name"] not in dropped}
        ordered = sorted(latest.values(), key=lambda row: int(row["index"]))
        _write_rows(self.rows.path, ordered)

    def write_report(self, report: dict[str, Any]) -> None:
        """Write ``report.json`` completely or not at all.

        Raises:
            BadInputError: the file cannot be written.
        """
        write_whole(self.path / REPORT, to_json(report, indent=2) + b"\n")


def search_exclusions(out_dir: Path) -> tuple[Path, Path]:
    """Return the folders of a run's own images, which are never its input."""
    return out_dir / OVERLAY_FOLDER, out_dir / MASK_FOLDER


def check_image_names(items: Collection[ImageItem], out_dir: Path, *, suffix: str = ".png") -> None:
    """Check that outputs of images have different names and replace no image of the source.

    Args:
        items: the images.
        out_dir: folder of the run.
        suffix: suffix of the overlays; masks are PNG files.
    Raises:
        BadInputError: two outputs would have one name, or one would replace an input.
    """
    first: dict[str, ImageItem] = {}
    for item in items:
        other = first.setdefault(item.output_name(suffix), item)
        if other is not item:
            raise BadInputError(
                f"{other.name} and {item.name} would both be written to "
                f"{OVERLAY_FOLDER}/{item.output_name(suffix)}",
                hint="Rename one of them, or segment them in two runs.",
            )
    written = {
        (out_dir / name).resolve()
        for item in items
        for name in (f"{OVERLAY_FOLDER}/{item.output_name(suffix)}", f"{MASK_FOLDER}/{item.output_name()}")
    }
    for item in items:
        if item.path.resolve() in written:
            raise BadInputError(
                f"the output would replace the input {item.path}", hint="Give another folder: --out DIR"
            )


def open_outputs(plan: Plan) -> OutputFolder:
    """Open the outputs of a run, in a folder that it has locked.

    Args:
        plan: the run; an interrupted one is continued only with equal settings.
    Raises:
        UsageError: there are outputs already, and they are neither to be replaced nor to be continued.
        ArtefactMismatchError: the interrupted run had other settings.
        BadInputError: the folder cannot be written to.
    """
    options, source = plan.options, plan.named.source
    out_dir = options.out_dir
    settings = {**plan.settings, "source": plan.named.place}
    images = source.items if isinstance(source, ImageSource) else None
    kept: dict[str, Row] = {}
    answers = kept_files(out_dir)
    continued = options.resume and (out_dir / SETTINGS).exists() and (images is not None or len(answers) > 0)
    if continued:
        _check_continued(out_dir, settings)
    if continued and images is not None:
        kept = _kept_rows(plan, settings, images)
    else:
        if not continued:
            check_free(out_dir, (*_TAKEN, EXPORT) if options.export else _TAKEN, exist_ok=options.exist_ok)
        _remove_earlier(out_dir)
    if not options.resume:
        remove_files(answers)
    with output_errors(out_dir):
        reserve = DiskReserve(out_dir / RESERVE)
    try:
        if kept:  # they may be in the file that is opened again below; no row is lost at any moment
            _write_rows(out_dir / ROWS, kept.values())
        with output_errors(out_dir / REPORT):
            (out_dir / REPORT).unlink(missing_ok=True)
        if images is not None or options.resume:
            write_whole(out_dir / SETTINGS, to_json(settings, indent=2) + b"\n")
        rows = JsonlSink(out_dir / ROWS)
        for row in kept.values():
            rows.write(row)
        annotations = None
        if options.export:
            with output_errors(out_dir):
                remove_annotations(out_dir, keep_log=True)
            annotations = AnnotationLog(plan, {name: int(row["index"]) for name, row in kept.items()})
    except BaseException:
        reserve.release()
        raise
    return OutputFolder(out_dir, rows, reserve, kept, annotations)


def _check_continued(out_dir: Path, settings: dict[str, Any]) -> None:
    """Compare the settings with those of the run that is continued.

    Raises:
        ArtefactMismatchError: they differ, or cannot be read.
    """
    path = out_dir / SETTINGS
    try:
        earlier = parse_names(read_file(path, _SETTINGS_MAX_BYTES), _SETTINGS_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ArtefactMismatchError(
            f"{path} cannot be read, so nothing is known of the run to continue: {error}",
            hint="Start again with another folder: --out DIR",
        ) from error
    for name in sorted(set(earlier) | set(settings)):
        if earlier.get(name) != settings.get(name):
            raise ArtefactMismatchError(
                f"the run in {out_dir} cannot be continued: its {name} was {earlier.get(name)!r}, "
                f"now it is {settings.get(name)!r}",
                hint="Use the same model and flags as before, or start again with another folder: --out DIR",
            )


def _kept_rows(plan: Plan, settings: dict[str, Any], images: Iterable[ImageItem]) -> dict[str, Row]:
    """Return the rows of images whose outputs exist."""
    options, out_dir = plan.options, plan.options.out_dir
    logged = logged_images(out_dir, plan.labels) if options.export else set()
    wanted = {item.name: (index, item) for index, item in enumerate(images)}
    kept: dict[str, Row] = {}
    for row in (*_read_rows(out_dir / ROWS), *_read_rows(unfinished_path(out_dir / ROWS))):
        if row["name"] not in wanted:
            continue
        index, item = wanted[row["name"]]
        if row["segmented"] != (index % settings["stride"] == 0):
            continue  # images were added or removed, and the stride now selects others
        if options.export and row["segmented"] and (row["name"], row["sha256"]) not in logged:
            continue
        files = [f"{OVERLAY_FOLDER}/{item.output_name('.' + settings['image_format'])}"]
        if options.save_masks:
            files.append(f"{MASK_FOLDER}/{item.output_name()}")
        if options.save_probability:
            files.append(f"{PROBABILITY_FOLDER}/{item.output_name('.npy')}")
        if not row["segmented"] or all((out_dir / name).is_file() for name in files):
            kept[item.name] = {**row, "index": index}
    return kept


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    write_whole(path, b"".join(to_json(row) + b"\n" for row in rows))


def _read_rows(path: Path) -> list[Row]:
    """Read the rows of a file; incomplete lines and lines that are not rows are skipped."""
    rows = []
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = parse_json(line, ROW_MAX_BYTES)
        except MalformedError:
            continue
        if isinstance(row, dict) and _is_whole(row):
            rows.append(row)
    return rows


def _is_whole(row: Row) -> bool:
    """Return whether a row has all that is read from it."""
    if not all(isinstance(row.get(key), kind) for key, kind in _ROW_TYPES.items()):
        return False
    if not row["segmented"]:
        return True
    try:
        height_px, width_px = from_plain(tuple[int, int], row.get("frame_hw"), "frame_hw")
        boxes = from_plain(tuple[tuple[int, int, int, int], ...], row.get("boxes"), "boxes")
        areas_px = from_plain(tuple[int, ...], row.get("box_areas_px"), "box_areas_px")
    except TypeError:
        return False
    if len(boxes) != len(areas_px) or min(areas_px, default=1) < 1:
        return False
    return min(height_px, width_px) >= 1 and all(
        min(x, y) >= 0 and min(w, h) >= 1 and x + w <= width_px and y + h <= height_px for x, y, w, h in boxes
    )


def _remove_earlier(out_dir: Path) -> None:
    """Remove an earlier run's outputs and no other file; its rows name its images."""
    with output_errors(out_dir):
        remove_annotations(out_dir, keep_log=False)
        remove_stills(out_dir)
        for row_file in (out_dir / ROWS, unfinished_path(out_dir / ROWS)):
            if not row_file.exists():
                continue
            with open(row_file, "rb") as file:
                for line in file:
                    _remove_images(out_dir, line)
            row_file.unlink()
        for name in (OVERLAY_VIDEO, CONTACT_SHEET, LESIONS, PAGE, REPORT, SETTINGS):
            (out_dir / name).unlink(missing_ok=True)
        for folder in (*search_exclusions(out_dir), out_dir / PROBABILITY_FOLDER):
            _remove_empty(folder)


def _remove_images(out_dir: Path, line: bytes) -> None:
    try:
        row = parse_json(line, ROW_MAX_BYTES)
        names = [row[key] for key in ("overlay", "mask", "probability") if row.get(key)]
    except (ValueError, AttributeError, TypeError):
        return  # an incomplete line names nothing
    for name in names:
        if "\0" in str(name):
            continue
        image = (out_dir / str(name)).resolve()
        if out_dir.resolve() in image.parents and image.is_file():
            image.unlink()


def _remove_empty(folder: Path) -> None:
    """Remove a folder that holds only folders."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)
