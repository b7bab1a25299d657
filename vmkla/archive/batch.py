"""Run a batch: find the work, share it out, and write what came of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from vmkla.archive.driver import Driver
from vmkla.archive.estimate import FrameEstimate
from vmkla.archive.layout import BatchFolder
from vmkla.archive.options import DriverOptions, Executor, Tally
from vmkla.archive.piece import is_full
from vmkla.archive.records import STATUS, PieceRecord
from vmkla.archive.summary import write_summary
from vmkla.archive.work import Entry
from vmkla.errors import BadInputError, DegradedError, StoppedError, UsageError
from vmkla.video.cancellation import Cancellation


def shard_of(entries: Sequence[Entry], index: int, count: int) -> list[Entry]:
    """Return the entries of one shard, which depends on an entry's id only, whatever else there is.

    Args:
        entries: all entries.
        index: number of the shard, from 0.
        count: number of shards.
    Raises:
        UsageError: there is no such shard.
    """
    if count < 1 or not 0 <= index < count:
        raise UsageError(
            f"there is no shard {index} of {count}", hint="Shards count from 0: --shard 0/4 to --shard 3/4"
        )
    return [entry for entry in entries if _number(entry) % count == index]


def _number(entry: Entry) -> int:
    return int.from_bytes(hashlib.sha256(entry.id.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def run_batch(
    folder: BatchFolder,
    entries: Sequence[Entry],
    executor: Executor,
    options: DriverOptions,
    cancel: threading.Event,
    show: Callable[[FrameEstimate, Tally], None] = lambda estimate, tally: None,
) -> tuple[Tally, list[PieceRecord]]:
    """Work on entries until each has its result or its failure, and write ``status.jsonl`` and the summary.

    Args:
        folder: folder of the batch.
        entries: sources in the order in which they are worked on.
        executor: the workers; they are ended.
        options: options.
        cancel: ends the run when set; what is in hand is dropped and begun again by the next run.
        show: called with the progress a few times a second.
    Returns:
        How the entries ended, and the records of all pieces in the folder.
    Raises:
        VmklaError: the model cannot be loaded by a worker.
        OSError, BadInputError: the batch's folder cannot be written to.
    """
    driver = Driver(folder, entries, executor, options, show)
    try:
        driver.run(cancel)
    finally:
        records = _write_out(driver, folder.path)
    return driver.tally, records


def _write_out(driver: Driver, path: Path) -> list[PieceRecord]:
    """Write status and summary, and return the records; a full disk is reported like one before."""
    try:
        records = driver.records.write_status()
        write_summary(path, records)
    except BadInputError as error:
        if not is_full(error):
            raise
        driver.tally.stopped = driver.tally.stopped or f"the disk is full: {error.message}"
        records = driver.records.all()
    return records


def raise_end(tally: Tally, cancel: threading.Event, out_dir: Path) -> None:
    """Raise what the end of a batch calls for.

    Raises:
        StoppedError: a signal stopped it.
        DegradedError: pieces failed, are degraded, or are left because no further one was claimed.
    """
    again = "the same command continues"
    if isinstance(cancel, Cancellation) and cancel.signum is not None:
        raise StoppedError(cancel.signum, f"stopped; {tally.left} pieces are left, and {again}")
    if tally.stopped:
        raise DegradedError(
            f"{tally.stopped}; {tally.left} pieces are left",
            hint=f"What is published stays in {out_dir}. When that is solved, {again}.",
        )
    failed, degraded = tally.failed + tally.failed_earlier, tally.degraded + tally.degraded_earlier
    parts = [f"{count} {what}" for count, what in ((failed, "failed"), (degraded, "degraded")) if count]
    if parts:
        hint = f"See {out_dir}/{STATUS}." + (" To try again: --retry-failed" if failed else "")
        raise DegradedError(f"pieces of the batch: {' and '.join(parts)}", hint=hint)
