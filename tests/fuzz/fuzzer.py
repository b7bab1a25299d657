"""Run a worker for some time and keep the inputs on which it failed, hung or died."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

WORKER = Path(__file__).with_name("worker.py")
HANG_S = 30.0
"""An input that takes longer hangs; the slowest takes a second on a quiet machine."""
START_S = 120.0
MAX_FAULTS = 20


@dataclass
class Outcome:
    """The results of a run.

    Attributes:
        counts: of each verdict: ``ok``, ``refused STATUS``, ``failed``.
        faults: how often each came up, by kind and place.
        first: of each fault, the input that was kept and what was seen.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """Count the inputs that were read."""
        return sum(self.counts.values())

    def add_fault(self, fault: str, seen: str, path: Path, kept: Path) -> None:
        """Count a fault and keep the first input that shows it."""
        self.counts["failed"] += 1
        self.faults[fault] += 1
        if fault not in self.first:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, kept)
            self.first[fault] = f"{kept}\n{seen}"
        path.unlink()

    def __str__(self) -> str:
        """Format the counts and each fault once."""
        counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(self.counts.items()))
        faults = [f"{count} times {fault}: {self.first[fault]}" for fault, count in self.faults.most_common()]
        return "\n\n".join([f"{self.inputs} inputs: {counts}", *faults])


def fuzz(target: str, folder: Path, kept: Path, *, seed: int, seconds: float) -> Outcome:
    """Let the worker read spoilt files for so many seconds.

    Args:
        target: a name in ``targets.TARGETS``.
        folder: to work in.
        kept: folder for the inputs that fail; made when there is one.
        seed: of the inputs; equal seeds give equal inputs.
        seconds: of reading, without the start of the process.
    """
    outcome = Outcome()
    first, end_s = 0, None
    while end_s is None or time.monotonic() < end_s:
        run = _Run(target, folder, kept, outcome, seed)
        left_s = seconds if end_s is None else end_s - time.monotonic()
        if not run.go(first, left_s) or len(outcome.faults) >= MAX_FAULTS:
            break
        end_s = end_s or run.begun_s + seconds
        first = run.number + 1
    return outcome


def read_again(target: str, folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Let the worker read one kept input."""
    return subprocess.run(
        [sys.executable, str(WORKER), target, str(folder), str(path.resolve())],
        env=_environment(), cwd=folder, capture_output=True, text=True, timeout=START_S,
    )  # fmt: skip


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


class _Run:
    """One worker process until its end."""

    def __init__(self, target: str, folder: Path, kept: Path, outcome: Outcome, seed: int) -> None:
        self._target, self._folder, self._kept = target, folder, kept
        self._outcome, self._seed = outcome, seed
        self._log = folder / "stderr.txt"
        self.number = -1
        self.begun_s = time.monotonic()

    def go(self, first: int, seconds: float) -> bool:
        """Run the worker; return whether another must continue because this one hung or died."""
        self.number = first - 1
        work = (self._target, self._folder, self._seed, first, seconds)
        with self._log.open("w") as errors:
            worker = subprocess.Popen(
                [sys.executable, str(WORKER), *map(str, work)],
                env=_environment(), cwd=self._folder, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        lines: queue.Queue[str] = queue.Queue()
        assert worker.stdout is not None
        reader = threading.Thread(target=_pass_on, args=(worker.stdout, lines), daemon=True)
        reader.start()
        try:
            return self._follow(worker, lines)
        finally:
            worker.kill()
            worker.wait()
            reader.join()

    def _follow(self, worker: subprocess.Popen[str], lines: queue.Queue[str]) -> bool:
        limit_s = START_S
        while len(self._outcome.faults) < MAX_FAULTS:
            try:
                verdict, _, rest = lines.get(timeout=limit_s).rstrip("\n").partition(" ")
            except queue.Empty:
                worker.kill()
                return self._ended("hangs", f"no answer within {limit_s:g} s")
            if verdict == "ready":
                self.begun_s, limit_s = time.monotonic(), HANG_S
            elif verdict == "run":
                self.number = int(rest)
            elif verdict == "failed":
                fault, seen = json.loads(rest)
                (path,) = self._folder.glob(f"failed-{self.number}.*")
                self._outcome.add_fault(fault, seen, path, self._name_of(path))
            elif verdict in ("ok", "refused"):
                self._outcome.counts[f"{verdict} {rest}".strip()] += 1
            elif verdict == "end":
                return False
            else:
                status = worker.wait()
                return self._ended(f"ends with status {status}", self._log.read_text()[-3000:])
        return False

    def _ended(self, fault: str, seen: str) -> bool:
        inputs = list(self._folder.glob("input.*"))
        assert inputs, f"the worker {fault} before its first input: {seen}"
        self._outcome.add_fault(fault, seen, inputs[0], self._name_of(inputs[0]))
        return True

    def _name_of(self, path: Path) -> Path:
        return self._kept / f"{self._target}-{self._seed}-{self.number}{path.suffix}"


def _pass_on(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")
