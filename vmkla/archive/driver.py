"""The driver of a batch: it claims pieces, hands them to workers, and publishes what they made."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vmkla.archive.claims import Claim, Claims
from vmkla.archive.estimate import FrameEstimate
from vmkla.archive.identity import Hashed, KnownDigests, piece_key, source_stamp
from vmkla.archive.layout import BatchFolder, remove_private
from vmkla.archive.options import DriverOptions, Executor, Tally
from vmkla.archive.parts import PartFiles
from vmkla.archive.piece import (
    Advanced,
    Ended,
    Event,
    HashJob,
    LoadFailed,
    PartJob,
    Ready,
    SegmentJob,
    is_full,
)
from vmkla.archive.records import PieceRecord, Records
from vmkla.archive.sweep import sweep
from vmkla.archive.tasks import Outcome, Task, VideoPart, lost_too_often, record_of, unreadable
from vmkla.archive.work import Entry
from vmkla.archive.work_queue import WorkQueue
from vmkla.archive.worker import Died
from vmkla.errors import BadInputError, ErrorReport, VmklaError, first_line

ATTEMPTS_MAX = 10
"""Attempts at a piece whose workers are lost, before it counts as failed."""
CRASHES_MAX = 2
"""Crashes of workers in a piece, before it counts as failed."""
_LOAD_CRASHES_MAX = 3
_POLL_S = 0.25
_LATER_S = 2.0


class Driver:
    """One driver of a batch; others may work in the same folder.

    Args:
        folder: folder of the batch.
        entries: sources in the order in which they are worked on.
        executor: the workers.
        options: options.
        show: called with the progress a few times a second.
    """

    def __init__(
        self,
        folder: BatchFolder,
        entries: Sequence[Entry],
        executor: Executor,
        options: DriverOptions,
        show: Callable[[FrameEstimate, Tally], None] = lambda estimate, tally: None,
    ) -> None:
        self._folder, self._executor, self._options, self._show = folder, executor, options, show
        self.records = Records(folder)
        self.tally = Tally()
        self._estimate = FrameEstimate(entries)
        self._known = KnownDigests(folder.hashes, folder.owner, options.part_s)
        self._parts = PartFiles(folder)
        self._record = functools.partial(record_of, owner=folder.owner, anonymous=options.segment.anonymous)
        self._claims = Claims(folder, options.lease_s)
        self._queue = WorkQueue(entries, min(_LATER_S, options.lease_s / 4))
        self._tasks: dict[int, Task] = {}
        self._settled: set[str] = set()
        self._crashes: dict[str, int] = {}
        self._load_crashes = 0
        before = self.records.all() if options.retry_failed else []
        self._retry = {record.piece: record.attempts for record in before if record.outcome == "failed"}

    def run(self, cancel: threading.Event) -> Tally:
        """Work until every entry has its result or its failure, or no further one is to be claimed.

        Args:
            cancel: ends the run when set; what is in hand is dropped.
        Raises:
            VmklaError: the model cannot be loaded.
            OSError, BadInputError: the batch's folder cannot be written to.
        """
        with self._claims:
            try:
                while not cancel.is_set():
                    self._assign()
                    if not self._tasks and (self.tally.stopped or not self._queue):
                        break
                    for worker, event in self._executor.wait(_POLL_S):
                        self._handle(worker, event)
                    self._drop_lost()
                    self._show(self._estimate, self.tally)
            finally:
                self._executor.close()
                self.tally.left = self._left()
                for task in self._tasks.values():
                    self._drop(task)
                sweep(self._folder, self.records, self._settled)
        return self.tally

    def _left(self) -> int:
        """Return the number of entries that have neither a result nor a failure."""
        items = [*self._queue, *(task.item for task in self._tasks.values())]
        return len({item.entry.id if isinstance(item, VideoPart) else item.id for item in items})

    def _assign(self) -> None:
        """Give idle workers work."""
        for worker in self._executor.available():
            while (
                worker not in self._tasks
                and not self.tally.stopped
                and (item := self._queue.take()) is not None
            ):
                with self._full_disk_stops(item):
                    if isinstance(item, VideoPart):
                        self._begin_part(worker, item)
                    else:
                        self._begin(worker, item)

    def _begin(self, worker: int, entry: Entry) -> None:
        """Begin an entry, unless it is settled or another process has it."""
        failure = self.records.failure(entry.claim_key)
        if failure is not None and self._retry.get(failure.piece) != failure.attempts:
            self._settle(entry, entry.claim_key, "failed_earlier")
            return
        try:
            stamp = source_stamp(entry)
        except (OSError, VmklaError) as error:
            claim = self._claims.take(entry.claim_key, 1 if failure is None else failure.attempts + 1)
            if claim is None:
                self._queue.later(entry)
            else:
                self._fail(Task(entry, claim), 0, ErrorReport.of(unreadable(entry, error)))
            return
        hashed = self._known.get(stamp)
        if hashed is not None:
            self._begin_piece(worker, entry, stamp, hashed)
            return
        claim = self._claims.take(entry.claim_key, 1 if failure is None else failure.attempts + 1)
        if claim is None:
            self._queue.later(entry)
            return
        self._tasks[worker] = Task(entry, claim)
        options = self._options
        self._executor.submit(worker, HashJob(entry, options.part_s, options.segment.track))

    def _begin_piece(self, worker: int, entry: Entry, stamp: str, hashed: Hashed) -> None:
        """Claim the piece of an entry whose digest is known, and have a worker segment it."""
        key = piece_key(hashed.digest, self._options.settings)
        if key in self._settled:
            self._settle(entry, key, "copies")
            return
        if any(task.private is not None and task.claim.key == key for task in self._tasks.values()):
            self._queue.later(entry)  # a copy is in work here
            return
        failure = self.records.failure(key)
        if self._is_settled(entry, key, failure):
            return
        claim = self._claims.take(key, 1 if failure is None else failure.attempts + 1)
        if claim is None:
            self._queue.later(entry)
            return
        # The last owner may have finished between the look at the records and the claim.
        failure = self.records.failure(key)
        if self.records.is_done(key) or (failure is not None and failure.attempts >= claim.attempt):
            self._claims.release(claim)
            self._queue.first(entry)
            return
        parts = [VideoPart(entry, stamp, hashed.digest, key, part) for part in hashed.parts]
        if self._needs_parts(parts):
            self._claims.release(claim)
            self._queue.later(entry)
            return
        task = Task(entry, claim, stamp, hashed.digest)
        if claim.attempt - (failure.attempts if failure else 0) > ATTEMPTS_MAX:
            self._fail(task, worker, lost_too_often(ATTEMPTS_MAX))
        else:
            self._submit(worker, task)

    def _is_settled(self, entry: Entry, key: str, failure: PieceRecord | None) -> bool:
        """Settle an entry whose piece has its record, unless a failure is to be tried again."""
        if self.records.is_done(key):
            result = self.records.result(key)
            degraded = result is not None and result.outcome == "degraded"
            self._settle(entry, key, "degraded_earlier" if degraded else "earlier")
            return True
        if failure is not None and self._retry.get(key) != failure.attempts:
            self._settle(entry, key, "failed_earlier")
            return True
        return False

    def _submit(self, worker: int, task: Task) -> None:
        key = task.claim.key
        task.private = self._private(key, task.claim)
        self._tasks[worker] = task
        options = dataclasses.replace(self._options.segment, out_dir=task.private)
        job = SegmentJob(task.entry, options, task.stamp, task.digest, self._parts.files(key))
        self._executor.submit(worker, job)

    def _private(self, name: str, claim: Claim) -> Path:
        """Return where a worker writes, and remove what attempts left whose owners are gone."""
        for left in self._folder.work.glob(f"{name}.*"):
            remove_private(left)
        return self._folder.work / f"{name}.{claim.attempt}.{self._folder.owner}"

    def _needs_parts(self, parts: Sequence[VideoPart]) -> bool:
        """Return whether a video waits for its parts, and queue them the first time.

        It is cut only while there are fewer other sources than idle workers.
        """
        missing = self._parts.missing(parts)
        if missing and not self._parts.is_begun(missing[0].key):
            idle = len(self._executor.available()) - len(self._tasks)
            if idle <= 1 + self._queue.sources():
                return False
            self._parts.begin(missing[0].key)
            self._estimate.cut(missing[0].entry, parts, missing)
            self._queue.first(*missing)
        return bool(missing)

    def _begin_part(self, worker: int, part: VideoPart) -> None:
        """Claim a part of a video and have a worker run the network over it."""
        if self.records.is_done(part.key) or not self._parts.is_wanted(part):
            return
        claim = self._claims.take(part.name)
        if claim is None:
            self._queue.later(part)
        elif not self._parts.is_wanted(part):  # the last owner has just finished it
            self._claims.finish(claim)
        elif claim.attempt > ATTEMPTS_MAX:
            self._parts.give_up(part.key)
            self._claims.finish(claim)
        else:
            private = self._private(part.name, claim)
            self._tasks[worker] = Task(part.entry, claim, part.stamp, part.digest, private, part)
            job = PartJob(part.entry, self._options.segment, part.stamp, part.digest, part.part, private)
            self._executor.submit(worker, job)

    def _handle(self, worker: int, event: Event | Died) -> None:
        task = self._tasks.get(worker)
        if isinstance(event, LoadFailed):
            raise event.end.error("a worker cannot load the model")
        if isinstance(event, Ready):
            self._load_crashes = 0
        if task is None or isinstance(event, Ready):
            return
        if isinstance(event, Advanced):
            if task.part is not None:
                self._estimate.advance_part(task.part, event.done)
            elif task.private is not None:
                self._estimate.advance(task.entry, event.done, event.total)
            return
        del self._tasks[worker]
        with self._full_disk_stops(task.item, task):
            if isinstance(event, Died):
                self._handle_death(worker, task, event)
            elif event.disk_full:
                self._drop(task)
                self._stop_full(task.item, event.end.message)
            elif task.part is not None:
                self._end_part(task, task.part, event)
            elif task.private is None:
                self._handle_digest(worker, task, event)
            elif event.end.outcome in ("done", "degraded"):
                self._publish(worker, task, event)
            else:
                self._fail(task, worker, event.end, event.seconds)

    def _end_part(self, task: Task, part: VideoPart, ended: Ended) -> None:
        """Publish the answers to a part; where it failed, the video is run whole and has its own message."""
        assert task.private is not None
        if not self._claims.holds(task.claim):
            self._drop(task)
            self._queue.later(part)
            return
        if ended.end.outcome == "done":
            self._parts.publish(part, task.private)
            self._estimate.advance_part(part, part.part.end - part.part.first)
            self.tally.parts += 1
        else:
            self._parts.give_up(part.key)
            self._remove(task)
        self._claims.finish(task.claim)
        self._queue.recall(part.entry)

    def _handle_digest(self, worker: int, task: Task, ended: Ended) -> None:
        if ended.hashed is None:
            self._fail(task, worker, ended.end, ended.seconds)
            return
        self._known.add(ended.stamp, ended.hashed)
        self.records.forget_failure(task.entry.claim_key)
        self._claims.finish(task.claim)
        if self.tally.stopped:
            self._queue.first(task.entry)
        else:
            self._begin_piece(worker, task.entry, ended.stamp, ended.hashed)

    def _handle_death(self, worker: int, task: Task, died: Died) -> None:
        key = task.claim.key
        if died.cause == "load":
            self._load_crashes += 1
            if self._load_crashes >= _LOAD_CRASHES_MAX:
                raise VmklaError(died.message, hint="Run vmkla doctor, and try the model on one file.")
        end = ErrorReport(died.message, died.hint, BadInputError.exit_status)
        if not died.began:
            self._drop(task)
            self._queue.first(task.item)
            return
        self.tally.repeated += died.cause in ("crash", "lost")
        if died.cause == "crash":
            self._crashes[key] = self._crashes.get(key, 0) + 1
        lost_for_good = task.claim.attempt >= ATTEMPTS_MAX + self._retry.get(key, 0)
        if task.part is not None and (died.cause != "lost" or lost_for_good):
            self._parts.give_up(task.part.key)
            self._remove(task)
            self._claims.finish(task.claim)
        elif died.cause == "limit" or self._crashes.get(key, 0) >= CRASHES_MAX:
            self._fail(task, worker, end)
        elif lost_for_good:
            self._fail(task, worker, lost_too_often(ATTEMPTS_MAX))
        else:  # after the others: what kills workers may end meanwhile
            self._remove(task)
            self._claims.abandon(task.claim)
            self._queue.last(task.item)

    def _publish(self, worker: int, task: Task, ended: Ended) -> None:
        assert task.private is not None
        if not self._claims.holds(task.claim):
            self._drop(task)
            self._queue.later(task.entry)
            return
        outcome: Outcome = "done" if ended.end.outcome == "done" else "degraded"
        record = self._record(task, worker, outcome, ended.end, ended.seconds, ended.facts)
        published = self.records.publish(task.private, record)
        self._parts.remove(task.claim.key)
        self._claims.finish(task.claim)
        self._estimate.finish(ended.facts.get("frames", 0))
        self._settle(task.entry, task.claim.key, outcome if published else "earlier")

    def _fail(self, task: Task, worker: int, end: ErrorReport, seconds: float = 0.0) -> None:
        """Record that a piece failed, or a source that has no digest; its folder is dropped."""
        if not self._claims.holds(task.claim):  # its new owner removed the folder that the worker wrote to
            self._drop(task)
            self._queue.later(task.entry)
            return
        self._remove(task)
        self.records.fail(self._record(task, worker, "failed", end, seconds, {}))
        self._parts.remove(task.claim.key)
        self._claims.finish(task.claim)
        self._settle(task.entry, task.claim.key, "failed")
        most = self._options.max_failures
        if most is not None and self.tally.failed > most and not self.tally.stopped:
            self.tally.stopped = f"{self.tally.failed} pieces failed, allowed are {most} (--max-failures)"

    def _settle(self, entry: Entry, key: str, how: str) -> None:
        """Count an entry that needs no further work."""
        self._settled |= {key, entry.claim_key}
        setattr(self.tally, how, getattr(self.tally, how) + 1)
        self._estimate.settle(entry)

    def _drop_lost(self) -> None:
        for worker, task in list(self._tasks.items()):
            if task.claim.lost:
                self._executor.kill(worker)
                del self._tasks[worker]
                self._drop(task)
                self._queue.later(task.item)

    def _drop(self, task: Task) -> None:
        """Give up what a worker made, and its claim."""
        self._remove(task)
        self._claims.release(task.claim)

    def _remove(self, task: Task) -> None:
        if task.private is not None:
            remove_private(task.private)

    @contextlib.contextmanager
    def _full_disk_stops(self, item: Entry | VideoPart, task: Task | None = None) -> Iterator[None]:
        """Stop claiming where the disk is full, and drop the task at hand."""
        try:
            yield
        except (OSError, BadInputError) as error:
            if not is_full(error):
                raise
            if task is not None:
                self._drop(task)
            self._stop_full(item, first_line(error))

    def _stop_full(self, item: Entry | VideoPart, message: str) -> None:
        self._queue.first(item)
        self.tally.stopped = self.tally.stopped or f"the disk is full: {message}"
