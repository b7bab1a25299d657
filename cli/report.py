"""``vmkla report``: make the page of a procedure again from the files in its run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmkla.cli.console import print_json, print_line, say
from vmkla.cli.options import Json, Quiet
from vmkla.errors import BadInputError, DegradedError, VmklaError

if TYPE_CHECKING:
    from vmkla.procedures.report.gather import Procedure


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Folder of a run of vmkla infer over a video or with --live, or of a batch."
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write procedure.html into the folder of a run: time line, lesions, settings, in one file."""
    if not folder.is_dir():
        raise BadInputError(
            f"there is no folder {folder}",
            hint="Give the folder of a run: vmkla infer --video FILE --out DIR",
        )
    from vmkla.archive.layout import is_batch
    from vmkla.procedures.files import PAGE

    if is_batch(folder):
        _report_batch(folder, json=json, quiet=quiet)
        return
    procedure = _write(folder)
    for sentence in procedure.missing:
        say(f"note: {sentence}", quiet=quiet)
    page = folder / PAGE
    if json:
        print_json({"page": str(page), "lesions": procedure.lesions, "missing": procedure.missing})
    else:
        print_line(f"lesions:   {'not known' if procedure.lesions is None else procedure.lesions}")
        print_line(f"procedure: {page}")


def _write(folder: Path) -> Procedure:
    from vmkla.folders import locked_folder
    from vmkla.procedures.files import PAGE
    from vmkla.procedures.report.page import write_page

    with locked_folder(folder, (PAGE,)):
        return write_page(folder)


def _report_batch(folder: Path, *, json: bool, quiet: bool) -> None:
    """Write the pages of all videos of a batch.

    Raises:
        DegradedError: some could not be written.
    """
    from vmkla.archive.layout import find_batch
    from vmkla.archive.records import Records

    records = Records(find_batch(folder)).all()
    pieces = [record for record in records if record.facts.get("kind") == "video" and record.folder]
    failed = 0
    for record in pieces:
        try:
            _write(folder / str(record.folder))
        except VmklaError as error:
            failed += 1
            say(f"note: {record.source}: {error.message}", quiet=quiet)
    if json:
        print_json({"pages": len(pieces) - failed, "failed": failed})
    else:
        print_line(f"pages:     {len(pieces) - failed} of {len(pieces)} videos")
    if failed:
        raise DegradedError(f"{failed} of {len(pieces)} pages could not be written")
