"""Plan a batch: what would run, and about how long it would take."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmkla.archive.estimate import size_bytes
from vmkla.archive.identity import KnownDigests, open_entry, piece_key, source_stamp
from vmkla.archive.layout import BatchFolder
from vmkla.archive.records import Records
from vmkla.archive.work import Entry
from vmkla.errors import DegradedError, VmklaError
from vmkla.runner import Runner
from vmkla.video.cancellation import Cancellation
from vmkla.video.file.options import Progress, SegmentOptions
from vmkla.video.file.pipeline import segment

_OPENED = 20
"""Sources that are opened for their numbers of frames."""
_MEASURED_S, _MEASURED_FRAMES = 5.0, 8


@dataclass(frozen=True)
class BatchPlan:
    """What a batch would do.

    Attributes:
        to_do: sources without a result; one that is not hashed yet may be a copy of another.
        done: sources with a result.
        failed: sources that have failed and are not tried again.
        copies: sources that are the same piece as an earlier one.
        bytes: size of the sources to do.
    """

    to_do: tuple[Entry, ...]
    done: int
    failed: int
    copies: int
    bytes: int


@dataclass(frozen=True)
class Forecast:
    """About how long a batch would take.

    Attributes:
        frames: estimated number of frames.
        measured: number of frames that were measured.
        frame_s: measured time of one frame with one worker, seconds.
        seconds: estimated time with all workers.
    """

    frames: int
    measured: int
    frame_s: float
    seconds: float


def plan_batch(
    folder: BatchFolder | None, entries: Sequence[Entry], settings: dict[str, Any], *, retry_failed: bool
) -> BatchPlan:
    """Sort entries by what a batch would do with them; no source is read, and nothing is written.

    Args:
        folder: folder of the batch; None where it does not exist yet.
        entries: all sources.
        settings: see ``batch_settings``.
        retry_failed: whether pieces that have failed are tried again.
    """
    known = None if folder is None else KnownDigests(folder.hashes, folder.owner)
    records = None if folder is None else Records(folder)
    done_keys = set() if records is None else records.done_keys()
    failed_keys = set() if records is None or retry_failed else records.failed_keys()
    to_do: list[Entry] = []
    seen: set[str] = set()
    done = failed = copies = 0
    for entry in entries:
        key = entry.claim_key
        if known is not None:
            with contextlib.suppress(OSError, VmklaError):  # the run itself reports a source that is gone
                hashed = known.get(source_stamp(entry))
                key = entry.claim_key if hashed is None else piece_key(hashed.digest, settings)
        if key in seen:
            copies += 1
        elif key in done_keys:
            done += 1
        elif key in failed_keys:
            failed += 1
        else:
            to_do.append(entry)
        seen.add(key)
    return BatchPlan(tuple(to_do), done, failed, copies, sum(map(size_bytes, to_do)))


def forecast(plan: BatchPlan, runner: Runner, options: SegmentOptions, workers: int) -> Forecast | None:
    """Estimate the time of a plan from the first frames of a source; None where none can be read.

    Args:
        plan: what is to be done.
        runner: the network, with the threads of one worker.
        options: options of every run.
        workers: number of workers.
    """
    step = max(1, len(plan.to_do) // _OPENED)
    frames = size = 0
    rate: tuple[int, float] | None = None
    for entry in plan.to_do[::step][:_OPENED]:
        with contextlib.suppress(VmklaError, OSError):
            total = open_entry(entry, options.reading).total
            if total:
                frames, size = frames + total, size + size_bytes(entry)
            rate = rate or _measure(runner, entry, options)
    if rate is None or not size:
        return None
    measured, frame_s = rate
    expected = round(frames * plan.bytes / size)
    return Forecast(expected, measured, frame_s, expected * frame_s / workers)


def _measure(runner: Runner, entry: Entry, options: SegmentOptions) -> tuple[int, float] | None:
    """Segment the first frames of a source; return their number and the time of one, seconds."""
    cancel, until_s = Cancellation(), time.monotonic() + _MEASURED_S

    def show(progress: Progress) -> None:
        if progress.done >= _MEASURED_FRAMES and time.monotonic() > until_s:
            cancel.set()

    source = open_entry(entry, options.reading)
    with tempfile.TemporaryDirectory(prefix="vmkla-plan-") as folder:
        options = dataclasses.replace(
            options, out_dir=Path(folder), export=(), export_frames=False, image_format="png"
        )
        try:
            report = segment(runner, source.path, options, show, cancel).to_dict()
        except DegradedError:
            return None
    frames = int(report["counts"]["frames"])
    return (frames, report["wall_s"] / frames) if frames else None
