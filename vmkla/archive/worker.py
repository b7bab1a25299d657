"""A worker process that holds a model, and the limits that its parent watches."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from vmkla.archive.piece import Advanced, Ended, Event, HashJob, Job, LoadFailed, Ready, perform
from vmkla.errors import ErrorReport
from vmkla.runner import Runner
from vmkla.video.live.child_process import set_up_child

Cause = Literal["limit", "crash", "lost", "load"]
_REAP_S = 5.0
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Limits:
    """Limits of one piece; None sets none.

    Attributes:
        piece_s: time, seconds.
        stall_s: time without a further frame, or without further bytes while the source is hashed, seconds.
        memory_bytes: resident memory of the worker.
    """

    piece_s: float | None = None
    stall_s: float | None = 600.0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Died:
    """A worker process has ended before its job did.

    Attributes:
        cause: a limit that the piece exceeded; a crash in it; the process was lost (killed from elsewhere);
            or it crashed while it loaded the model.
        message, hint: for the record of the piece.
        began: whether the job had begun.
    """

    cause: Cause
    message: str
    hint: str | None = None
    began: bool = True


def work(load: Callable[[], Runner], connection: Connection, parent: int) -> None:
    """Do jobs until the parent closes the connection or ends; runs in a process of its own.

    Args:
        load: loads the model.
        connection: jobs come from it and events are sent to it.
        parent: id of the parent process.
    """
    set_up_child("vmkla-batch")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to every process; the parent decides
    if os.getppid() != parent:
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            runner = load()
        except Exception as error:
            connection.send(LoadFailed(ErrorReport.of(error)))
            return
        connection.send(Ready())
        while True:
            perform(runner, connection.recv(), connection.send)


class WatchedWorker:
    """A worker process as its parent sees it; one that ended is started again for the next job.

    Args:
        load: loads the model; it is pickled.
        limits: limits of a piece.
    """

    def __init__(self, load: Callable[[], Runner], limits: Limits) -> None:
        self._load, self._limits = load, limits
        self._process: multiprocessing.context.SpawnProcess | None = None
        self._connection: Connection | None = None
        self._job: Job | None = None
        self._ready = self._sent = False
        self._began_s = self._advanced_s = 0.0
        self._done = -1

    @property
    def pid(self) -> int | None:
        """Id of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def waits(self) -> list[Connection | int]:
        """What becomes ready, for ``multiprocessing.connection.wait``, when there is something to poll."""
        if self._process is None or self._connection is None:
            return []
        return [self._connection, self._process.sentinel]

    def submit(self, job: Job) -> None:
        """Have the worker do a job."""
        self._job, self._sent, self._done = job, False, -1
        if self._process is None:
            self._start()
        self._send_job()

    def poll(self) -> list[Event | Died]:
        """Return what happened since the last call. After ``Ended`` or ``Died`` the worker is free again."""
        events: list[Event | Died] = []
        while self._connection is not None:
            try:
                if not self._connection.poll():
                    break
                event = self._connection.recv()
            except (EOFError, OSError):
                break
            events += self._note(event)
            if isinstance(event, Ended):
                return events
        if self._process is not None and not self._process.is_alive():
            events += self._bury()
        elif (died := self._exceeded()) is not None:
            self.kill()
            events.append(died)
        return events

    def kill(self) -> None:
        """End the process and forget its job."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_REAP_S)  # one in an uninterruptible wait for a disk takes longer
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = self._job = None
        self._ready = False

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(self._load, theirs, os.getpid()), name="vmkla-batch", daemon=True
        )
        self._process.start()
        theirs.close()
        self._ready = False

    def _send_job(self) -> None:
        if not self._ready or self._sent or self._connection is None:
            return
        self._sent = True
        self._began_s = self._advanced_s = time.monotonic()
        with contextlib.suppress(OSError):  # it died just now; the next poll reports it
            self._connection.send(self._job)

    def _note(self, event: Event) -> list[Event | Died]:
        if isinstance(event, Ready):
            self._ready = True
            self._send_job()
        elif isinstance(event, Ended | LoadFailed):
            self._job = None
        elif isinstance(event, Advanced) and event.done > self._done:
            self._done, self._advanced_s = event.done, time.monotonic()
        return [event]

    def _exceeded(self) -> Died | None:
        """Return which limit the job exceeds, or None."""
        if self._job is None or not self._sent:
            return None
        limits, now_s = self._limits, time.monotonic()
        if limits.piece_s is not None and now_s - self._began_s > limits.piece_s:
            return Died(
                "limit",
                f"it took longer than {limits.piece_s:g} s, which is the limit of one piece",
                "Allow more with --max-piece-s, and run the command again with --retry-failed.",
            )
        if limits.stall_s is not None and now_s - self._advanced_s > limits.stall_s:
            what = "no bytes were read" if isinstance(self._job, HashJob) else "no frame was finished"
            return Died(
                "limit",
                f"{what} for {limits.stall_s:g} s, so the worker was ended",
                "If its frames take this long, allow more with --max-stall-s, and add --retry-failed.",
            )
        if limits.memory_bytes is not None and (used := _resident_bytes(self.pid)) > limits.memory_bytes:
            return Died(
                "limit",
                f"the worker used {used / 1e6:.0f} MB of memory, allowed are {limits.memory_bytes / 1e6:.0f}",
                "Allow more with --max-piece-mb, and run the command again with --retry-failed.",
            )
        return None

    def _bury(self) -> list[Event | Died]:
        """Return how the process ended, if a job ended with it."""
        assert self._process is not None
        self._process.join()
        code, job, began = self._process.exitcode or 0, self._job, self._sent
        self.kill()
        if job is None:
            return []
        how = f"signal {-code} ({_signal_name(-code)})" if code < 0 else f"exit status {code}"
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return [Died("lost", f"the worker was ended by {how} from elsewhere", began=began)]
        if not began:
            return [Died("load", f"the worker crashed with {how} while it loaded the model", began=False)]
        return [Died("crash", f"the worker crashed with {how} in this source")]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process; 0 where it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def machine_memory_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Return the memory of this machine, or of the container that this process runs in."""
    sizes = []
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        lines = meminfo.read_text(encoding="ascii").splitlines()
        sizes.append(next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:")))
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(cgroup.read_text(encoding="ascii")))  # "max" without a limit
    return min(sizes, default=1 << 32)


class LocalExecutor:
    """Worker processes on this machine.

    Args:
        load: loads the model; it is pickled.
        count: number of workers.
        limits: limits of a piece.
    """

    def __init__(self, load: Callable[[], Runner], count: int, limits: Limits) -> None:
        self._workers = [WatchedWorker(load, limits) for _ in range(count)]

    def available(self) -> Collection[int]:
        """See ``Executor``."""
        return range(len(self._workers))

    def submit(self, worker: int, job: Job) -> None:
        """See ``Executor``."""
        self._workers[worker].submit(job)

    def wait(self, timeout_s: float) -> list[tuple[int, Event | Died]]:
        """See ``Executor``."""
        wait([each for worker in self._workers for each in worker.waits], timeout_s)
        return [(number, event) for number, worker in enumerate(self._workers) for event in worker.poll()]

    def kill(self, worker: int) -> None:
        """See ``Executor``."""
        self._workers[worker].kill()

    def close(self) -> None:
        """See ``Executor``."""
        for worker in self._workers:
            worker.kill()
