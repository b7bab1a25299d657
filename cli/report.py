"""``vmkla report``: make the page of a procedure again from the files in its run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vmkla.cli.console import print_json, print_line, say
from vmkla.cli.options import Json, Quiet
from vmkla.errors import BadInputError


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of a run of vmkla infer over a video or with --live."),
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
    from vmkla.folders import locked_folder
    from vmkla.procedures.files import PAGE
    from vmkla.procedures.report.page import write_page

    with locked_folder(folder, (PAGE,)):
        procedure = write_page(folder)
    for sentence in procedure.missing:
        say(f"note: {sentence}", quiet=quiet)
    page = folder / PAGE
    if json:
        print_json({"page": str(page), "lesions": procedure.lesions, "missing": procedure.missing})
    else:
        print_line(f"lesions:   {'not known' if procedure.lesions is None else procedure.lesions}")
        print_line(f"procedure: {page}")
