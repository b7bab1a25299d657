"""What a worker does with a source: compute its digest, run the network over a part, or segment it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmkla.archive.identity import Hashed, open_entry, source_digest, source_stamp
from vmkla.archive.work import Entry
from vmkla.bounded import parse_names, read_file
from vmkla.errors import BadInputError, DegradedError, ErrorReport, VmklaError
from vmkla.evaluation.alarms import count_alarms
from vmkla.files import FULL
from vmkla.procedures.files import REPORT, ROWS
from vmkla.procedures.report.stored import Lines, to_row
from vmkla.runner import Runner
from vmkla.segment.steps import check, infer, view
from vmkla.video.file.answers import AnswerFile, AnswerKind
from vmkla.video.file.options import Progress, SegmentOptions
from vmkla.video.file.pipeline import segment
from vmkla.video.file.plan import make_plan
from vmkla.video.media.decoding import VideoSource
from vmkla.video.media.naming import name_source
from vmkla.video.media.parts import Part, find_parts

_REPORT_MAX_BYTES = 64 << 20
_EVERY_S = 0.25


@dataclass(frozen=True)
class HashJob:
    """Compute the digest of a source, and find the parts that a video can be cut into.

    Attributes:
        entry: the source.
        part_s: shortest part, seconds; 0 for none.
        track: number of the video track; None for the largest.
    """

    entry: Entry
    part_s: float = 0.0
    track: int | None = None


@dataclass(frozen=True)
class PartJob:
    """Run the network over a part of a video, and keep its answers.

    Attributes:
        entry: the video.
        options: options of the run over the whole.
        stamp, digest: those of the video.
        part: the part.
        path: private file for the answers.
    """

    entry: Entry
    options: SegmentOptions
    stamp: str
    digest: str
    part: Part
    path: Path


@dataclass(frozen=True)
class SegmentJob:
    """Segment a source.

    Attributes:
        entry: the source.
        options: options of the run; ``out_dir`` is the private folder.
        stamp, digest: those of the source.
        stored: files with answers of the network to its parts.
    """

    entry: Entry
    options: SegmentOptions
    stamp: str
    digest: str
    stored: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Ready:
    """The worker has loaded the model."""


@dataclass(frozen=True)
class Advanced:
    """The worker has made progress.

    Attributes:
        done, total: frames of a piece, or bytes of a source that is hashed; the total is None when unknown.
    """

    done: int
    total: int | None


@dataclass(frozen=True)
class LoadFailed:
    """The worker cannot load the model.

    Attributes:
        end: how it ended.
    """

    end: ErrorReport


@dataclass(frozen=True)
class Ended:
    """A job has ended.

    Attributes:
        end: how it ended.
        stamp, hashed: those of a source that was hashed.
        facts: what was found, for the record of the piece.
        disk_full: whether the disk is full.
        seconds: time that it took.
    """

    end: ErrorReport
    stamp: str = ""
    hashed: Hashed | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    disk_full: bool = False
    seconds: float = 0.0


Job = HashJob | PartJob | SegmentJob
Event = Ready | LoadFailed | Advanced | Ended


def perform(runner: Runner, job: Job, send: Callable[[Event], None]) -> None:
    """Do a job, and report its progress and its end; errors are reported, not raised."""
    began_s = time.monotonic()
    advance = _Throttle(send)
    try:
        if isinstance(job, HashJob):
            stamp = source_stamp(job.entry)
            digest = source_digest(job.entry, lambda count: advance(count, None))
            _check_unchanged(job.entry, stamp)
            hashed = Hashed(digest, _parts(job), job.part_s)
            ended = Ended(ErrorReport("", None, 0, "done"), stamp, hashed)
        elif isinstance(job, PartJob):
            _answer(runner, job, advance)
            ended = Ended(ErrorReport("", None, 0, "done"))
        else:
            ended = _segment(runner, job, advance)
    except Exception as error:
        ended = Ended(_report(error, job), disk_full=is_full(error))
    send(dataclasses.replace(ended, seconds=time.monotonic() - began_s))


def _parts(job: HashJob) -> tuple[Part, ...]:
    """Return the parts of a video; one that cannot be read fails when it is segmented."""
    if job.part_s <= 0 or job.entry.kind != "video":
        return ()
    try:
        return find_parts(job.entry.path, job.track, job.part_s)
    except VmklaError:
        return ()


def _answer(runner: Runner, job: PartJob, advance: Callable[[int, int | None], None]) -> None:
    """Run the network over the frames of a part, as the run over the whole would."""
    options, part = job.options, job.part
    source = open_entry(job.entry, options.reading)
    assert isinstance(source, VideoSource)
    plan = make_plan(runner, name_source(source, anonymous=options.anonymous, sha256=job.digest), options)
    file = AnswerFile(job.path, AnswerKind(runner, plan.point, whole=options.save_probability))
    try:
        for number, frame in enumerate(source.frames(part), 1):
            if frame.index % options.stride == 0:
                seen = view(frame.rgb, plan.spec, plan.views.of(frame))
                probability = infer(runner, [seen.pixels_rgb])
                check(probability, runner.spec)
                file.add(seen, probability[0])
            advance(number, part.end - part.first)
    finally:
        file.close()
    _check_unchanged(job.entry, job.stamp)


def _segment(runner: Runner, job: SegmentJob, advance: Callable[[int, int | None], None]) -> Ended:
    entry, options = job.entry, job.options
    source = open_entry(entry, options.reading)
    if source.kind == "video":
        options = dataclasses.replace(options, image_format="png")
    else:
        options = dataclasses.replace(options, export_frames=False, track=None)
    named = name_source(
        source, anonymous=options.anonymous, sha256=job.digest if source.kind == "video" else None
    )

    def show(progress: Progress) -> None:
        advance(progress.done, progress.total)

    try:
        end = ErrorReport("", None, 0, "done")
        document = segment(runner, named, options, show, stored=job.stored).to_dict()
    except DegradedError as error:
        end = ErrorReport.of(error)
        document = parse_names(read_file(options.out_dir / REPORT, _REPORT_MAX_BYTES), _REPORT_MAX_BYTES)
    _check_unchanged(entry, job.stamp)
    return Ended(end, facts=_facts(document, options.out_dir))


def _facts(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what the summary of a batch shows of a report and its rows."""
    found, counts, kind = document["findings"], document["counts"], document["input"]["kind"]
    facts = {
        "kind": kind,
        "frames": counts["frames"],
        "segmented": counts["segmented"],
        "with_finding": found["frames"],
        "regions": found["regions"],
    }
    if kind == "video":
        rows = [(row.time_s, row.found) for row in Lines(folder / ROWS, to_row) if row.found is not None]
        alarms = count_alarms([time_s for time_s, _ in rows], [bool(each) for _, each in rows])
        facts |= {
            "lesions": found.get("lesions"),
            "alarms": alarms.count(),
            "recorded_s": round(alarms.recorded_s, 3),
        }
    return facts


def _check_unchanged(entry: Entry, stamp: str) -> None:
    if source_stamp(entry) != stamp:
        raise BadInputError(
            f"{entry.path} changed while it was read", hint="Run the command again with --retry-failed."
        )


def _report(error: Exception, job: Job) -> ErrorReport:
    if isinstance(error, OSError) and isinstance(job, HashJob):
        error = BadInputError(f"{job.entry.path} cannot be read: {error.strerror or error}")
    return ErrorReport.of(error)


def is_full(error: BaseException) -> bool:
    """Return whether an error reports a full disk. Its cause is not always kept, its text is the system's."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return isinstance(error, BadInputError) and any(os.strerror(number) in str(error) for number in FULL)


class _Throttle:
    """Sends progress a few times a second."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send, self._next_s = send, 0.0

    def __call__(self, done: int, total: int | None) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _EVERY_S
            self._send(Advanced(done, total))
