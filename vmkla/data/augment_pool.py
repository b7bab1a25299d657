"""Processes that augment training images beside the training process, which keeps its interpreter's lock.

Each is a new interpreter, so neither a fork of a process with threads nor the user's main module is needed.
It inherits two pieces of memory, the training images and room for batches, and one connection; when the
connection is closed, by the end of the training process too, it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe

import numpy as np
import numpy.typing as npt

from vmkla.data.augment import AugmentConfig
from vmkla.data.augment_worker import Failure, Job, Task
from vmkla.data.shared import Layout, Pixels, create_shared
from vmkla.errors import VmklaError

IMAGES_A_TASK = 4
"""A task costs the training process 0.06 ms; an image of 256x256 costs a worker 0.7 to 1.4 ms (AMD EPYC)."""
TASKS_AHEAD = 2
"""Tasks that a worker has at a time: the next one is there when it is done with one."""
_POLL_S, _END_S = 0.1, 5.0

_BOOT = """\
import os, sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
os.environ.update(dict.fromkeys(connection.recv(), "1"))
from vmkla.data.augment_worker import serve
serve(connection)
"""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@dataclass
class _Batch:
    """A batch that is being made.

    Attributes:
        indices: of its images.
        slot: where it is made.
        left: images that are not done.
    """

    indices: tuple[int, ...]
    slot: int
    left: int


@dataclass(eq=False)
class _Worker:
    """A worker process and the tasks that it has not answered, oldest first."""

    process: subprocess.Popen[bytes]
    connection: Connection
    sent: deque[tuple[_Batch, Task]] = field(default_factory=deque)


class AugmentPool:
    """Worker processes that make the batches of a training set, one epoch at a time.

    Args:
        names, images_rgb, masks: the training set, see ``LabelledArrays``; it is copied into shared memory.
        batch_size: the most images of a batch.
        size_hw: size of the batches' images, px.
        config: strengths of the augmentation.
        seed: of the augmentation.
        soft: the masks are probabilities.
        workers: how many processes, at least 1.
    Raises:
        VmklaError: memory or a process cannot be had.
    """

    def __init__(
        self,
        names: Sequence[str],
        images_rgb: Pixels,
        masks: Pixels,
        *,
        batch_size: int,
        size_hw: tuple[int, int],
        config: AugmentConfig,
        seed: int,
        soft: bool,
        workers: int,
    ) -> None:
        # One batch to read, and in the others as many images as the workers have in hand.
        slots = 1 + max(2, -(-workers * TASKS_AHEAD * IMAGES_A_TASK // batch_size))
        self._names, self._batch_size = tuple(names), batch_size
        self._free = deque(range(slots))
        self._todo: deque[tuple[_Batch, Task]] = deque()
        self._in_use, self._cancelled = threading.Lock(), threading.Event()
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end_all, self._workers, self._selector)
        try:
            with contextlib.ExitStack() as opened:
                set_layout, out_layout = Layout(*masks.shape), Layout(slots * batch_size, *size_hw)
                set_fd, self.images_rgb, self.masks = create_shared(set_layout)
                opened.callback(os.close, set_fd)
                out_fd, self._out_images, self._out_masks = create_shared(out_layout)
                opened.callback(os.close, out_fd)
                np.copyto(self.images_rgb, images_rgb)
                np.copyto(self.masks, masks)
                job = Job(set_fd, set_layout, out_fd, out_layout, dataclasses.asdict(config), seed, soft)
                for _ in range(workers):
                    worker = _start(job)
                    self._workers.append(worker)
                    self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        except BaseException:
            self.close()
            raise

    def batches(
        self, epoch: int, chunks: Iterable[Sequence[int] | npt.NDArray[np.int64]]
    ) -> Generator[tuple[Pixels, Pixels], None, None]:
        """Augment batches, in their order.

        Args:
            epoch: from 0.
            chunks: indices of the images of each batch.
        Yields:
            (b, h, w, 3) uint8 and (b, h, w) uint8, copies.
        Raises:
            VmklaError: an image could not be augmented, or a worker has ended.
        """
        if not self._finalizer.alive:
            raise VmklaError("the augmentation workers have ended, and no more batches can be had")
        if not self._in_use.acquire(blocking=False):
            raise VmklaError("another epoch's batches are being made; close its iterator first")
        self._cancelled.clear()
        coming, begun = iter(chunks), deque[_Batch]()
        try:
            while True:
                while self._free and (indices := next(coming, None)) is not None:
                    begun.append(self._begin(epoch, tuple(map(int, indices))))
                if not begun:
                    return
                while begun[0].left:
                    if self._cancelled.is_set():
                        return
                    self._receive(_POLL_S)
                done = begun.popleft()
                rows = slice(done.slot * self._batch_size, done.slot * self._batch_size + len(done.indices))
                made = self._out_images[rows].copy(), self._out_masks[rows].copy()
                self._free.append(done.slot)
                yield made
        except VmklaError:
            self.close()
            raise
        finally:
            self._todo.clear()
            self._free.extend(batch.slot for batch in begun)
            if self._finalizer.alive and not self._settled():
                self.close()
            self._in_use.release()

    def cancel(self) -> None:
        """End ``batches`` early; may be called from another thread."""
        self._cancelled.set()

    def close(self) -> None:
        """End the workers; a second call does nothing."""
        self._finalizer()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid for worker in self._workers]

    def _begin(self, epoch: int, indices: tuple[int, ...]) -> _Batch:
        batch = _Batch(indices, self._free.popleft(), len(indices))
        for start in range(0, len(indices), IMAGES_A_TASK):
            few = indices[start : start + IMAGES_A_TASK]
            self._todo.append((batch, Task(epoch, few, batch.slot * self._batch_size + start)))
        self._hand_out()
        return batch

    def _hand_out(self) -> None:
        """Give tasks to the workers that have the fewest."""
        while self._todo:
            worker = min(self._workers, key=lambda each: len(each.sent))
            if len(worker.sent) >= TASKS_AHEAD:
                return
            try:
                worker.connection.send(self._todo[0][1])
            except ConnectionError:
                raise _lost(worker) from None
            worker.sent.append(self._todo.popleft())

    def _receive(self, timeout_s: float) -> None:
        """Take in the answers that are there, and hand out more tasks."""
        for key, _ in self._selector.select(timeout_s):
            worker: _Worker = key.data
            try:
                failure: Failure | None = worker.connection.recv()
            except (EOFError, ConnectionError):
                raise _lost(worker) from None
            batch, task = worker.sent.popleft()
            if failure is not None:
                raise failure.report.error(
                    f"{self._names[failure.image % len(self._names)]} could not be augmented"
                )
            batch.left -= len(task.indices)
        self._hand_out()

    def _settled(self) -> bool:
        """Wait until no worker has a task; False when one does not answer, or answers with an error."""
        until_s = time.monotonic() + _END_S
        try:
            while any(worker.sent for worker in self._workers):
                if time.monotonic() > until_s:
                    return False
                self._receive(_POLL_S)
        except VmklaError:
            return False
        return True


def _start(job: Job) -> _Worker:
    """Start a worker, which reads its job when it is there.

    Raises:
        VmklaError: the system starts no process.
    """
    ours, theirs = Pipe()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), job.set_fd, job.out_fd),
                start_new_session=True,  # Ctrl-C in a terminal is for the training process
            )
    except OSError as error:
        ours.close()
        raise VmklaError(
            f"an augmentation worker cannot be started: {error}", hint="Do without: vmkla train --workers 0"
        ) from error
    with contextlib.suppress(ConnectionError):  # it has ended, which the first task brings to light
        for message in (sys.path, _ONE_THREAD, job):
            ours.send(message)
    return _Worker(process, ours)


def _lost(worker: _Worker) -> VmklaError:
    """The error of a worker that has ended."""
    worker.connection.close()
    try:
        status = worker.process.wait(_END_S)
    except subprocess.TimeoutExpired:
        return VmklaError(f"the augmentation worker {worker.process.pid} closed its connection")
    if status >= 0:
        return VmklaError(
            f"the augmentation worker {worker.process.pid} ended with status {status}, expected it to work",
            hint="See what it printed, or do without: vmkla train --workers 0",
        )
    name = signal.Signals(-status).name
    why = ": the system does that when memory runs out" if -status == signal.SIGKILL else ""
    return VmklaError(
        f"the augmentation worker {worker.process.pid} was ended by {name}{why}",
        hint="Give fewer --workers or a smaller --batch, and continue with --resume.",
    )


def _end_all(workers: list[_Worker], selector: selectors.BaseSelector) -> None:
    """Have all workers end, at once when they are idle, and by force when they do not."""
    selector.close()
    for worker in workers:
        worker.connection.close()
    until_s = time.monotonic() + _END_S
    for worker in workers:
        try:
            worker.process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
