"""How the C library hands out memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_LARGEST_BYTES = 32 << 20  # the most that glibc takes as a threshold, and more than a frame of 3840x2160


def keep_freed_memory(limit_bytes: int | None = None) -> bool:
    """Make glibc keep freed memory for the next request, until this process ends.

    By default a large array comes fresh from the kernel, which fills it with zeros page by page: about 15 %
    of the CPU time of a bfloat16 training step of ``nano``. One thread's page faults also delay the others.

    Args:
        limit_bytes: free memory beyond this goes back to the system, and so do arrays of more than 32 MiB;
            None keeps all of it.
    Returns:
        False where the C library has no such settings, and nothing was changed.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    if limit_bytes is None:
        return bool(set_option(_M_MMAP_MAX, 0) and set_option(_M_TRIM_THRESHOLD, -1))
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGEST_BYTES) and set_option(_M_TRIM_THRESHOLD, limit_bytes))
