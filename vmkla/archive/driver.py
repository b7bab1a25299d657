"""The driver of a batch: it claims pieces, hands them to workers, and publishes what they made."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vmkla.archive.claims import Claim, Claims
from vmkla.archive.estimate import FrameEstimate
from vmkla.archive.identity import KnownDigests, piece_key, source_stamp
from vmkla.archive.layout import BatchFolder
from vmkla.archive.options import DriverOptions, Executor, Tally
from vmkla.archive.piece import Advanced, Ended, Event, HashJob, LoadFailed, Ready, SegmentJob, is_full
from vmkla.archive.records import PieceRecord, Records
from vmkla.archive.work import Entry
from vmkla.archive.worker import Died
from vmkla.errors import BadInputError, ErrorReport, VmklaError, first_line
from vmkla.names import DIGITS, Names, given_names, without_folder

ATTEMPTS_MAX = 10
"""Attempts at a piece whose workers are lost, before it counts as failed."""
CRASHES_MAX = 2
"""Crashes of workers in a piece, before it counts as failed."""
_LOAD_CRASHES_MAX = 3
_POLL_S = 0.25
_LATER_S = 2.0


@dataclass
class _Task:
    """What a worker does.

    Attributes:
        entry: the source.
        claim: claim of the source while it is hashed, else of the piece.
        stamp, digest: those of the source; empty while it is hashed.
        private: folder that the worker writes to; None while the source is hashed.
    """

    entry: Entry
    claim: Claim
    stamp: str = ""
    digest: str = ""
    private: Path | None = None


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
        self._known = KnownDigests(folder.hashes, folder.owner)
        self._claims = Claims(folder, options.lease_s)
        self._pending = deque(entries)
        self._later: deque[tuple[float, Entry]] = deque()
        self._tasks: dict[int, _Task] = {}
        self._settled: set[str] = set()
        self._crashes: dict[str, int] = {}
        self._load_crashes = 0
        self._retry = self._failed_before() if options.retry_failed else {}

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
                    if not self._tasks and (self.tally.stopped or not (self._pending or self._later)):
                        break
                    for worker, event in self._executor.wait(_POLL_S):
                        self._handle(worker, event)
                    self._drop_lost()
                    self._show(self._estimate, self.tally)
            finally:
                self._executor.close()
                self.tally.left = len(self._pending) + len(self._later) + len(self._tasks)
                for task in self._tasks.values():
                    self._drop(task)
                self._sweep()
        return self.tally

    def _sweep(self) -> None:
        """Remove what killed owners have left of pieces that others finished."""
        for left in self._folder.work.iterdir():
            if self.records.is_done(left.name.partition(".")[0]):
                shutil.rmtree(left, ignore_errors=True)

    def _assign(self) -> None:
        """Give idle workers work."""
        now_s = time.monotonic()
        while self._later and self._later[0][0] <= now_s:
            self._pending.append(self._later.popleft()[1])
        for worker in self._executor.available():
            while worker not in self._tasks and self._pending and not self.tally.stopped:
                entry = self._pending.popleft()
                with self._full_disk_stops(entry):
                    self._begin(worker, entry)

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
                self._wait(entry)
            elif isinstance(error, OSError):
                self._fail(_Task(entry, claim), 0, ErrorReport.of(_unreadable(entry, error)))
            else:
                self._fail(_Task(entry, claim), 0, ErrorReport.of(error))
            return
        digest = self._known.get(stamp)
        if digest is not None:
            self._begin_piece(worker, entry, stamp, digest)
            return
        claim = self._claims.take(entry.claim_key, 1 if failure is None else failure.attempts + 1)
        if claim is None:
            self._wait(entry)
            return
        self._tasks[worker] = _Task(entry, claim)
        self._executor.submit(worker, HashJob(entry))

    def _begin_piece(self, worker: int, entry: Entry, stamp: str, digest: str) -> None:
        """Claim the piece of an entry whose digest is known, and have a worker segment it."""
        key = piece_key(digest, self._options.settings)
        if key in self._settled:
            self._settle(entry, key, "copies")
            return
        if any(task.private is not None and task.claim.key == key for task in self._tasks.values()):
            self._wait(entry)  # a copy is in work here
            return
        failure = self.records.failure(key)
        if self._is_settled(entry, key, failure):
            return
        claim = self._claims.take(key, 1 if failure is None else failure.attempts + 1)
        if claim is None:
            self._wait(entry)
            return
        # The last owner may have finished between the look at the records and the claim.
        failure = self.records.failure(key)
        if self.records.is_done(key) or (failure is not None and failure.attempts >= claim.attempt):
            self._claims.release(claim)
            self._pending.appendleft(entry)
            return
        task = _Task(entry, claim, stamp, digest)
        before = 0 if failure is None else failure.attempts
        if claim.attempt - before > ATTEMPTS_MAX:
            self._fail(task, worker, _lost_too_often(ATTEMPTS_MAX))
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

    def _submit(self, worker: int, task: _Task) -> None:
        key = task.claim.key
        for left in self._folder.work.glob(f"{key}.*"):  # of attempts whose owners are gone
            shutil.rmtree(left, ignore_errors=True)
        task.private = self._folder.work / f"{key}.{task.claim.attempt}.{self._folder.owner}"
        self._tasks[worker] = task
        options = dataclasses.replace(self._options.segment, out_dir=task.private)
        self._executor.submit(worker, SegmentJob(task.entry, options, task.stamp, task.digest))

    def _handle(self, worker: int, event: Event | Died) -> None:
        task = self._tasks.get(worker)
        if isinstance(event, LoadFailed):
            raise event.end.error("a worker cannot load the model")
        if isinstance(event, Ready):
            self._load_crashes = 0
        if task is None or isinstance(event, Ready):
            return
        if isinstance(event, Advanced):
            if task.private is not None:
                self._estimate.advance(task.entry, event.done, event.total)
            return
        del self._tasks[worker]
        with self._full_disk_stops(task.entry, task):
            if isinstance(event, Died):
                self._handle_death(worker, task, event)
            elif event.disk_full:
                self._drop(task)
                self._stop_full(task.entry, event.end.message)
            elif task.private is None:
                self._handle_digest(worker, task, event)
            elif event.end.outcome in ("done", "degraded"):
                self._publish(worker, task, event)
            else:
                self._fail(task, worker, event.end, event.seconds)

    def _handle_digest(self, worker: int, task: _Task, ended: Ended) -> None:
        if ended.end.outcome == "failed":
            self._fail(task, worker, ended.end, ended.seconds)
            return
        self._known.add(ended.stamp, ended.digest)
        self.records.forget_failure(task.entry.claim_key)
        self._claims.finish(task.claim)
        if self.tally.stopped:
            self._pending.appendleft(task.entry)
        else:
            self._begin_piece(worker, task.entry, ended.stamp, ended.digest)

    def _handle_death(self, worker: int, task: _Task, died: Died) -> None:
        key = task.claim.key
        if died.cause == "load":
            self._load_crashes += 1
            if self._load_crashes >= _LOAD_CRASHES_MAX:
                raise VmklaError(died.message, hint="Run vmkla doctor, and try the model on one file.")
        end = ErrorReport(died.message, died.hint, BadInputError.exit_status)
        if not died.began:
            self._drop(task)
            self._pending.appendleft(task.entry)
            return
        self.tally.repeated += died.cause in ("crash", "lost")
        if died.cause == "crash":
            self._crashes[key] = self._crashes.get(key, 0) + 1
        if died.cause == "limit" or self._crashes.get(key, 0) >= CRASHES_MAX:
            self._fail(task, worker, end)
        elif task.claim.attempt >= ATTEMPTS_MAX + self._retry.get(key, 0):
            self._fail(task, worker, _lost_too_often(ATTEMPTS_MAX))
        else:  # after the others: what kills workers may end meanwhile
            self._remove(task)
            self._claims.abandon(task.claim)
            self._pending.append(task.entry)

    def _publish(self, worker: int, task: _Task, ended: Ended) -> None:
        assert task.private is not None
        if not self._claims.holds(task.claim):
            self._drop(task)
            self._wait(task.entry)
            return
        outcome: Literal["done", "degraded"] = "done" if ended.end.outcome == "done" else "degraded"
        record = self._record(task, worker, outcome, ended.end, ended.seconds, ended.facts)
        published = self.records.publish(task.private, record)
        self._claims.finish(task.claim)
        self._estimate.finish(ended.facts.get("frames", 0))
        self._settle(task.entry, task.claim.key, outcome if published else "earlier")

    def _fail(self, task: _Task, worker: int, end: ErrorReport, seconds: float = 0.0) -> None:
        """Record that a piece failed, or a source that has no digest; its folder is dropped."""
        if not self._claims.holds(task.claim):  # its new owner removed the folder that the worker wrote to
            self._drop(task)
            self._wait(task.entry)
            return
        self._remove(task)
        self.records.fail(self._record(task, worker, "failed", end, seconds, {}))
        self._claims.finish(task.claim)
        self._settle(task.entry, task.claim.key, "failed")
        most = self._options.max_failures
        if most is not None and self.tally.failed > most and not self.tally.stopped:
            self.tally.stopped = f"{self.tally.failed} pieces failed, allowed are {most} (--max-failures)"

    def _record(
        self,
        task: _Task,
        worker: int,
        outcome: Literal["done", "degraded", "failed"],
        end: ErrorReport,
        seconds: float,
        facts: dict[str, Any],
    ) -> PieceRecord:
        key, folder = task.claim.key, None if outcome == "failed" else f"results/{task.claim.key}"
        anonymous = self._options.segment.anonymous
        label = (task.digest[:DIGITS] or "unreadable") if anonymous else task.entry.id
        path = task.entry.path
        names = given_names([str(path)], label) if anonymous else without_folder(path)
        if task.private is not None:
            names = names.also(Names({str(task.private): folder or "its folder"}))
        hint = None if end.hint is None else names.hide(end.hint)
        return PieceRecord(
            piece=key, source=label, outcome=outcome, message=names.hide(end.message), hint=hint,
            attempts=task.claim.attempt, worker=f"{self._folder.owner}/{worker}", seconds=round(seconds, 3),
            source_sha256=task.digest or None, folder=folder, facts=facts,
        )  # fmt: skip

    def _settle(self, entry: Entry, key: str, how: str) -> None:
        """Count an entry that needs no further work."""
        self._settled.add(key)
        setattr(self.tally, how, getattr(self.tally, how) + 1)
        self._estimate.settle(entry)

    def _wait(self, entry: Entry) -> None:
        """Look at an entry again later: another process has it."""
        self._later.append((time.monotonic() + min(_LATER_S, self._options.lease_s / 4), entry))

    def _drop_lost(self) -> None:
        for worker, task in list(self._tasks.items()):
            if task.claim.lost:
                self._executor.kill(worker)
                del self._tasks[worker]
                self._drop(task)
                self._wait(task.entry)

    def _drop(self, task: _Task) -> None:
        """Give up what a worker made, and its claim."""
        self._remove(task)
        self._claims.release(task.claim)

    def _remove(self, task: _Task) -> None:
        if task.private is not None:
            shutil.rmtree(task.private, ignore_errors=True)

    @contextlib.contextmanager
    def _full_disk_stops(self, entry: Entry, task: _Task | None = None) -> Iterator[None]:
        """Stop claiming where the disk is full, and drop the task at hand."""
        try:
            yield
        except (OSError, BadInputError) as error:
            if not is_full(error):
                raise
            if task is not None:
                self._drop(task)
            self._stop_full(entry, first_line(error))

    def _stop_full(self, entry: Entry, message: str) -> None:
        self._pending.appendleft(entry)
        self.tally.stopped = self.tally.stopped or f"the disk is full: {message}"

    def _failed_before(self) -> dict[str, int]:
        """Return key and attempts of every piece that has failed."""
        return {record.piece: record.attempts for record in self.records.all() if record.outcome == "failed"}


def _unreadable(entry: Entry, error: OSError) -> BadInputError:
    return BadInputError(f"{entry.path} cannot be read: {error.strerror or error}")


def _lost_too_often(times: int) -> ErrorReport:
    return ErrorReport(
        f"its worker or its machine was lost {times} times",
        "If the system killed them for memory, use fewer --workers; then --retry-failed.",
        BadInputError.exit_status,
    )
