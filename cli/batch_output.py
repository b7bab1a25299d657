"""What ``vmkla batch`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmkla.cli.console import print_json, print_line, say

if TYPE_CHECKING:
    from vmkla.archive.options import Tally
    from vmkla.archive.plan import BatchPlan, Forecast
    from vmkla.archive.summary import BatchSummary
    from vmkla.archive.work import Work


def print_notes(work: Work, part: tuple[int, int] | None, count: int, *, quiet: bool) -> None:
    """Print on stderr what the search left out, and the shard."""
    for note in work.notes:
        say(f"note: {note}", quiet=quiet)
    if part is not None:
        say(f"shard {part[0]} of {part[1]}: {count} of {len(work.entries)} sources", quiet=quiet)


def print_plan(
    plan: BatchPlan, expected: Forecast | None, workers: int, *, json: bool, anonymous: bool
) -> None:
    """Print what would run."""
    shown = () if anonymous else plan.to_do
    if json:
        values: dict[str, Any] = {
            "sources": len(plan.to_do),
            "to_do": [entry.id for entry in shown],
            "done": plan.done,
            "failed": plan.failed,
            "copies": plan.copies,
            "bytes": plan.bytes,
            "forecast": None if expected is None else vars(expected),
        }
        print_json(values)
        return
    for entry in shown:
        print_line(f"{entry.kind:7} {entry.id}")
    print_line(f"to do:    {len(plan.to_do)} sources, {plan.bytes / 1e9:.2f} GB")
    print_line(f"done:     {plan.done}; failed: {plan.failed}; copies: {plan.copies}")
    if expected is None:
        print_line("estimate: none, since no source could be measured" if plan.to_do else "estimate: nothing")
        return
    print_line(
        f"estimate: about {_hours(expected.seconds)} with {workers} workers for about {expected.frames} "
        f"frames, {1e3 * expected.frame_s:.0f} ms each (measured over {expected.measured} frames with one)"
    )


def _hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def print_end(out: Path, tally: Tally, summary: BatchSummary, *, json: bool) -> None:
    """Print how a run ended, and the sums of the batch."""
    from vmkla.archive.records import STATUS
    from vmkla.archive.summary import SUMMARY_PAGE

    if json:
        print_json({"out_dir": str(out), "run": vars(tally), "summary": summary.to_dict()})
        return
    print_line(
        f"this run:  {tally.done} done, {tally.degraded} degraded, {tally.failed} failed; "
        f"{tally.earlier + tally.degraded_earlier} done and {tally.failed_earlier} failed before, "
        f"{tally.copies} copies, "
        f"{tally.left} left"
    )
    _print_sums(summary)
    print_line(f"status:    {out / STATUS}")
    print_line(f"summary:   {out / SUMMARY_PAGE}")


def _print_sums(summary: BatchSummary) -> None:
    rate = summary.alarms_per_minute
    alarms = "" if rate is None else f", {rate:.2f} alarms a minute"
    print_line(
        f"batch:     {sum(summary.outcomes.values())} pieces, {summary.recorded_s / 3600:.2f} h of video, "
        f"{summary.regions} regions, {summary.lesions} lesions{alarms}"
    )


def summarise_again(folder: Path, *, json: bool) -> None:
    """Write status and summary of a batch from its records."""
    from vmkla.archive.layout import find_batch
    from vmkla.archive.records import Records
    from vmkla.archive.summary import SUMMARY_PAGE, write_summary

    summary = write_summary(folder, Records(find_batch(folder)).write_status())
    if json:
        print_json({"out_dir": str(folder), "summary": summary.to_dict()})
        return
    _print_sums(summary)
    print_line(f"summary:   {folder / SUMMARY_PAGE}")
