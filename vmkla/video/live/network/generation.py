"""One run of the worker process: the process, the memory shared with it, and its state."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from vmkla.errors import BadInputError
from vmkla.runner import Runner
from vmkla.video.live.frame import LiveResult
from vmkla.video.live.network.lesions import TRACKER_BYTES, KeptTracker
from vmkla.video.live.network.options import WorkerOptions
from vmkla.video.live.network.pulse import PULSE_BYTES, Pulse
from vmkla.video.live.network.results import RESULT_BYTES, decode_result
from vmkla.video.live.network.watch import Fault
from vmkla.video.live.network.worker import ABOUT_BYTES, CONTROL_BYTES, END, STILLS_S, WorkerLinks, work
from vmkla.video.live.shared_memory.board import Board
from vmkla.video.live.shared_memory.ring import RingReader, Waker

_REAP_S = 1.0


class Generation:
    """A started worker process.

    Each has shared memory of its own, so that nothing of a dead worker is taken for a result of the next one.

    Args:
        load, options, known_output, kept: see ``work``.
        frames: reader of the display's frames.
    """

    def __init__(
        self,
        load: Callable[[], Runner],
        options: WorkerOptions,
        known_output: dict[str, Any] | None,
        kept: KeptTracker,
        frames: RingReader,
    ) -> None:
        self.started_s = time.monotonic()
        self.pulse = Pulse(at_s=self.started_s)
        with contextlib.ExitStack() as stack:

            def board(capacity_bytes: int) -> Board:
                return stack.enter_context(contextlib.closing(Board(capacity_bytes)))

            sizes = (RESULT_BYTES, PULSE_BYTES, ABOUT_BYTES, CONTROL_BYTES, TRACKER_BYTES)
            self._links = WorkerLinks(frames, *map(board, sizes))
            self._process = multiprocessing.get_context("spawn").Process(
                target=work,
                args=(load, options, known_output, kept, self._links, os.getpid()),
                name="vmkla-worker",
                daemon=True,
            )
            self._process.start()
            self._boards = stack.pop_all()

    @property
    def pid(self) -> int | None:
        """Process id of the worker."""
        return self._process.pid

    def wait(self, waker: Waker, timeout_s: float) -> None:
        """Wait for a result, the end of the worker, the waker, or the timeout."""
        poll = select.poll()
        for source in (waker.fileno(), self._links.results.fileno(), self._process.sentinel):
            poll.register(source, select.POLLIN)
        poll.poll(max(0.0, timeout_s) * 1e3)
        waker.clear()
        self._links.results.wait(0.0)

    def read_pulse(self) -> Pulse:
        """Return the worker's newest pulse.

        Raises:
            BadInputError: the worker wrote something else.
        """
        message = self._links.pulse.read()
        if message is not None:
            try:
                self.pulse = Pulse.from_bytes(message)
            except (ValueError, TypeError) as error:
                raise BadInputError(f"the worker's pulse cannot be read: {error}") from error
        return self.pulse

    def read_about(self) -> dict[str, Any] | None:
        """Return the worker's description of the model, once; None before and after."""
        message = self._links.about.read()
        return None if message is None else dict(json.loads(message))

    def read_result(self) -> LiveResult | None:
        """Return the newest result that was not read yet; None when there is none.

        Raises:
            BadInputError: the worker sent something else, or the result did not arrive complete.
        """
        message = self._links.results.read()
        if self._links.results.torn:
            raise BadInputError("a result did not arrive complete")
        return None if message is None else decode_result(message)

    def read_tracker(self) -> bytes | None:
        """Return the newest state of the worker's tracker; None before its first frame."""
        return self._links.tracker.read()

    def ask_self_test(self, number: int) -> None:
        """Ask the worker for a self-test; its pulse then carries this number."""
        self._links.control.publish(str(number).encode())

    def end(self) -> None:
        """Let the worker write its stills and end, and wait for that for a moment."""
        self._links.control.publish(END)
        self._process.join(2 * STILLS_S)

    def death(self) -> Fault | None:
        """Return why the process ended; None while it runs."""
        if self._process.is_alive():
            return None
        pulse = self.read_pulse()
        if pulse.stage == "failed":
            return Fault(pulse.cause, f"{pulse.error}: {pulse.message}", pulse)
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return Fault("worker was killed", "signal 9, as from the system when memory runs out", pulse)
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return Fault("worker crashed", how, pulse)

    def kill(self) -> bool:
        """Kill the process, and return whether it is gone: the system may need longer."""
        self._process.kill()
        self._process.join(_REAP_S)
        gone = not self._process.is_alive()
        self._boards.close()
        return gone
