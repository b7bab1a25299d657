"""What makes all else give way to the frame: switches, memory, priorities, and children deaf to Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
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
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_BYTES = 32 << 20  # more than a frame of 3840x2160, and the most that glibc takes
_KEPT_BYTES = 512 << 20


@contextlib.contextmanager
def fast_thread_switches() -> Iterator[None]:
    """Within it, Python and OpenCV keep nobody waiting for another thread; restored after it.

    OpenCV shares large frames out to threads and waits for the last of them: beside a busy worker that one
    may not get a core for milliseconds, while one thread does a whole frame in a fraction of one.
    """
    switch_s, threads = sys.getswitchinterval(), cv2.getNumThreads()
    sys.setswitchinterval(_SWITCH_S)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        cv2.setNumThreads(threads)


def keep_memory() -> bool:
    """Have memory of frames that were let go used again, in place of being given back to the system.

    New memory costs a fault for each of its pages, and while one thread takes or gives memory back the others
    wait for theirs. It stays so until the process ends: an allocator's settings cannot be read.

    Returns:
        Whether this system's allocator has the settings: glibc's does.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGEST_BYTES) and set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES))


@contextlib.contextmanager
def display_first(*threads: threading.Thread) -> Iterator[bool]:
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
def interrupts_blocked() -> Iterator[None]:
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
