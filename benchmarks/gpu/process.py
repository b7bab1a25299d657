"""Run processes with a time limit for `make gpu-proof`: a step that hangs or crashes ends only itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK_S = 10.0
"""How often a caller may do something while it waits."""


@dataclass(frozen=True)
class Done:
    """A process that has ended.

    Attributes:
        status: its exit status, negative for a signal, None when it ran out of time.
        stdout, stderr: what it wrote; both in stderr where they went into one file.
        seconds: that it took.
    """

    status: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def reason(self) -> str:
        """The reason of a failure in one line: how the process ended and the last two lines that it wrote."""
        if self.status is None:
            return f"stopped after {self.seconds:.0f} s, its time limit"
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        said = f": {' '.join(lines[-2:])[:600]}" if lines else ", without a message"
        how = f"status {self.status}"
        if self.status < 0:
            how = f"ended by signal {-self.status} ({signal.Signals(-self.status).name})"
        return f"{how}{said}"


def call(
    command: Sequence[str | Path],
    timeout_s: float,
    *,
    output: Path | None = None,
    env: Mapping[str, str] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Done:
    """Run a process with a time limit and wait for it.

    Args:
        command: program and arguments.
        timeout_s: after this it is killed.
        output: file that takes all that it writes. The process then has a process group of its own, of which
            nothing is alive afterwards.
        env: its environment; None passes this process's on.
        tick: called every ``TICK_S`` seconds meanwhile.
    """
    begun, group = time.monotonic(), output is not None
    with contextlib.ExitStack() as files:
        out = files.enter_context(tempfile.TemporaryFile() if output is None else output.open("w+b"))
        err = out if group else files.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(
            command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env, start_new_session=group
        )
        in_time = False
        try:
            while not in_time and (left_s := begun + timeout_s - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(left_s, TICK_S))
                    in_time = True
                tick()
        finally:
            end(process, group=group)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", errors="replace"))
    return Done(process.returncode if in_time else None, *texts, time.monotonic() - begun)


def end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """Kill a process, and with ``group`` all that is left of its process group."""
    with contextlib.suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # does nothing where it has ended
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: nothing can end it
        process.wait(10)
