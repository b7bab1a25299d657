"""Steps of `make gpu-check` that run in processes of their own, measured."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STEP_S = 900.0
"""Longest time that a step may take."""


@dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        status: its exit status, negative for a signal, None when it ran out of time.
        stdout, stderr: what it wrote.
        seconds: that it took.
        peak_bytes: its largest resident size, as far as it was seen.
    """

    status: int | None
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int

    @property
    def reason(self) -> str:
        """Why it failed: what it said last, in one line."""
        if self.status is None:
            return f"stopped after {self.seconds:.0f} s"
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        said = " ".join(lines[-2:]) if lines else "it said nothing"
        return f"status {self.status}: {said[:400]}"


def call(command: Sequence[str | Path], timeout_s: float = STEP_S) -> Done:
    """Run a process and measure it."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        timed_out, peak_bytes = False, 0
        while process.poll() is None:
            peak_bytes = max(peak_bytes, resident_peak(process.pid))
            if not timed_out and time.monotonic() - begun > timeout_s:
                timed_out = True
                process.kill()
            time.sleep(0.02)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", errors="replace"))
    seconds = time.monotonic() - begun
    return Done(None if timed_out else process.returncode, *texts, seconds, peak_bytes)


def resident_peak(pid: int) -> int:
    """Largest resident size of a running process, bytes; 0 where it is not told any more.

    From /proc and not from ``wait4``, whose figure begins at the size of the process that started this one.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return max(sizes, default=0)
