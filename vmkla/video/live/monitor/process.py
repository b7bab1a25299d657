"""The monitor as the display process sees it: a child that is watched, and never waited for."""

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
    from vmkla.video.live.link.board import Board
    from vmkla.video.live.link.ring import RingReader

_NICE = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0
_HEALTHY_S = 30.0
_GRACE_S = 0.2
_STOP_S = 1.0


class Monitor:
    """The page of a live run, served by a process of its own.

    The address is taken at once, so a wrong or a taken one fails before the run begins. The frame path is
    not touched by anything that happens here: a thread starts a dead page again, with growing pauses.

    Args:
        options: where the page is served; a token is needed unless the host is a loopback address.
        shown: frames as shown; closed with the monitor.
        status: what ``MonitorStatus.to_json`` gives is published there.
        events: told about an unexpected end.
        limits: how many answers the page gives; None takes the usual ones.
    Raises:
        UsageError: a token is missing or poor.
        BadInputError: the address cannot be had.
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
        """Where the page is, without the token."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def pid(self) -> int | None:
        """Of the process that serves it; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def start(self) -> None:
        """Have the page served. It does not wait for that."""
        # A child ends with the thread that started it, so one thread starts them all and lives as long.
        self._thread = threading.Thread(target=self._keep_running, name="vmkla-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and give the address back; takes two seconds at most. A second call does nothing."""
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
            except OSError as error:  # no memory or no process to be had
                why = f"it cannot be started: {error.strerror}"
            # A signal to the whole group ends the page as well, a moment before the run itself ends.
            if self._closing.wait(_GRACE_S):
                return
            if time.monotonic() - started_s > _HEALTHY_S:
                pause_s = _FIRST_PAUSE_S
            self._events.add("monitor ended", why, pause_s=pause_s)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self.restarts += 1

    def _run_once(self) -> str:
        """Serve until the process ends, or is to end; why it ended."""
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
