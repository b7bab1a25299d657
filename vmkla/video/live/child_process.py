"""Set up a child process of live mode so that it does not disturb the display."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h


def set_up_child(name: str, *, niceness: int = 0, end_with_parent: bool = True) -> None:
    """Name this process, lower its priority, and leave Ctrl-C to the display process.

    Args:
        name: name for process lists, at most 15 characters.
        niceness: number added to the niceness.
        end_with_parent: have the system kill this process when its parent ends.
    """
    libc = ctypes.CDLL(None)
    if end_with_parent:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole process group
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold frames of patients
    os.nice(niceness)
