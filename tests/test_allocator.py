"""Freed memory is kept by the C library and used again."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

_CHURN = """
import json, resource, sys
import numpy as np
from vmkla.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        frames = [np.ones((1080, 1920, 3), np.uint8) for _ in range(6)]
        del frames
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
kept = keep_freed_memory(json.loads(sys.argv[1]))
faults()
print(json.dumps([given_back, kept, faults()]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")
@pytest.mark.parametrize("limit_bytes", [None, 512 << 20])
def test_memory_of_frames_is_taken_once(limit_bytes: int | None) -> None:
    # In a process of its own, since it cannot be undone.
    command = [sys.executable, "-I", "-c", _CHURN, json.dumps(limit_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    given_back, kept, taken_again = json.loads(done.stdout)
    assert kept
    assert given_back > 20  # else this shows nothing
    assert taken_again < given_back / 10
