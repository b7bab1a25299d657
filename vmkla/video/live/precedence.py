"""What makes all else give way to the picture: quick switches, priorities, and children deaf to Ctrl-C."""

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
"""How long another thread may keep Python from the display loop; Python's own 5 ms are most of the budget."""
_NICE = -10


@contextlib.contextmanager
def quick_switches() -> Iterator[None]:
    """Within it, Python and OpenCV keep nobody waiting for another thread; restored after it.

    OpenCV shares large pictures out to threads and waits for the last of them: beside a busy worker that one
    may not get a core for milliseconds, while one thread does a whole picture in a fraction of one.
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
def picture_first(*threads: threading.Thread) -> Iterator[bool]:
    """Within it, the calling thread and the given ones go before others, where the system allows it.

    Linux gives each thread a niceness of its own, and what they start inherits it: so this comes after all
    child processes were started.

    Yields:
        Whether it was allowed (to root, or by ``LimitNICE=`` of the service).
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
def deaf_to_interrupts() -> Iterator[None]:
    """Threads and processes that are started within it, and what those start, never get SIGINT.

    Ctrl-C in a terminal goes to the whole group, and this process alone decides what follows. A child that
    ignored it by itself would still end with it while it starts. One that comes meanwhile waits for the end.
    """
    resource_tracker.ensure_running()  # where ``multiprocessing`` starts it later, it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
