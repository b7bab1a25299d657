"""``vmkla eval --procedures``: measure a model, or a batch's results, on annotated recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vmkla.cli.console import print_json, print_line, print_tables, progress_bar, say
from vmkla.cli.options import run_folder
from vmkla.errors import DegradedError

if TYPE_CHECKING:
    from vmkla.evaluation.procedure_run import Judged
    from vmkla.evaluation.truth.layouts import AnnotatedSet


def evaluate_procedures(
    judged: Judged,
    name: str,
    annotated: AnnotatedSet,
    folder: Path,
    *,
    identities: bool,
    out: Path | None,
    exist_ok: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Evaluate findings in annotated recordings, write the outputs and print the figures.

    Args:
        judged: a network, or the results of a batch.
        name: its name, for the default folder.
        annotated, folder: the recordings, and where they lie.
        identities, out, exist_ok, json, quiet: the command's options.
    Raises:
        VmklaError: see ``run_procedures``.
        DegradedError: parts of the recordings could not be read.
    """
    from vmkla.evaluation.procedure_run import ProcedureOptions, run_procedures
    from vmkla.evaluation.procedure_tables import procedure_tables

    totals = [recording.source.total for recording in annotated.recordings]
    known = [total for total in totals if total is not None]
    total = sum(known) if len(known) == len(totals) else None
    count = len(annotated.recordings)
    say(f"{folder}: {count} recording{'s' * (count != 1)} ({annotated.layout})", quiet=quiet)
    with (
        run_folder(out, Path("runs/eval") / name, again=exist_ok) as out_dir,
        progress_bar("judging", "frames", quiet=quiet) as bar,
    ):

        def show(done: int, recording: str) -> None:
            if bar is not None:
                bar(done, total, recording)

        options = ProcedureOptions(
            out_dir=out_dir,
            data=folder.resolve().name,
            identities=identities,
            exist_ok=exist_ok,
        )
        document = run_procedures(judged, annotated, options, show)
    for warning in document["warnings"]:
        say(f"note: {warning}", quiet=quiet)
    if json:
        print_json({"out_dir": str(out_dir), **document})
    else:
        print_tables(procedure_tables(document))
        for label, file in document["outputs"].items():
            print_line(f"{label + ':':11} {out_dir / file}")
    if document["missing"]:
        raise DegradedError("; ".join(document["missing"]), hint="The figures are of what could be read.")
