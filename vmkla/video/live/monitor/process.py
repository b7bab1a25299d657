"""Start and watch the monitor's process, for which the display never waits."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from vmkla.imports import require
from vmkla.video.live.monitor.access import MonitorOptions, listen
from vmkla.video.live.monitor.app import MonitorLimits
from vmkla.video.live.monitor.server import serve

if TYPE_CHECKING:
    from vmkla.video.live.events import EventLog
    from vmkla.video.live.shared_memory.board import Board
    from vmkla.video.live.shared_memory.ring import RingReader

_NICE = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_HEALTHY_S = 30.0
_GRACE_S = 0.2
_STOP_S = 1.0


class Monitor:
    """Serves the page of a live run from a process of its own.

    The address is opened at once, so a wrong or used one fails before the run begins. Nothing here affects
    the
    display: a thread restarts a dead page, with growing pauses.

    Args:
        options: where the page is served; a token is needed unless the host is a loopback address.
        shown: reader of the frames as shown; closed with the monitor.
        status: board with ``MonitorStatus.to_json``.
        events: log of unexpected ends.
        limits: limits of the page; None uses the defaults.
    Raises:
        UsageError: a token is missing or too weak.
        BadInputError: the address cannot be used.
        MissingDependencyError: the extra ``monitor`` is not installed.
    """

    def __init__(
        self,
        options: MonitorOptions,
        shown: RingReader,
        status: Board,
        events: EventLog,
        limits: MonitorLimits | None = None,
    ) -> None:
        for package in ("starlette", "uvicorn"):
            require(package, extra="monitor", purpose="the monitor page (--monitor)")
        self._listener, self._access = listen(options.host, options.port, options.token)
        self._limits = limits or MonitorLimits()
        self._shown = shown
        self._status = status
        self._events = events
        self._context = multiprocessing.get_context("spawn")
        self._closing = threading.Event()
        self._wake_receive, self._wake_send = multiprocessing.Pipe(duplex=False)
        self._process: BaseProcess | None = None
        self._thread: threading.Thread | None = None
        self.restarts = 0

    @property
    def url(self) -> str:
        """Address of the page, without the token."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def pid(self) -> int | None:
        """Process id of the server; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def start(self) -> None:
        """Start serving the page, without waiting for it."""
        # A child ends with the thread that started it, so one thread starts all and lives as long as they do.
        self._thread = threading.Thread(target=self._keep_running, name="vmkla-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and release the address, within two seconds. A second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake_send.send_bytes(b"end")
        if self._thread is not None:
            self._thread.join(2 * _STOP_S)
        self._listener.close()
        self._shown.close()
        self._wake_receive.close()
        self._wake_send.close()

    def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            started_s = time.monotonic()
            try:
                why = self._run_once()
            except OSError as error:  # no memory or no process
                why = f"it cannot be started: {error.strerror}"
            # A signal to the whole group also ends the page, a moment before the run itself ends.
            if self._closing.wait(_GRACE_S):
                return
            if time.monotonic() - started_s > _HEALTHY_S:
                pause_s = _FIRST_PAUSE_S
            self._events.add("monitor ended", why, pause_s=pause_s)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self.restarts += 1

    def _run_once(self) -> str:
        """Serve until the process ends or is to end, and return why it ended."""
        process = self._context.Process(
            target=serve,
            args=(self._listener, self._access, self._limits, self._shown, self._status),
            name="vmkla-monitor",
            daemon=True,
        )
        process.start()
        self._process = process
        assert process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            # Before it imports anything; all its threads come later and inherit this.
            os.setpriority(os.PRIO_PROCESS, process.pid, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
        wait([process.sentinel, self._wake_receive])
        if self._closing.is_set():
            process.terminate()
            process.join(_STOP_S)
            process.kill()  # a stopped process does not end on SIGTERM
        process.join()
        code = process.exitcode or 0
        return f"killed by signal {-code}" if code < 0 else f"exit status {code}"
