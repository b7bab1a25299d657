"""The folder of a run: checked, picked up again, and left without half-written files."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.bounded import MalformedError, parse_json, parse_names, read_file
from vmkla.errors import ArtefactMismatchError, BadInputError, UsageError
from vmkla.files import output_errors, write_atomically
from vmkla.folders import RESERVE
from vmkla.video.file.plan import Plan
from vmkla.video.media.sinks import DiskReserve, JsonlSink, partial_rows, to_json
from vmkla.video.media.sources import ImageItem, ImageSource

OVERLAY_VIDEO, OVERLAY_FOLDER, MASK_FOLDER = "overlay.mp4", "overlay", "masks"
ROWS, REPORT, SETTINGS = "frames.jsonl", "report.json", ".settings.json"
_SETTINGS_MAX_BYTES, _ROW_MAX_BYTES = 1 << 20, 4 << 20
_TAKEN = (OVERLAY_VIDEO, OVERLAY_FOLDER, MASK_FOLDER, ROWS, REPORT)
WHOLE = (OVERLAY_VIDEO, OVERLAY_FOLDER, MASK_FOLDER, REPORT, SETTINGS)
"""What of a killed run is worth nothing under its temporary name; its rows are, to ``resume``."""
_ROW_TYPES = {"name": str, "sha256": str, "segmented": bool}

Row = dict[str, Any]


@dataclass
class OutputFolder:
    """Outputs of one run, open.

    Attributes:
        path: the folder.
        rows: ``frames.jsonl`` being written.
        reserve: disk space for closing.
        kept: rows of an earlier, interrupted run by image name, outputs present.
    """

    path: Path
    rows: JsonlSink
    reserve: DiskReserve
    kept: dict[str, Row] = field(default_factory=dict)

    def discard(self) -> None:
        """Remove what ``open_outputs`` made: the run never had a frame. An earlier run's frames stay."""
        self.reserve.release()
        if self.kept:
            self.close_rows()
            return
        self.rows.close(keep=False)
        (self.path / SETTINGS).unlink(missing_ok=True)

    def close_rows(self, *, dropped: Collection[str] = ()) -> None:
        """Give ``frames.jsonl`` its name; after a resumed run, with one row an image and in order.

        Args:
            dropped: images of the earlier run that are to have no row.
        Raises:
            BadInputError: it cannot be written.
        """
        self.rows.close()
        if not self.kept:
            return
        latest = {row["name"]: row for row in _read_rows(self.rows.path) if row["name"] not in dropped}
        ordered = sorted(latest.values(), key=lambda row: int(row["index"]))
        _write_rows(self.rows.path, ordered)

    def write_report(self, report: dict[str, Any]) -> None:
        """Write ``report.json``, whole or not at all.

        Raises:
            BadInputError: it cannot be written.
        """
        path = self.path / REPORT
        with output_errors(path):
            write_atomically(path, to_json(report, indent=2) + b"\n")


def search_exclusions(out_dir: Path) -> tuple[Path, Path]:
    """Folders that hold a run's own pictures, never its input."""
    return out_dir / OVERLAY_FOLDER, out_dir / MASK_FOLDER


def check_image_names(items: Collection[ImageItem], out_dir: Path, *, suffix: str = ".png") -> None:
    """Refuse images whose outputs would have one name, or would replace an image of the source.

    Args:
        items: the images.
        out_dir: the run's folder.
        suffix: of the overlays; masks are PNG files.
    Raises:
        BadInputError: with both names.
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
        UsageError: there are outputs already, ``exist_ok`` is not set, and they are not to be continued
            or not of a run over images.
        ArtefactMismatchError: the interrupted run had other settings.
        BadInputError: the folder cannot be written to.
    """
    options, source = plan.options, plan.named.source
    out_dir = options.out_dir
    settings = {**plan.settings, "source": plan.named.place}
    images = source.items if isinstance(source, ImageSource) else None
    kept: dict[str, Row] = {}
    taken = [name for name in _TAKEN if (out_dir / name).exists()]
    if options.resume and (out_dir / SETTINGS).exists():
        kept = _kept_rows(out_dir, settings, images or (), options.save_masks)
    elif taken and not options.exist_ok:
        raise UsageError(
            f"{out_dir} holds outputs already: {', '.join(taken)}",
            hint="Give another folder (--out DIR), or add --exist-ok to replace them.",
        )
    else:
        _remove_earlier(out_dir)
    with output_errors(out_dir):
        reserve = DiskReserve(out_dir / RESERVE)
    try:
        if kept:  # they may stand in the file that is begun anew below; an end at any moment loses none
            _write_rows(out_dir / ROWS, kept.values())
        with output_errors(out_dir / REPORT):
            (out_dir / REPORT).unlink(missing_ok=True)
        if images is not None:
            with output_errors(out_dir / SETTINGS):
                write_atomically(out_dir / SETTINGS, to_json(settings, indent=2) + b"\n")
        rows = JsonlSink(out_dir / ROWS)
        for row in kept.values():
            rows.write(row)
    except BaseException:
        reserve.release()
        raise
    return OutputFolder(out_dir, rows, reserve, kept)


def _kept_rows(
    out_dir: Path, settings: dict[str, Any], images: Iterable[ImageItem], save_masks: bool
) -> dict[str, Row]:
    """Rows of images whose outputs are there, after a look at the settings they were made with."""
    path = out_dir / SETTINGS
    try:
        earlier = parse_names(read_file(path, _SETTINGS_MAX_BYTES), _SETTINGS_MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ArtefactMismatchError(
            f"{path} cannot be read, so nothing is known of the run to continue: {error}",
            hint="Start anew with another folder: --out DIR",
        ) from error
    for name in sorted(set(earlier) | set(settings)):
        if earlier.get(name) != settings.get(name):
            raise ArtefactMismatchError(
                f"the run in {out_dir} cannot be continued: its {name} was {earlier.get(name)!r}, "
                f"now it is {settings.get(name)!r}",
                hint="Use the same model and flags as before, or start anew with another folder: --out DIR",
            )
    wanted = {item.name: (index, item) for index, item in enumerate(images)}
    kept: dict[str, Row] = {}
    for row in (*_read_rows(out_dir / ROWS), *_read_rows(partial_rows(out_dir / ROWS))):
        if row["name"] not in wanted:
            continue
        index, item = wanted[row["name"]]
        if row["segmented"] != (index % settings["stride"] == 0):
            continue  # images came or went meanwhile, and now the stride takes others
        pictures = [f"{OVERLAY_FOLDER}/{item.output_name('.' + settings['image_format'])}"]
        if save_masks:
            pictures.append(f"{MASK_FOLDER}/{item.output_name()}")
        if not row["segmented"] or all((out_dir / picture).is_file() for picture in pictures):
            kept[item.name] = {**row, "index": index}
    return kept


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    with output_errors(path):
        write_atomically(path, b"".join(to_json(row) + b"\n" for row in rows))


def _read_rows(path: Path) -> list[Row]:
    """Whole rows of a file; a line that a kill tore, or that is no row, is left out."""
    rows = []
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            row = parse_json(line, _ROW_MAX_BYTES)
        except MalformedError:
            continue
        if isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in _ROW_TYPES.items()):
            rows.append(row)
    return rows


def _remove_earlier(out_dir: Path) -> None:
    """Remove an earlier run's outputs, and no other file: its pictures are those its rows name."""
    with output_errors(out_dir):
        for row_file in (out_dir / ROWS, partial_rows(out_dir / ROWS)):
            if not row_file.exists():
                continue
            with open(row_file, "rb") as file:
                for line in file:
                    _remove_pictures(out_dir, line)
            row_file.unlink()
        for name in (OVERLAY_VIDEO, REPORT, SETTINGS):
            (out_dir / name).unlink(missing_ok=True)
        for folder in search_exclusions(out_dir):
            _remove_empty(folder)


def _remove_pictures(out_dir: Path, line: bytes) -> None:
    try:
        row = parse_json(line, _ROW_MAX_BYTES)
        names = [row[key] for key in ("overlay", "mask") if row.get(key)]
    except (ValueError, AttributeError, TypeError):
        return  # a torn line names nothing
    for name in names:
        if "\0" in str(name):
            continue
        picture = (out_dir / str(name)).resolve()
        if out_dir.resolve() in picture.parents and picture.is_file():
            picture.unlink()


def _remove_empty(folder: Path) -> None:
    """Remove a folder when it holds nothing but folders."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        shutil.rmtree(folder)
