"""Start a live run in a process of its own, inject faults, and watch what reaches its screen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORKER = "vmkla-worker"
"""How the worker process calls itself."""

_POLL_S = 0.002


@dataclass(frozen=True)
class Setup:
    """The arguments of a live run.

    Attributes:
        source: its address.
        model: a shipped model's name or a file.
        threads: CPU threads of the network; None takes all cores but one.
        options: of ``LiveOptions``, by name.
        known: hold every picture against those of the source, which must be a file.
        environment: variables to add.
        prefix: a command that runs the command.
        out_dir: folder of the run, in the folder of its files.
    """

    source: str
    model: str = "nano"
    threads: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    known: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    out_dir: str = "run"


class LiveRun:
    """A live run in a process of its own.

    Args:
        folder: for its files; must be empty.
        setup: what it is given.
    """

    def __init__(self, folder: Path, setup: Setup) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.out_dir = folder / setup.out_dir
        self.order = folder / "order"
        self.log = folder / "shown.jsonl"
        self.measured_path = folder / "measured.json"
        settings = {
            "source": setup.source,
            "model": setup.model,
            "threads": setup.threads,
            "options": setup.options,
            "known": setup.known,
            "out_dir": str(self.out_dir),
            "order": str(self.order),
            "log": str(self.log),
            "measured": str(self.measured_path),
            "report": str(folder / "report.json"),
        }
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self._errors = open(folder / "stderr.txt", "wb")
        self.process = subprocess.Popen(
            [*setup.prefix, sys.executable, str(HERE / "victim.py"), str(folder / "settings.json")],
            stdout=self._errors,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", **setup.environment},
            start_new_session=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._position = 0
        self._rest = b""

    # What it shows

    def read(self) -> list[dict[str, Any]]:
        """Read the lines since the last call; ``lines`` has all of them."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(self._position)
            data = self._rest + file.read()
            self._position = file.tell()
        *whole, self._rest = data.split(b"\n")
        fresh = [json.loads(line) for line in whole]
        self.lines += fresh
        return fresh

    def wait_for(
        self,
        what: str,
        wanted: Callable[[dict[str, Any]], bool],
        *,
        after_s: float = 0.0,
        limit_s: float = 60.0,
    ) -> dict[str, Any]:
        """Wait for the first frame shown after ``after_s`` for which ``wanted`` holds.

        Raises:
            TimeoutError: none came within ``limit_s``, or the process ended.
        """
        ends_s = time.monotonic() + limit_s
        seen = 0
        while True:
            self.read()
            for line in self.lines[seen:]:
                if line["shown_s"] >= after_s and wanted(line):
                    return line
            seen = len(self.lines)
            if self.process.poll() is not None:
                raise TimeoutError(f"waited for {what}, and the run ended: {self.said()}")
            if time.monotonic() > ends_s:
                last = self.lines[-1] if self.lines else None
                raise TimeoutError(f"no {what} within {limit_s:g} s; the last line is {last}; {self.said()}")
            time.sleep(_POLL_S)

    def wait_ai(self, state: str, *, after_s: float = 0.0, limit_s: float = 60.0) -> dict[str, Any]:
        """Wait for the first frame shown after ``after_s`` with this state of the AI."""
        return self.wait_for(
            f"AI {state}", lambda line: line["ai"] == state, after_s=after_s, limit_s=limit_s
        )

    def watch(self, seconds: float) -> None:
        """Let the run go on for some seconds, and read its lines."""
        time.sleep(seconds)
        self.read()

    def said(self) -> str:
        """Return the end of the run's standard error."""
        return (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")[-2000:]

    # Its processes

    def children(self, name: str = "") -> list[int]:
        """List the run's child processes whose name begins with ``name``."""
        found = []
        for task in Path(f"/proc/{self.display_pid}/task").glob("*/children"):
            try:
                found += [int(pid) for pid in task.read_text(encoding="ascii").split()]
            except OSError:
                continue  # the thread ended meanwhile
        return [pid for pid in found if comm(pid).startswith(name)]

    @property
    def display_pid(self) -> int:
        """The id of the process that shows frames."""
        return self.process.pid

    def worker_pid(self, *, limit_s: float = 30.0) -> int:
        """Wait for the worker process and return its id.

        Raises:
            TimeoutError: there is none within ``limit_s``.
        """
        ends_s = time.monotonic() + limit_s
        while time.monotonic() < ends_s:
            found = self.children(WORKER)
            if found:
                return found[0]
            time.sleep(_POLL_S)
        raise TimeoutError(f"no process {WORKER} within {limit_s:g} s: {self.said()}")

    # How it is hurt

    def spoil(self, order: str) -> float:
        """Order the network to fail, see ``saboteur.Saboteur``; return the time, ``time.monotonic()``."""
        partial = self.order.with_suffix(".part")
        partial.write_text(order, encoding="utf-8")
        partial.rename(self.order)
        return time.monotonic()

    def mend(self) -> float:
        """Order the network to work again; return the time."""
        self.order.unlink(missing_ok=True)
        return time.monotonic()

    def kill_all(self) -> None:
        """Kill the display process and all its children at once, as when the power goes."""
        victims = [self.display_pid, *self.children()]
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)  # so that none can react to the end of another
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def end(self, *, signum: int = signal.SIGTERM, limit_s: float = 30.0) -> int:
        """End the run with a signal and read the rest; return its exit status, negative after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        status = self.process.wait(limit_s)
        self.read()
        return status

    def close(self) -> None:
        """Kill all processes of the run."""
        for pid in [*self.children(), self.display_pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)
        self._errors.close()

    # What came of it

    @property
    def report(self) -> dict[str, Any]:
        """The run's report.json, from a copy that is readable after the run."""
        document: dict[str, Any] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return document

    @property
    def measured(self) -> dict[str, Any]:
        """The figures of the run's screen, once it has ended."""
        document: dict[str, Any] = json.loads(self.measured_path.read_text(encoding="utf-8"))["all"]
        return document


@contextmanager
def live_run(folder: Path, setup: Setup) -> Iterator[LiveRun]:
    """Start a live run and end all its processes with the block."""
    run = LiveRun(folder, setup)
    try:
        yield run
    finally:
        run.close()


def comm(pid: int) -> str:
    """Return the name of a process; empty when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] == "Z" else name


def resident_bytes(pid: int) -> int:
    """Return the proportional memory (PSS) of a process in bytes; 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def pictures(lines: list[dict[str, Any]], *, from_s: float = 0.0, to_s: float = 1e18) -> list[dict[str, Any]]:
    """Return the lines of the source's frames, each once, that were shown in a span of time."""
    return [
        line
        for line in lines
        if line["captured_s"] is not None and not line["again"] and from_s <= line["shown_s"] <= to_s
    ]


def longest_gap_ms(lines: list[dict[str, Any]], *, from_s: float = 0.0, to_s: float = 1e18) -> float:
    """Compute the longest time between two frames of the source on the screen, in ms."""
    times = [line["shown_s"] for line in pictures(lines, from_s=from_s, to_s=to_s)]
    return max((late - early for early, late in zip(times, times[1:], strict=False)), default=0.0) * 1e3


def skipped(lines: list[dict[str, Any]], *, from_s: float = 0.0, to_s: float = 1e18) -> int:
    """Count the source's frames that were never shown, by the gaps in the sequence of those that were."""
    numbers = [line["sequence"] for line in pictures(lines, from_s=from_s, to_s=to_s)]
    return sum(late - early - 1 for early, late in zip(numbers, numbers[1:], strict=False))


def off_spells(lines: list[dict[str, Any]]) -> list[tuple[float, float, str]]:
    """Return start, end and first reason of each time without AI ON, after it was on for the first time."""
    spells: list[tuple[float, float, str]] = []
    begun: tuple[float, str] | None = None
    was_on = False
    for line in lines:
        on = line["ai"] == "on"
        if on and begun is not None:
            spells.append((begun[0], line["shown_s"], begun[1]))
            begun = None
        elif not on and was_on and begun is None:
            begun = (line["shown_s"], line["reason"])
        was_on = was_on or on
    if begun is not None:
        spells.append((begun[0], lines[-1]["shown_s"], begun[1]))
    return spells
