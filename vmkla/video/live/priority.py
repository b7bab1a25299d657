"""Give the display priority on a busy machine: thread switches, niceness, and signals of children."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

import cv2

_SWITCH_S = 0.0005
"""Longest time that another thread keeps the interpreter; Python's own 5 ms are most of the delay budget."""
_NICE = -10
KEPT_BYTES = 512 << 20
"""Freed memory that a process of live mode keeps for its next frames, see ``keep_freed_memory``."""


@contextlib.contextmanager
def fast_thread_switches() -> Iterator[None]:
    """Make Python switch threads quickly and OpenCV use one thread, until the context ends.

    OpenCV splits large frames over threads and waits for the last of them. Beside a busy worker that one may
    wait milliseconds for a core, while one thread converts a whole frame in a fraction of one.
    """
    switch_s, threads = sys.getswitchinterval(), cv2.getNumThreads()
    sys.setswitchinterval(_SWITCH_S)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        cv2.setNumThreads(threads)


@contextlib.contextmanager
def display_first(*threads: threading.Thread) -> Iterator[bool]:
    """Raise the priority of the calling thread and of ``threads``, where the system allows it.

    Linux gives each thread its own niceness, which processes started from it inherit. So call this after all
    child processes were started.

    Yields:
        Whether the system allowed it (as root, or by ``LimitNICE=`` of the service).
    """
    me = threading.get_native_id()
    wanted = [me, *(thread.native_id for thread in threads if thread.native_id is not None)]
    before = {}
    allowed = True
    for number in wanted:
        try:
            nice = os.getpriority(os.PRIO_PROCESS, number)
            os.setpriority(os.PRIO_PROCESS, number, min(nice, _NICE))
            before[number] = nice
        except (PermissionError, ProcessLookupError):
            allowed = False
    try:
        yield allowed
    finally:
        if me in before:  # the others end with the run
            os.setpriority(os.PRIO_PROCESS, me, before[me])


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT for the threads and processes that are started within the context.

    Ctrl-C in a terminal goes to the whole process group, and only this process may decide what follows. A
    child that ignored SIGINT by itself would still end by one that comes while it starts. A SIGINT that comes
    meanwhile is delivered when the context ends.
    """
    resource_tracker.ensure_running()  # started later by ``multiprocessing``, it would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
